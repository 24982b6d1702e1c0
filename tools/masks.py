"""Which tokens may come next, when a model that writes tokens must write what a grammar allows.

    masks = Masks(grammar, [b"a", b"{", b'{"', ...], end=511)
    masks.allowed(grammar.start, room=40)       bytes, one per token: 1 where it may come

A token may come if all its bytes may, one after the other, and if the shortest way to an end from there still
fits: `room` counts the tokens that may still be written, the end token among them. Every single byte is a
token, so the bytes of the shortest way are tokens enough, and a text that keeps to the mask always closes.

The plain way is to walk the tokens as a trie from each thread of a state. Three places would be slow so:
    strings   nearly every token may come: how one moves the automaton of strings is worked out once for a
              vocabulary, what remains are the tokens that close the quote and go on
    keys      likewise, but for tokens that follow a name that may not come twice
    numbers   one walk serves all numbers with digits in the same places
Sets of tokens are Python integers, one bit for each."""

import re
from bisect import bisect_right
from collections import defaultdict
from functools import lru_cache, reduce
from math import inf
from operator import or_

from tools.alternatives import ANY, string_costs
from tools.grammar import QUOTE, Grammar, Key, Number, String
from tools.numbers import REACH, likeness

NUMBER = re.compile(rb"[-+.e0-9]*", re.I)
TWO_KEYS = re.compile(rb'".*,"', re.S)
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
        tokens = [(id, token) for id, token in enumerate(vocabulary) if token and id != end]
        far = lambda token: NUMBER.match(token).end() > REACH
        self.trie = trie_of(tokens)
        self.short = trie_of((id, token) for id, token in tokens if not far(token))
        self.long = trie_of((id, token) for id, token in tokens if far(token))
        self.two_keys = sum(1 << id for id, token in tokens if TWO_KEYS.search(token))
        self.options = lru_cache(MOST_REMEMBERED)(self._options)
        self.inside_number = lru_cache(MOST_REMEMBERED)(lambda number: self._walk(number, self.short))
        self._inside, self._spread = {}, lru_cache(MOST_REMEMBERED)(self._as_bytes)

    def allowed(self, state, room):
        """One byte for each token, 1 where it may come with `room` tokens left, this one and the end token
        included."""
        needs, sets = self.options(state)
        at = bisect_right(needs, room)
        return self._spread(sets[at - 1] if at else 0)

    def after(self, state, token, depth=0):
        """The state behind a token, of which `depth` bytes are written already."""
        for byte in self.vocabulary[token][depth:]:
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
        for head, frames in state:
            if isinstance(head, Number):
                number = head._replace(text=likeness(head.text, head.bounds))
                add(found, self.inside_number((number, frames)))
                add(found, self._walk((head, frames), self.long))
            else:
                add(found, self._walk((head, frames), self.trie))
        found.pop(inf, None)
        needs, sets, union = sorted(found), [], 0
        for need in needs:
            union |= found[need]
            sets.append(union)
        return needs, sets

    def _walk(self, thread, node, depth=0):
        """A thread and the trie of what follows `depth` bytes of tokens -> {room needed: tokens}."""
        if isinstance(thread[0], String):
            return self._string(*thread, node, depth)
        if isinstance(thread[0], Key):
            return self._key(*thread, node, depth)
        found = defaultdict(int)
        for byte, child in node[0].items():
            self._go(self.grammar.step(frozenset([thread]), byte), child, depth + 1, found)
        return found

    def _go(self, state, node, depth, found):
        """Adds the tokens that end at a node of the trie, with the automaton in a state, and beyond it."""
        for thread in state:
            if node[1]:
                found[2 + self.grammar.far(thread)] |= node[1]
            if node[0]:
                add(found, self._walk(thread, node, depth))

    def _string(self, head, frames, node, depth):
        """The tokens that stay in a string, by the table; those that close it, by walking on behind the
        quote."""
        found, (stay, close) = defaultdict(int), self.inside(head.shape.pattern or ANY, head.state, node)
        costs, behind = string_costs(head.shape), self.grammar.far(frames) if frames else 0
        most = head.shape.low if head.shape.high == inf else inf
        for (state, chars), tokens in stay.items():
            cost = costs.get((state, min(head.count + chars, most)))
            if cost is not None:
                found[2 + cost + behind] |= tokens
        closed = self.grammar.behind(frames)
        for (state, chars), child in close.items():
            if costs.get((state, min(head.count + chars, most))) == 1:
                self._go(closed, child, depth + 1, found)
        return found

    def _key(self, head, frames, node, depth):
        """As in a string, by a name that stands for all that are neither declared nor used nor needed. Tokens
        that follow one of those names, or may hold a second key, are tried one by one."""
        found, (names, plain, _) = defaultdict(int), self.grammar.special(head.frame)
        exact = along([name[len(head.text) :] for name in names if name.startswith(head.text)], node)
        exact |= self.two_keys & (all_of(node) if depth and self.two_keys else -1)
        thread = lambda state: (head._replace(text=plain, state=state), frames)
        stay, close = self.inside(ANY, head.state, node)
        for (state, _), tokens in stay.items():
            found[2 + self.grammar.far(thread(state))] |= tokens
        closed = self.grammar.step(frozenset([thread(0)]), QUOTE)
        for _, child in close.items():
            self._go(closed, child, depth + 1, found)
        for need in found:
            found[need] &= ~exact
        for token in ones(exact):
            after = self.after(frozenset([(head, frames)]), token, depth)
            found[2 + self.grammar.distance(after)] |= 1 << token
        return found

    def inside(self, pattern, state, node):
        """-> ({(state, characters): tokens that lead there within the string},
        {(state, characters): trie of what follows a quote there})."""
        key = pattern, state, id(node)
        if key not in self._inside:
            stay, close = defaultdict(int), {}
            table, final = pattern.bytes(), pattern.final
            todo = [(node, state, 0)]
            while todo:
                parent, at, chars = todo.pop()
                for byte, child in parent[0].items():
                    move = table[at].get(byte)
                    if move:
                        there = move[0], chars + move[1]
                        if child[1]:
                            stay[there] |= child[1]
                        todo.append((child, *there))
                    elif byte == QUOTE and at in final:
                        close[at, chars] = joined(close[at, chars], child) if (at, chars) in close else child
            self._inside[key] = stay, close
        return self._inside[key]


def trie_of(tokens):
    """(id, bytes) pairs -> [children by byte, the tokens that end here], the same for every child."""
    root = [{}, 0]
    for id, token in tokens:
        node = root
        for byte in token:
            node = node[0].setdefault(byte, [{}, 0])
        node[1] |= 1 << id
    return root


def joined(a, b):
    """Two tries as one."""
    children = {**a[0], **b[0]}
    for byte in a[0].keys() & b[0].keys():
        children[byte] = joined(a[0][byte], b[0][byte])
    return [children, a[1] | b[1]]


def all_of(node):
    """The tokens of a trie."""
    return reduce(or_, map(all_of, node[0].values()), node[1])


def along(names, node):
    """The tokens that spell the beginning of one of the names, or all of it, a quote and more."""
    found = 0
    for byte, child in node[0].items():
        if byte == QUOTE and b"" in names:
            found |= all_of(child)
        elif rest := [name[1:] for name in names if name and name[0] == byte]:
            found |= child[1] | along(rest, child)
    return found


def ones(tokens):
    """The ids in a set of tokens."""
    while tokens:
        last = tokens & -tokens
        yield last.bit_length() - 1
        tokens ^= last


def add(found, more):
    for need, tokens in more.items():
        found[need] |= tokens
