"""The alternatives that shapes.py makes of a schema: one kind of value each, with all that is asked of it.

    Words(null, true, false)   Bounds(numbers: numbers.py)   Text   Array   Object

Two of them meet in what both allow, or not at all."""

import json
from functools import lru_cache
from itertools import product
from math import inf
from typing import NamedTuple

from tools.dialect import UnsupportedSchema
from tools.numbers import Bounds
from tools.pattern import LAST, Pattern


class Words(NamedTuple):
    """null, true, false: some of them."""

    values: frozenset


class Text(NamedTuple):
    """Strings: `words` are all there may be, where it is not None."""

    pattern: Pattern | None = None
    low: int = 0
    high: float = inf
    words: frozenset | None = None


class Array(NamedTuple):
    prefix: tuple = ()
    rest: frozenset = frozenset()
    low: int = 0
    high: float = inf
    unique: bool = False


class Object(NamedTuple):
    """names: ((name, node, required), ...) in the order of their declaration; `rest` is the node of all other
    keys, of which `needed` must be there."""

    names: tuple = ()
    rest: frozenset = frozenset()
    low: int = 0
    high: float = inf
    needed: frozenset = frozenset()


WHOLE = {
    "null": Words(frozenset([None])),
    "boolean": Words(frozenset([True, False])),
    "number": Bounds(),
    "string": Text(),
    "array": Array(),
    "object": Object(),
}


def key_bytes(name):
    """A string in canonical JSON."""
    return json.dumps(name, ensure_ascii=False).encode()


def parts(shape):
    """The nodes inside an alternative."""
    if isinstance(shape, Array):
        return [*shape.prefix, shape.rest]
    return [*(node for _, node, _ in shape.names), shape.rest] if isinstance(shape, Object) else []


def others(kind):
    return [shape for name, shape in WHOLE.items() if name != kind]


def short_names(taken):
    """Names that are not taken, the shortest first."""
    plain = [chr(c) for c in range(32, 127) if chr(c) not in '"\\']
    for length in range(4):
        for chars in product(plain, repeat=length):
            if "".join(chars) not in taken:
                yield "".join(chars)


def meet(a, b):
    """What two alternatives have in common, or None."""
    if type(a) is not type(b):
        return None
    if isinstance(a, Words):
        values = a.values & b.values
        return Words(values) if values else None
    if isinstance(a, Bounds):
        return a & b
    low, high = max(a.low, b.low), min(a.high, b.high)
    if low > high:
        return None
    if isinstance(a, Text):
        pattern = a.pattern and b.pattern and both(a.pattern, b.pattern) or a.pattern or b.pattern
        words = a.words if b.words is None else b.words if a.words is None else a.words & b.words
        if words is not None:
            words = frozenset(
                w for w in words if low <= len(w) <= high and (not pattern or pattern.matches(w))
            )
        return None if words == frozenset() else Text(pattern, low, high, words)
    if isinstance(a, Array):
        longer = max(len(a.prefix), len(b.prefix))
        at = lambda shape, i: shape.prefix[i] if i < len(shape.prefix) else shape.rest
        prefix = tuple(at(a, i) | at(b, i) for i in range(longer))
        return Array(prefix, a.rest | b.rest, low, high, a.unique or b.unique)
    mine = {name: (node, required) for name, node, required in a.names}
    theirs = {name: (node, required) for name, node, required in b.names}
    names = []
    for name in {**mine, **theirs}:
        ours, its = mine.get(name, (a.rest, name in a.needed)), theirs.get(name, (b.rest, name in b.needed))
        names.append((name, ours[0] | its[0], ours[1] or its[1]))
    return Object(
        tuple(names), a.rest | b.rest, low, high, (a.needed | b.needed) - {name for name, _, _ in names}
    )


@lru_cache(maxsize=1024)
def both(a, b):
    return a if a is b else a & b


ANY = Pattern(rows=[[(LAST, 0)]], final={0})


@lru_cache(maxsize=1024)
def string_costs(shape):
    """{(state of the byte table, characters done): bytes to behind the closing quote}, where there is a way.
    Characters are counted up to where the limits no longer care."""
    pattern = shape.pattern or ANY
    table = pattern.bytes()
    most = shape.low if shape.high == inf else shape.high
    if len(table) * (most + 1) > 1_000_000:
        raise UnsupportedSchema("minLength or maxLength is too large for a grammar: make it smaller")
    before = [set() for _ in table]
    for state, row in enumerate(table):
        for target, chars in set(row.values()):
            before[target].add((state, chars))
    costs = dict.fromkeys(((s, n) for s in pattern.final for n in range(shape.low, most + 1)), 1)
    front = list(costs)
    while front:
        nearer = []
        for state, count in front:
            for source, chars in before[state]:
                counts = [count - chars]
                if shape.high == inf and chars and count == most:
                    counts.append(count)
                for earlier in counts:
                    if earlier >= 0 and (source, earlier) not in costs:
                        costs[source, earlier] = costs[state, count] + 1
                        nearer.append((source, earlier))
        front = nearer
    costs.setdefault((0, 0), inf)
    return costs
