"""Two slow tests: a long upload in constant memory, and many jobs while a third of all answers fail."""

import os
import random
import resource
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from twisted import tone

from audio import Client
from audio.sandbox import Sandbox

SPOILED = ("429", "500", "502", "503", "504", "reset", "truncated", "lost")
ROOT = Path(__file__).parents[2]
# PROOFS=full uses the larger numbers; the smaller ones find the same bugs.
JOBS, BYTES = (1000, 2_000_000_000) if os.environ.get("PROOFS") == "full" else (220, 300_000_000)
UPLOAD = """
import resource, sys
from audio import Client
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
client = Client(timeout=(60, 600))
client.upload(b"ID3" + bytes(100_000))  # loads everything that is loaded only once
before = peak()
print(client.upload(sys.argv[1]), peak() - before)
"""


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("ASSEMBLYAI_API_KEY", "test-key")


def test_a_long_upload_takes_constant_memory(tmp_path, monkeypatch):
    """The client runs in a process of its own, so its memory is measured apart from the sandbox's."""
    with open(tmp_path / "long.mp3", "wb") as file:
        file.write(b"ID3")
        file.truncate(BYTES)  # sparse: takes no space on the disk
    with Sandbox() as box:
        monkeypatch.setenv("ASSEMBLYAI_BASE_URL", box.url)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        done = subprocess.run(
            [sys.executable, "-c", UPLOAD, str(tmp_path / "long.mp3")],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        assert done.returncode == 0, done.stderr
        url, megabytes = done.stdout.split()
        assert box.uploads[url]["size"] == BYTES
        assert int(megabytes) < 32
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 32 * 1024


class Flaky(Sandbox):
    """A sandbox that spoils a third of its answers at random."""

    random = random.Random(0)

    def spoiled(self, kind):
        self.retry_after = "0"
        with self.lock:
            return self.random.choice(SPOILED) if self.random.random() < 0.33 else None


def test_no_job_is_lost_or_created_twice_in_16_threads_while_a_third_of_all_answers_fail():
    with Flaky(seconds=0.05) as box:
        client = Client(box.url, tries=12, pause=0.002, poll=0.05, timeout=(30, 30))
        sound = {f"{i}": tone(1 + i / 1000) for i in range(20)}
        names = [f"{i % 20}" for i in range(JOBS)]
        with ThreadPoolExecutor(16) as pool:
            transcribe = lambda name: client.transcribe(sound[name], mark=name, timeout=120)
            transcripts = list(pool.map(transcribe, names))
        ids = [transcript.id for transcript in transcripts]
        assert [transcript.raw["mark"] for transcript in transcripts] == names, "no job is lost or mixed up"
        assert len(set(ids)) == JOBS and {*ids} == {*box.jobs}, "no job is created twice"
        assert all(transcript.status == "completed" and transcript.text for transcript in transcripts)
        kinds = Counter(job["status"] for job, _ in box.jobs.values())
        assert kinds == {"completed": JOBS}
