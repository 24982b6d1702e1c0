"""JSON Schemas and values for them: small schemas for exhaustive tests, and larger ones drawn at random."""

import itertools
import json
import re

from hypothesis import strategies as st

from tools.schema import resolve

NAMES = st.sampled_from(["a", "b", "to", "tö", '"', "a/b", ""])
TEXTS = st.text(st.sampled_from('ab é"\\\n\u20ac\U0001f600\x7f/') | st.characters(codec="utf-8"), max_size=4)
NUMBERS = (
    st.integers(-20, 20)
    | st.sampled_from([0.0, 1.0, -0.5, 0.1, 2.5, 1e16, 1e-7, -0.0, 12.0, 10**17])
    | st.floats(allow_nan=False, allow_infinity=False)
)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=5,
)
COUNTS = st.integers(0, 3)
PATTERNS = st.sampled_from(["^[a-z]+$", "b", "^a.?$", "", '^["\\\\]*$', "^(a|ab)*$", "[^a]", "^é"])
BOUNDS = st.integers(-5, 15) | st.sampled_from([0.5, -1.5, 2.0, 0.1])


@st.composite
def schemas(draw, depth=2, composed=True):
    """A random schema. composed: whether the keywords anyOf, oneOf, allOf and `not` may occur."""
    inner = schemas(depth - 1, composed) if depth else st.sampled_from([{"type": "string"}, {}, True])
    kind = draw(
        st.sampled_from(
            ["any", "type", "number", "string", "array", "object", "object", "enum"]
            + ["anyOf", "oneOf", "allOf", "not"] * (composed and depth > 0)
        )
    )
    maybe = lambda **parts: {key: draw(part) for key, part in parts.items() if draw(st.booleans())}
    if kind == "any":
        return draw(st.sampled_from([{}, True, False, {"title": "t", "format": "date", "default": 3}]))
    if kind == "type":
        names = st.sampled_from(["null", "boolean", "integer", "number", "string"])
        return {"type": draw(names | st.lists(names, min_size=1, max_size=3, unique=True))}
    if kind == "enum":
        return draw(
            st.fixed_dictionaries({"enum": st.lists(SCALARS, min_size=1, max_size=3)})
            | st.fixed_dictionaries({"const": SCALARS})
        )
    if kind == "number":
        limits = maybe(
            minimum=BOUNDS,
            maximum=BOUNDS,
            exclusiveMinimum=BOUNDS,
            exclusiveMaximum=BOUNDS,
            multipleOf=st.sampled_from([1, 2, 0.5, 0.1, 3]),
        )
        return {"type": draw(st.sampled_from(["integer", "number"])), **limits}
    if kind == "string":
        return {"type": "string", **maybe(minLength=COUNTS, maxLength=COUNTS, pattern=PATTERNS)}
    if kind == "array":
        parts = maybe(items=inner, minItems=COUNTS, maxItems=COUNTS)
        parts |= maybe(prefixItems=st.lists(inner, min_size=1, max_size=2))
        return {"type": "array", **parts}
    if kind == "object":
        parts = maybe(
            properties=st.dictionaries(NAMES, inner, max_size=3),
            additionalProperties=inner,
            minProperties=COUNTS,
            maxProperties=COUNTS,
        )
        parts |= maybe(required=st.lists(NAMES, max_size=2, unique=True))
        return {"type": "object", **parts}
    if kind == "not":
        return {"not": draw(inner)}
    return {kind: draw(st.lists(inner, min_size=1, max_size=2))}


def near(schema, root=None, depth=4):
    """Values that are often valid under the schema; most of the other values are nearly valid."""
    root = schema if root is None else root
    if isinstance(schema, bool) or not depth:
        return VALUES
    if "$ref" in schema:
        return near(resolve(root, schema["$ref"]), root, depth - 1)
    for keyword in ("anyOf", "oneOf", "allOf"):
        if keyword in schema:
            return st.one_of([near(part, root, depth - 1) for part in schema[keyword]])
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum") or [schema.get("const")]) | SCALARS
    types = schema.get("type", [])
    types = [types] if isinstance(types, str) else types
    ways = [near_type(name, schema, root, depth) for name in types]
    return st.one_of(ways) if ways else VALUES


def near_type(name, schema, root, depth):
    if name in ("integer", "number"):
        edges = [schema[k] for k in schema if k.endswith("imum")] or [0]
        step = schema.get("multipleOf", 1)
        return (
            st.tuples(st.sampled_from(edges), st.integers(-3, 3)).map(lambda p: p[0] + p[1])
            | st.integers(-9, 9).map(lambda n: n * step)
            | NUMBERS
        )
    if name == "string":
        return TEXTS | st.sampled_from(["ab", "a", "b", "aba", "é", '"\\'])
    if name == "array":
        rest = near(schema.get("items", True), root, depth - 1)
        first = [near(part, root, depth - 1) for part in schema.get("prefixItems", [])]
        return st.lists(rest, max_size=3).flatmap(
            lambda more: st.tuples(*first).map(lambda head: [*head, *more]) | st.just(more)
        )
    if name == "object":
        declared = schema.get("properties", {})
        known = {key: near(part, root, depth - 1) for key, part in declared.items()}
        must = {key: known.get(key, VALUES) for key in schema.get("required", [])}
        others = near(schema.get("additionalProperties", True), root, depth - 1)
        return st.tuples(
            st.dictionaries(NAMES, others, max_size=2),
            st.fixed_dictionaries(must, optional={k: v for k, v in known.items() if k not in must}),
        ).map(lambda parts: {**parts[0], **parts[1]})
    return SCALARS


