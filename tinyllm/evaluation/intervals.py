"""The precision of a measurement: 95 % confidence intervals."""

import math

Z = 1.96  # half-width of a 95 % interval, in standard errors


def proportion(outcomes):
    """The mean of outcomes from 0 to 1 (of booleans: the share that are true), with Wilson's interval
    (1927), which stays inside [0, 1] even if all outcomes are 0 or all are 1.

    -> {"value", "low", "high", "n"}, or None if there are no outcomes.
    """
    n = len(outcomes)
    if n == 0:
        return None
    p, z2 = float(sum(outcomes)) / n, Z * Z
    middle, spread = p + z2 / (2 * n), Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    low, high = (middle - spread) / (1 + z2 / n), (middle + spread) / (1 + z2 / n)
    return {"value": p, "low": max(0.0, low), "high": min(1.0, high), "n": n}


def mean(values):
    """The mean of some numbers, with a confidence interval from the normal approximation."""
    n = len(values)
    middle = sum(values) / n
    error = math.sqrt(sum((value - middle) ** 2 for value in values) / max(1, n - 1) / n)
    return {"value": middle, "low": middle - Z * error, "high": middle + Z * error, "n": n}
