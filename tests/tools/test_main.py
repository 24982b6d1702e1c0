"""python -m tools: the guided tour runs to its end, without a model."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_tour_runs():
    done = subprocess.run(
        [sys.executable, "-m", "tools"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and not done.stderr
    for words in (
        "cut_off=True",
        "<tool_response>0.3</tool_response>",
        "1000 digits",
        "(answered after 3 steps)",
        "complete: True",
    ):
        assert words in done.stdout
