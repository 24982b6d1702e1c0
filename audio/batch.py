"""One recording or many: processed in parallel, returned in order, and each paid for once.

Transcripts are kept beside the recording, in NAME.HASH.transcript.json, or in a folder of your choice.
HASH depends on the bytes of the recording, the options and the service, so a renamed recording finds its
transcript and a changed one does not. The file is written after the upload and again for the job, so the next
run continues what an interrupted one began. A job is made under a lock, so two runs at once make one job. If
the folder cannot be written to, nothing is sent. Transcripts of URLs are never kept, because what a URL leads
to may change; those of pipes, bytes and open files only if you choose a folder.
"""

import collections
import contextlib
import hashlib
import json
import os
import threading
import warnings
from concurrent.futures import Future
from pathlib import Path

try:
    import fcntl
except ImportError:  # on Windows two runs at once over the same recording may both pay
    fcntl = None

from audio.assemblyai import PATIENCE, is_done, seconds
from audio.errors import AudioError, AudioWarning, BadInput, RequestRefused, TranscriptFailed
from audio.options import request
from audio.recording import KEPT, Recording
from audio.transcript import Transcript

THREADS = 5  # concurrent jobs, the limit of a free account
LONGEST_NAME = 120  # bytes kept of a recording's name; most systems allow 255
SECRET = "webhook_auth_header_value"


def transcribe_all(
    client, sources, *, threads=THREADS, timeout=PATIENCE, wait=True, keep=None, begun=None, **options
):
    """Sources -> (source, Transcript or AudioError) in order, each as soon as it and all before it are done.

    A failure does not stop the others. Once the iterator is closed (or on Ctrl-C), no more jobs are begun;
    those already begun can be waited for later. begun(source, job) is called for every job that is made.
    keep: one folder for all transcripts, instead of the recordings' folders. wait=False: yields the jobs as
    they are, ready or not. options: those of audio.transcribe; they and the time-out are checked first."""
    progress, _ = options.pop("progress", False), seconds(timeout)
    fields, sources = request(**options), list(sources)
    written = {name: value for name, value in fields.items() if name != SECRET}
    results = [Future() for _ in sources]
    threads = max(1, min(threads, len(sources)))
    todo = collections.deque(zip(sources, results))
    making, stopped = threading.Semaphore(threads), threading.Event()  # one permit per job being made
    places = {}  # {digest: (lock, folder)}: the same audio in two folders is kept only once

    def make(source, recording, save):
        url = recording.url or client.upload(recording, progress=progress)
        save(Transcript({"audio_url": url}))  # if we die now, the upload's URL leads to the job
        with making:
            if stopped.is_set():
                raise AudioError("the run ended before this job was made")
            job = client.create({"audio_url": url, **fields}, unique=not recording.url)
            save(job)
        if begun:
            begun(source, job)
        return job

    def one(source):
        recording = source if isinstance(source, Recording) else Recording(source)
        if recording.url or not (keep or recording.path):
            job = make(source, recording, lambda job: None)
            return client.wait(job, timeout=timeout) if wait else job
        about = {"sha256": recording.sha256(), "options": written, "service": client.http.base}
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
        folder = Path(keep or recording.path.parent)
        lock, folder = places.setdefault(digest, (threading.Lock(), folder))
        with lock, claimed(folder, digest):
            others = sorted(folder.glob(f"*.{digest}{KEPT}"))
            file = others[0] if others else folder / f"{shortened(recording.name)}.{digest}{KEPT}"
            save = lambda job: write(file, {**about, "source": recording.name}, job)
            kept = read(file)
            job = alive(client, kept) or make(source, recording, save)
        if wait and job.status != "completed":
            job = client.wait(job, timeout=timeout)
        if job is not kept:
            save(job)
        return job

    def work():
        with contextlib.suppress(IndexError):
            while True:
                source, result = todo.popleft()
                try:
                    result.set_result(one(source))
                except BaseException as error:  # passed on to the waiting thread
                    result.set_exception(error)

    for _ in range(threads):
        threading.Thread(target=work, daemon=True).start()  # daemon: the program does not wait for it
    try:
        for source, result in zip(sources, results):
            error = result.exception()
            if error and not isinstance(error, AudioError):
                raise error
            yield source, error or result.result()
    finally:
        stopped.set()
        todo.clear()
        for _ in range(threads):  # time for each thread that is making a job to save it
            making.acquire(timeout=10)
        making.release(threads)  # a thread that waits to make one wakes up and unlocks its recording


@contextlib.contextmanager
def claimed(folder, digest):
    """Locks out others that work on this digest. Raises BadInput if the folder cannot be written to."""
    path = Path(folder, f".{digest}.lock")
    try:
        while True:
            file = open(path, "w")  # noqa: SIM115
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(path), os.fstat(file.fileno())):
                    break
            file.close()  # its last holder removed the file: try again
    except OSError as error:
        raise BadInput(
            f"{folder} cannot be written to ({error.strerror}), so no transcript could be kept there and "
            "a second run would pay again: choose another folder with --keep"
        ) from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        file.close()


def shortened(name):
    """The last part of a path, cut to leave room for a suffix."""
    return os.fsencode(os.path.basename(name))[:LONGEST_NAME].decode("utf-8", "ignore")


def read(file):
    """The transcript kept in a file, or None. It has no id if the service never confirmed the job."""
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))["transcript"]
        return Transcript(raw) if isinstance(raw.get("id", raw.get("audio_url")), str) else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None


def alive(client, job):
    """The current state of a kept job; None if it failed or the service no longer has it."""
    try:
        job = client.find(job["audio_url"]) if job and not job.id else job
        job = client.get(job.id) if job and job.status != "completed" else job
        if job:
            is_done(job)
        return job
    except TranscriptFailed:
        return None
    except RequestRefused as error:
        if error.status in (400, 404, 410):
            return None
        raise


def write(path, about, job):
    """Writes a job, and the recording and options it is for (`about`), to a file. A failure (a full disk)
    only causes a warning, so the result is not lost."""
    raw = {name: value for name, value in job.raw.items() if name != SECRET}
    try:
        write_text(path, json.dumps({**about, "transcript": raw}, ensure_ascii=False, indent=1) + "\n")
    except OSError as error:
        problem = f"{path} cannot be written ({error.strerror}): a second run will pay again"
        warnings.warn(problem, AudioWarning, stacklevel=2)


def write_text(path, text):
    """Writes text to a file in UTF-8, atomically; a device is written to directly."""
    path = Path(path)
    if path.exists() and not path.is_file():
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
        return
    part = path.with_name(f".{os.getpid()}.{threading.get_ident()}.part")
    try:
        part.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
