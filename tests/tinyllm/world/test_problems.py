"""The world's tasks: answers are true, chains are right, and no exam stands in any training text."""

import functools
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm.world import World, instructions, lexicon, numbers, people, problems, split_of
from tinyllm.world.dice import Dice
from tinyllm.world.task import Task, final_answer, right
from tools.builtin import calculator
from tools.protocol import parse

WORLD = World(0)
seeds = st.integers(0, 1000)
kinds = st.sampled_from(list(problems.KINDS))


@given(st.integers(0, 300), st.integers(0, 300))
def test_columns_end_in_the_result_and_every_step_is_true(a, b):
    for sign in "+-":
        high, low = (a, b) if sign == "+" else (max(a, b), min(a, b))
        *steps, result = numbers.columns(high, sign, low).split(",")
        assert int(result) == (high + low if sign == "+" else high - low)
        for step in steps:
            left, value = step.split("=")
            first, *rest = map(int, left.split(sign))
            assert int(value) == (first + sum(rest) if sign == "+" else first - sum(rest)) >= 0


@given(st.integers(0, 300), st.integers(0, 300))
def test_ten_is_lent_to_the_ones_whether_it_is_needed_or_not(a, b):
    high, low = max(a, b), min(a, b)
    ones, tens, _ = numbers.columns(high, "-", low).split(",")
    assert ones.startswith(f"1{high % 10}-{low % 10}=")
    assert tens.count("-") == (low > 9) + (int(ones.split("=")[1]) < 10)


@given(st.integers(0, 300), st.integers(0, 300))
def test_numbers_are_the_same_if_every_digit_and_ten_less_the_other_is_10(a, b):
    *tens, last = numbers.compare(a, b).split(",")
    assert all(step.endswith("=10") for step in tens) and last.endswith("=10") == (a == b)
    for step in (*tens, last):
        top, low, difference = map(int, re.split("[-=]", step))
        assert top - low == difference and 10 <= top < 20 and 0 <= low < 10


@settings(max_examples=30)
@given(seeds, st.sampled_from([*instructions.MEASURED]), st.sampled_from(["train", "test"]), st.booleans())
def test_every_writer_is_right_in_what_is_measured(seed, family, split, unseen):
    for task in World(seed).instructions(split, 5, family=family, unseen=unseen):
        assert task.kind == "stranger" or right(task, task.reply) and not right(task, "Unknown to me.")


def test_a_reply_is_right_whatever_its_manners_but_not_with_two_answers():
    task = Task("facts", "", "", "duck", "", ("dog", "cat"))
    assert right(task, "Gladly. Ada keeps a duck.") and right(task, "A DUCK!")
    assert not right(task, "Ada keeps a duck or a dog.") and not right(task, "ducks") and not right(task, "")
    total = Task("sums", "", "", "12", "")
    assert right(total, "7+5: 7+5=12, 12.") and not right(total, "12, no, 13") and not right(total, "112")


@settings(max_examples=50)
@given(seeds, st.integers(1, 6))
def test_story_problems_come_with_chains_that_follow(seed, steps):
    task = problems.story(Dice(str(seed)), steps)
    assert problems.follows(task.reply) and final_answer(task.reply) == task.answer
    assert task.key.count("+") + task.key.count("-") == steps
    told = [sentence.removesuffix(".") for sentence in task.question.split(". ")[1:-1]]
    plan = " ".join(f"{letter} {sentence}" for letter, sentence in zip("abcdefgh", told))
    done = re.findall(r"(?:^|\. )([a-h] [^.:]+)(?=[.:])", task.reply.removeprefix(f"{plan}. "))
    assert task.reply.startswith(f"{plan}. a ") and " ".join(done) == plan
    assert calculator(task.key.removeprefix("chain ")) == int(task.answer)
    broken = re.sub(r"=(\d)", lambda m: f"={(int(m[1]) + 1) % 10}", task.reply, count=1)
    assert not problems.follows(broken)
    assert not problems.follows(f"{task.reply}0")


def those_under(below, name):
    return [below[name], *those_under(below, below[name])] if name in below else []


