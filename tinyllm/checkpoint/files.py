"""Files: atomic writes (a crash must not leave half a file), JSON, hashes, and the text files of a folder."""

import contextlib
import hashlib
import json
import os
from pathlib import Path

from tinyllm.errors import TinyllmError, tell_once


@contextlib.contextmanager
def reading(path, kind):
    """Turn errors about the contents of `path` into a TinyllmError that names the file.

    kind: what kind of file `path` should be. A TinyllmError passes through unchanged.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        raise TinyllmError(f"{path} cannot be read as {kind}: {error}") from error
    except (LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise TinyllmError(f"{path} cannot be read as {kind}: it is damaged ({error!r})") from error


@contextlib.contextmanager
def replacing(path):
    """Yield a temporary path beside `path`; afterwards flush that file to disk and rename it to `path`.

    If writing fails, the old file stays. Raises TinyllmError for a full disk or a folder that cannot be
    written to.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield beside
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
        if os.name != "nt":  # also flush the folder's list of files, which Windows cannot do
            names = os.open(path.parent, os.O_RDONLY)
            os.fsync(names)
            os.close(names)
    except OSError as error:
        raise TinyllmError(
            f"{path} could not be saved: {error.strerror or error}. Free some space, check the permissions, "
            "or choose a different folder"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def text_files(path):
    """A file -> the file itself. A folder -> all files in and below it, except hidden ones, sorted by path.

    Files that are not text are left out; a message names them.
    """
    hidden = lambda file: any(part.startswith(".") for part in file.relative_to(path).parts)
    files = [file for file in path.rglob("*") if file.is_file() and not hidden(file)]
    files = [path] if path.is_file() else sorted(files)
    texts = [file for file in files if is_text(file)]
    others = sorted({*files} - {*texts})
    if others:
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        names = ", ".join(file.name for file in others[:5]) + more
        tell_once(f"left out files that are not text in UTF-8: {names}. To use a file, save it as UTF-8")
    return texts


def is_text(path):
    """Whether a file might be UTF-8: its first 8192 bytes have no NUL byte, unlike those of UTF-16 text."""
    with open(path, "rb") as file:
        return b"\0" not in file.read(8192)


def write_text(path, text):
    """Write a UTF-8 file atomically. A lone surrogate, say from a file name, becomes an escape: \\udce9."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def write_json(path, value):
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path):
    """A JSON object from a file. Raises TinyllmError if the file is missing or damaged."""
    with reading(path, "JSON"):
        return parse_object(Path(path).read_bytes())


def parse_object(data):
    """UTF-8 bytes -> a JSON object. Raises ValueError for anything else, and for duplicate keys."""

    def without_duplicates(pairs):
        if len(dict(pairs)) < len(pairs):
            raise ValueError(f"duplicate keys among {[key for key, _ in pairs]}")
        return dict(pairs)

    value = json.loads(data.decode(), object_pairs_hook=without_duplicates)
    if not isinstance(value, dict):
        raise ValueError("expected a JSON object")
    return value


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
