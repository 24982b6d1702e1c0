"""pattern: the automaton matches what Python's re matches, and its bytes are those of canonical JSON
strings."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.dialect import UnsupportedSchema
from tools.pattern import Pattern

ATOMS = st.sampled_from(
    [
        "a",
        "b",
        "é",
        "😀",
        ".",
        "[ab]",
        "[^a]",
        "[a-c]",
        "\\d",
        "\\w",
        "\\W",
        "\\.",
        '"',
        "\\\\",
        "\\n",
        "[\\s.]",
        "\\u00e9",
    ]
)
PATTERNS = st.recursive(
    ATOMS,
    lambda p: st.one_of(
        st.tuples(p, p).map("".join),
        st.tuples(p, p).map(lambda t: f"(?:{t[0]}|{t[1]})"),
        st.tuples(p, st.sampled_from(["*", "+", "?", "{2}", "{0,2}", "{1,}", "+?"])).map(
            lambda t: f"({t[0]}){t[1]}"
        ),
        p.map(lambda t: f"(^{t}|{t}$)"),
    ),
    max_leaves=6,
)
TIED = st.tuples(st.sampled_from(["", "^"]), PATTERNS, st.sampled_from(["", "$"])).map("".join)
TEXTS = st.text('abcé😀.1_ \n"\\\x01\u0416', max_size=8)
LIKE = TIED.flatmap(lambda p: st.tuples(st.just(p), TEXTS | st.from_regex(python(p))))


def python(pattern):
    """The same pattern for re: there $ also matches before a last line end, and . takes \\r."""
    return re.compile(pattern.replace("$", "\\Z"), re.ASCII)


def read_bytes(pattern, data):
    """-> (state, characters), or None where the bytes cannot go on."""
    table, state, characters = pattern.bytes(), 0, 0
    for byte in data:
        if byte not in table[state]:
            return None
        state, done = table[state][byte]
        characters += done
    return state, characters


@given(LIKE)
def test_matches_what_re_matches(case):
    pattern, text = case
    if "\r" in text or "\u2028" in text or "\u2029" in text:
        return
    expected = python(pattern).search(text) is not None
    built = Pattern(pattern)
    assert built.matches(text) == expected
    assert (~built).matches(text) != expected


@given(TIED, TIED, TEXTS)
def test_both_together_is_the_intersection(one, other, text):
    one, other = Pattern(one), Pattern(other)
    assert (one & other).matches(text) == (one.matches(text) and other.matches(text))


@given(TIED, st.text(st.characters(codec="utf-8"), max_size=6) | TEXTS)
def test_bytes_of_a_string_lead_where_its_characters_lead(pattern, text):
    pattern = Pattern(pattern)
    state, characters = read_bytes(pattern, json.dumps(text, ensure_ascii=False)[1:-1].encode())
    assert characters == len(text) and (state in pattern.final) == pattern.matches(text)


@given(st.binary(max_size=8))
def test_only_canonical_bytes_are_read(data):
    found = read_bytes(Pattern(""), data)
    try:
        text = json.loads(b'"' + data + b'"')
        canonical = json.dumps(text, ensure_ascii=False).encode() == b'"' + data + b'"'
    except ValueError:
        canonical = False
    assert canonical == (found is not None and found[0] < len(Pattern("").rows))


def test_every_character_has_exactly_one_spelling():
    pattern = Pattern("")
    for code in [*range(0xD800), *range(0xE000, 0x10000), *range(0x10000, 0x110000, 97), 0x10FFFF]:
        assert read_bytes(pattern, json.dumps(chr(code), ensure_ascii=False)[1:-1].encode())[1] == 1
    for other in [
        b"\\/",
        b"\\u0041",
        b"\\u001F",
        b"\\u000a",
        b"\x01",
        b'"',
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
    ]:
        found = read_bytes(pattern, other)
        assert found is None or found[1] == 0


@pytest.mark.parametrize(
    "pattern, why",
    [
        ("(?=a)", "lookaround"),
        ("(?<n>a)", "named groups"),
        ("(a)\\1", "not regular"),
        ("\\bfoo", "not regular"),
        ("\\p{L}", "not regular"),
        ("(", "without its )"),
        (")", "without its ("),
        ("a**", "two counts"),
        ("*", "nothing before"),
        ("[z-a]", "out of order"),
        ("a{2", "no count"),
        ("a{3,2}", "out of order"),
        ("[a", "too early"),
        ("\\", "too early"),
        ("^*", "cannot be repeated"),
        ("[ab].{20}", "states"),
        ("(a{1000}){1000}", "too large"),
        ("(" * 60 + ")" * 60, "too deep"),
        ("a}", "alone"),
        ("\\xg0", "hex digits"),
    ],
)
def test_what_is_not_regular_is_refused_by_name(pattern, why):
    with pytest.raises(UnsupportedSchema, match=re.escape(why)):
        Pattern(pattern)


@given(st.text(max_size=15))
def test_any_text_is_a_pattern_or_is_refused(text):
    try:
        Pattern(text)
    except UnsupportedSchema:
        pass
