"""Which bytes may come next if the text must become JSON that is valid under a schema.

    grammar = Grammar({"type": "integer", "minimum": 10})
    state = grammar.start                      a set of threads: every way to read the text so far
    state = grammar.step(state, ord("1"))      the next state; an empty set if the byte is not allowed
    grammar.distance(state)                    1, the number of bytes in the shortest completion

Without a grammar, a model writes whatever it likes, and a small model rarely closes every bracket. The
grammar supports the keywords that most functions need. It refuses the keywords in NOT_ENFORCED, which only
the validator enforces, unless their value constrains nothing.

The grammar admits only a strict form: no white space, the declared or required properties in order and no
others (so {} if there are none), strings as json.dumps(text, ensure_ascii=False) writes them, integers of up
to 20 digits, decimals of up to 15 digits without an exponent, and up to 64 levels of nesting. Everything that
it admits is valid, and it admits every valid value of this form.

A thread is a linked list of the items still to be written. The first item is a terminal (terminals.py), which
advances byte by byte. The later items may be Parts. A Part stands for a value or the rest of a value. When it
becomes the first item, it is replaced by its alternatives."""

from collections import defaultdict
from functools import lru_cache, reduce
from graphlib import TopologicalSorter
from math import inf
from typing import NamedTuple

from tools.json_reader import MAX_DEPTH
from tools.protocol import compact
from tools.schema import KINDS, TAKES, UnsupportedSchema, check, kind_of, resolve
from tools.terminals import BETWEEN, Text, Words, numbers, remember, word
from tools.validation import fingerprint, is_valid, types_of

LARGEST = 2000  # limit on the number of schemas plus enum values
NOT_ENFORCED = {"pattern", "multipleOf", "uniqueItems", "minProperties", "maxProperties", "allOf", "not"}
IDLE = [("not", False), ("uniqueItems", False), ("minProperties", 0)]  # these constrain nothing
INNER = {"properties", "additionalProperties", "items", "prefixItems"}


# ---- What a schema allows. expand(at, room) yields the alternatives for the rest of a value from index `at`
# on. Each alternative is a tuple of consecutive items. `room` is how many more levels of nesting are allowed.


class Part(NamedTuple):
    shape: object
    at: int
    room: int

    @remember
    def far(self):
        return self.shape.far(self.at, self.room) if self.room >= 0 else inf


class Way(NamedTuple):
    """One alternative of a schema: some bytes, then a terminal, an Array or an Object. `values` holds the
    fingerprints of this alternative's values if all can be listed, as for enum, const, null and booleans."""

    before: bytes
    item: object
    kind: str
    values: frozenset | None = None


class Choice:
    """`ways` holds the alternatives of a schema. `branches` are the Choices for the schemas under $ref, anyOf
    or oneOf; their ways are added to `ways`. costs[room] is the number of bytes in the shortest value with up
    to `room` levels of nesting."""

    def __init__(self):
        self.ways, self.branches, self.costs = [], [], []

    def expand(self, at, room):
        for before, item, _, _ in self.ways:
            yield word(before), Part(item, 0, room - 1) if isinstance(item, (Array, Object)) else item

    def far(self, at, room):
        return self.costs[min(room, len(self.costs) - 1)]


class Array:
    def __init__(self, first, rest, low, high):
        self.first, self.rest, self.low, self.high = first, rest, low, high
        # From index `most` on, the same rules apply to every item.
        self.most = max(low, len(first), 1) if high == inf else inf

    def expand(self, at, room):
        if at >= self.low:
            yield (word(b"]"),)
        if at < self.high:
            item = self.first[at] if at < len(self.first) else self.rest
            yield word(b"," * (at > 0)), Part(item, 0, room), Part(self, min(at + 1, self.most), room)

    def far(self, at, room):
        more = self.low - max(at, len(self.first))
        items = sum(item.far(0, room) for item in self.first[at : self.low])
        items += more * self.rest.far(0, room) if more > 0 else 0
        return items + max(self.low - max(at, 1), 0) + 1 if self.low <= self.high else inf


class Object:
    """names: [(key with its colon, Choice, whether the key is required)]"""

    def __init__(self, names):
        self.names = names

    def expand(self, at, room):
        for i, (key, value, required) in enumerate(self.names[at:], at + 1):
            yield word(b"," * (at > 0) + key), Part(value, 0, room), Part(self, i, room)
            if required:
                return
        yield (word(b"}"),)

    def far(self, at, room):
        needed = [(key, value) for key, value, required in self.names[at:] if required]
        comma = len(needed) - (at == 0 < len(needed))  # no comma before the first property
        return sum(len(key) + value.far(0, room) for key, value in needed) + comma + 1


