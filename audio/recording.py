"""The recording to transcribe (a path, URL, bytes or open file), and the request body that holds it.

Before anything is sent, a recording (unless it is a URL) is checked: it must exist and not be empty, and it
should look like audio. It is sent in pieces, so it need not fit in memory. Every attempt to send it
starts from the beginning.
"""

import hashlib
import io
import os
import re
import shutil
import tempfile
import warnings
from contextlib import contextmanager, nullcontext
from pathlib import Path

from tqdm import tqdm

from audio.errors import AudioWarning, BadInput

# A socket's time-out covers one whole send: pieces this small get through a slow connection in time.
PIECE = 1 << 16
KEPT = ".transcript.json"  # the suffix of files in which transcripts are kept
# The suffixes of our output. Text may look like audio: Monkey's Audio files begin with "MAC ", for example.
TEXTS = (".txt", ".md", ".srt", ".vtt", ".json")
HEAD = 1 << 12  # how many bytes at the beginning are enough to show the type of a recording
MAGIC = re.compile(  # the first bytes of audio and video files
    rb"""ID3 | fLaC | OggS | \x1aE\xdf\xa3 | \#!AMR | \.snd | caff | FLV | MAC[ ] | wvpk | 0&\xb2u | DSD[ ]
    | TTA[12] | \0\0\x01[\xba\xb3] | \x0b\x77 | [\x02\x03]dss | [\x01-\x07]ds2 | Creative[ ]Voice
    | \x06\x0e\x2b\x34 | riff\x2e\x91 | ....(ftyp|moov|mdat|wide)
    | (RIFF|RF64|RIFX|FORM)....(WAVE|AVI[ ]|AIFF|AIFC|8SVX|QLCM)
    | G@ | G.{187}G | .{4}G.{191}G
    | \0*(ID3 | \xff[\xe0-\xfd])  # an MPEG frame begins with 11 set bits; \xff\xfe begins UTF-16 text
    """,
    re.X | re.S,
)


def looks_like_audio(head):
    """Whether the first bytes of a file (HEAD of them) are those of a known container or an MPEG frame."""
    return MAGIC.match(head) is not None


class Recording:
    """A source that can be read from the beginning any number of times. Raises BadInput if the source is
    missing, empty or unreadable.

    `url` is set if the service fetches the recording itself, `path` if the recording is a named file; `size`
    is in bytes. A Recording can be passed as the body of a request: it has a length, so it is sent with
    a Content-Length, not in chunks; it has no read(), so we choose the size of the pieces. progress: show
    a bar, on terminals only."""

    progress = False

    def __init__(self, source):
        self.url, self.path, self._file, self.size = None, None, None, 0
        if isinstance(source, str) and source.lower().startswith(("http://", "https://")):
            scheme, rest = source.split(":", 1)
            self.name, self.url = source, f"{scheme.lower()}:{rest}"
            return
        if isinstance(source, (bytes, bytearray, memoryview)):
            self.name, self._file = "bytes", io.BytesIO(source)
        elif hasattr(source, "read"):
            self.name = str(getattr(source, "name", "file"))
            self._file = rewindable(source, self.name)
        elif isinstance(source, (str, os.PathLike)):
            if not os.fspath(source).strip():
                raise BadInput("the name of the recording is empty: give a file or a URL")
            self.name, self.path = os.fspath(source), Path(source)
            if not self.path.is_file():
                other = "this is a folder or a device (for standard input, give -)"
                raise BadInput(f"{self.name}: {other if self.path.exists() else 'there is no such file'}")
        else:
            kind = type(source).__name__
            raise BadInput(f"a recording is a path, a URL, bytes or an open file, not {kind}")
        self._start = self._file.tell() if self._file else 0
        with self.open() as file:
            head = file.read(HEAD)
            self.size = file.seek(0, io.SEEK_END) - self._start
        if not head:
            raise BadInput(f"{self.name} is empty")
        if not looks_like_audio(head):
            warnings.warn(f"{self.name} does not look like audio or video", AudioWarning, stacklevel=4)

    @contextmanager
    def open(self):
        """The open file, positioned where the recording begins. Raises BadInput if it cannot be read."""
        try:
            with nullcontext(self._file) if self._file else open(self.path, "rb") as file:
                file.seek(self._start)
                yield file
        except (OSError, ValueError) as error:
            problem = getattr(error, "strerror", None) or error
            raise BadInput(f"{self.name} cannot be read: {problem}") from None

    def pieces(self):
        """Yields exactly `size` bytes, PIECE at a time."""
        left = self.size
        with self.open() as file:
            while left and (piece := file.read(min(PIECE, left))):
                left -= len(piece)
                yield piece
        if left:
            raise BadInput(f"{self.name} became shorter while it was read: wait until it is complete")

    def __len__(self):
        return self.size

    def __iter__(self):
        off, name = None if self.progress else True, os.path.basename(self.name)
        with tqdm(total=self.size, desc=name, unit="B", unit_scale=True, disable=off) as bar:
            for piece in self.pieces():
                yield piece
                bar.update(len(piece))

    def sha256(self):
        digest = hashlib.sha256()
        for piece in self.pieces():
            digest.update(piece)
        return digest.hexdigest()


def rewindable(file, name):
    """The file itself or, if it is not seekable (a pipe), a temporary copy on disk."""
    usable = not getattr(file, "closed", False) and getattr(file, "readable", lambda: True)()
    if not usable or isinstance(file.read(0), str):
        raise BadInput(f"{name} is closed, or open as text or for writing: open it with mode 'rb'")
    try:
        file.seek(file.tell())
        return file
    except (AttributeError, OSError):
        copy = tempfile.TemporaryFile()  # noqa: SIM115
        shutil.copyfileobj(file, copy, PIECE)
        copy.seek(0)
        return copy


def recordings_in(folder):
    """The files in a folder and its subfolders that look like audio or video, sorted. Files
    whose names end in one of TEXTS are left out. A warning names up to 20 of the files that were left out.
    Hidden files and folders are skipped. Raises BadInput if no file is audio."""
    recordings, others = [], []
    for place, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = os.path.join(place, name)
            if name.startswith(".") or not os.path.isfile(path):
                continue
            try:
                with open(path, "rb") as file:
                    audio = looks_like_audio(file.read(HEAD)) and not name.endswith(TEXTS)
                (recordings if audio else others).append(path)
            except OSError as error:
                unreadable(error)
    if others := [os.path.relpath(path, folder) for path in sorted(others) if not path.endswith(KEPT)]:
        left = f"{folder}: left out (not audio): {', '.join(others[:20])}" + ", ..." * (len(others) > 20)
        warnings.warn(left, AudioWarning, stacklevel=2)
    if not recordings:
        raise BadInput(f"{folder}: there is no audio in this folder")
    return sorted(recordings, key=Path)


def unreadable(error):
    warnings.warn(f"{error.filename} cannot be read: {error.strerror}", AudioWarning, stacklevel=3)
