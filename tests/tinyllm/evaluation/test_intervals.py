"""intervals: a proportion gets Wilson's 95 % interval, and a mean gets one from the normal approximation.

Intervals that are too narrow would present chance as progress.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.evaluation.intervals import Z, mean, proportion


def test_a_proportion_has_the_wilson_interval():
    assert proportion([]) is None
    for hits, n, low, high in (
        (5, 10, 0.2366, 0.7634),
        (0, 10, 0, 0.2775),
        (10, 10, 0.7225, 1),
        (81, 263, 0.2553, 0.3662),
    ):
        result = proportion([True] * hits + [False] * (n - hits))
        assert result["value"] == hits / n and result["n"] == n
        assert (result["low"], result["high"]) == (
            pytest.approx(low, abs=1e-4),
            pytest.approx(high, abs=1e-4),
        )


@given(st.integers(1, 300), st.data())
def test_each_bound_of_a_proportion_is_z_standard_errors_from_the_value(n, data):
    """Wilson: a bound p lies Z standard errors from the value. The standard error of p is
    sqrt(p (1 - p) / n)."""
    hits = data.draw(st.integers(0, n))
    result = proportion([True] * hits + [False] * (n - hits))
    assert 0 <= result["low"] <= result["value"] + 1e-12
    assert result["value"] <= result["high"] + 1e-12 <= 1 + 1e-9
    for bound in (result["low"], result["high"]):
        distance = Z * (bound * (1 - bound) / n) ** 0.5
        assert abs(hits / n - bound) == pytest.approx(distance, abs=1e-6)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=20))
def test_a_mean_has_the_interval_of_a_normal_distribution(values):
    result = mean(values)
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    assert result["value"] == pytest.approx(np.mean(values), abs=1e-9) and result["n"] == len(values)
    assert result["high"] - result["value"] == pytest.approx(1.96 * error, abs=1e-9)
    assert result["value"] - result["low"] == pytest.approx(1.96 * error, abs=1e-9)


def test_one_value_is_its_own_mean():
    assert mean([3]) == {"value": 3, "low": 3, "high": 3, "n": 1}
