"""builtin: the calculator is exact, and the other tools say what is wrong with their arguments.

A model may write any expression, so no expression may run code or take a long time."""

import re
import time
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

import audio
from audio.transcript import Transcript
from tools.builtin import MOST_TEXT, TOOLS, add_days, calculator, now, transcribe
from tools.protocol import Call
from tools.registry import Registry

NUMBERS = st.integers(0, 99).map(str)
SUMS = st.recursive(
    NUMBERS,
    lambda inner: (
        st.tuples(inner, st.sampled_from(["+", "-", "*", "//", "%"]), inner).map(" ".join)
        | inner.map("({})".format)
        | inner.map("-{}".format)
        | st.tuples(inner, st.integers(0, 3)).map("({0[0]})**{0[1]}".format)
    ),
    max_leaves=8,
)


@given(SUMS)
def test_integer_results_agree_with_python(text):
    try:
        expected = eval(text)
    except ZeroDivisionError:
        with pytest.raises(ValueError, match="zero"):
            calculator(text)
        return
    if abs(expected) < 10**900:
        result = calculator(text)
        assert result == expected and type(result) is int


@given(st.decimals(-999, 999, places=2), st.decimals(-999, 999, places=3))
def test_decimals_are_exact(a, b):
    for sign, expected in (
        ("+", Fraction(a) + Fraction(b)),
        ("-", Fraction(a) - Fraction(b)),
        ("*", Fraction(a) * Fraction(b)),
    ):
        assert Fraction(calculator(f"({a}){sign}({b})")) == expected
    if b:
        assert Fraction(calculator(f"({a})//({b})")) == Fraction(a) // Fraction(b)
        assert Fraction(calculator(f"({a})%({b})")) == Fraction(a) % Fraction(b)
        exact = Fraction(a) / Fraction(b)
        assert abs(Fraction(calculator(f"({a})/({b})")) - exact) <= abs(exact) * Fraction(1, 10**27)


FRACTIONS = st.recursive(
    st.decimals(0, 99, places=1).map(str) | NUMBERS,
    lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map("({0[0]}{0[1]}{0[2]})".format),
    max_leaves=8,
)


@given(FRACTIONS)
def test_only_the_final_result_is_rounded(text):
    try:
        exact = eval(re.sub(r"[\d.]+", r"Fraction('\g<0>')", text))
    except ZeroDivisionError:
        return
    result = calculator(text)
    assert type(result) is (int if exact.denominator == 1 else Decimal)
    assert abs(Fraction(result) - exact) <= abs(exact) * Fraction(1, 10**27)
    digits = str(result).replace(".", "").lstrip("-0")
    assert exact.denominator == 1 or (len(digits.split("E")[0]) <= 28 and not digits.endswith("0"))


def test_fractions_with_too_many_digits_are_rounded():
    month = Fraction("0.0425") / 12
    for text, exact in (
        ("100000*(1+0.0425/12)**360", 100000 * (1 + month) ** 360),
        ("+".join(f"1/{10**98 + n}" for n in range(9)), sum(Fraction(1, 10**98 + n) for n in range(9))),
        ("/".join(["(2/3)"] + ["(9**300/7**300)", "(7**300/9**300)"] * 9), Fraction(2, 3)),
        ("-(2/3)**1001/7**900", -(Fraction(2, 3) ** 1001) / 7**900),
    ):
        assert abs(Fraction(calculator(text)) - exact) <= abs(exact) * Fraction(1, 10**27)


@given(st.integers(0, 10**9))
def test_the_square_of_a_square_root_is_the_original_number(n):
    assert calculator(f"({n}**0.5)**2") == n and calculator(f"{n * n}**0.5") == n


@pytest.mark.parametrize(
    "text, expected",
    [
        ("0.1+0.2", "0.3"),
        ("11/18*162", "99"),
        ("1/3*3", "1"),
        ("6//(2/3)", "9"),
        ("7%(.5/3)", "0"),
        ("(1/3)*3", "1"),
        ("1e3", "1000"),
        ("2.5E-1*4", "1"),
        ("1e+2", "100"),
        ("6.0/4", "1.5"),
        ("2**-2*4", "1"),
        ("7.5//2", "3"),
        ("10**999/10**999", "1"),
        ("1/3", "0.3333333333333333333333333333"),
        ("6/3", "2"),
        ("1/8", "0.125"),
        ("-2**2", "-4"),
        ("2**-1", "0.5"),
        ("2**3**2", "512"),
        ("2**-2**2*16", "1"),
        ("8-3-2", "3"),
        ("-7//2+8/2/2*3", "2"),
        ("3×4÷6", "2"),
        ("10 − 4", "6"),
        (" 7\n+ 1e05 - 10.050", "99996.95"),
        ("+7-+2", "5"),
        ("0e5000", "0"),
        ("2**100.5", "1792728671193156477399422023000"),  # rounded to 28 digits
        ("(10**60)**0.5", "1e30"),
        ("-(2**0.5)*10**60", "-1414213562373095048801688724e33"),
        ("(" * 90 + "1" + ")" * 90, "1"),
        ("-" * 90 + "1", "1"),
        ("+".join(["1"] * 300), "300"),
    ],
)
def test_an_expression_has_the_expected_value(text, expected):
    assert calculator(text) == Decimal(expected)


