"""alternatives: two of them meet in what both allow, and the shortest strings are known."""

from itertools import islice, product
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.alternatives import WHOLE, Array, Object, Text, Words, key_bytes, meet, short_names, string_costs
from tools.dialect import UnsupportedSchema
from tools.pattern import Pattern

PATTERNS = [None, *map(Pattern, ["^a", "b", "^[^b]*$", "^(ab)*$"])]
WORDS = ["".join(letters) for length in range(4) for letters in product("ab", repeat=length)]
TEXTS = st.builds(
    Text,
    st.sampled_from(PATTERNS),
    st.integers(0, 2),
    st.sampled_from([1, 2, inf]),
    st.none() | st.frozensets(st.sampled_from(WORDS), min_size=1, max_size=5),
)


def allows(text, word):
    """Whether a Text (or None) allows a word."""
    return text is not None and (
        text.low <= len(word) <= text.high
        and (text.pattern is None or text.pattern.matches(word))
        and (text.words is None or word in text.words)
    )


@given(TEXTS, TEXTS)
def test_strings_meet_in_what_both_allow(one, other):
    common = meet(one, other)
    assert [allows(common, word) for word in WORDS] == [
        allows(one, word) and allows(other, word) for word in WORDS
    ]


def test_kinds_meet_in_themselves_only():
    for (name, one), (same, other) in product(WHOLE.items(), repeat=2):
        assert meet(one, other) == (one if name == same else None)
    assert meet(Words(frozenset([True])), Words(frozenset([False]))) is None


def test_containers_ask_of_each_place_what_both_ask():
    a, b, c, d = (frozenset([name]) for name in "abcd")
    assert meet(Array((a,), b, 1), Array((c, d), high=3)) == Array((a | c, b | d), b, 1, 3)
    one = Object((("x", a, False), ("y", b, True)), c, needed=frozenset("z"))
    other = Object((("z", d, False),), d, 1, 4, frozenset("xw"))
    names = (("x", a | d, True), ("y", b | d, True), ("z", c | d, True))
    assert meet(one, other) == Object(names, c | d, 1, 4, frozenset("w"))


@pytest.mark.parametrize(
    "shape, shortest",
    [
        (Text(), '""'),
        (Text(low=2), '"ab"'),
        (Text(Pattern("^a{2,3}b")), '"aab"'),
        (Text(Pattern("é")), '"é"'),
        (Text(Pattern('^"$')), r'"\""'),
        (Text(Pattern("^(ab)*$"), low=3), '"abab"'),
        (Text(Pattern("^a?$"), low=2), None),
    ],
)
def test_a_string_costs_the_bytes_of_a_shortest_one(shape, shortest):
    assert string_costs(shape)[0, 0] == (len(shortest.encode()) - 1 if shortest else inf)


def test_a_length_that_is_too_large_is_refused():
    with pytest.raises(UnsupportedSchema, match="too large"):
        string_costs(Text(low=10_000_000))


def test_short_names_come_shortest_first_and_are_free():
    names = list(islice(short_names({"", "a"}), 200))
    assert len(set(names)) == 200 and not {"", "a"} & set(names) and names[0] == " "
    assert list(map(len, names)) == sorted(map(len, names))
    assert all(len(key_bytes(name)) == len(name) + 2 for name in names)
