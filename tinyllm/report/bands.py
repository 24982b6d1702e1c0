"""Is my loss normal? The range of the curves of recorded runs, a few numbers in bands.json (make bands).

{size: {stage: {key of metrics.jsonl: [[step, lowest, highest], ...]}}}
"""

from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("bands.json")
KEYS = ("loss", "score", "reward")
POINTS = 30  # at most, in a band


def thin(pairs):
    """At most POINTS points of a curve, each the mean of consecutive points."""
    return [part.mean(axis=0) for part in np.array_split(np.array(pairs), min(len(pairs), POINTS))]


def measure(records):
    """Runs of one size -> {stage: {key: [[step, lowest, highest], ...]}}.

    Each band covers only the runs whose curve is as long as the longest one.
    """
    bands = {}
    for name in sorted({name for record in records for name in record.stages}):
        for key in KEYS:
            curves = [record.stages[name].series(key) for record in records if name in record.stages]
            longest = max(map(len, curves))
            curves = np.array(
                [thin(curve) for curve in curves if len(curve) == longest > 0]
            )  # (runs, points, 2)
            if curves.size:
                points = zip(curves[0, :, 0], curves[..., 1].min(axis=0), curves[..., 1].max(axis=0))
                bands.setdefault(name, {})[key] = [[float(f"{x:.4g}") for x in point] for point in points]
    return bands
