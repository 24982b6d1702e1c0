"""One recording or many: uploaded one at a time, transcribed in parallel, and each paid for once.

A transcript is kept in NAME.HASH.transcript.json, beside its recording or in a folder of your choice. HASH
depends on the bytes of the recording, the options and the service, so the transcript is still found if the
recording is renamed, but not if it is changed. The file is written after the upload, and again when the job
is created and when it is done, so a second run continues an interrupted one. The folder is locked while a job
is created, so two runs at the same time create only one job. If the folder cannot be written to, nothing is
sent. Transcripts of URLs are never kept, because the audio at a URL may change. Transcripts of pipes, bytes
and open files are kept only if you choose a folder.
"""

import collections
import contextlib
import hashlib
import json
import os
import threading
import warnings
from pathlib import Path

try:
    import fcntl
except ImportError:  # on Windows, two runs at the same time may both pay for the same recording
    fcntl = None

from audio.assemblyai import PATIENCE, seconds
from audio.errors import AudioError, AudioWarning, BadInput, RequestRefused
from audio.options import request
from audio.recording import KEPT, Recording
from audio.transcript import Transcript

JOBS = 5  # unfinished jobs at a time, the limit of a free account
LONGEST_NAME = 120  # how many bytes of a recording's name are kept; most systems allow 255 per file name
SECRET = "webhook_auth_header_value"


def transcribe_all(
    client, sources, *, jobs=JOBS, timeout=PATIENCE, wait=True, keep=None, begun=lambda *_: None, **options
):
    """Sources -> (source, Transcript or AudioError) in order.

    Recordings are sent one at a time. When the number of pending results reaches `jobs`, the first of them
    must be finished before the next recording is sent. A failure does not stop the others. If you stop
    iterating, the jobs that were created still run, and can be waited for later. begun(source, job) is called
    for every new job. keep: one folder for all transcripts, instead of the recordings' folders. wait=False:
    yields the jobs as they are, ready or not. options: those of audio.transcribe; they and the time-out are
    checked before anything is sent."""
    progress, _ = options.pop("progress", False), seconds(timeout)
    fields = request(**options)
    folders = {}  # {digest: folder}: the same audio in two folders has only one transcript
    written = {name: value for name, value in fields.items() if name != SECRET}

    def make(source, recording, save):
        url = recording.url or client.upload(recording, progress=progress)
        # If this run is killed while the job is created, the next one finds the job by the upload's URL.
        save(Transcript({"audio_url": url}))
        job = client.create({"audio_url": url, **fields}, unique=not recording.url)
        begun(source, job)
        return job

    def begin(source):
        """A source's job, either new or from an earlier run, and a function that saves later states of the
        job."""
        recording, save = source if isinstance(source, Recording) else Recording(source), lambda job: None
        if recording.url or not (keep or recording.path):
            return make(source, recording, save), save
        about = {"sha256": recording.sha256(), "options": written, "service": client.http.base}
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
        folder = folders.setdefault(digest, Path(keep or recording.path.parent))
        with locked(folder):
            others = sorted(folder.glob(f"*.{digest}{KEPT}"))
            file = others[0] if others else folder / f"{shortened(recording.name)}.{digest}{KEPT}"
            save = lambda job: write(file, {**about, "source": recording.name}, job)
            kept = read(file)
            job = alive(client, kept) or make(source, recording, save)
            if job is not kept:
                save(job)
        return job, save

    def end(source, job, save):
        """Waits for the job, if asked to -> (source, its Transcript or AudioError)."""
        try:
            if wait and save and job.status != "completed":
                job = client.wait(job, timeout=timeout)
                save(job)
        except AudioError as error:
            job = error
        return source, job

    waiting = collections.deque()
    for source in sources:
        try:
            waiting.append((source, *begin(source)))
        except AudioError as error:
            waiting.append((source, error, None))
        if len(waiting) >= jobs:
            yield end(*waiting.popleft())
    while waiting:
        yield end(*waiting.popleft())


@contextlib.contextmanager
def locked(folder):
    """Creates the folder if needed, and locks it so that other runs have to wait. Raises BadInput if the
    folder cannot be written to."""
    if not writable(folder):
        lost = "a second run would pay again: choose another folder with --keep"
        raise BadInput(f"{folder} cannot be written to, so {lost}")
    with contextlib.ExitStack() as stack:
        if fcntl:
            place = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, place)
            with contextlib.suppress(OSError):  # some network file systems cannot lock a folder
                fcntl.flock(place, fcntl.LOCK_EX)
        yield


def writable(folder):
    """Makes a folder if needed -> whether files can be written to it."""
    with contextlib.suppress(OSError):
        os.makedirs(folder, exist_ok=True)
    return os.path.isdir(folder) and os.access(folder, os.W_OK)


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
    """The current state of a job read from a file; None if it failed or the service no longer has it."""
    if job is None or job.status == "completed":
        return job
    try:
        job = client.get(job.id) if job.id else client.find(job.raw["audio_url"])
    except RequestRefused as error:
        if error.status not in (400, 404, 410):
            raise
        return None
    return None if job is None or job.deleted or job.status == "error" else job


def write(path, about, job):
    """Writes a job to a file, together with `about`: the name and hash of the recording, the options and the
    service. A failure, such as a full disk, only causes a warning, so the result is not lost."""
    raw = {name: value for name, value in job.raw.items() if name != SECRET}
    try:
        write_file(path, json.dumps({**about, "transcript": raw}, ensure_ascii=False, indent=1) + "\n")
    except OSError as error:
        problem = f"{path} cannot be written ({error.strerror}): a second run will pay again"
        warnings.warn(problem, AudioWarning, stacklevel=2)


def write_file(path, text):
    """Writes text to a file, in UTF-8 and atomically."""
    path = Path(path)
    part = path.with_name(f".{os.getpid()}.{threading.get_ident()}.part")
    try:
        part.write_bytes(text.encode("utf-8", "backslashreplace"))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
