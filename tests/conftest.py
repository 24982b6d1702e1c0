"""Tests import their helpers (gradcheck, strategies) from this folder."""

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

# A shell's background job is started deaf to Ctrl-C, and so would be all commands that tests start and stop.
signal.signal(signal.SIGINT, signal.default_int_handler)

from hypothesis import HealthCheck, settings  # noqa: E402

import tinyllm  # noqa: E402, F401  (before NumPy: sets the number of BLAS threads)

# Machines differ in speed, so no test fails for being slow.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "tests"))
