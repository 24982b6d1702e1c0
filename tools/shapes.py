"""A schema as alternatives that each say one kind of value: what a grammar can follow byte by byte.

    {"anyOf": [{"type": "integer", "minimum": 3}, {"enum": ["a"]}], "not": {"const": 4}}
        ->  number from 3 to below 4 | number above 4 | "a"

A node is what must hold of one place in a value: a set of (schema, holds or not), all of them at once. To
expand a node is to bring it into disjunctive normal form: and is a meeting of alternatives, or is their
union, not is De Morgan's law. What has no finite form there is refused by name."""

import heapq
import json
from functools import lru_cache
from itertools import combinations, islice, product
from math import inf

from tools.alternatives import (
    WHOLE,
    Array,
    Object,
    Text,
    Words,
    key_bytes,
    meet,
    others,
    parts,
    short_names,
    string_costs,
)
from tools.dialect import KINDS, UnsupportedSchema, check, exact, resolve
from tools.json_reader import MAX_DEPTH
from tools.numbers import Bounds, tail
from tools.pattern import Pattern
from tools.validation import kind_of, types_of

MAX_ALTERNATIVES, MAX_NODES = 2000, 20_000
DEAD = frozenset([("dead", True)])
SIZES = {"Length": "string", "Items": "array", "Properties": "object"}
compiled = lru_cache(maxsize=256)(Pattern)


class Circle(Exception):
    """A node is needed to expand itself."""