@settings(max_examples=50)
@given(seeds)
def test_the_other_problems_are_true_too(seed):
    dice = Dice(str(seed))
    order, truth, mistake, sums = (make(dice) for make in (problems.order, problems.truth, problems.mistake,
                                                           problems.calculator))  # fmt: skip
    for task in (order, truth):
        below = dict(re.findall(r"(\w+) is \w+ than (\w+)\.", task.question))
        under = functools.partial(those_under, below)
        everyone = {*below, *below.values()}
        if task is order:
            asked = re.search(r"Who is the (\w+)", task.question)[1]
            first = asked in {words[1] for words in problems.ORDERS.values()}
            assert len(under(task.answer)) == (len(everyone) - 1 if first else 0)
        else:
            other, name = re.search(r"with (\w+), is (\w+) ", task.question).groups()
            assert task.answer == ("yes" if other in under(name) else "no")
            assert f". {other} goal. {name} " in task.reply
        plan = " ".join(f"{letter} {a} {b}" for letter, (a, b) in zip("abc", below.items()))
        assert task.reply.startswith(f"{plan}. ")
        for a, b in re.findall(r"([A-Z]\w+) (\w+)", task.reply.removeprefix(f"{plan}. ")):
            true = {"under": a in below.values(), "not": a not in below.values(), "ends": a not in below}
            assert true.get(b, b == "goal" and a == other or below.get(a) == b), task.reply
    claims = re.findall(r"(\d)\) (\d+[+-]\d+)=(\d+)\.", mistake.question)
    assert [i for i, sum_, claim in claims if calculator(sum_) != int(claim)] == [mistake.answer]
    step = r"(\d)\) (\S+)=(\d+), said \3\. \2:\S+,(\d+), said \3\. \4-\3:\S+ (right|wrong)\."
    compared = re.findall(step, mistake.reply)
    assert [(i, sum_, claim) for i, sum_, claim, _, _ in compared] == claims[: int(mistake.answer)]
    assert all((true == claim) == (found == "right") for _, _, claim, true, found in compared)
    assert all(str(calculator(sum_)) == true for _, sum_, _, true, _ in compared)
    (call,) = parse(sums.reply)
    assert str(calculator(call.arguments["expression"])) == sums.answer
    assert sums.turns[0]["content"] == f"<tool_response>{sums.answer}</tool_response>"


def exam(world):
    found = world.questions() + world.instructions("test", 300) + world.instructions("test", 300, unseen=True)
    return found + world.problems("test", 300) + world.problems("test", 100, kind="story", steps=5)


def test_no_exam_item_stands_in_training_and_no_key_in_both():
    for world in (WORLD, World(7)):
        exams = exam(world)
        taught = world.instructions("train", 20_000) + world.problems("train", 10_000)
        keys = {task.key for task in taught} | {part for task in taught for part in task.key.split(", ")}
        assert not keys & {task.key for task in exams}
        assert not {(t.question, t.reply) for t in taught} & {(t.question, t.reply) for t in exams}
        text = b"\n".join(world.documents("train", 2_000_000)).decode()
        lines = set(re.split(r"(?<=[.?]) ", text))
        for task in exams:
            assert task.question not in text
            if task.kind in ("translate", "transform", "story", "calculator"):
                assert f"{task.answer}." not in lines and task.reply not in lines
        for adjective in lexicon.ADJECTIVES:
            for noun in lexicon.NOUNS:
                if split_of(f"pair {adjective} {noun}") == "test":
                    assert f" {adjective} {noun} " not in text and lexicon.phrase(adjective, noun) not in text


def test_two_facts_of_each_person_are_never_asked_about():
    asked = Counter()
    for task in WORLD.instructions("train", 20_000, family="facts") + WORLD.instructions(
        "train", 9000, family="yes_no"
    ):
        if task.key.startswith("ask"):
            asked[tuple(task.key.split()[1:])] += 1
    for name in people.NAMES:
        assert {relation for n, relation in asked if n == name} == set(WORLD.asked[name])
    assert {t.key for t in WORLD.questions()} == {
        f"ask {n} {r}" for n in people.NAMES for r in people.VALUES if r not in WORLD.asked[n]}  # fmt: skip
    assert len(WORLD.questions()) == 240


def test_the_world_is_rich_enough():
    assert len(people.NAMES) == 120 and len(lexicon.ADJECTIVES) * len(lexicon.NOUNS) == 240
    assert not set(people.NAMES) & set(people.STRANGERS)
    said = WORLD.documents("train", 400_000)
    words = set(re.findall(r"[a-z]+", b" ".join(said).decode().lower()))
    spoken = WORLD.instructions("train", 4000) + WORLD.problems("train", 1000)
    assert len(words | set(re.findall(r"[a-z]+", " ".join(t.question for t in spoken).lower()))) >= 400
    chains = {t.key for t in WORLD.problems("test", 6000, kind="story")}
    assert len(chains) >= 4000
    stories = {t.question for t in WORLD.instructions("train", 3000, family="summary")}
    assert len(stories) > 2990
    for family in instructions.MEASURED:
        inputs = {t.question for t in WORLD.instructions("train", 6000, family=family)}
        assert len(inputs) >= 1000


WORDINGS = [people.ASK, people.IS_IT, instructions.TRANSFORM, instructions.SUMS]
WORDINGS = [pair for table in WORDINGS for pair in table.values()]
WORDINGS += [instructions.SUMMARISE, instructions.TRANSLATE, instructions.HELP]


@pytest.mark.parametrize("wordings", WORDINGS, ids=str)
def test_every_family_has_four_wordings_and_others_that_are_never_trained(wordings):
    trained, unseen = wordings
    assert len(set(trained)) >= 4 and unseen and not set(trained) & set(unseen)


def test_yes_and_no_are_balanced():
    said = Counter(t.answer for t in WORLD.instructions("train", 4000, family="yes_no"))
    assert 0.46 < said["yes"] / 4000 < 0.54


def test_answers_are_extracted_as_graders_of_gsm8k_do():
    assert final_answer("#### 1,234") == "1234" and final_answer("x #### $18.\n#### 3") == "18"
    assert final_answer("18") is None
