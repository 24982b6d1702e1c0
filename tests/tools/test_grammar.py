"""grammar: it accepts a text exactly where the validator accepts its value and the spelling is canonical."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from schemas import SMALL, canonical, in_order, near, schemas, universe

from tools.grammar import Grammar
from tools.json_reader import JSONError, parse
from tools.schema import UnsupportedSchema, validate


def grammar_of(schema):
    try:
        return Grammar(schema)
    except UnsupportedSchema:
        assume(False)


def test_small_schemas_take_exactly_the_values_that_are_valid():
    for schema in SMALL:
        values = universe(schema)
        valid = [not validate(value, schema) for value in values]
        try:
            grammar = Grammar(schema)
        except UnsupportedSchema as error:
            assert "no value" in str(error) and not any(valid)
            continue
        for value, good in zip(values, valid):
            text, other = canonical(in_order(value, schema)), canonical(value)
            assert grammar.accepts(text) == good, schema
            assert text == other or not grammar.accepts(other), schema


ALPHABET = b'{}[]",:-+.0123456789eEabcdntrufls\\ \n\x00\xc3\xa9'


def test_small_schemas_know_the_distance_to_an_end():
    for schema in SMALL:
        if schema.get("type") in ("integer", "number"):
            continue  # as numbers.tail says
        try:
            grammar = Grammar(schema)
        except UnsupportedSchema:
            continue
        states = {grammar.start}
        for value in universe(schema)[:20]:
            state = grammar.start
            for byte in canonical(in_order(value, schema)):
                if state := grammar.step(state, byte):
                    states.add(state)
                else:
                    break
        for state in states:
            left = grammar.distance(state)
            nearest = min(grammar.distance(grammar.step(state, byte)) for byte in ALPHABET)
            assert (left == 0) == grammar.complete(state) and (left == 0 or nearest == left - 1), schema


@settings(max_examples=40)
@given(schemas(composed=False), st.data())
def test_grammar_and_validator_agree(schema, data):
    try:
        grammar = Grammar(schema)
    except UnsupportedSchema as error:
        assert "no value" in str(error)
        return
    for _ in range(4):
        value = data.draw(near(schema))
        ordered = in_order(value, schema)
        valid = not validate(value, schema)
        assert grammar.accepts(canonical(ordered)) == valid
        if canonical(value) != canonical(ordered):
            assert not grammar.accepts(canonical(value))


@settings(max_examples=15)
@given(schemas(), st.data())
def test_a_walk_stays_valid_and_ends_where_the_distance_says(schema, data):
    grammar = grammar_of(schema)
    state, text = grammar.start, b""
    for _ in range(data.draw(st.integers(0, 15))):
        may = [byte for byte in range(256) if grammar.step(state, byte)]
        if not may:
            break
        byte = data.draw(st.sampled_from(may))
        state, text = grammar.step(state, byte), text + bytes([byte])
    while (left := grammar.distance(state)) > 0:
        after = {byte: grammar.distance(grammar.step(state, byte)) for byte in range(256)}
        assert min(after.values()) == left - 1
        byte = data.draw(st.sampled_from([b for b, more in after.items() if more == left - 1]))
        state, text = grammar.step(state, byte), text + bytes([byte])
    assert grammar.complete(state) and grammar.accepts(text)
    assert validate(parse(text), schema) == [] and canonical(parse(text)) == text


@settings(max_examples=40)
@given(schemas(composed=False), st.binary(max_size=6), st.data())
def test_no_damaged_text_is_taken(schema, noise, data):
    grammar = grammar_of(schema)
    text = canonical(in_order(data.draw(near(schema)), schema))
    cut = data.draw(st.integers(0, len(text)))
    text = text[:cut] + noise + text[cut + data.draw(st.integers(0, 2)) :]
    try:
        value = parse(text)
        right = canonical(value) == text and not validate(value, schema) and in_order(value, schema) == value
        right = right and canonical(in_order(value, schema)) == text
    except JSONError:
        right = False
    assert grammar.accepts(text) == right


TAKEN = [
    ({"type": "integer"}, "1 -3 1.0 1e+16 0"),
    ({"type": "number", "multipleOf": 0.1}, "0.3 1 2.5"),
    (
        {"oneOf": [{"required": ["a"]}, {"required": ["b"]}], "type": "object"},
        '{"a":1} {"b":1} {"b":1,"c":2}',
    ),
    ({"oneOf": [{"type": "string", "minLength": 3}, {"maxLength": 4}]}, '"a" "abcde" 5'),
    ({"not": {"enum": ["a", 1, None]}}, '"b" 2 1.5 true [] "aa"'),
    ({"const": {"a": [1, {"b": None}]}}, '{"a":[1,{"b":null}]}'),
    ({"enum": ["ü", "\n", '"']}, '"ü" "\\n" "\\""'),
    (
        {"$ref": "#/$defs/t", "$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}}}},
        "[] [[]] [[],[[]]]",
    ),
    (
        {"type": "object", "required": ["z", "a"], "properties": {"a": {}}},
        '{"a":1,"z":2} {"a":1,"b":0,"z":2}',
    ),
    ({"type": "string", "pattern": "^[0-9]{2}:[0-9]{2}$"}, '"12:30"'),
    ({"allOf": [{"minLength": 2}, {"maxLength": 2}], "type": "string"}, '"ab" "😀😀"'),
    ({"type": "object", "maxProperties": 1, "additionalProperties": {"type": "null"}}, '{} {"x":null}'),
]
NOT_TAKEN = [
    ({"type": "integer"}, "01 +1 1.5 -0 1e16 1.00 10e+15"),
    ({"type": "number", "multipleOf": 0.1}, "0.35"),
    ({"oneOf": [{"required": ["a"]}, {"required": ["b"]}], "type": "object"}, '{} {"a":1,"b":1}'),
    ({"oneOf": [{"type": "string", "minLength": 3}, {"maxLength": 4}]}, '"abc" "abcd"'),
    ({"not": {"enum": ["a", 1, None]}}, '"a" 1 1.0 null'),
    ({"type": "string"}, '"\\u0061" "a "\x00" "\\/"'),
    ({"type": "object"}, '{"a":1,"a":2} {"a":1,} {}x'),
    ({"type": "object", "required": ["z"], "properties": {"a": {}}}, '{"z":1,"a":2} {"a":1}'),
    ({"type": "object", "maxProperties": 1}, '{"a":1,"b":2}'),
]


@pytest.mark.parametrize("schema, texts", TAKEN, ids=str)
def test_taken(schema, texts):
    grammar = Grammar(schema)
    for text in texts.split():
        assert grammar.accepts(text.encode()) and not validate(parse(text), schema), text


@pytest.mark.parametrize("schema, texts", NOT_TAKEN, ids=str)
def test_not_taken(schema, texts):
    grammar = Grammar(schema)
    for text in texts.split():
        assert not grammar.accepts(text.encode()), text


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer", "minimum": 0.1, "maximum": 0.9},
        {"properties": {"a": {"$ref": "#"}}, "required": ["a"], "type": "object"},
        False,
    ],
)
def test_a_schema_that_no_value_fits_is_refused(schema):
    with pytest.raises(UnsupportedSchema, match="no value"):
        Grammar(schema)


def test_nesting_ends_where_the_reader_ends():
    grammar = Grammar({})
    assert grammar.accepts(b"[" * 64 + b"]" * 64) and not grammar.accepts(b"[" * 65 + b"]" * 65)
    tower = Grammar(
        {
            "type": "array",
            "items": {"anyOf": [{"type": "null"}, {"type": "array", "minItems": 1, "items": {"$ref": "#"}}]},
        }
    )
    state = tower.start
    depth = 0
    while after := tower.step(state, ord("[")):
        state, depth = after, depth + 1
    assert depth <= 64 and tower.distance(state) < 200


def test_no_alternative_is_confused_with_its_surroundings():
    grammar = Grammar({"type": "integer"}, before=b"<n>", after=b"</n>")
    assert grammar.accepts(b"<n>12</n>") and not grammar.accepts(b"<n>12") and not grammar.accepts(b"12</n>")
