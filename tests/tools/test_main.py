"""python -m tools: the guided tour runs to its end, and a model answers a question about a recording.

Both must work without an API key."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from twisted import tone

ROOT = Path(__file__).parents[2]


def test_the_tour_runs_to_its_end():
    process = subprocess.run(
        [sys.executable, "-m", "tools"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0 and not process.stderr
    for words in (
        "cut_off=True",
        "<tool_response>0.3</tool_response>",
        "1000 digits",
        "(answered after 3 steps)",
        "shortest completion: 0 bytes",
    ):
        assert words in process.stdout


@pytest.mark.parametrize(
    "words, key, status, message",
    [
        (["recording", "/nope.wav"], "", 1, "error: /nope.wav: there is no such file"),
        (["recording"], "not a key", 1, "error: ASSEMBLYAI_API_KEY must be the bare key"),
        (["recordings"], "", 2, "unknown argument 'recordings': use recording [FILE [QUESTION]] or none"),
    ],
)
def test_a_mistake_ends_with_a_message_and_an_exit_status(words, key, status, message):
    env = os.environ | {"ASSEMBLYAI_API_KEY": key}
    done = subprocess.run(
        [sys.executable, "-m", "tools", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=env,
        check=False,
    )
    assert done.returncode == status and done.stdout == ""
    assert message in done.stderr.splitlines()[-1]


def test_no_error_is_printed_if_the_pipe_is_closed():
    command = [sys.executable, "-u", "-m", "tools"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as tour:
        tour.stdout.close()
        assert tour.stderr.read() == b""


@pytest.mark.parametrize("with_arguments", [True, False])
def test_the_agent_answers_a_question_about_a_recording(tmp_path, with_arguments):
    recording = tmp_path / "talk.wav"
    recording.write_bytes(tone(60))
    env = {key: value for key, value in os.environ.items() if not key.startswith("ASSEMBLYAI")}
    arguments = [str(recording), "Who meets again next week?"] if with_arguments else []
    command = [sys.executable, "-m", "tools", "recording", *arguments]
    process = subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT, check=False)
    assert process.returncode == 0, process.stderr
    roles = re.findall(r"^\[(\w+)\]", process.stdout, re.M)
    assert roles == ["user", "assistant", "tool", "assistant"] and '"name":"transcribe"' in process.stdout
    assert "canned" in process.stderr
    assert not with_arguments or process.stdout.strip().endswith("Then we meet again next week, goodbye.")
