"""What devices take: joules between two readings, where the device counts them.

A GPU counts millijoules since its driver was loaded (NVML). A processor that has RAPL counts microjoules for each
package in a register that begins again at zero every few minutes or hours (Linux's powercap; only root may read it on
most machines). Both count the whole device, whoever uses it. A device that tells nothing has no energy, which is not
the same as none taken.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from perrin_orchestration.telemetry import nvml_or_none

__all__ = ["POWERCAP", "Meter", "shares"]

POWERCAP = Path("/sys/class/powercap")
"""Where Linux shows a processor's counters."""


class Meter:
    """Reads one device's energy counter.

    Args:
        device: ``cpu``, ``cuda:N``; anything else tells nothing.
        powercap: the folder of the processor's counters.
        nvml: gives NVIDIA's library, or None where there is none.
    """

    def __init__(self, device: str, powercap: Path = POWERCAP, nvml: Callable[[], Any | None] = nvml_or_none) -> None:
        kind, _, number = device.partition(":")
        self._counters: tuple[_Package | _Gpu, ...] = ()
        if kind == "cpu":
            self._counters = tuple(_Package(folder) for folder in _packages(powercap))
        elif kind == "cuda" and (library := nvml()) is not None:
            self._counters = (_Gpu(library, int(number or 0)),)
        self._last = [counter.read() for counter in self._counters]

    def read(self) -> float | None:
        """Joules since the last call, or since the meter was made; None if the device does not tell."""
        now = [counter.read() for counter in self._counters]
        before, self._last = self._last, now
        taken = [
            _taken(old, new, counter.range)
            for old, new, counter in zip(before, now, self._counters, strict=True)
            if old is not None and new is not None
        ]
        known = [joules for joules in taken if joules is not None]
        return sum(known) if known else None


def shares(joules: float | None, seconds: Mapping[str, float]) -> dict[str, float]:
    """``joules`` among those who used a device, in proportion to their seconds of it; nothing if it does not tell."""
    whole = sum(seconds.values())
    return {name: joules * part / whole for name, part in seconds.items()} if joules is not None and whole > 0 else {}


def _taken(before: float, now: float, top: float | None) -> float | None:
    """A counter with a known ``top`` that fell has begun again once; one without has been reset, and lost the time."""
    if now >= before:
        return now - before
    return now + top - before if top is not None and before <= top else None


class _Package:
    """One processor package's counter."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.range = self._joules("max_energy_range_uj")

    def read(self) -> float | None:
        """Joules now."""
        return self._joules("energy_uj")

    def _joules(self, name: str) -> float | None:
        try:
            return int((self._folder / name).read_text()) / 1e6
        except (OSError, ValueError):
            return None


class _Gpu:
    """One GPU's counter."""

    range: float | None = None

    def __init__(self, nvml: Any, index: int) -> None:
        self._nvml, self._index = nvml, index

    def read(self) -> float | None:
        """Joules now."""
        try:
            handle = self._nvml.nvmlDeviceGetHandleByIndex(self._index)
            return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
        except self._nvml.NVMLError:  # older than Volta, or lost
            return None


def _packages(powercap: Path) -> list[Path]:
    """Whole packages: not their parts, which they include, nor the platform (psys), which includes them."""
    found = []
    for folder in sorted(powercap.glob("intel-rapl*:*")):  # AMD's counters have this name too
        try:
            name = (folder / "name").read_text().strip()
        except OSError:
            continue
        if name.startswith("package"):
            found.append(folder)
    return found
