"""Which tokens may come next if a model's text must obey a grammar of bytes.

    masks = Masks(grammar, [b"a", b"{", b'{"', ...], end=511)
    masks.allowed(grammar.start, room=40)       bytes, one per token: 1 if it is allowed

A token is allowed if the grammar allows its bytes one after the other, and if the shortest completion still
fits: `room` is the number of tokens that may still be written, including the end token. Every single byte is
a token, so a completion never needs more tokens than bytes, and text that obeys the mask can always be
completed. tinyllm/calls.py applies the masks to a model.

The vocabulary is walked as one trie, one terminal of the grammar (see terminals.py) after the other. A
terminal and a node of the trie determine two things: the tokens that end inside the terminal, and a trie of
what may follow when the terminal is complete. The walk goes on from that trie with the grammar's next
terminal. These results depend on nothing else, so they are cached. Sets of tokens are Python integers with
one bit per token."""

from bisect import bisect_right
from collections import defaultdict
from functools import lru_cache, reduce
from itertools import accumulate
from math import inf
from operator import or_

from tools.terminals import BETWEEN, QUOTE, Text, following

REMEMBERED = 4096


class Node:
    """A trie of tokens: children by byte, and the set of tokens that end here."""

    def __init__(self):
        self.children, self.tokens = {}, 0


def joined(nodes):
    """Joins several tries into one."""
    nodes, both, children = [*nodes], Node(), defaultdict(list)
    if len(nodes) == 1:
        return nodes[0]  # the same object, so that its cached results are found again
    for node in nodes:
        both.tokens |= node.tokens
        for byte, child in node.children.items():
            children[byte].append(child)
    both.children = {byte: joined(same) for byte, same in children.items()}
    return both


class Masks:
    """Token masks for one grammar and one vocabulary.

    vocabulary holds the bytes of each token, b"" for tokens that are never text; `end` is the id of the token
    that ends a reply. Raises ValueError if any byte has no token: a completion could then be impossible.
    """

    def __init__(self, grammar, vocabulary, end):
        self.grammar, self.vocabulary, self.end = grammar, vocabulary, end
        missing = {*range(256)} - {token[0] for token in vocabulary if len(token) == 1}
        if missing:
            raise ValueError(f"the vocabulary has no token for byte {min(missing)}: masks need all 256 bytes")
        self.root, self.longest = Node(), max(map(len, vocabulary))
        for id, token in enumerate(vocabulary):
            node = self.root
            for byte in token:
                node = node.children.setdefault(byte, Node())
            node.tokens |= (id != end) << id
        remember = lru_cache(REMEMBERED)
        self.options, self.spread = remember(self._options), remember(self._spread)
        self.inside, self.beyond = remember(self._inside), remember(self._beyond)
        self.characters = remember(self._characters)
        # The results for strings take the longest to compute, because strings allow nearly all tokens. They
        # are computed now, so that the first reply does not have to wait for them.
        for left in {BETWEEN, *following(BETWEEN).values()}:
            self.inside(Text(left, 0, inf), self.root)
        self.inside(Text(BETWEEN, 0, inf), self.root.children[QUOTE])

    def allowed(self, state, room):
        """One byte per token: 1 if it is allowed with `room` tokens left, including this one and the end
        token."""
        needs, sets = self.options(state)
        at = bisect_right(needs, room)
        return self.spread(sets[at - 1] if at else 0)

    def after(self, state, token):
        """The state after a token."""
        return reduce(self.grammar.step, self.vocabulary[token], state)

    def _spread(self, tokens):
        bits = bin(tokens | 1 << len(self.vocabulary))[:2:-1]
        return bits.encode().translate(bytes.maketrans(b"01", b"\0\1"))

    def _options(self, state):
        """A state -> (amounts of room, ascending; the tokens that each amount allows)."""
        by_need = defaultdict(int)
        if None in state:
            by_need[1] = 1 << self.end
        for more, tokens in self.walk(state, self.root):
            by_need[more + 2] |= tokens
        needs = sorted(by_need)
        return needs, [*accumulate((by_need[need] for need in needs), or_)]

    def walk(self, state, node):
        """A state and a trie -> pairs of (n, the tokens after which the shortest completion has n bytes)."""
        for item, rest, _ in filter(None, state):
            if isinstance(item, Text) and item.high > self.longest:  # no token can reach this limit
                item = item._replace(high=inf)
            stay, follow = self.inside(item, node)
            after = rest.far if rest else 0
            yield from ((more + after, tokens) for more, tokens in stay.items())
            if follow.children:
                yield from self.beyond(rest, follow)

    def _beyond(self, rest, node):
        return [*self.walk(self.grammar.closed([rest]), node)]

    def _inside(self, item, node):
        """A terminal and a trie -> ({n: the tokens after which the terminal needs at least n more bytes}, the
        trie of the continuations after the terminal)."""
        stay, follow, todo = defaultdict(int), [], [(item, node)]
        if isinstance(item, Text):
            within, closing = self.characters(item.character, node)
            for (character, begun), tokens in within.items():
                if begun <= item.high:
                    stay[Text(character, max(item.low - begun, 0), inf).far()] |= tokens
            follow = joined(child for begun, child in closing.items() if item.low <= begun <= item.high)
            return {**stay, 0: follow.tokens}, follow
        while todo:
            item, node = todo.pop()
            for byte, left in item.moves().items():
                child = node.children.get(byte)
                if child:
                    more = left.far()
                    stay[more] |= child.tokens
                    if child.children:
                        todo.append((left, child))
                        follow += [child] * (more == 0)
        return stay, joined(follow)

    def _characters(self, character, node):
        """The possible endings of a character, and a trie -> ({(the endings after a token, the number of
        characters begun by then): tokens}, {the number of characters begun before a quote: the trie after the
        quote})."""
        within, closing, todo = defaultdict(int), defaultdict(list), [(character, node, 0)]
        while todo:
            character, node, begun = todo.pop()
            moves, begins = following(character), character is BETWEEN
            if begins and QUOTE in node.children:
                closing[begun].append(node.children[QUOTE])
            for byte in moves.keys() & node.children.keys():
                left, child = (moves[byte], begun + begins), node.children[byte]
                within[left] |= child.tokens
                todo.append((left[0], child, left[1]))
        return within, {begun: joined(nodes) for begun, nodes in closing.items()}
