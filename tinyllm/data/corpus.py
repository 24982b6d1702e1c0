"""Text -> one long row of ids -> batches of windows.

A file is one document; a folder stands for all its text files, sorted by path. Documents are bytes, which
should be UTF-8. Your own text is cut once: the first nine tenths are for training, the rest for validation.
Validating on training text would measure memorisation, not learning.
"""

import functools
import hashlib
import re
from itertools import chain, groupby
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tinyllm.checkpoint import safetensors
from tinyllm.checkpoint.files import text_files
from tinyllm.data import formats
from tinyllm.data.conversation import batch_of, shift
from tinyllm.errors import TinyllmError, tell_once
from tinyllm.world import World, problems

# Tokenizing takes many times the memory of the text, so a text is tokenized in parts of a megabyte plus the
# rest of the line. No word is cut, because no word continues after a newline.
PART = re.compile(rb"(?s:.{1,1048576})[^\n]*\n*")


def load(path, seed, characters):
    """(training, validation) documents, from a file or folder, or from the built-in world if path is ""."""
    return split(read(path)) if path else of_the_world(seed, characters)


@functools.lru_cache(maxsize=1)
def of_the_world(seed, characters):
    """The documents of the built-in world. They stay in memory for the next stage."""
    world = World(seed)
    return world.documents("train", characters), world.documents("val", min(characters // 40, 100_000))


def load_conversations(path, seed, count):
    """(training, held-out) conversations, from an instruction file or from the built-in world.
    count: how many training conversations the world makes."""
    if path:
        return formats.split(formats.instructions(path))
    world, splits = World(seed), (("train", count), ("val", 300))
    return tuple([task.messages for task in world.instructions(split, size)] for split, size in splits)


def conversations_for_vocabulary(seed):
    """Messages of the built-in world, as documents to learn the vocabulary from: many of their words do not
    occur in the world's texts."""
    world = World(seed)
    tasks = world.instructions("train", 4000)
    tasks += [task for kind in problems.KINDS for task in world.problems("train", 500, kind=kind)]
    return [f" {message['content']}".encode() for task in tasks for message in task.messages]


def read(path):
    """A file, or the text files of a folder -> list of documents (bytes). Bytes that are not UTF-8 are kept,
    and a message says so. Raises TinyllmError if there is nothing to read, and OSError if reading fails."""
    path, documents = Path(path), []
    for file in text_files(path):
        document = file.read_bytes()
        try:
            document.decode()
        except UnicodeDecodeError:
            tell_once(f"{file} is not UTF-8, but is used as it is. If samples look wrong, save it as UTF-8")
        if document.strip():
            documents.append(document)
    if not documents:
        problem = "holds no text" if path.exists() else "not found"
        raise TinyllmError(f"{path} {problem}: TEXT= takes a text file in UTF-8, or a folder of such files")
    return documents


def split(documents, share=0.1):
    """(training, validation) documents: the last `share` of all bytes is for validation."""
    left = int(sum(map(len, documents)) * (1 - share))
    training, validation = [], []
    for document in documents:
        cut = max(0, min(len(document), left))
        for _ in range(3):  # do not cut inside a UTF-8 character, which has up to 4 bytes
            if 0 < cut < len(document) and document[cut] & 0xC0 == 0x80:
                cut -= 1
        left -= len(document)
        training += [document[:cut]] if cut else []
        validation += [document[cut:]] if cut < len(document) else []
    return training, validation


def packed(path, source, seed, characters, tokenizer):
    """The training text of a source as one row of ids, or an empty row if there is no source. The text is
    tokenized once per run, and the ids are kept in the file `path`."""
    if source is None:
        return np.zeros(0, np.int32)
    decisive = [source["sha256"], seed, characters, tokenizer.merges]
    key = hashlib.sha256(repr(decisive).encode()).hexdigest()
    tensors, notes = safetensors.read(path) if path.exists() else ({}, {})
    if notes.get("key") != key:
        training, _ = load(source["path"], seed, characters)
        tensors = {"ids": pack(training, tokenizer)}
        safetensors.write(path, tensors, {"key": key})
    return tensors["ids"]


def pack(documents, tokenizer):
    """Documents -> one row of ids, each document between a begin and an end token. Shows progress."""

    def rows():
        for document in documents:
            yield [tokenizer.special["<|begin|>"]]
            for part in PART.findall(document):
                yield tokenizer.encode(part)
                bar.update(len(part))
            yield [tokenizer.special["<|end|>"]]

    size = sum(map(len, documents))
    with tqdm(total=size, unit="B", unit_scale=True, desc=" tokenizing", leave=False, delay=2) as bar:
        return np.fromiter(chain.from_iterable(rows()), np.int32)


def encode_opening(tokenizer, text):
    """The ids of a text at the beginning of a document of the built-in world, where documents begin with a
    space."""
    return [tokenizer.special["<|begin|>"], *tokenizer.encode(f" {text}")]


def windows(ids, length, rows, step, seed):
    """The batch of a step: {"ids", "targets", "weights"}, each (rows, length).

    Each epoch cuts the ids into disjoint windows, beginning at a new random offset, and visits them in random
    order. The batch depends only on (seed, step), so there is no state to save. Raises TinyllmError for text
    shorter than one window.
    """
    if len(ids) <= length:
        raise TinyllmError(
            f"the text has {len(ids)} tokens, but one window needs {length + 1}: use more text "
            "(with make mine: more questions, or TEXT=), or a smaller --context in stage 0"
        )
    count = max(1, (len(ids) - 1) // length - 1)
    starts = []
    for i in range(step * rows, (step + 1) * rows):
        offset, order = _epoch(len(ids) - 1 - count * length, count, seed, i // count)
        starts.append(offset + order[i % count] * length)
    return shift(ids[np.array(starts)[:, None] + np.arange(length + 1)])


@functools.lru_cache(maxsize=2)
def _epoch(slack, count, seed, epoch):
    rng = np.random.default_rng([seed, epoch])
    return rng.integers(0, slack + 1), rng.permutation(count)


def document_rows(ids, length):
    """Packed documents -> [(ids, mask)]: each document is cut, from its beginning, into rows of at most
    length + 1 ids. Every token except the begin token is a target exactly once."""
    documents = np.split(ids, np.flatnonzero(ids == ids[:1])[1:])
    rows = [part[at : at + length + 1] for part in documents for at in range(0, len(part) - 1, length)]
    return [(row, np.ones(len(row), np.float32)) for row in rows]


def every_window(documents, tokenizer, length, rows):
    """All rows from `document_rows`, in batches of at most `rows` rows. The rows of a batch are equally
    long, so no batch has padding, which a masked model would see."""
    windows, batches = document_rows(pack(documents, tokenizer), length), []
    for _, same in groupby(sorted(windows, key=lambda row: len(row[0])), key=lambda row: len(row[0])):
        same = list(same)
        batches += [batch_of(same[at : at + rows]) for at in range(0, len(same), rows)]
    return batches
