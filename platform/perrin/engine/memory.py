"""What is in memory: models in the order of their use, and how much a network call takes.

A model is loaded when a request needs it. If the memory left is less than the model is measured to need (before its
first load: than its files weigh), the model used longest ago goes, unless it is pinned or in use. What still does not
fit is loaded with its weights elsewhere and streamed through at each call (accelerate's offload): from its files where
its runtime has a method ``load_streamed``, else, to an accelerator, from the host's memory.

Working memory is measured per model, shape and number of samples, and remembered. A call that runs out of memory lowers
the limit for its shape until some model is unloaded.
"""

from __future__ import annotations

import gc
import importlib
import math
import sys
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from perrin import plugins
from perrin.engine.events import Event, Loaded, Unloaded
from perrin.errors import NotInstalled, OutOfMemory
from perrin.modality import Modality, Runtime
from perrin.models import ModelCard
from perrin.models import weight_bytes as file_bytes

__all__ = ["CpuGauge", "Gauge", "Models", "Working", "gauge_of", "is_out_of_memory", "key_of", "weight_bytes"]

RESERVE = 0.1
"""Part of the memory that is left to network calls when models are loaded."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that memory was short, on whatever device."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, without importing torch
        return True
    words = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)


class Gauge(Protocol):
    """Reads a device's memory, in bytes."""

    def room(self) -> float:
        """How much a model may take now."""
        ...

    def used(self) -> int:
        """How much is allocated; 0 where the device does not say."""
        ...

    def peak(self) -> int:
        """The most that was allocated since the last call; 0 where the device does not say."""
        ...

    def release(self) -> None:
        """Give cached memory back."""
        ...


class CpuGauge(Gauge):
    """Memory of this machine. Allocations are not counted, so only what is left is known."""

    def room(self) -> float:
        try:
            psutil = importlib.import_module("psutil")
        except ModuleNotFoundError:
            return math.inf
        return float(psutil.virtual_memory().available) * (1 - RESERVE)

    def used(self) -> int:
        return 0

    def peak(self) -> int:
        return 0

    def release(self) -> None:
        gc.collect()


