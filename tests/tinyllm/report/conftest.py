"""Fixture: a run with all its stages, most of them copies of stage 2, so that nothing has to be trained."""

import json
from pathlib import Path

import pytest
from stage_runs import copy_stage


def write_log(name, lines, run="demo"):
    Path("runs", run, name, "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def five_stages(tiny):
    """A run with all stages. 3-prefer, 4-reason and hacking are copies of stage 2 with their own logs. Two
    stages have exam results."""
    for name in ("3-prefer", "4-reason", "hacking"):
        copy_stage("2-instruct", name)
        steps = [{"step": i, "score": i / 3, "kl_nats_per_reply": i / 9, "loss": -0.1} for i in range(4)]
        write_log(name, [*steps, {"step": 3, "correct": 0.5, "tokens_per_reply": 7.0}])
        Path("runs/demo", name, "samples.txt").write_text("--- step 0\n<b>one</b>\n--- step 10\ntwo\n")
    result = {"value": 0.25, "low": 0.125, "high": 0.5, "n": 8}
    exams = {"bits_per_byte": result, "win_rate": result, "entropy_bits_per_byte": 0.3, "seconds": 2.0}
    for name in ("1-pretrain", "3-prefer"):
        Path("runs/demo", name, "exams.json").write_text(json.dumps(exams))
    return tiny