def canonical(value):
    """A value as a grammar writes it, in bytes."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def is_strict(value, schema, root=None):
    """Whether a value has the form that a grammar writes: only declared or required properties, in order, and
    no exponents. The schema must not use the keywords anyOf, oneOf, allOf or `not`."""
    root = schema if root is None else root
    if isinstance(schema, dict) and "$ref" in schema:
        return is_strict(value, resolve(root, schema["$ref"]), root)
    part = schema if isinstance(schema, dict) else {}
    if "enum" in part or "const" in part:
        return canonical(value) in map(canonical, part.get("enum", [part.get("const")]))
    if isinstance(value, dict):
        named, rest = part.get("properties", {}), part.get("additionalProperties", True)
        names = list(dict.fromkeys([*named, *part.get("required", [])]))
        ordered = list(value) == [name for name in names if name in value]
        return ordered and all(is_strict(value[k], named.get(k, rest), root) for k in value)
    if isinstance(value, list):
        first, rest = part.get("prefixItems", []), part.get("items", True)
        return all(is_strict(v, first[i] if i < len(first) else rest, root) for i, v in enumerate(value))
    if isinstance(value, float):
        types = part.get("type", "number")
        return "number" in types and bool(re.fullmatch(r"-?(?!0\d)[\d.]{3,16}", repr(value)))
    return not isinstance(value, int) or abs(value) < 10**20


def ranges(what):
    """Keywords that limit a length: ranges("Items") -> [{}, {"minItems": 2}, ...]"""
    limits = [(None, None), (2, None), (None, 1), (1, 2), (2, 2)]
    return [{key + what: n for key, n in zip(("min", "max"), pair) if n is not None} for pair in limits]


def combined(**choices):
    """Every schema that has one of the given values for each keyword. The value None leaves the keyword out.
    _ is not a keyword: its values are dicts, whose keywords are added to the schema."""
    for chosen in itertools.product(*choices.values()):
        schema = {}
        for keyword, value in zip(choices, chosen):
            schema |= value if keyword == "_" else {} if value is None else {keyword: value}
        yield schema


NULL, TRUTH = {"type": "null"}, {"type": "boolean"}
SMALL = [
    *combined(
        type=["array"], _=ranges("Items"), prefixItems=[None, [NULL], [{}, NULL]], items=[None, TRUTH, False]
    ),
    *combined(
        type=["object"],
        _=ranges("Properties"),
        properties=[None, {"a": NULL, "b": TRUTH}],
        required=[None, ["b"], ["c"]],
        additionalProperties=[None, False, TRUTH],
    ),
    *combined(type=["string"], _=ranges("Length"), pattern=[None, "^a", "b"]),
    *combined(
        type=["integer", "number"],
        multipleOf=[None, 0.5],
        _=[
            {},
            {"exclusiveMinimum": 0},
            {"maximum": 2},
            {"minimum": 0, "exclusiveMaximum": 2},
            {"exclusiveMinimum": 1.5, "maximum": 2},
            {"minimum": 1.5, "maximum": 1.5},
        ],
    ),
    {},
    {"enum": [1, "a", None]},
    {"const": [True, {"b": 0.5}]},
    {"type": ["string", "null"]},
    {"type": "array", "items": {"type": "array", "maxItems": 1}},
    {"items": {"required": ["a"]}},
]
UNIVERSE = {
    "null": [None],
    "boolean": [True, False],
    "number": [0, 1, 2, 3, -1, 0.5, 1.5, 2.0, -0.5, 1e16, 1e-7],
    "string": ["", "a", "b", "ab", "ba", "abb", "\u00e9", '"'],
    "array": [
        *(list(items) for length in range(4) for items in itertools.product([None, True, 1], repeat=length)),
        *[[[]], [[1]], [[1, 2]], [{"a": 1}], [True, {"b": 0.5}]],
    ],
    "object": [
        dict(zip(names, values))
        for length in range(4)
        for names in itertools.combinations("abcd", length)
        for values in itertools.product([None, True], repeat=length)
    ],
}


def universe(schema):
    """All small values of the types that a schema names, and two values of every other type."""
    kinds = str(schema.get("type", [*UNIVERSE])).replace("integer", "number")
    return [v for kind, values in UNIVERSE.items() for v in (values if kind in kinds else values[:2])]
