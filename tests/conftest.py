"""What holds for every test: its draws are its own, and a slow machine is no failure."""

from __future__ import annotations

import sys

import pytest
from hypothesis import HealthCheck, settings

_here = settings.get_profile(settings.get_current_profile_name())
settings.register_profile("perrin", _here, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("perrin")

SEED = 67280421310721
"""What torch seeds its generator with when it is imported, so that a test draws alike before and after others."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """What a test draws without a seed does not depend on the tests before it, nor on which process has it."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(SEED)
