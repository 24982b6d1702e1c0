"""numbers: a prefix is alive exactly where a canonical number within the bounds begins with it."""

import json
import math
from fractions import Fraction

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tools.dialect import exact
from tools.numbers import REACH, Bounds, canonical, likeness, tail

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = FLOATS | st.integers() | st.integers(-200, 200) | st.decimals(-99, 99, places=2).map(float)
STEPS = st.sampled_from([None, 1, 1, 2, 7, 10, 0.01, 0.5, 2.5]).map(lambda s: s and exact(s))


@st.composite
def bounds(draw):
    low, high = draw(st.none() | VALUES), draw(st.none() | VALUES)
    return Bounds(-math.inf if low is None else exact(low), draw(st.booleans()),
                  math.inf if high is None else exact(high), draw(st.booleans()), draw(STEPS))  # fmt: skip


@st.composite
def cases(draw):
    within = draw(bounds())
    near = [exact(draw(VALUES))] + [b for b in (within.low, within.high) if abs(b) < 10**300]
    value = draw(st.sampled_from(near)) + draw(st.sampled_from([0, 1, -1, Fraction(1, 10)]))
    value = value // within.step * within.step if within.step and draw(st.booleans()) else value
    return within, int(value) if value.denominator == 1 and draw(st.booleans()) else float(value)


@given(cases())
@settings(deadline=None)
def test_a_number_is_taken_exactly_where_it_lies_within_the_bounds(case):
    within, value = case
    text = json.dumps(value)
    inside = exact(value) in within
    assert (tail(text, within) == 0) == inside
    if inside:
        for length in range(len(text)):
            assert tail(text[:length], within) <= len(text) - length


@given(bounds(), st.data())
@settings(deadline=None, max_examples=60)
def test_every_live_prefix_reaches_an_end_in_the_bytes_promised(within, data):
    text, left = "", tail("", within)
    if left is None:
        return
    for _ in range(30):
        after = {byte: tail(text + byte, within) for byte in "-0123456789.e+"}
        after = {byte: more for byte, more in after.items() if more is not None}
        assert left == 0 or min(after.values()) == left - 1
        if not after or left == 0 and data.draw(st.booleans()):
            break
        byte = data.draw(st.sampled_from(sorted(after)))
        text, left = text + byte, after[byte]
    while left:
        byte = next(b for b in "-0123456789.e+" if tail(text + b, within) == left - 1)
        text, left = text + byte, left - 1
    assert canonical(text) and json.dumps(json.loads(text)) == text and exact(json.loads(text)) in within


@given(bounds() | st.sampled_from([Bounds(), Bounds(step=Fraction(1)), Bounds(low=Fraction(0))]), st.data())
@settings(deadline=None, max_examples=300)
def test_what_may_follow_a_text_may_follow_its_likeness(within, data):
    text = data.draw(st.from_regex(r"-?(0|[1-9][0-9]{0,3}|[1-9][0-9]{8,18})(\.[0-9]{0,9})?", fullmatch=True))
    assume(tail(text, within) is not None)
    more = data.draw(st.sampled_from(["", "0", "00", ".", ".0", "e", "e+", "e+3", "e+30", "e-32", ".50"])
                     | st.text("0123456789.e+-", max_size=REACH))  # fmt: skip
    assert tail(text + more, within) == tail(likeness(text, within) + more, within)


def test_numbers_of_one_shape_share_a_likeness():
    assert likeness("305", Bounds()) == likeness("999", Bounds()) != likeness("99", Bounds())
    assert likeness("-7.250", Bounds()) == likeness("-1.110", Bounds()) != likeness("1.110", Bounds())
    assert likeness("305", Bounds(high=Fraction(400))) == "111"
    assert likeness("305", Bounds(Fraction(300), high=Fraction(310))) == "305"


@given(bounds(), bounds(), VALUES)
def test_bounds_meet_as_sets_do(one, other, value):
    value = exact(value)
    assert (value in (one & other)) == (value in one and value in other)
    assert (-value in one.mirrored()) == (value in one)
