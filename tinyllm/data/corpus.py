"""Text -> one long row of ids -> batches of windows.

A file is a document; a folder is all its text files in the order of their names. Documents are bytes:
nothing is ever undecodable. They are cut once, by length: the first nine tenths to train on, the rest
to measure with, and never the other way round.
"""

import functools
from pathlib import Path

import numpy as np

from tinyllm.conversation import pad, shift
from tinyllm.world import World, problems

CHARACTERS = {"nano": 500_000, "small": 6_000_000, "base": 20_000_000}               # of the built-in world


class CorpusError(Exception):
    """The text cannot be used: the message says why and what to do."""


def load(settings):
    """(training, validation) documents of a run: those of --text, or of the built-in world of its seed."""
    if settings.text:
        return split(read(settings.text))
    world, size = World(settings.seed), CHARACTERS[settings.size]
    return world.documents("train", size), world.documents("val", min(size // 40, 100_000))


def spoken(settings):
    """What people say in the built-in world, for the vocabulary: none for other texts."""
    if settings.text:
        return []
    world = World(settings.seed)
    tasks = world.instructions("train", 4000)
    tasks += [task for kind in problems.KINDS for task in world.problems("train", 500, kind=kind)]
    return [f" {message['content']}".encode() for task in tasks for message in task.messages]


def read(path):
    """File or folder -> list of documents (bytes). Hidden files and files with NUL bytes are not text.

    Raises CorpusError where there is nothing to read.
    """
    path = Path(path)
    if not path.exists():
        raise CorpusError(f"{path} not found: TEXT= takes a text file or a folder of text files")
    hidden = lambda file: any(part.startswith(".") for part in file.relative_to(path).parts)
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file() and not hidden(p))
    try:
        documents = [file.read_bytes() for file in files]
    except OSError as error:
        raise CorpusError(f"{error.filename} cannot be read: {error.strerror}") from None
    if path.is_dir():
        documents = [d for d in documents if b"\0" not in d[:8192]]
    documents = [d for d in documents if d.strip()]
    if not documents:
        raise CorpusError(f"{path} holds no text" if path.is_dir() else f"{path} is empty")
    return documents


def split(documents, share=0.1):
    """(training, validation) documents: the last `share` of all bytes is for validation, in one piece."""
    total = sum(map(len, documents))
    left = int(total * (1 - share))
    training, validation = [], []
    for document in documents:
        cut = max(0, min(len(document), left))
        for _ in range(3):                                  # not inside a UTF-8 character of up to 4 bytes
            if 0 < cut < len(document) and document[cut] & 0xC0 == 0x80:
                cut -= 1
        left -= len(document)
        training += [document[:cut]] if cut else []
        validation += [document[cut:]] if cut < len(document) else []
    return training, validation


def pack(documents, tokenizer):
    """Documents -> one row of ids, each document between a begin and an end token."""
    begin, end = tokenizer.special["<|begin|>"], tokenizer.special["<|end|>"]
    return np.array([i for d in documents for i in (begin, *tokenizer.encode(d), end)], np.int32)


def opening(tokenizer, text):
    """The ids of one of the world's documents, as far as `text` goes: they all begin with a space."""
    return [tokenizer.special["<|begin|>"], *tokenizer.encode(f" {text}")]


def window(settings, context):
    """Tokens of a sequence to train on: the context for a text of one's own. The world's documents have fewer
    than 128, and attention costs less in short windows."""
    return context if settings.text else min(context, 128)


def windows(ids, context, rows, step, seed):
    """The batch of a step: `rows` windows of `context` ids -> (ids, targets, weights), each (rows, context).

    An epoch visits disjoint windows in random order, with another offset each time. Everything follows
    from (seed, step), so there is no state to save. Raises CorpusError for a text shorter than a window.
    """
    if len(ids) <= context:
        raise CorpusError(f"the text has {len(ids)} tokens, one context needs {context + 1}: "
                          "use more text or a smaller --context")
    count = max(1, (len(ids) - 1) // context - 1)
    starts = []
    for i in range(step * rows, (step + 1) * rows):
        offset, order = _epoch(len(ids) - 1 - count * context, count, seed, i // count)
        starts.append(offset + order[i % count] * context)
    return shift(ids[np.array(starts)[:, None] + np.arange(context + 1)])


@functools.lru_cache(maxsize=2)
def _epoch(slack, count, seed, epoch):
    rng = np.random.default_rng([seed, epoch])
    return rng.integers(0, slack + 1), rng.permutation(count)


def every_window(documents, tokenizer, context, rows):
    """Batches of at most `rows` windows (ids, targets, weights): each document from its beginning, each token
    a target exactly once. What fills up a shorter window has weight 0."""
    windows = []
    for document in documents:
        ids = pack([document], tokenizer)
        windows += [ids[at:at + context + 1] for at in range(0, len(ids) - 1, context)]
    windows.sort(key=len)
    return [shift(*pad([(window, 1) for window in windows[at:at + rows]]))
            for at in range(0, len(windows), rows)]
