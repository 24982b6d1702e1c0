"""How long a token mask takes: `make bench`, or run this file alone.

The masks are for the tools of tools/builtin.py and a tool with nested arguments, with vocabularies of 512 and
of 32,000 tokens (the latter with all numbers of up to three digits, as in large models). Tokens are drawn
from the masks at random, so many states of the grammar are new. Then the same calls are written again, with
warm caches.
"""

import gc
import pydoc_data.topics
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tinyllm import tokenizer
from tools.builtin import TOOLS
from tools.grammar import Grammar
from tools.masks import Masks
from tools.protocol import CLOSE, OPEN
from tools.registry import Registry, Tool

BOOKING = {
    "type": "object",
    "required": ["guests", "room"],
    "additionalProperties": False,
    "properties": {
        "guests": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
            },
        },
        "room": {"enum": ["single", "double", "suite"]},
        "price": {"type": "number", "exclusiveMinimum": 0},
        "nights": {"type": "integer", "minimum": 1, "maximum": 30},
        "extras": {"oneOf": [{"type": "string"}, {"type": "null"}]},
    },
}
PERCENTILES = (0.5, 0.99, 0.999, 1)  # 1 is the slowest mask


def vocabulary(size):
    """Bytes, numbers of up to three digits (if large), and merges learned from Python's own manual."""
    text = "".join(pydoc_data.topics.topics.values())
    tokens = [bytes([b]) for b in range(256)]
    if size > 2000:
        tokens += [str(n).zfill(digits).encode() for digits in (2, 3) for n in range(10**digits)]
    merged = tokenizer.train([text], min(size, 4096)).bytes_of
    seen = set(tokens)
    words = [w.encode() for w in dict.fromkeys(text.replace("\n", " ").split(" ")) if w]
    pieces = [*merged, *(b" " + w for w in words), *words, *(w[:n] for n in range(2, 9) for w in words)]
    tokens += [piece for piece in dict.fromkeys(pieces) if piece and piece not in seen]
    return [*tokens[: size - 1], b""]


def write(masks, dice, room=150):
    """-> (seconds of each mask, the tokens written)."""
    state, times, tokens = masks.grammar.start, [], []
    while True:
        began = time.process_time()
        mask = masks.allowed(state, room)
        times.append(time.process_time() - began)
        token, room = dice.choice([id for id, may in enumerate(mask) if may]), room - 1
        if token == masks.end:
            return times, tokens
        tokens.append(token)
        state = masks.after(state, token)


def measure(size, calls=100):
    """-> (seconds per mask, ascending; the same when the same calls are written again).

    As many other calls are written first, to warm up the caches. The measured calls still reach new states.
    """
    registry = Registry([*TOOLS, Tool("book", "Book a room.", BOOKING, lambda **arguments: None)])
    words = vocabulary(size)
    masks = Masks(Grammar(registry.schema(), OPEN.encode(), CLOSE.encode()), words, len(words) - 1)
    for seed in range(calls):
        write(masks, random.Random(calls + seed))
    gc.freeze()  # otherwise garbage collection scans the vocabulary again and again in between
    seconds = lambda: sorted(t for seed in range(calls) for t in write(masks, random.Random(seed))[0])
    return seconds(), seconds()


def main():
    for size in (512, 32_000):
        for name, times in zip(("new, similar calls", "the same calls again"), measure(size)):
            last = len(times) - 1
            median, p99, p999, worst = (times[min(int(p * len(times)), last)] * 1e6 for p in PERCENTILES)
            print(
                f"{size:6} tokens, {name:24} microseconds per mask: median {median:.1f}, "
                f"99 % {p99:.1f}, 99.9 % {p999:.1f}, worst {worst:.1f}"
            )


if __name__ == "__main__":
    main()
