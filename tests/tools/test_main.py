"""python -m tools: the guided tour runs to its end, and a model answers a question about a recording."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from twisted import tone

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
        "shortest completion: 0 bytes",
    ):
        assert words in done.stdout


@pytest.mark.parametrize("own_file", [True, False])
def test_the_agent_answers_a_question_about_a_recording(tmp_path, own_file):
    talk = tmp_path / "talk.wav"
    talk.write_bytes(tone(60))
    env = {key: value for key, value in os.environ.items() if not key.startswith("ASSEMBLYAI")}
    question = [str(talk), "Who meets again next week?"]
    command = [sys.executable, "-m", "tools", "recording", *(question if own_file else [])]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    roles = re.findall(r"^\[(\w+)\]", done.stdout, re.M)
    assert roles == ["user", "assistant", "tool", "assistant"] and '"name":"transcribe"' in done.stdout
    assert "canned" in done.stderr
    assert not own_file or done.stdout.strip().endswith("Then we meet again next week, goodbye.")
