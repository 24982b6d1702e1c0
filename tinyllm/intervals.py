"""How sure a figure is: 95 % intervals."""

import math

Z = 1.96                     # half-width of a 95 % interval, in standard errors


def share(hits, n):
    """hits out of n, with Wilson's interval (1927), which stays inside [0, 1] however one-sided they are."""
    if n == 0:
        return None
    p, z2 = hits / n, Z * Z
    middle, spread = p + z2 / (2 * n), Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return {"value": p, "low": max(0.0, (middle - spread) / (1 + z2 / n)),
            "high": min(1.0, (middle + spread) / (1 + z2 / n)), "n": n}
