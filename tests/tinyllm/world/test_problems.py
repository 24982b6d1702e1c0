"""problems: solutions have correct steps, and steps_are_correct refuses a solution with one wrong digit.

Otherwise a model would learn wrong steps, or the exams would accept wrong ones.
"""

import math
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm.world import World, numbers, people, problems, split_of
from tinyllm.world.dice import Dice
from tinyllm.world.task import final_answer, is_correct
from tinyllm.world.wordings import WORDINGS
from tools.protocol import parse

WORLD = World(0)
TEMPLATES = WORDINGS["problems"]
seeds = st.integers(0, 1000)
kinds = st.sampled_from(list(problems.KINDS))


def value_of(expression):
    """The value of an expression such as "3*4-2"."""
    products = re.findall(r"[+-]?\d+(?:\*\d+)?", expression)
    assert "".join(products) == expression
    return sum(math.prod(map(int, product.split("*"))) for product in products)


def test_the_example_in_the_docstring_is_correct():
    example = problems.__doc__.split("now?")[1].split("The solution")[0]
    example = " ".join(example.split())
    assert problems.steps_are_correct(example) and final_answer(example) == "18"
    assert problems.with_letters(["Ada buys 5 more", "Ada gives 4 to Bill"]) in example


@settings(max_examples=50)
@given(seeds, st.integers(1, 6))
def test_the_solution_of_a_story_follows_its_plan_step_by_step(seed, steps):
    task = problems.story(Dice(str(seed)), steps)
    assert problems.steps_are_correct(task.reply) and final_answer(task.reply) == task.answer
    assert is_correct(task, task.reply)
    assert task.key.count("+") + task.key.count("-") == steps
    sentences = [sentence.removesuffix(".") for sentence in task.question.split(". ")[1:-1]]
    plan = problems.with_letters(sentences)
    assert steps <= len(sentences) <= 6
    assert task.reply.startswith(f"{plan}. a ")
    repeated = re.findall(r"(?:^|\. )([a-h] [^.:]+)(?=[.:])", task.reply.removeprefix(f"{plan}. "))
    assert " ".join(repeated) == plan
    assert value_of(task.key.removeprefix("chain ")) == int(task.answer)


@given(seeds, st.integers(1, 6))
def test_a_total_stays_between_0_and_200_and_the_sentences_state_the_numbers_in_the_key(seed, steps):
    task = problems.story(Dice(str(seed)), steps)
    first, *changes = re.findall(r"[+-]?\d+", task.key)
    totals = [int(first)]
    for change in changes:
        assert 1 <= abs(int(change)) <= 99
        totals.append(totals[-1] + int(change))
    assert all(0 <= total <= 200 for total in totals) and 2 <= totals[0] <= 99
    start, *sentences, question = re.split(r"(?<=\.) ", task.question)
    assert first in start
    with_numbers = [sentence for sentence in sentences if re.search(r"\d", sentence)]
    numbers_stated = [re.search(r"\d+", sentence)[0] for sentence in with_numbers]
    assert numbers_stated == [change.strip("+-") for change in changes]
    (who,) = {name for name in people.NAMES if re.search(rf"\b{name}\b", question)}
    for sentence, change in zip(with_numbers, changes):
        gains = re.search(rf"^{who} (buys|finds|gets)|gives \d+ to {who}\.", sentence) is not None
        assert gains == (change[0] == "+")


def test_the_effect_of_a_gift_begins_with_the_giver_and_the_receiver():
    assert problems.effect("Ada buys 5 more", "Ada", "+") == "Ada +"
    assert problems.effect("Bill takes 5", "Ada", "-") == "Ada -"
    gift = "Bill gives 5 to Ada"
    assert problems.effect(gift, "Ada", "+") == "Bill gave, Ada got, so Ada got +"
    assert problems.effect(gift, "Bill", "-") == "Bill gave, Ada got, so Bill gave -"


def test_a_total_goes_up_or_down_but_never_leaves_the_range_from_0_to_200():
    dice = Dice("changes")
    for total in range(201):
        changes = [problems.draw_change(dice, total) for _ in range(60)]
        signs = {sign for sign, _ in changes}
        assert signs == ({"+"} if total <= 1 else {"-"} if total > 101 else {"+", "-"})
        for sign, n in changes:
            assert 1 <= n <= 99 and 0 <= (total + n if sign == "+" else total - n) <= 200
    signs = Counter(problems.draw_change(dice, 50)[0] for _ in range(2000))
    assert 900 < signs["+"] < 1100
    assert {n for _, n in (problems.draw_change(dice, 5) for _ in range(2000)) if n > 95}


@settings(max_examples=50)
@given(seeds, st.data())
def test_a_solution_with_one_wrong_digit_is_not_correct(seed, data):
    reply = problems.story(Dice(str(seed))).reply
    places = [
        place
        for match in re.finditer(r"\d+[+-]\d+:[^.]*\.|#### \d+", reply)
        for place in range(match.start(), match.end())
        if reply[place].isdigit()
    ]
    place = data.draw(st.sampled_from(places))
    digit = data.draw(st.sampled_from("0123456789".replace(reply[place], "")))
    broken = f"{reply[:place]}{digit}{reply[place + 1 :]}"
    assert not problems.steps_are_correct(broken)
    assert not problems.steps_are_correct(f"{reply}0")


