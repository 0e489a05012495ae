"""Settings of the whole suite."""

from hypothesis import HealthCheck, settings

# a busy machine is no failure: time is measured by scripts/bench_*.py only
settings.register_profile("p2pfed", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.load_profile("p2pfed")
