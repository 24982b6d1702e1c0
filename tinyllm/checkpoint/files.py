"""Files: atomic writes (a crash must not leave half a file), JSON, hashes, and the text files of a folder."""

import codecs
import contextlib
import hashlib
import json
import os
import re
from pathlib import Path

from tinyllm.errors import TinyllmError, tell_once

UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@contextlib.contextmanager
def reading(path, kind):
    """Turn errors about the contents of `path` into a TinyllmError that names the file.

    kind: what the file should be. A TinyllmError passes unchanged, because its message is already complete.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        raise TinyllmError(f"{path} cannot be read as {kind}: {error}") from error
    except (LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        raise TinyllmError(f"{path} cannot be read as {kind}: damaged, {error!r}") from error


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
        if os.name != "nt":  # the folder's list of names too, which Windows cannot flush
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


def read_utf8(path):
    """The text of a file as UTF-8 bytes. UTF-16 with a byte-order mark is converted, and so is Windows-1252
    (with a message). UTF-8 with a few stray bytes, or any other encoding, is returned unchanged.

    Raises OSError, or UnicodeDecodeError for damaged UTF-16."""
    data = Path(path).read_bytes()
    if data.startswith(UTF16):
        return data.decode("utf-16").encode()
    with contextlib.suppress(UnicodeDecodeError):
        data.decode()
        return data
    text = data.decode("utf-8", "replace")
    strays, others = text.count("\ufffd"), len(re.findall(r"[^\x00-\x7f\ufffd]", text))
    if strays <= others:
        return data
    with contextlib.suppress(UnicodeDecodeError):
        data = data.decode("cp1252").encode()
        tell_once(f"{path} is not UTF-8 and is read as Windows-1252")
    return data


def text_files(path):
    """Those of the visible files of `path` that are text, sorted by path."""
    return [file for file in visible_files(path) if is_text(file)]


def visible_files(path):
    """The file `path`, or all files in that folder and below it that are not hidden, sorted by path."""
    path = Path(path)
    hidden = lambda file: any(part.startswith(".") for part in file.relative_to(path).parts)
    files = [file for file in path.rglob("*") if file.is_file() and not hidden(file)]
    return [path] if path.is_file() else sorted(files)


def is_text(file):
    """Whether the start of a file has no NUL bytes, or is UTF-16."""
    with open(file, "rb") as opened:
        start = opened.read(8192)
    return b"\0" not in start or start.startswith(UTF16)


def write_json(path, value):
    text = json.dumps(value, indent=1, ensure_ascii=False)
    with replacing(path) as beside:  # non-Unicode parts, say of a file name, become JSON escapes: \udce9
        beside.write_text(text + "\n", encoding="utf-8", errors="backslashreplace", newline="\n")


def read_json(path):
    """A JSON object from a file. Raises TinyllmError if it is missing or damaged."""
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