class CudaGauge(Gauge):
    """Memory of a CUDA device, as torch's allocator counts it."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._cuda: Any = importlib.import_module("torch").cuda

    def room(self) -> float:
        free, total = self._cuda.mem_get_info(self._device)
        cached = self._cuda.memory_reserved(self._device) - self._cuda.memory_allocated(self._device)
        return float(free + cached - RESERVE * total)

    def used(self) -> int:
        return int(self._cuda.memory_allocated(self._device))

    def peak(self) -> int:
        most = int(self._cuda.max_memory_allocated(self._device))
        self._cuda.reset_peak_memory_stats(self._device)
        return most

    def release(self) -> None:
        gc.collect()
        self._cuda.empty_cache()


def gauge_of(device: str) -> Gauge:
    """The gauge of ``device``."""
    return CudaGauge(device) if device.startswith("cuda") else CpuGauge()


def _networks(runtime: Any) -> Iterator[tuple[str, Any]]:
    """The torch modules that a runtime holds."""
    torch = sys.modules.get("torch")
    if torch is not None:
        for name, value in getattr(runtime, "__dict__", {}).items():
            if isinstance(value, torch.nn.Module):
                yield name, value


def weight_bytes(runtime: Any) -> int:
    """Bytes of the weights that ``runtime`` holds in its networks."""
    tensors = {
        id(tensor): tensor.numel() * tensor.element_size()
        for _, network in _networks(runtime)
        for tensor in (*network.parameters(), *network.buffers())
    }
    return sum(tensors.values())


def key_of(card: ModelCard) -> str:
    """What tells models apart: ``name@hash``."""
    return f"{card.name}@{card.sha256}"


@dataclass
class _Resident:
    runtime: Runtime
    bytes: int


class Models:
    """The models on one device.

    Args:
        device: where they run.
        budget: bytes that their weights may take together; None goes by what the device has left.
        gauge: reads the device's memory.
        clock: seconds.
    """

    def __init__(self, device: str, budget: int | None, gauge: Gauge, clock: Callable[[], float]) -> None:
        self._device, self._budget, self._gauge, self._clock = device, budget, gauge, clock
        self._resident: OrderedDict[str, _Resident] = OrderedDict()
        self._needs: dict[str, int] = {}
        self.pinned: set[str] = set()
        """Names of models that stay."""

    def __contains__(self, key: str) -> bool:
        return key in self._resident

    @property
    def keys(self) -> tuple[str, ...]:
        """Those in memory, the one used last at the end."""
        return tuple(self._resident)

    @property
    def bytes(self) -> int:
        """What they take together."""
        return sum(resident.bytes for resident in self._resident.values())

    def use(self, key: str) -> Runtime:
        """A model that is in memory; it counts as used now."""
        self._resident.move_to_end(key)
        return self._resident[key].runtime

    def load(
        self, request_id: str, face: Modality, card: ModelCard, busy: Collection[str], events: list[Event]
    ) -> bool:
        """Bring a model into memory; False if it has to wait for the room that a busy or pinned model takes.

        Args:
            request_id: for whose sake.
            face: of the model's modality.
            card: of the model.
            busy: keys of models that have requests in flight.
            events: what happened is added to them.

        Raises:
            OutOfMemory: the model is larger than the memory there is, and cannot be offloaded.
        """
        key = key_of(card)
        need = self._needs.get(key) or file_bytes(card)
        while need > self._room():
            unloaded = self.unload_one(request_id, busy)
            if unloaded is None:
                break
            events.append(unloaded)
        short = need > self._room()
        offload = short
        if short and self._device == "cpu" and self._resident:
            return False
        began, used = self._clock(), self._gauge.used()
        kind: Any = plugins.runtime(face)
        runtime = kind.load_streamed(card, self._device) if short and hasattr(kind, "load_streamed") else None
        if runtime is None and short and self._device == "cpu":
            raise OutOfMemory(f"model {card.name} on {self._device}", need, int(self._room()))
        if runtime is None:
            runtime = kind.load(card, "cpu" if offload else self._device)
            if offload:
                _offload(runtime, self._device)
        taken = max(0, self._gauge.used() - used) or (0 if offload else weight_bytes(runtime))
        if not offload:
            self._needs[key] = taken
        self._resident[key] = _Resident(runtime, taken)
        events.append(Loaded(request_id, card.name, taken, self._clock() - began, offload))
        return True

    def unload_one(self, request_id: str, busy: Collection[str]) -> Unloaded | None:
        """Unload the model used longest ago that is neither pinned nor busy."""
        for key in self._resident:
            if key not in busy and key.partition("@")[0] not in self.pinned:
                began = self._clock()
                gone = self._resident.pop(key)
                size = gone.bytes
                del gone
                self._gauge.release()
                return Unloaded(request_id, key.partition("@")[0], size, self._clock() - began)
        return None

    def _room(self) -> float:
        return self._gauge.room() if self._budget is None else self._budget - self.bytes


def _offload(runtime: Any, device: str) -> None:
    """Keep the networks' weights on the host and stream them through ``device``."""
    try:
        accelerate = importlib.import_module("accelerate")
    except ModuleNotFoundError:
        raise NotInstalled("a model larger than the device's memory", "run") from None
    for _, network in _networks(runtime):
        accelerate.cpu_offload(network, execution_device=device)


@dataclass
class _Taken:
    bytes: dict[int, int] = field(default_factory=dict)
    ceiling: int | None = None


class Working:
    """Working memory of network calls, by model and shape."""

    def __init__(self) -> None:
        self._taken: dict[Hashable, _Taken] = {}

    def note(self, key: Hashable, samples: int, taken: int) -> None:
        """A call of so many samples took so many bytes."""
        sizes = self._taken.setdefault(key, _Taken()).bytes
        sizes[samples] = max(taken, sizes.get(samples, 0))

    def knows(self, key: Hashable, samples: int) -> bool:
        """Whether calls of so many samples were measured."""
        return key in self._taken and samples in self._taken[key].bytes

    def exceeded(self, key: Hashable, samples: int) -> None:
        """A call of so many samples ran out of memory."""
        taken = self._taken.setdefault(key, _Taken())
        taken.ceiling = min(max(1, samples // 2), taken.ceiling or samples)

    def limit(self, key: Hashable, samples: int, room: Callable[[], float]) -> int:
        """How many of ``samples`` a call may have; ``room`` tells the bytes that are left."""
        taken = self._taken.get(key)
        if taken is None:
            return samples
        allowed = samples if taken.ceiling is None else min(samples, taken.ceiling)
        if taken.bytes and samples not in taken.bytes:
            most = max(taken.bytes)
            if samples > most and taken.bytes[most]:
                allowed = min(allowed, max(most, int(room() / (taken.bytes[most] / most))))
        return max(1, allowed)

    def needed(self, key: Hashable, samples: int) -> int:
        """Bytes that a call of so many samples takes, by those measured; 0 if none was."""
        sizes = self._taken[key].bytes if key in self._taken else {}
        return 0 if not sizes else int(sizes[max(sizes)] / max(sizes) * samples)

    def relax(self) -> None:
        """A model was unloaded: what was too large may fit now."""
        for taken in self._taken.values():
            taken.ceiling = None
