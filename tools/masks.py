"""Which tokens may come next, when a model that writes tokens must write what a grammar allows.

    masks = Masks(grammar, [b"a", b"{", b'{"', ...], end=511)
    masks.allowed(grammar.start, room=40)       bytes, one per token: 1 where it may come

A token may come if all its bytes may, one after the other, and if the shortest way to an end from there still
fits: `room` counts the tokens that may still be written, the end token among them. Every single byte is a
token, so the bytes of the shortest way are tokens enough, and a text that keeps to the mask always closes.

Inside a string nearly every token may come. How a token moves the automaton of strings does not depend on
what surrounds the string, so it is worked out once for a vocabulary; what remains for each state are the
tokens that close the quote and go on. Sets of tokens are Python integers, one bit for each."""

from bisect import bisect_right
from collections import defaultdict
from functools import lru_cache
from math import inf

from tools.alternatives import ANY, string_costs
from tools.grammar import QUOTE, Grammar, String

MOST_REMEMBERED = 4096  # states whose masks are kept


class Masks:
    """Token masks for one grammar and one vocabulary.

    vocabulary holds the bytes of each token, b"" for those that are never text; `end` is the id of the token
    that ends a reply. Raises ValueError where a byte is no token: then no way to an end would be certain."""

    def __init__(self, grammar: Grammar, vocabulary, end):
        self.grammar, self.vocabulary, self.end = grammar, vocabulary, end
        missing = set(range(256)) - {token[0] for token in vocabulary if len(token) == 1}
        if missing:
            raise ValueError(f"the vocabulary has no token for the byte {min(missing)}: masks need all 256")
        self.trie = [{}, 0]  # [children by byte, tokens that end here]
        for id, token in enumerate(vocabulary):
            node = self.trie
            for byte in token:
                node = node[0].setdefault(byte, [{}, 0])
            if token and id != end:
                node[1] |= 1 << id
        self.options = lru_cache(MOST_REMEMBERED)(self._options)
        self._inside = {}
        self._spread = lru_cache(MOST_REMEMBERED)(self._as_bytes)

    def allowed(self, state, room):
        """One byte for each token, 1 where it may come with `room` tokens left, this one and the end token
        included."""
        needs, sets = self.options(state)
        at = bisect_right(needs, room)
        return self._spread(sets[at - 1] if at else 0)

    def after(self, state, token):
        """The state behind a token."""
        for byte in self.vocabulary[token]:
            state = self.grammar.step(state, byte)
        return state

    def _as_bytes(self, tokens):
        text = bin(tokens | 1 << len(self.vocabulary))[:2:-1]
        return text.encode().translate(bytes.maketrans(b"01", b"\0\1"))

    def _options(self, state):
        """A state -> (room needed, ascending; the tokens that may come with that room)."""
        found = defaultdict(int)
        if self.grammar.complete(state):
            found[1] |= 1 << self.end
        thread = next(iter(state)) if len(state) == 1 else (None, None)
        if isinstance(thread[0], String):
            self._string(*thread, found)
        else:
            self._walk(state, self.trie, found)
        found.pop(inf, None)
        needs, sets, union = sorted(found), [], 0
        for need in needs:
            union |= found[need]
            sets.append(union)
        return needs, sets

    def _walk(self, state, node, found):
        step, distance = self.grammar.step, self.grammar.distance
        for byte, child in node[0].items():
            after = step(state, byte)
            if after:
                if child[1]:
                    found[2 + distance(after)] |= child[1]
                if child[0]:
                    self._walk(after, child, found)

    def _string(self, head, frames, found):
        """The tokens inside a string: those that stay in it by the table, those that close it by walking on
        behind the quote."""
        stay, close = self.inside(head.shape.pattern or ANY, head.state)
        costs, behind = string_costs(head.shape), self.grammar.far(frames) if frames else 0
        most = head.shape.low if head.shape.high == inf else inf
        for (state, chars), tokens in stay.items():
            cost = costs.get((state, min(head.count + chars, most)))
            if cost is not None:
                found[2 + cost + behind] |= tokens
        closed = self.grammar.behind(frames)
        for (state, chars), node in close.items():
            if costs.get((state, min(head.count + chars, most))) == 1:
                if node[1]:
                    found[2 + self.grammar.distance(closed)] |= node[1]
                self._walk(closed, node, found)

    def inside(self, pattern, state):
        """-> ({(state, characters): tokens that lead there within the string},
        {(state, characters): trie of what follows a quote there})."""
        if (pattern, state) not in self._inside:
            stay, close = defaultdict(int), {}
            table, final = pattern.bytes(), pattern.final
            todo = [(self.trie, state, 0)]
            while todo:
                node, at, chars = todo.pop()
                for byte, child in node[0].items():
                    move = table[at].get(byte)
                    if move:
                        there = move[0], chars + move[1]
                        if child[1]:
                            stay[there] |= child[1]
                        todo.append((child, *there))
                    elif byte == QUOTE and at in final:
                        close[at, chars] = joined(close[at, chars], child) if (at, chars) in close else child
            self._inside[pattern, state] = stay, close
        return self._inside[pattern, state]


def joined(a, b):
    """Two tries as one."""
    children = {**a[0], **b[0]}
    for byte in a[0].keys() & b[0].keys():
        children[byte] = joined(a[0][byte], b[0][byte])
    return [children, a[1] | b[1]]