class Compiler:
    """Compiles a schema into `root`, a Choice. Each schema is read once, so that it may refer to itself."""

    def __init__(self, schema):
        check(schema)
        self.document, self.known, self.todo, self.parts = schema, {}, [], 0
        self.root, separate = self.choice(schema, "#"), []
        for choice, schema, where in self.todo:  # grows during the loop
            own = decisive(schema)
            keyword = next((each for each in ("$ref", "anyOf", "oneOf") if each in own), None)
            choice.ways = [] if keyword else self.ways(own, where)
            choice.branches = self.branches(own, keyword, where) if keyword else []
            separate += [(choice, where)] * (keyword == "oneOf")
        self.find_costs([choice for choice, _, _ in self.todo])
        for choice, where in separate:
            check_one_of(choice, where)

    def count(self, parts):
        self.parts += parts
        if self.parts > LARGEST:
            raise UnsupportedSchema(f"the schema has more than {LARGEST} parts: make it smaller")

    def choice(self, schema, where):
        if id(schema) not in self.known:
            self.count(1)
            self.known[id(schema)] = Choice()
            self.todo.append((self.known[id(schema)], schema, where))
        return self.known[id(schema)]

    def branches(self, own, keyword, where):
        """Choices for the schemas under a keyword, each merged with the other keywords in `own`."""
        where, parts = f"{where}/{keyword}"[:200], own.pop(keyword)
        parts = [resolve(self.document, parts)] if keyword == "$ref" else parts
        return [self.choice(both(own, part, where), where) for part in parts]

    def ways(self, own, where):
        """The alternatives of a schema that has no branches."""
        listed = "enum" in own or "const" in own
        for keyword in own.keys() & (NOT_ENFORCED | INNER if listed else NOT_ENFORCED):
            raise UnsupportedSchema(f"{where}/{keyword}: the grammar cannot enforce {keyword}: remove it")
        if listed:
            values = own.pop("enum") if "enum" in own else [own["const"]]
            self.count(len(values))
            return words(values, own)
        types = types_of(own) if "type" in own else KINDS
        ways = words([value for value in (None, True, False) if kind_of(value) in types], {})
        bounds = frozenset((keyword, own[keyword]) for keyword in own if keyword.lower().endswith("imum"))
        for sign in (1, -1) if {"number", "integer"} & {*types} else ():
            ways.append(Way(b"-" * (sign < 0), numbers(bounds, "number" not in types, sign), "number"))
        if "string" in types:
            low, high = int(own.get("minLength", 0)), own.get("maxLength", inf)
            ways.append(Way(b'"', Text(BETWEEN, low, high), "string"))
        if "array" in types:
            first = [self.choice(part, f"{where}/prefixItems") for part in own.get("prefixItems", [])]
            rest = self.choice(own.get("items", True), f"{where}/items")
            low, high = int(own.get("minItems", 0)), own.get("maxItems", inf)
            ways.append(Way(b"[", Array(first, rest, low, high), "array"))
        if "object" in types:
            required, rest = own.get("required", []), own.get("additionalProperties", True)
            declared = own.get("properties", {})
            named = {name: declared.get(name, rest) for name in [*declared, *required]}
            names = [
                (text_of(name) + b":", self.choice(part, f"{where}/properties/{name}"), name in required)
                for name, part in named.items()
            ]
            ways.append(Way(b"{", Object(names), "object"))
        return ways

    def find_costs(self, choices):
        """Finds each choice's costs for 0 levels of nesting, then for 1, 2 ... until no costs change."""
        order = [*TopologicalSorter({choice: choice.branches for choice in choices}).static_order()]
        for choice in order:
            choice.ways += dict.fromkeys(way for branch in choice.branches for way in branch.ways)
        for room in range(MAX_DEPTH + 1):
            for choice in order:
                ways = choice.expand(0, room)
                choice.costs.append(min((sum(item.far() for item in items) for items in ways), default=inf))
            if room and all(choice.costs[-1] == choice.costs[-2] for choice in order):
                break


def decisive(schema):
    """The keywords of a schema that decide what is valid."""
    if isinstance(schema, bool):
        return {} if schema else {"enum": []}
    items = [(key, value) for key, value in schema.items() if key in TAKES and (key, value) not in IDLE]
    return {key: value for key, value in items if key not in ("$defs", "definitions")}


