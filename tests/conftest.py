"""What all tests share: a working Ctrl-C, and one profile for Hypothesis."""

import os
import signal

# If a shell runs the tests in the background, they ignore Ctrl-C, and so would the commands that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

from hypothesis import HealthCheck, settings  # noqa: E402

import tinyllm  # noqa: E402, F401  (before NumPy: tinyllm sets the number of BLAS threads)

# Machines differ in speed, so no test fails for being slow.
settings.register_profile(
    "tests", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "tests"))
