"""masks: the same as trying every token byte by byte; and whoever keeps to them ends inside the budget."""

import json
import random
from math import inf

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from schemas import canonical, schemas

from tools.builtin import TOOLS
from tools.grammar import Grammar
from tools.json_reader import parse
from tools.masks import Masks
from tools.protocol import CLOSE, OPEN, Call
from tools.protocol import parse as read
from tools.registry import Registry
from tools.schema import UnsupportedSchema
from tools.validation import validate

BYTES = [bytes([b]) for b in range(256)]
MORE = [
    b'"',
    b'":',
    b'","',
    b'{"',
    b'"}',
    b"ab",
    b'a"',
    b'a",',
    b"12",
    b"0.",
    b'\\"',
    b"\xc3\xa9",
    b"\xa9a",
    b"null",
    b"},{",
    b'":"',
    b"]]",
    b'"a":',
    b"e+",
    b"\\u00",
    b"b" * 9,
    b'"]',
    b'b"}}',
    b'":{},"b":',
    b'":1,"a',
    b"12000",
    b".12345",
]
END = len(BYTES) + len(MORE)
VOCABULARY = [*BYTES, *MORE, b""]


def needs(grammar, state):
    """The room that each token needs, found by trying it byte by byte."""
    found = []
    for token in VOCABULARY[:-1]:
        after = state
        for byte in token:
            after = grammar.step(after, byte)
        found.append(2 + grammar.distance(after))
    return [*found, 1 if grammar.complete(state) else inf]


def mask_of(found, room):
    return bytes(need <= room for need in found)


WRITTEN = [
    # schema, a value that is valid under it
    (
        {"type": "object", "properties": {"a": {}, "ab": {"type": "null"}}, "required": ["ab"]},
        {"a": ["b", {"b": 12}], "ab": None, "b": 0.5},
    ),
    (
        {
            "type": "object",
            "minProperties": 3,
            "required": ["a", 'a"'],
            "additionalProperties": {"enum": ["ab", 1]},
        },
        {"b": "ab", 'a"': 1, "a": "ab"},
    ),
    (
        {
            "type": "object",
            "maxProperties": 2,
            "additionalProperties": {"type": "object", "maxProperties": 1},
        },
        {"b": {"": {}}, "bbbbbbbbb": {}},
    ),
    (
        {
            "type": "array",
            "minItems": 2,
            "items": {"type": ["integer", "string"], "minimum": -12, "maxLength": 3},
        },
        [120, "ab\\", -7, "\u00e9"],
    ),
    (
        {"type": "array", "items": {"anyOf": [{"pattern": "^(ab)*$"}, {"minLength": 4, "pattern": "b"}]}},
        ["abab", "\u00e9aab", "", None],
    ),
    (
        {"oneOf": [{"type": "number", "minimum": 0.05, "maximum": 120}, {"const": "12"}, {"type": "array"}]},
        12.125,
    ),
    ({"type": "number"}, 98765432109),
]


@pytest.mark.parametrize("schema, value", WRITTEN)
def test_on_the_way_to_a_value_each_mask_is_what_trying_every_token_finds(schema, value):
    grammar, text = Grammar(schema), canonical(value)
    assert grammar.accepts(text)
    masks, state = Masks(grammar, VOCABULARY, END), grammar.start
    for byte in [*text, None]:
        found = needs(grammar, state)
        for room in {*found} - {inf} | {0, 1, 200}:
            assert masks.allowed(state, room) == mask_of(found, room)
            assert masks.allowed(state, room - 1) == mask_of(found, room - 1)
        state = byte and grammar.step(state, byte)


@settings(max_examples=20)
@given(schemas(), st.integers(0, 30), st.randoms(use_true_random=False))
def test_a_mask_is_what_trying_every_token_finds(schema, extra, random):
    try:
        grammar = Grammar(schema)
    except UnsupportedSchema:
        assume(False)
    masks, state, text = Masks(grammar, VOCABULARY, END), grammar.start, b""
    room = 1 + grammar.distance(state) + extra
    while True:
        mask = masks.allowed(state, room)
        assert mask == mask_of(needs(grammar, state), room)
        token = random.choice([id for id, may in enumerate(mask) if may])  # there always is one
        room -= 1
        if token == END:
            break
        state, text = masks.after(state, token), text + VOCABULARY[token]
    assert room >= 0 and validate(parse(text), schema) == []


def test_random_writing_under_the_mask_is_a_valid_call_of_a_tool():
    registry = Registry(TOOLS)
    grammar = Grammar(registry.schema(), OPEN.encode(), CLOSE.encode())
    masks, dice, names = Masks(grammar, VOCABULARY, END), random.Random(0), set()
    for _ in range(8):
        state, text, room = grammar.start, b"", 120
        while True:
            mask = masks.allowed(state, room)
            token, room = dice.choice([id for id, may in enumerate(mask) if may]), room - 1
            if token == END:
                break
            state, text = masks.after(state, token), text + VOCABULARY[token]
        (call,) = read(text)
        assert isinstance(call, Call) and room >= 0
        assert validate(call.arguments, registry.tools[call.name].parameters) == []
        names.add(call.name)
    assert len(names) > 3


def test_too_little_room_allows_nothing_and_a_missing_byte_is_refused():
    grammar = Grammar({"const": "abc"})
    masks = Masks(grammar, VOCABULARY, END)
    assert not any(masks.allowed(grammar.start, 5)) and any(masks.allowed(grammar.start, 6))
    with pytest.raises(ValueError, match="byte 7"):
        Masks(grammar, BYTES[:7] + BYTES[8:], 300)
    assert json.loads('"abc"') == "abc"