def both(a, b, where):
    """Merges two schemas that must both hold. Raises UnsupportedSchema if their keywords interact."""
    one, other = decisive(a), decisive(b)
    if not one or not other:
        return a if one else b
    clash = {key for key in one.keys() & other.keys() if repr(one[key]) != repr(other[key])} - {"required"}
    clash |= INNER & other.keys() if INNER & one.keys() else set()
    if clash:
        raise UnsupportedSchema(f"{where}: two schemas disagree on {min(clash)}: merge them into one")
    return one | other | {"required": one.get("required", []) + other.get("required", [])}


def words(values, limits):
    """Those values of an enum that the other keywords of its schema allow, as one Way for each kind."""
    by_kind = defaultdict(list)
    for value in values:
        if is_valid(value, limits):
            by_kind[kind_of(value)].append(value)
    return [
        Way(b"", Words(frozenset(map(text_of, same))), kind, frozenset(map(fingerprint, same)))
        for kind, same in by_kind.items()
    ]


def text_of(value):
    """The JSON of a value. Raises ValueError for half a surrogate pair, which UTF-8 cannot express."""
    return compact(value).encode()


def check_one_of(choice, where):
    """Raises UnsupportedSchema unless the branches of a oneOf differ by type, by their listed values, or by
    the listed values of a required property."""
    owners = {}  # kind -> (the discriminator of its branches, {value: branch})
    for i, way in ((i, way) for i, branch in enumerate(choice.branches) for way in branch.ways):
        discriminator, values = discriminator_of(way)
        first, branches = owners.setdefault(way.kind, (discriminator, {}))
        if discriminator != first or any(branches.setdefault(value, i) != i for value in values):
            raise UnsupportedSchema(f"{where}/oneOf: branches must differ by type or a required const")


def discriminator_of(way):
    """-> (the discriminator of a way: "value", the key of a property, or None; its possible values)"""
    if way.values:
        return "value", way.values
    for key, value, required in getattr(way.item, "names", []):
        sets = [way.values for way in value.ways]
        if required and sets and None not in sets:
            return key, frozenset().union(*sets)
    return None, {None}


class Thread(NamedTuple):
    item: object
    rest: object  # another Thread, or None
    far: int  # number of bytes in the shortest completion of the whole thread


def linked(items, rest):
    """The thread that begins with these items and continues with `rest`."""
    for item in reversed(items):
        rest = Thread(item, rest, item.far() + (rest.far if rest else 0))
    return rest


class Grammar:
    """The automaton of a schema. `before` and `after` are bytes that must surround the value.

    The constructor raises UnsupportedSchema for a keyword that the grammar cannot enforce, for a schema that
    is too large, and for a schema that no value in strict form satisfies. It raises ValueError for half a
    surrogate pair in a key or value. The methods never raise an error."""

    def __init__(self, schema, before=b"", after=b""):
        self.step = lru_cache(1 << 16)(self._step)
        value = Part(Compiler(schema).root, 0, MAX_DEPTH)
        if value.far() == inf:
            raise UnsupportedSchema("no value that the grammar can write is valid under this schema")
        self.start = self.closed([linked([word(before), value, word(after)], None)])

    def _step(self, state, byte):
        """The state after one more byte; the empty state if the byte is not allowed."""
        after = ((thread.item.moves().get(byte), thread.rest) for thread in state if thread)
        return self.closed(linked([item], rest) for item, rest in after if item)

    def complete(self, state):
        """Whether the text may end: None is the thread that has nothing left to write."""
        return None in state

    def distance(self, state):
        """The number of bytes in the shortest completion; infinite in the empty state."""
        return min((thread.far if thread else 0 for thread in state), default=inf)

    def accepts(self, data):
        """Whether the bytes are `before`, one valid value in strict form, and `after`."""
        return self.complete(reduce(self.step, data, self.start))

    def closed(self, threads):
        """The threads, with each Part at the head of a thread replaced by its alternatives."""
        expanded, seen, todo = set(), set(), [*threads]
        while todo:
            thread = todo.pop()
            if thread in seen or thread and thread.far == inf:
                continue
            seen.add(thread)
            if thread and isinstance(thread.item, Part):
                shape, at, room = thread.item
                todo += [linked(items, thread.rest) for items in shape.expand(at, room)]
            else:
                expanded.add(thread)
                if thread and thread.item.far() == 0:
                    todo.append(thread.rest)
        return frozenset(expanded)
