"""Many recordings: side by side, in order, and each paid for once.

What comes back is kept beside the recording, in NAME.HASH.transcript.json. HASH is made from the sound, the
options and the service, so it is found again after the recording was renamed, and not after it was changed.
It is written as soon as there is a job: a run that was interrupted goes on with the jobs it had begun."""

import hashlib
import json
import os
import queue
import threading
import warnings
from pathlib import Path

from audio.assemblyai import PATIENCE
from audio.errors import AudioError, AudioWarning, TranscriptFailed
from audio.options import request
from audio.recording import Recording
from audio.transcript import Transcript

THREADS = 5  # jobs at a time; what a free account may have


def transcribe_all(client, sources, *, threads=THREADS, timeout=PATIENCE, begun=lambda *_: None, **options):
    """Sources -> (source, Transcript or AudioError) in their order, each when it and all before it are done.

    One that fails does not stop the others. Closing the iterator (or Ctrl-C) begins no further ones; what has
    begun can be waited for later. begun(source, job) is called for every job there is."""
    sources, todo = list(sources), queue.SimpleQueue()
    done, turns = [queue.SimpleQueue() for _ in sources], {}
    gates = [threading.Lock() for _ in range(min(threads, len(sources)))]  # closed while a job is made
    for i in range(len(sources)):
        todo.put(i)

    def work(gate):
        while True:
            try:
                i = todo.get_nowait()
            except queue.Empty:
                return
            try:
                done[i].put(keep(client, sources[i], turns, gate, timeout, begun, request(**options)))
            except BaseException as error:  # handed on to whoever waits for it
                done[i].put(error)

    for gate in gates:
        threading.Thread(target=work, args=(gate,), daemon=True).start()  # daemon: nobody waits for an answer
    try:
        for source, result in zip(sources, done):
            outcome = result.get()
            if isinstance(outcome, BaseException) and not isinstance(outcome, AudioError):
                raise outcome
            yield source, outcome
    finally:
        for gate in gates:  # kept: whoever is making a job writes it down, and nobody begins another one
            gate.acquire(timeout=10)


def keep(client, source, turns, gate, timeout, begun, fields):
    """One recording -> Transcript: what is kept of it, or else a new job."""
    recording = source if isinstance(source, Recording) else Recording(source)
    if not recording.path:
        job = client.submit(recording, **fields)
        begun(source, job)
        return client.wait(job, timeout=timeout)
    about = {"sha256": recording.sha256(), "options": fields, "service": client.http.base}
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    with turns.setdefault(digest, threading.Lock()):  # the same sound twice is one job
        file, job = find(recording.path, digest)
        save = lambda job: write(file, {**about, "source": recording.name, "transcript": job.raw})
        if job is None or job.status == "error":
            url = client.upload(recording)
            with gate:
                job = client.create({"audio_url": url, **fields}, unique=True)
                save(job)
            begun(source, job)
        if job.status != "completed":
            try:
                job = client.wait(job, timeout=timeout)
            except TranscriptFailed as error:
                job = error.transcript
                raise
            finally:
                save(job)
        return job


def find(path, digest):
    """-> (where the transcript of a recording is kept, the transcript or None)."""
    kept = sorted(path.parent.glob(f"*.{digest}.transcript.json"))
    try:
        return kept[0], Transcript(json.loads(kept[0].read_text(encoding="utf-8"))["transcript"])
    except (IndexError, OSError, ValueError, KeyError, TypeError):
        return path.with_name(f"{path.name}.{digest}.transcript.json"), None


def write(path, data):
    """JSON to a file, whole or not at all. A full disk is no reason to lose a result: a warning."""
    try:
        write_text(path, json.dumps(data, ensure_ascii=False, indent=1) + "\n")
    except OSError as error:
        problem = f"{path} cannot be written ({error.strerror}): a second run will pay again"
        warnings.warn(problem, AudioWarning, stacklevel=2)


def write_text(path, text):
    """Text to a file in UTF-8, whole or not at all; a device is written to as it is."""
    path = Path(path)
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
        return
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