def test_a_step_must_start_from_the_last_result_and_the_last_result_must_be_the_answer():
    first = f"12+5:{numbers.columns(12, '+', 5)}."
    second = f"17-4:{numbers.columns(17, '-', 4)}."
    assert problems.steps_are_correct(f"{first} {second} #### 13")
    assert problems.steps_are_correct(f"{first} #### 17")
    assert not problems.steps_are_correct(f"{first} {second} #### 17")
    assert not problems.steps_are_correct(f"{second} {first} #### 17")
    assert not problems.steps_are_correct(f"{first} {second}")
    assert not problems.steps_are_correct("#### 13") and not problems.steps_are_correct("")
    for answer in ("13", "-13"):
        below_zero = f"4-17:{numbers.columns(4, '-', 17)}. #### {answer}"
        assert not problems.steps_are_correct(below_zero)


def ranking_of(question):
    """The names from first to last, worked out from the premises of a question."""
    below = dict(re.findall(r"(\w+) is \w+ than (\w+)\.", question))
    (name,) = set(below) - set(below.values())
    ranking = [name]
    while name in below:
        name = below[name]
        ranking.append(name)
    return ranking


@given(seeds)
def test_the_answer_is_the_first_or_the_last_person_of_the_ranking(seed):
    task = problems.order(Dice(str(seed)))
    ranking = ranking_of(task.question)
    question = re.search(r"Who is the (\w+)\?", task.question)[0]
    relation = task.key.split()[1]
    first = question == TEMPLATES["comparisons"][relation]["first"]
    assert first or question == TEMPLATES["comparisons"][relation]["last"]
    assert task.answer == ranking[0 if first else -1] == task.reply.split("#### ")[1]
    assert len(ranking) in (3, 4) and is_correct(task, task.reply)
    if first:  # the solution tries names until it finds someone with nobody above
        assert task.reply.count(" not") == 1 and f" {task.answer} not ####" in task.reply
    else:
        assert task.reply.endswith(f", {task.answer} ends #### {task.answer}")


@given(seeds)
def test_a_comparison_is_answered_by_walking_down_the_ranking(seed):
    task = problems.truth(Dice(str(seed)))
    ranking = ranking_of(task.question)
    goal, name = re.search(r"Compared with (\w+), is (\w+) ", task.question).groups()
    is_above = ranking.index(name) < ranking.index(goal)
    assert task.answer == ("yes" if is_above else "no") == task.reply.split("#### ")[1]
    assert f". {goal} goal. {name} " in task.reply
    end = f"{goal} goal" if is_above else f"{ranking[-1]} ends"
    assert task.reply.endswith(f"{end} #### {task.answer}")


@given(seeds, st.sampled_from([problems.order, problems.truth]))
def test_every_statement_in_a_solution_about_a_ranking_is_true(seed, make):
    task = make(Dice(str(seed)))
    ranking, pairs = ranking_of(task.question), re.findall(r"(\w+) is \w+ than (\w+)\.", task.question)
    below = dict(pairs)
    plan = problems.with_letters(" ".join(pair) for pair in pairs)
    assert task.reply.startswith(f"{plan}. ")
    for name, word in re.findall(r"([A-Z]\w+) (\w+)", task.reply.removeprefix(f"{plan}. ")):
        if word in ("under", "not"):
            assert (word == "under") == (name != ranking[0])
        elif word == "ends":
            assert name == ranking[-1]
        elif word == "goal":
            assert f"Compared with {name}," in task.question
        else:
            assert below[name] == word


def test_answers_and_relations_are_balanced_and_the_order_of_premises_is_random():
    dice = Dice("rankings")
    tasks = [problems.order(dice) for _ in range(1000)] + [problems.truth(dice) for _ in range(1000)]
    first = sum(ranking_of(task.question)[0] == task.answer for task in tasks[:1000])
    yes = sum(task.answer == "yes" for task in tasks[1000:])
    assert 440 < first < 560 and 440 < yes < 560
    relations = Counter(task.key.split()[1] for task in tasks)
    assert len(relations) == 4 and all(400 < count < 600 for count in relations.values())
    in_order = 0
    for task in tasks:
        first_premise = re.search(r"(\w+) is \w+ than (\w+)\.", task.question).groups()
        in_order += first_premise == tuple(ranking_of(task.question)[:2])
    # A question has two or three premises in random order, and one of them is about the top two names.
    assert 700 < in_order < 980


