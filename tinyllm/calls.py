"""Make any model write valid tool calls: a mask decides which tokens may come next in a reply.

A reply has a maximum number of tokens. Outside a call the model may write anything, except "<" when there is
little room left. Once the model has written "<tool", it may choose only tokens that the grammar of the tools
allows. So it has to complete the tag, then the call, in the room that is left. The model needs no training
for this: even a random model writes valid calls, though odd ones.
"""

from functools import reduce

import numpy as np

from tinyllm.data.conversation import format_of
from tools.grammar import Grammar
from tools.masks import Masks
from tools.protocol import CLOSE, OPEN, beginning

TAG, BEGUN = OPEN.encode(), 5  # after this many bytes of the tag, the tag must be completed
ENDING = 40  # bytes of trailing text kept to recognise a tag: enough if tokens are shorter than 30 bytes


class CallMask:
    """The `mask` argument of sampling.generate, for one model and one set of tools.

    A reply cannot begin a call when there is no room left to complete the call.

    only: every reply is exactly one call.
    """

    def __init__(self, tokenizer, registry, only=False):
        self.end, self.only = tokenizer.special["<|end|>"], only
        special = set(tokenizer.special.values())
        self.vocabulary = [b"" if i in special else text for i, text in enumerate(tokenizer.bytes_of)]
        self.size = len(self.vocabulary)
        # Masks need a token for every byte. Missing tokens are appended, but the model cannot choose them.
        single = {token[0] for token in self.vocabulary if len(token) == 1}
        self.vocabulary += [bytes([byte]) for byte in range(256) if byte not in single]
        before = format_of(tokenizer.special).space.encode() + TAG if only else TAG
        self.masks = Masks(Grammar(registry.schema(), before, CLOSE.encode()), self.vocabulary, self.end)
        self.start = self.masks.grammar.start
        self.need = 1 + self.masks.grammar.distance(self.start)  # enough tokens for the shortest call
        # A call may begin if more tokens than this are left.
        self.limit = self.need if only else self.need + ENDING
        self.cannot_open = np.array([b"<" not in token for token in self.vocabulary[: self.size]])
        self.rows = {}  # row -> state and text (see _after), and how many tokens have been read

    def __call__(self, row, written, room):
        """The ids of a reply so far, and how many more may follow -> the tokens that may come next: booleans
        (V,), or None if all may. If there are no ids yet, a new reply begins in this row of the batch."""
        if not len(written):
            self.rows[row] = self.start if self.only else None, b"", 0
        state, text, done = self.rows[row]
        for token in written[done:].tolist():
            state, text = self._after(state, text, token)
        self.rows[row] = state, text, len(written)
        if state is not None:
            return np.frombuffer(self.masks.allowed(state, room), bool)[: self.size]
        return None if room > self.limit else self.cannot_open

    def _after(self, state, text, token):
        """One more token -> (state, text). state: the grammar's state, None outside a call; text: the last
        bytes written outside calls."""
        if state is not None:
            state = self.masks.after(state, token)
            if not self.only and self.masks.grammar.complete(state):
                return None, b""
            return state, text
        text = (text + self.vocabulary[token])[-ENDING:]
        _, tag, arguments = text.rpartition(TAG)
        begun = tag + arguments if tag else TAG[: beginning(text, TAG)]
        if len(begun) >= BEGUN:
            state = reduce(self.masks.grammar.step, begun, self.start)
        return state, text
