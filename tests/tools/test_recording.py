"""python -m tools.recording: the agent loop answers a question about a recording, with the sandbox for a
service."""

import os
import re
import subprocess
import sys
from pathlib import Path

from twisted import tone

ROOT = Path(__file__).parents[2]


def test_the_agent_answers_a_question_about_a_recording(tmp_path):
    talk = tmp_path / "talk.wav"
    talk.write_bytes(tone(60))
    env = {key: value for key, value in os.environ.items() if not key.startswith("ASSEMBLYAI")}
    command = [sys.executable, "-m", "tools.recording", str(talk), "Who meets again next week?"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    roles = re.findall(r"^\[(\w+)\]", done.stdout, re.M)
    assert roles == ["user", "assistant", "tool", "assistant"] and '"name":"transcribe"' in done.stdout
    assert done.stdout.strip().endswith("Then we meet again next week, goodbye.") and "canned" in done.stderr