@given(seeds)
def test_exactly_one_claim_is_wrong_and_the_solution_checks_the_claims_up_to_it(seed):
    task = problems.mistake(Dice(str(seed)))
    claims = re.findall(r"(\d)\) (\d+[+-]\d+)=(\d+)\.", task.question)
    wrong = [i for i, expression, claim in claims if value_of(expression) != int(claim)]
    assert wrong == [task.answer] == [final_answer(task.reply)] and len(claims) in (2, 3)
    step = r"(\d)\) (\S+)=(\d+), said \3\. \2:(\S+),(\d+), said \3\. \5-\3:(\S+) (right|wrong)\."
    steps = re.findall(step, task.reply)
    assert [(i, expression, claim) for i, expression, claim, *_ in steps] == claims[: int(task.answer)]
    for i, expression, claim, columns, result, comparison, verdict in steps:
        a, sign, b = re.fullmatch(r"(\d+)([+-])(\d+)", expression).groups()
        assert f"{columns},{result}" == numbers.columns(int(a), sign, int(b))
        assert comparison == numbers.compare(int(result), int(claim))
        assert verdict == ("wrong" if i == task.answer else "right")


def test_a_wrong_claim_is_1_2_or_10_too_low_or_too_high():
    dice, errors, places = Dice("mistakes"), Counter(), Counter()
    for _ in range(2000):
        task = problems.mistake(dice)
        claims = re.findall(r"(\d)\) (\d+[+-]\d+)=(\d+)\.", task.question)
        for i, expression, claim in claims:
            if i == task.answer:
                errors[int(claim) - value_of(expression)] += 1
        places[len(claims), task.answer] += 1
    assert set(errors) == {-10, -2, -1, 1, 2, 10} and min(errors.values()) > 200
    assert set(places) == {(2, "1"), (2, "2"), (3, "1"), (3, "2"), (3, "3")}
    assert abs(places[2, "1"] - places[2, "2"]) < 130 and abs(places[3, "1"] - places[3, "3"]) < 130


@given(seeds, st.booleans())
def test_the_solution_of_a_calculator_problem_consists_of_a_call_the_result_and_the_answer(seed, unseen):
    task = problems.calculator(Dice(str(seed)), unseen)
    (call,) = parse(task.reply)
    expression = call.arguments["expression"]
    assert call.name == "calculator" and task.key == f"calculator {expression}"
    assert str(value_of(expression)) == task.answer and int(task.answer) >= 0
    result, answer = task.later_turns
    assert result == {"role": "tool", "content": f"<tool_response>{task.answer}</tool_response>"}
    assert answer == {"role": "assistant", "content": f"#### {task.answer}"}
    in_question = re.findall(r"\d+", task.question)
    assert sorted(in_question) == sorted(re.findall(r"\d+", expression))
    if expression not in task.question:  # in a story
        assert ("more come" in task.question) == ("+" in expression)
        assert ("are bad" in task.question) == ("-" in expression)
    assert "*" in expression or "calculator" in task.question  # a plain sum would be worked out in columns


def test_training_uses_all_trained_wordings_for_the_calculator_and_exams_use_the_held_out_ones():
    tables = TEMPLATES["calculator"]["bare"], TEMPLATES["calculator"]["products"]
    for split, used, unused in (("train", "trained", "held_out"), ("test", "held_out", "trained")):
        tasks = WORLD.problems(split, 600, kind="calculator")
        questions = {re.sub(r"\d.*\d", "{}", task.question) for task in tasks}
        assert questions >= {wording for table in tables for wording in table[used]}
        assert not questions & {wording for table in tables for wording in table[unused]}


def test_every_number_of_steps_has_its_share_of_stories():
    tasks = WORLD.problems("train", 2000, kind="story")
    steps = Counter(len(re.findall(r"[+-]", task.key)) for task in tasks)
    assert abs(steps[2] - 500) < 80 and abs(steps[3] - 500) < 80 and abs(steps[4] - 1000) < 90
    assert all(task.reply for task in tasks)
    lengths = {s: Counter() for s in (2, 3, 4)}
    for task in tasks:
        lengths[len(re.findall(r"[+-]", task.key))][task.question.count(". ") - 1] += 1
    # Some stories have up to six sentences because some sentences change nothing.
    # So the number of sentences does not give away the number of steps.
    assert {s: set(counts) for s, counts in lengths.items()} == {s: set(range(s, 7)) for s in (2, 3, 4)}


def test_every_kind_has_its_share_of_problems():
    counts, total = Counter(task.kind for task in WORLD.problems("train", 3500)), sum(problems.KINDS.values())
    assert all(abs(counts[kind] - 3500 * share / total) < 110 for kind, share in problems.KINDS.items())
    assert set(counts) == set(problems.KINDS)


@given(kinds, st.sampled_from(["train", "val", "test"]), seeds)
def test_a_problem_has_the_requested_split_and_kind(kind, split, seed):
    task = problems.problem(Dice(str(seed)), WORLD, split, kind)
    assert task.kind == kind and split_of(task.key) == split


@pytest.mark.parametrize("steps", [1, 5, 6])
def test_the_number_of_steps_can_be_chosen(steps):
    for task in WORLD.problems("test", 50, kind="story", steps=steps):
        assert len(re.findall(r"[+-]", task.key)) == steps


def test_there_are_many_different_stories():
    assert len({task.key for task in WORLD.problems("test", 6000, kind="story")}) >= 4000
