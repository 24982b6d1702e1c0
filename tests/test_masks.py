"""masks: the same as trying every token byte by byte; and whoever keeps to them ends inside the budget."""

import json
import random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.schemas import schemas
from tools.builtin import TOOLS
from tools.grammar import Grammar
from tools.json_reader import parse
from tools.masks import Masks
from tools.protocol import CLOSE, OPEN, Call
from tools.protocol import parse as read
from tools.registry import Registry
from tools.schema import UnsupportedSchema, validate

BYTES = [bytes([b]) for b in range(256)]
MORE = [b'"', b'":', b'","', b'{"', b'"}', b"ab", b'a"', b'a",', b"12", b"0.", b'\\"', b"\xc3\xa9", b"\xa9a",
        b"null", b"},{", b'":"', b"]]", b'"a":', b"e+", b"\\u00", b"b" * 9, b'"]', b'b"}}']  # fmt: skip
END = len(BYTES) + len(MORE)
VOCABULARY = [*BYTES, *MORE, b""]


def brute(grammar, state, room):
    """Every token tried byte by byte."""
    found = bytearray(len(VOCABULARY))
    for id, token in enumerate(VOCABULARY[:-1]):
        after = state
        for byte in token:
            after = grammar.step(after, byte)
        found[id] = bool(after) and 2 + grammar.distance(after) <= room
    found[END] = grammar.complete(state) and room >= 1
    return bytes(found)


@settings(deadline=None, max_examples=150)
@given(schemas(), st.integers(0, 60), st.randoms(use_true_random=False))
def test_a_mask_is_what_trying_every_token_finds(schema, extra, random):
    try:
        grammar = Grammar(schema)
    except UnsupportedSchema:
        assume(False)
    masks, state, text = Masks(grammar, VOCABULARY, END), grammar.start, b""
    room = 1 + grammar.distance(state) + extra
    while True:
        mask = masks.allowed(state, room)
        assert mask == brute(grammar, state, room)
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
    for _ in range(60):
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
