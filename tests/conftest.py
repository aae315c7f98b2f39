"""How Hypothesis tries things: on a machine that does other things as well, slowness is no finding."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

_here = settings.get_profile(settings.get_current_profile_name())
settings.register_profile("perrin", _here, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("perrin")
