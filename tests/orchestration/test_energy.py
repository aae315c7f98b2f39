"""The arithmetic of energy: counters that wrap, are reset or cannot be read; and who pays."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perrin_orchestration import telemetry
from perrin_orchestration.energy import Meter, shares

RANGE = 262_143_328_850


class Powercap:
    """A folder like /sys/class/powercap on a machine with two packages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = {"0": "package-0", "0:0": "core", "1": "package-1", "2": "psys"}
        for number, name in names.items():
            zone = folder / f"intel-rapl:{number}"
            zone.mkdir()
            (zone / "name").write_text(name + "\n")
            (zone / "max_energy_range_uj").write_text(f"{RANGE}\n")
            self.set(number, 10_000_000)

    def set(self, number: str, microjoules: int) -> None:
        (self.folder / f"intel-rapl:{number}" / "energy_uj").write_text(f"{microjoules}\n")


@pytest.fixture
def powercap(tmp_path: Path) -> Powercap:
    return Powercap(tmp_path)


def test_a_processor_is_the_sum_of_its_packages_since_the_last_reading(powercap: Powercap) -> None:
    meter = Meter("cpu", powercap.folder)
    for number in ("0", "0:0", "1", "2"):
        powercap.set(number, 12_500_000)
    assert meter.read() == pytest.approx(5.0)
    assert meter.read() == 0.0


def test_a_counter_that_begins_again_loses_nothing(powercap: Powercap) -> None:
    powercap.set("0", RANGE - 1_000_000)
    meter = Meter("cpu", powercap.folder)
    powercap.set("0", 2_000_000)
    assert meter.read() == pytest.approx(3.0)


def test_a_counter_that_cannot_be_read_is_left_out_and_taken_up_again(powercap: Powercap) -> None:
    meter = Meter("cpu", powercap.folder)
    powercap.set("1", 11_000_000)
    hidden = powercap.folder / "intel-rapl:0" / "energy_uj"
    hidden.unlink()
    assert meter.read() == pytest.approx(1.0)
    powercap.set("0", 50_000_000)
    assert meter.read() == 0.0  # what it took meanwhile is not known
    powercap.set("0", 51_000_000)
    assert meter.read() == pytest.approx(1.0)


def test_a_device_that_tells_nothing_has_no_energy(tmp_path: Path) -> None:
    assert Meter("cpu", tmp_path).read() is None
    assert Meter("mps", tmp_path).read() is None
    assert Meter("cuda:0", tmp_path, lambda: None).read() is None


class Nvml:
    """NVML's two calls, for the arithmetic."""

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        self.millijoules = {0: 1_000, 1: 5_000}

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: int) -> int:  # noqa: N802
        if self.millijoules[handle] < 0:
            raise self.NVMLError
        return self.millijoules[handle]


def test_a_gpu_counts_millijoules_and_a_reset_counter_loses_one_reading(tmp_path: Path) -> None:
    nvml: Any = Nvml()
    meter = Meter("cuda:1", tmp_path, lambda: nvml)
    nvml.millijoules[1] = 7_500
    assert meter.read() == pytest.approx(2.5)
    nvml.millijoules[1] = 100
    assert meter.read() is None
    nvml.millijoules[1] = 1_100
    assert meter.read() == pytest.approx(1.0)
    nvml.millijoules[1] = -1
    assert meter.read() is None


@given(st.floats(0, 1e6), st.dictionaries(st.sampled_from("abcdef"), st.floats(1e-3, 100), min_size=1))
def test_shares_add_up_and_are_in_proportion(joules: float, seconds: dict[str, float]) -> None:
    found = shares(joules, seconds)
    assert sum(found.values()) == pytest.approx(joules)
    for name, part in seconds.items():
        assert found[name] * sum(seconds.values()) == pytest.approx(joules * part)


@pytest.mark.gpu
def test_a_real_gpu_tells_what_it_takes() -> None:
    if telemetry.gpu_count() == 0:
        pytest.skip("no NVIDIA GPU on this machine")
    meter = Meter("cuda:0")
    time.sleep(2.0)
    joules = meter.read()
    assert joules is not None
    assert 2.0 * 5 < joules < 2.0 * 2000  # watts of an idle card, and of none that there is


def test_nobody_pays_for_what_is_not_told_or_was_used_by_nobody() -> None:
    assert shares(None, {"a": 1.0}) == {}
    assert shares(5.0, {}) == {}
    assert shares(5.0, {"a": 0.0}) == {}
