"""How a worker is: memory and processor from psutil, the GPU from NVML where there is one."""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import psutil

__all__ = ["Telemetry", "Usage", "device_memory", "gpu_count", "nvml_or_none"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Resident memory in MiB, processor use in percent of one core, GPU use in percent (None without a GPU)."""

    memory_mb: float
    cpu_percent: float
    gpu_percent: float | None


def nvml_or_none() -> Any | None:
    """NVIDIA's library, ready; None where it has nothing to tell."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pynvml = importlib.import_module("pynvml")
        pynvml.nvmlInit()
    except Exception:  # no package, no driver, no device: all mean that there is nothing to tell
        return None
    return pynvml


def gpu_count() -> int:
    """NVIDIA devices on this machine, without loading torch."""
    nvml = nvml_or_none()
    return int(nvml.nvmlDeviceGetCount()) if nvml else 0


def device_memory(devices: Iterable[str]) -> int:
    """Bytes of the smallest of these devices, without loading torch; of the machine for whatever is no NVIDIA GPU."""
    sizes = [psutil.virtual_memory().total]
    nvml: Any = nvml_or_none()
    for name in devices if nvml else ():
        if name.startswith("cuda"):
            handle = nvml.nvmlDeviceGetHandleByIndex(int(name.partition(":")[2] or 0))
            sizes.append(int(nvml.nvmlDeviceGetMemoryInfo(handle).total))
    return min(sizes[1:] or sizes)


class Telemetry:
    """Measures processes and devices; each call of `usage` covers the time since the last."""

    def __init__(self, devices: Iterable[str]) -> None:
        self._processes: dict[int, psutil.Process] = {}
        self._gpus = [int(name.partition(":")[2] or 0) for name in devices if name.startswith("cuda")]
        self._nvml = nvml_or_none() if self._gpus else None

    def usage(self, pids: Iterable[int]) -> Usage:
        """What these processes, and the GPUs, use now."""
        memory = cpu = 0.0
        wanted = set(pids)
        self._processes = {pid: process for pid, process in self._processes.items() if pid in wanted}
        for pid in wanted:
            with contextlib.suppress(psutil.Error):
                process = self._processes.setdefault(pid, psutil.Process(pid))
                memory += process.memory_info().rss / (1 << 20)
                cpu += process.cpu_percent(None)
        return Usage(round(memory, 1), round(cpu, 1), self._gpu())

    def _gpu(self) -> float | None:
        if self._nvml is None:
            return None
        with contextlib.suppress(self._nvml.NVMLError):
            handles = [self._nvml.nvmlDeviceGetHandleByIndex(index) for index in self._gpus]
            return float(max(self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu for handle in handles))
        return None
