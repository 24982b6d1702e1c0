"""masks: a token is allowed exactly if the grammar allows its bytes and enough room is left to end the text.

A token that is wrongly allowed could lead into a dead end: a text that cannot be completed."""

import itertools
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
PIECES = [  # tokens consist of several pieces, so that they cross the borders of keys, strings and numbers
    *(
        b'"',
        b'":',
        b'"a":',
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"<",
        b"a",
        b"b" * 9,
        b"ab",
        b"1",
        b"12",
        b"0",
    ),
    *(b"-", b".", b".5", b"e+", b"\\", b'\\"', b"\\u00", b"1f", b"\xc3", b"\xa9", b"\xc3\xa9", b"\xf0\x9f"),
    *(b"null", b"true", b"nu", b"ll", b" ", b"\n"),
]
TOKENS = st.lists(st.lists(st.sampled_from(PIECES), min_size=1, max_size=4).map(b"".join), max_size=60)
MORE = [b"".join(pieces) for n in (1, 2) for pieces in itertools.product(PIECES, repeat=n)]
MORE += [b'":1,"a', b'b"}},', b'","', b'c",":1,"x', b'":{},"b":', b'":[{"', b'12,"ab":']


def needs(grammar, state, vocabulary):
    """The smallest `room` in which each token is allowed, found by trying its bytes one by one. The last
    token is the end token."""
    rooms = []
    for token in vocabulary[:-1]:
        after = state
        for byte in token:
            after = grammar.step(after, byte)
        rooms.append(2 + grammar.distance(after))
    return [*rooms, 1 if grammar.complete(state) else inf]


def mask_of(rooms, room):
    return bytes(need <= room for need in rooms)


WRITTEN = [
    # schema, a value that is valid under it
    (
        {"type": "object", "properties": {"a": {}, "ab": {"type": "null"}}, "required": ["ab"]},
        {"a": ["b", {}, [12, "\n"]], "ab": None},
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
        {"type": "array", "items": {"anyOf": [{"minLength": 2, "maxLength": 12}, {"enum": ["ab", 1, 12]}]}},
        ["abab", "\u00e9aab", 12, None],
    ),
    (
        {"oneOf": [{"type": "number", "minimum": 0.05, "maximum": 120}, {"const": "12"}, {"type": "array"}]},
        12.125,
    ),
    ({"type": "number"}, 98765432109),
    ({"type": "number", "maximum": -1.5}, -12.5),
]


@pytest.mark.parametrize("schema, value", WRITTEN)
def test_each_mask_on_the_way_to_a_value_equals_the_one_found_by_trying_every_token(schema, value):
    grammar, text, vocabulary = Grammar(schema), canonical(value), [*BYTES, *MORE, b""]
    assert grammar.accepts(text)
    masks, state = Masks(grammar, vocabulary, len(vocabulary) - 1), grammar.start
    for byte in [*text, None]:
        rooms = needs(grammar, state, vocabulary)
        for room in {*rooms} - {inf} | {0, 1, 200}:
            assert masks.allowed(state, room) == mask_of(rooms, room)
            assert masks.allowed(state, room - 1) == mask_of(rooms, room - 1)
        state = byte and grammar.step(state, byte)


@settings(max_examples=60)
@given(schemas(), TOKENS, st.integers(0, 30), st.randoms(use_true_random=False))
def test_a_mask_for_a_random_schema_equals_the_one_found_by_trying_every_token(schema, tokens, extra, random):
    try:
        grammar = Grammar(schema, b"<", b">")
    except UnsupportedSchema:
        assume(False)
    vocabulary = [*BYTES, *tokens, b""]
    masks, state, text = Masks(grammar, vocabulary, len(vocabulary) - 1), grammar.start, b""
    room = 1 + grammar.distance(state) + extra
    while True:
        mask = masks.allowed(state, room)
        assert mask == mask_of(needs(grammar, state, vocabulary), room)
        token = random.choice([id for id, may in enumerate(mask) if may])  # at least one is allowed
        room -= 1
        if token == masks.end:
            break
        state, text = masks.after(state, token), text + vocabulary[token]
    assert room >= 0 and validate(parse(text[1:-1]), schema) == []


VOCABULARY = [*BYTES, *MORE, b""]
END = len(VOCABULARY) - 1


def test_random_tokens_under_the_mask_form_a_valid_call():
    registry = Registry(TOOLS)
    grammar = Grammar(registry.schema(), OPEN.encode(), CLOSE.encode())
    masks, rng, names = Masks(grammar, VOCABULARY, END), random.Random(0), set()
    for _ in range(8):
        state, text, room = grammar.start, b"", 120
        while True:
            mask = masks.allowed(state, room)
            token, room = rng.choice([id for id, may in enumerate(mask) if may]), room - 1
            if token == END:
                break
            state, text = masks.after(state, token), text + VOCABULARY[token]
        (call,) = read(text)
        assert isinstance(call, Call) and room >= 0
        assert validate(call.arguments, registry.tools[call.name].parameters) == []
        names.add(call.name)
    assert len(names) > 1


def test_every_byte_must_have_a_token_and_if_the_room_is_too_small_no_token_is_allowed():
    grammar = Grammar({"const": "abc"})
    masks = Masks(grammar, [*BYTES, b""], 256)
    assert not any(masks.allowed(grammar.start, 5)) and any(masks.allowed(grammar.start, 6))
    with pytest.raises(ValueError, match="byte 7"):
        Masks(grammar, BYTES[:7] + BYTES[8:], 300)


def test_a_token_that_ends_a_string_must_not_lead_into_a_dead_end():
    schema = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"const": 1}}}
    grammar = Grammar(schema | {"additionalProperties": {"type": ["string", "integer"]}})
    masks, state = Masks(grammar, VOCABULARY, END), grammar.start
    for byte in b'{"a":"':
        state = grammar.step(state, byte)
    assert not masks.allowed(state, 99)[VOCABULARY.index(b'c",":1,"x')]


def test_the_first_string_reuses_what_the_constructor_has_computed():
    grammar = Grammar({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]})
    masks, state = Masks(grammar, VOCABULARY, END), grammar.start
    for byte in b'{"a":':
        state = grammar.step(state, byte)
    known = masks.characters.cache_info().misses
    assert masks.allowed(state, 99) and masks.characters.cache_info().misses == known
