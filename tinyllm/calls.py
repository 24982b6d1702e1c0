"""Which tokens a model may write, so that its calls are valid: tools.masks for our tokenizer."""

import numpy as np

from tools.grammar import Grammar
from tools.masks import Masks
from tools.protocol import CLOSE, OPEN


class CallMask:
    """The `mask` of sampling.generate for one model and one set of tools.

    `budget` holds the tokens that each row may write. `only`: a reply is one call and nothing else. A reply
    that would have no room for a call cannot begin one."""

    def __init__(self, tokenizer, registry, budget, only=False):
        self.end, self.budget, self.only = tokenizer.special["<|end|>"], budget, only
        self.vocabulary = [*tokenizer.bytes_of[: tokenizer.ordinary], *[b""] * len(tokenizer.special)]
        before = b" " + OPEN.encode() if only else b""
        self.masks = Masks(Grammar(registry.schema(), before, CLOSE.encode()), self.vocabulary, self.end)
        self.start = self.masks.grammar.start
        self.need = 1 + self.masks.grammar.distance(self.start)
        # A token with ">" may be the last of the tag: without room for a call none of them may come.
        self.quiet = np.array([b">" not in token for token in self.vocabulary])
        self.rows = {}

    def __call__(self, row, written):
        state, text, done = self.rows.get(row, (self.start if self.only else None, b"", 0))
        for token in written[done:].tolist():
            if state is not None:
                state = self.masks.after(state, token)
                if not self.only and self.masks.grammar.complete(state):
                    state, text = None, b""
            else:
                text = (text + self.vocabulary[token])[-40:]
                _, tag, begun = text.rpartition(OPEN.encode())
                if tag:
                    state = self.start
                    for byte in begun:
                        state = self.masks.grammar.step(state, byte)
        self.rows[row] = state, text, len(written)
        room = self.budget[row] - len(written)
        if state is not None:
            return np.frombuffer(self.masks.allowed(state, room), bool)
        return None if room > self.need + 40 else self.quiet
