"""numbers: every step of a sum in columns is correct, and 47+85 has the same key as 85+47.

If the keys differed, an exam could ask for 85+47 after training has shown 47+85 with nearly the same steps.
"""

import re
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tinyllm.world import World, numbers, split_of
from tinyllm.world.dice import Dice

WORLD = World(0)
seeds = st.integers(0, 10_000)
naturals = st.integers(0, 300)


def test_the_examples_in_the_docstrings_are_correct():
    assert f"47+85:{numbers.columns(47, '+', 85)} " in numbers.__doc__
    assert f"132-85:{numbers.columns(132, '-', 85)} " in numbers.__doc__
    assert f"147-85:{numbers.columns(147, '-', 85)} " in numbers.__doc__
    assert f'"{numbers.compare(132, 142)}"' in numbers.compare.__doc__


@given(naturals, naturals, st.sampled_from("+-"))
def test_columns_end_in_the_result_and_every_step_is_correct(a, b, sign):
    if sign == "-":
        a, b = max(a, b), min(a, b)
    *steps, result = numbers.columns(a, sign, b).split(",")
    assert int(result) == (a + b if sign == "+" else a - b)
    assert len(steps) == 2
    for step in steps:
        terms, value = step.split("=")
        first, *rest = map(int, terms.split(sign))
        assert int(value) == (first + sum(rest) if sign == "+" else first - sum(rest)) >= 0


@given(naturals, naturals)
def test_the_ones_always_borrow_10_and_the_tens_lose_1_only_if_the_10_was_needed(a, b):
    a, b = max(a, b), min(a, b)
    ones, tens, _ = numbers.columns(a, "-", b).split(",")
    assert ones.startswith(f"1{a % 10}-{b % 10}=") and tens.startswith(f"{a // 10}")
    assert tens.count("-") == (b > 9) + (int(ones.split("=")[1]) < 10)


@given(naturals, naturals)
def test_a_sum_carries_1_only_if_the_ones_make_more_than_9(a, b):
    ones, tens, _ = numbers.columns(a, "+", b).split(",")
    assert ones.startswith(f"{a % 10}+{b % 10}=")
    assert tens.count("+") == (b > 9) + (int(ones.split("=")[1]) > 9)


@given(naturals, naturals)
def test_a_comparison_ends_at_the_first_digits_that_differ(a, b):
    *before, last = numbers.compare(a, b).split(",")
    assert all(step.endswith("=10") for step in before) and last.endswith("=10") == (a == b)
    for i, step in enumerate((*before, last)):
        top, bottom, difference = map(int, re.split("[-=]", step))
        assert top == 10 + a // 10**i % 10 and bottom == b // 10**i % 10
        assert top - bottom == difference


@given(seeds)
def test_a_worked_sum_is_right_and_has_the_key_of_its_operands(seed):
    text, key = numbers.worked_sum(Dice(str(seed)))
    a, sign, b, steps = re.search(r"(\d+)([+-])(\d+):(\S+)\.$", text).groups()
    assert steps == numbers.columns(int(a), sign, int(b))
    x, y = re.findall(r"\d+", text)[:2]  # in either order: "take 4 from 12"
    assert sorted((x, y)) == sorted((a, b)) == sorted(re.findall(r"\d+", key))
    assert key == numbers.key_of(int(a), sign, int(b))


def test_operands_and_results_stay_in_range_and_plus_and_minus_are_equally_frequent():
    dice = Dice("operands")
    drawn = [numbers.draw_operands(dice) for _ in range(3000)]
    signs = Counter(sign for (_, sign, _), _ in drawn)
    assert 1380 < signs["-"] < 1620 and signs.total() == 3000 and set(signs) == {"+", "-"}
    results = [a + b if sign == "+" else a - b for (a, sign, b), _ in drawn]
    assert min(results) == 0 and 190 < max(results) <= 200
    assert all(max(a, b) <= 100 if sign == "+" else a <= 200 and b <= 100 for (a, sign, b), _ in drawn)
    assert all(key == numbers.key_of(*operands) for operands, key in drawn)


@given(naturals, naturals)
def test_the_order_of_the_operands_changes_the_key_of_a_difference_but_not_of_a_sum(a, b):
    assert numbers.key_of(a, "+", b) == numbers.key_of(b, "+", a) != numbers.key_of(a, "-", b)
    assert (numbers.key_of(a, "-", b) == numbers.key_of(b, "-", a)) == (a == b)


@given(seeds)
def test_counting_goes_up_by_one(seed):
    text = numbers.counting(Dice(str(seed)))
    if " follow " in text:  # for example, "8, 9, 10, 11, 12 follow 7."
        *line, a = map(int, re.findall(r"\d+", text))
    else:
        a, *line = map(int, re.findall(r"\d+", text))
    assert line == list(range(a + 1, a + 6)) and 0 <= a <= 190


@given(seeds, st.sampled_from(["train", "val", "test"]))
def test_a_document_has_two_sums_of_its_split(seed, split):
    text = numbers.document(Dice(str(seed)), WORLD, split)
    sums = re.findall(r"(\d+)([+-])(\d+):", text)
    assert len(sums) == 2
    for a, sign, b in sums:
        assert split_of(numbers.key_of(int(a), sign, int(b))) == split