class Shapes:
    """expand(node) -> alternatives; cost(node, room) -> bytes of the shortest value.

    Raises UnsupportedSchema at once for everything that expand would meet."""

    def __init__(self, schema):
        check(schema)
        self.document, self.known, self.memo, self.costs = schema, {}, {}, {}
        self.consts, self.open = {}, set()
        self.root = self.node(schema)
        todo = [self.root]
        while todo:
            node = todo.pop()
            if node not in self.memo:
                todo += [part for shape in self.expand(node) for part in parts(shape)]

    def node(self, schema, holds=True):
        if isinstance(schema, bool):
            return frozenset() if schema == holds else DEAD
        self.known[id(schema)] = schema  # kept alive, so that no other takes its id
        return frozenset([(id(schema), holds)])

    def expand(self, node):
        if node not in self.memo:
            if len(self.memo) > MAX_NODES:
                raise UnsupportedSchema("the schema has too many combinations of its parts: make it simpler")
            if node in self.open:
                raise Circle
            self.open.add(node)
            try:
                found = [self._one(self.known[key], holds, ()) for key, holds in sorted(node - DEAD)]
                shapes = [] if node & DEAD else self._meet([list(WHOLE.values()), *found])
            finally:
                self.open.remove(node)
            for shape in shapes:
                if isinstance(shape, Array) and shape.unique and shape.high > 1:
                    raise UnsupportedSchema("uniqueItems: a grammar cannot compare items: set maxItems to 1")
            self.memo[node] = tuple(dict.fromkeys(shapes))
        return self.memo[node]

    def _meet(self, unions):
        """[union of alternatives] -> the alternatives that lie in every union."""
        found = unions[0]
        for union in unions[1:]:
            found = [both for pair in product(found, union) if (both := meet(*pair)) is not None]
            if len(found) > MAX_ALTERNATIVES:
                raise UnsupportedSchema("the schema has too many alternatives: make it simpler")
        return found

    def _one(self, schema, holds, inside):
        """One schema, or its opposite -> alternatives."""
        if isinstance(schema, bool):
            return list(WHOLE.values()) if schema == holds else []
        if id(schema) in inside:
            raise UnsupportedSchema("a $ref leads back to itself without a value in between")
        inside = (*inside, id(schema))
        self.known[id(schema)] = schema
        found = [*self._own(schema, holds)]
        inner = lambda part, positive: self._one(part, positive, inside)
        if "$ref" in schema:
            found.append(inner(resolve(self.document, schema["$ref"]), holds))
        for part in schema.get("allOf", []):
            found.append(inner(part, holds))
        if "not" in schema:
            found.append(inner(schema["not"], not holds))
        if "anyOf" in schema:
            branches = [inner(part, holds) for part in schema["anyOf"]]
            found.append(sum(branches, []) if holds else self._meet(branches))
        if "oneOf" in schema:
            found.append(self._exactly_one(schema["oneOf"], holds, inner))
        return self._meet([list(WHOLE.values()), *found]) if holds else sum(found, [])

    def _exactly_one(self, branches, holds, inner):
        yes = [inner(part, True) for part in branches]
        overlaps = {}
        for i, j in combinations(range(len(yes)), 2):
            common = [shape for shape in self._meet([yes[i], yes[j]]) if self._possible(shape)]
            if common:
                overlaps[i, j] = common
        if not holds:
            return self._meet([inner(part, False) for part in branches]) + sum(overlaps.values(), [])
        found = []
        for i in range(len(branches)):
            others = [
                inner(branches[j], False) for j in range(len(branches)) if (min(i, j), max(i, j)) in overlaps
            ]
            found += self._meet([yes[i], *others])
        return found

    def _possible(self, shape):
        """Whether there is such a value, as far as that can be told without the nodes that are being
        expanded."""
        try:
            return self.price(shape, MAX_DEPTH) < inf
        except Circle:
            return True

    def _own(self, schema, holds):
        """What the schema says itself, one union for each keyword that says something."""
        types = types_of(schema)
        if types and holds:
            named = [WHOLE[kind] for kind in KINDS if kind in types]
            yield named + [Bounds(step=exact(1))] * ("integer" in types and "number" not in types)
        elif types:
            if "integer" in types and "number" not in types:
                raise UnsupportedSchema("not: numbers that are no integers cannot be told by a grammar")
            yield [WHOLE[kind] for kind in KINDS if kind not in types]
        for keyword, values in (("enum", schema.get("enum")), ("const", [schema.get("const")])):
            if keyword in schema:
                if holds:
                    words = frozenset(value for value in values if isinstance(value, str))
                    rest = [self._exactly(value) for value in values if not isinstance(value, str)]
                    yield [Text(words=words)] * bool(words) + sum(rest, [])
                else:
                    yield self._meet([list(WHOLE.values()), *map(self._but, values)])
        numbers = self._bounds(schema, holds)
        if numbers:
            yield numbers
        for size, kind in SIZES.items():
            limits = [(key, schema[key + size]) for key in ("min", "max") if key + size in schema]
            for edge, count in limits:
                count = int(count)
                low = edge == "min"
                here = (
                    {"low": count}
                    if low and holds
                    else {"high": count}
                    if holds
                    else {"high": count - 1}
                    if low
                    else {"low": count + 1}
                )
                shapes = [WHOLE[kind]._replace(**here)] if here.get("high", 0) >= 0 else []
                yield others(kind) + shapes if holds else shapes
        if "pattern" in schema:
            pattern = compiled(schema["pattern"])
            yield others("string") + [Text(pattern)] if holds else [Text(~pattern)]
        if schema.get("uniqueItems"):
            if not holds:
                raise UnsupportedSchema("not: uniqueItems cannot be turned round by a grammar")
            yield others("array") + [Array(unique=True)]
        if "items" in schema or "prefixItems" in schema:
            yield self._array(schema, holds)
        if schema.keys() & {"properties", "required", "additionalProperties"}:
            yield self._object(schema, holds)

    def _bounds(self, schema, holds):
        """The four limits and multipleOf: together as one interval, or turned round one by one."""
        limits = {
            "minimum": ("low", False),
            "exclusiveMinimum": ("low", True),
            "maximum": ("high", False),
            "exclusiveMaximum": ("high", True),
        }
        found = []
        for keyword, (side, is_open) in limits.items():
            if keyword in schema:
                value = exact(schema[keyword])
                if not holds:
                    side, is_open = {"low": "high", "high": "low"}[side], not is_open
                found.append(Bounds(**{side: value, f"open_{side}": is_open}))
        if "multipleOf" in schema:
            if not holds:
                raise UnsupportedSchema("not: multipleOf cannot be turned round by a grammar")
            found.append(Bounds(step=exact(schema["multipleOf"])))
        if not holds or not found:
            return found
        for more in found[1:]:
            found[0] = found[0] & more
        return [*others("number"), found[0]]

    def _exactly(self, value):
        kind = kind_of(value)
        if kind in ("null", "boolean"):
            return [Words(frozenset([value]))]
        if kind == "number":
            return [Bounds(exact(value), False, exact(value), False)]
        if kind == "array":
            return [Array(tuple(self._const(item) for item in value), DEAD, len(value), len(value))]
        return [Object(tuple((name, self._const(item), True) for name, item in value.items()), DEAD)]

    def _const(self, value):
        return self.node(self.consts.setdefault(json.dumps(value), {"const": value}))

    def _but(self, value):
        """Everything except one value."""
        kind = kind_of(value)
        if kind in ("null", "boolean"):
            same = [Words(WHOLE[kind].values - {value})]
        elif kind == "number":
            point = exact(value)
            same = [Bounds(high=point, open_high=True), Bounds(low=point, open_low=True)]
        elif kind == "string":
            same = [Text(~compiled("^" + "".join(c if c.isalnum() else "\\" + c for c in value) + "$"))]
        else:
            raise UnsupportedSchema(f"not: a grammar cannot rule out one {kind} among all")
        return others(kind) + same

    def _array(self, schema, holds):
        first, rest = schema.get("prefixItems", []), schema.get("items", True)
        if holds:
            return others("array") + [Array(tuple(map(self.node, first)), self.node(rest))]
        if rest is not True and rest != {}:
            raise UnsupportedSchema("not: items cannot be turned round by a grammar")
        return [
            Array((*[frozenset()] * i, self.node(part, False)), low=i + 1) for i, part in enumerate(first)
        ]

    def _object(self, schema, holds):
        declared, must = schema.get("properties", {}), schema.get("required", [])
        rest = schema.get("additionalProperties", True)
        if holds:
            names = tuple((name, self.node(part), name in must) for name, part in declared.items())
            needed = frozenset(must) - set(declared)
            return others("object") + [Object(names, self.node(rest), needed=needed)]
        if rest is not True and rest != {}:
            raise UnsupportedSchema("not: additionalProperties cannot be turned round by a grammar")
        absent = [Object(((name, DEAD, False),)) for name in must]
        return absent + [Object(((name, self.node(part, False), True),)) for name, part in declared.items()]

    # What the shortest value costs, with at most `room` containers inside one another.

    def cost(self, node, room):
        """Bytes of the shortest value of a node; infinite where there is none."""
        if (node, room) not in self.costs:
            self.costs[node, room] = min(
                (self.price(shape, room) for shape in self.expand(node)), default=inf
            )
        return self.costs[node, room]

    def price(self, shape, room):
        """The bytes of the shortest value of one alternative."""
        if isinstance(shape, Words):
            return min(4 + (value is False) for value in shape.values) if shape.values else inf
        if isinstance(shape, Bounds):
            cost = tail("", shape)
            return inf if cost is None else cost
        if isinstance(shape, Text):
            if shape.words is not None:
                return min((len(key_bytes(word)) for word in shape.words), default=inf)
            return 1 + string_costs(shape)[0, 0]
        if not room:
            return inf
        if isinstance(shape, Array):
            return 1 + self.rest_of_array(shape, 0, room - 1)
        return 1 + self.rest_of_object(shape, 0, 0, frozenset(), room - 1)

    def item(self, shape, i):
        return shape.prefix[i] if i < len(shape.prefix) else shape.rest

    def rest_of_array(self, shape, done, room):
        """Bytes from behind `done` items to behind the bracket; room is left for containers inside."""
        if max(shape.low, done) > shape.high:
            return inf
        items = sum(
            self.cost(self.item(shape, i), room) for i in range(done, min(shape.low, len(shape.prefix)))
        )
        more = shape.low - max(done, len(shape.prefix))
        items += more * self.cost(shape.rest, room) if more > 0 else 0
        return items + max(shape.low - max(done, 1), 0) + 1

    def rest_of_object(self, shape, i, done, used, room):
        """Bytes from behind `done` properties to behind the brace: declared names from i on may still come,
        `used` are the other names that stand there."""
        missing = shape.needed - used
        must = [
            len(key_bytes(name)) + 2 + self.cost(node, room)
            for name, node, required in shape.names[i:]
            if required
        ]
        must += [len(key_bytes(name)) + 2 + self.cost(shape.rest, room) for name in missing]
        count = done + len(must)
        if max(count, shape.low) > shape.high:
            return inf
        if count < shape.low:
            may = [
                len(key_bytes(n)) + 2 + self.cost(node, room)
                for n, node, required in shape.names[i:]
                if not required
            ]
            if self.cost(shape.rest, room) < inf:
                taken = used | shape.needed | {name for name, _, _ in shape.names}
                may += [
                    len(key_bytes(name)) + 2 + self.cost(shape.rest, room)
                    for name in islice(short_names(taken), shape.low - count)
                ]
            best = heapq.nsmallest(shape.low - count, may)
            must += best if len(best) == shape.low - count else [inf]
        return sum(must) - (done == 0 and bool(must)) + 1
