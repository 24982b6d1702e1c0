"""How long a token mask takes. `make bench` runs this file, which can also be run alone.

The masks are for calls to the tools in tools/builtin.py and to a tool with nested arguments. There are two
vocabularies: one has 512 tokens, and the other has 32,000, among them all numbers of up to three digits, as
in large models. Each token is drawn at random from those that the mask allows, so the grammar often reaches
states whose masks are not cached yet. Then the same calls are written again, now with all masks cached.
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
    """All bytes, numbers of up to three digits if size > 2000, and pieces of words from Python's manual."""
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
    """Writes one call -> (seconds for each mask, tokens of the call)."""
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
    """Writes the same calls twice -> the seconds for each mask, in ascending order: (the first time,
    the second time).

    The same number of other calls is written first, to warm up the caches. The measured calls still reach
    states whose masks are not cached.
    """
    registry = Registry([*TOOLS, Tool("book", "Book a room.", BOOKING, lambda **arguments: None)])
    words = vocabulary(size)
    masks = Masks(Grammar(registry.schema(), OPEN.encode(), CLOSE.encode()), words, len(words) - 1)
    for seed in range(calls):
        write(masks, random.Random(calls + seed))
    gc.freeze()  # otherwise garbage collection would scan the vocabulary again and again
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