@pytest.mark.parametrize(
    "text, words",
    [
        ("9**9**9", "1000 digits"),
        ("(((9**64)**64)**64)**64", "1000 digits"),
        ("9**999*9**99", "1000 digits"),
        ("1e999999999", "1000 digits"),
        ("1e-999999999", "1000 digits or 1000 zeros after the point"),
        ("007", "leading zeros .* not permitted\\): write it like"),
        ("٤", "'٤' is not allowed"),
        ("1e99999999999999999999", "1000 digits"),
        ("1e", "write it like \\(3"),
        ("e", "'e' is not allowed"),
        ("...", "'...' is not allowed"),
        ("2(3)", "write \\* before a parenthesis"),
        ("9**(10**400)", "exponent may be at most"),
        ("9**-(10**400)", "exponent may be at most"),
        ("0.1**600*0.1**600", "1000 digits or 1000 zeros after the point"),
        ("(1/3)**2100", "1000 digits or 1000 zeros after the point"),
        ("(1+1/10**40)**(10**41)", "exponent may be at most"),
        ("5.5**2000", "1000 digits"),
        ("2**0.5*10**60 % 7", "exact numbers"),
        ("1002//(3**0.5)**2", "exact numbers"),
        ("(10**900)**1.5", "1000 digits"),
        ("(10**-900)**1.5", "1000 digits or 1000 zeros after the point"),
        ("0**-0.5", "zero"),
        ("1/0", "zero"),
        ("0**-1", "zero"),
        ("5%0", "zero"),
        ("2^3", "write \\*\\*"),
        ("1,000", "without commas"),
        ("", "write it like \\(3"),
        ("1+", "write it like \\(3"),
        ("3 4", "'3 4' is not an expression \\(invalid syntax\\): write it like \\(3"),
        ("(1", "was never closed\\): write it like \\(3"),
        ("(" * 400 + "1" + ")" * 400, "too many nested parentheses|nested too deeply"),
        ("-" * 999 + "1", "nested too deeply"),
        ("2**" * 90 + "1", "1000 digits"),
        ("abs(1)", "not allowed"),
        ("__import__('os')", "not allowed"),
        ("1" * 1001, "1000 characters"),
        ("(-8)**0.5", "negative"),
    ],
)
def test_a_refused_expression_takes_less_than_a_second(text, words):
    start = time.process_time()  # CPU time, which does not depend on other programs
    with pytest.raises(ValueError, match=words):
        calculator(text)
    assert time.process_time() - start < 1


@given(st.text("0123456789.+-*/%() e_x", max_size=30))
def test_any_text_gives_a_number_or_a_value_error(text):
    try:
        assert isinstance(calculator(text), (int, Decimal))
    except ValueError as error:
        assert str(error)


def test_dates_are_computed_but_an_invalid_date_or_time_zone_is_refused():
    assert add_days("2026-11-24", 7) == {"date": "2026-12-01", "weekday": "Tuesday"}
    assert now("UTC").endswith("+0000")
    for function, arguments, words in (
        (add_days, ("tomorrow",), "not a date"),
        (now, ("Moon",), "no time zone"),
    ):
        with pytest.raises(ValueError, match=words):
            function(*arguments)


def test_the_calculator_runs_from_a_registry():
    registry = Registry(TOOLS)
    (result,) = registry.execute([Call("calculator", {"expression": "12*7"})])
    assert result.ok and result.value == 84


@given(st.lists(st.integers(1, MOST_TEXT), max_size=4))
def test_the_parts_of_a_transcript_make_up_the_whole(counts):
    job = "74e5a87c-bd99-48e6-b8d1-529094cbc43d"
    utterances = [{"text": "ab " * n, "speaker": "A", "start": 0, "end": 9, "words": []} for n in counts]

    class Client:
        def submit(self, source, speakers):
            assert source == "talk.wav" and speakers
            return Transcript({"id": job})

        def wait(self, id, timeout):
            assert id == job
            return Transcript({"id": job, "utterances": utterances, "audio_duration": 9})

    text, arguments = "", {"source": "talk.wav"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audio, "Client", Client)
        while arguments:
            part = transcribe(**arguments)
            assert len(part["text"]) <= MOST_TEXT and part["seconds"] == 9
            text, arguments = text + part["text"], part.get("continue_with")
    assert text == Client().wait(job, 1).labelled()
