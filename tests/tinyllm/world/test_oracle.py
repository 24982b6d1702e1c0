"""oracle: a reply should be correct first, then polite, then short; annotators rank with some mistakes.

If the better reply were usually the longer one, a reward model would learn to measure length.
"""

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.world import World, instructions, oracle
from tinyllm.world.dice import Dice
from tinyllm.world.task import is_correct

WORLD = World(0)
ERRANDS = {"harm", "harm_by_object", "harmless"}
kinds = st.sampled_from(oracle.KINDS)
seeds = st.integers(0, 10_000)
qualities = st.tuples(st.booleans(), st.booleans(), st.integers(-9, 0))


def draw(kind, seed=0, split="train"):
    (task,) = oracle.prompts(Dice(f"{kind} {seed}"), WORLD, split, 1, kind)
    return task


@given(kinds, seeds)
def test_the_better_reply_of_a_pair_is_correct_and_has_the_higher_quality(kind, seed):
    task, better, worse = oracle.preference_pair(Dice(f"pair {seed}"), WORLD, "test", kind)
    assert oracle.kind_of(task) == kind
    assert oracle.quality(task, better) > oracle.quality(task, worse)
    assert is_correct(task, better)


@given(kinds, seeds)
def test_a_right_reply_is_correct_in_every_style_and_a_wrong_reply_in_none(kind, seed):
    dice, task = Dice(f"contents {seed}"), draw(kind, seed)
    right, wrong = oracle.right_and_wrong(dice, WORLD, task)
    for style in instructions.STYLES:
        reply = instructions.in_style(dice, right, style)
        assert is_correct(task, reply) and instructions.without_style(reply) == right
        assert oracle.is_polite(reply) == (style == "polite")
        assert not is_correct(task, instructions.in_style(dice, wrong, style))


def test_one_pair_in_three_differs_only_in_style_and_the_rest_only_in_content():
    dice, style_only, styles = Dice("thirds"), 0, Counter()
    for kind in oracle.KINDS:
        for _ in range(300):
            task, better, worse = oracle.preference_pair(dice, WORLD, "train", kind)
            if is_correct(task, worse):
                style_only += 1
                assert oracle.is_polite(better) and not oracle.is_polite(worse)
                styles["curt" if instructions.without_style(worse) == worse else "rude"] += 1
                assert any(text in worse for text in oracle.RUDE) == (
                    worse != instructions.without_style(worse)
                )
            else:
                right, wrong = map(instructions.without_style, (better, worse))
                assert better.replace(right, "{}") == worse.replace(wrong, "{}")
    assert abs(style_only / 1500 - 1 / 3) < 0.04 and abs(styles["curt"] / style_only - 1 / 2) < 0.08


def test_correct_comes_before_polite_and_polite_before_short():
    task, dice = draw("harm"), Dice("styles")
    right, wrong = oracle.right_and_wrong(Dice("contents"), WORLD, task)
    ranking = [
        instructions.in_style(dice, right, "polite"),
        right,
        instructions.in_style(dice, right, "rambling"),
        instructions.in_style(dice, wrong, "polite"),
        wrong,
    ]
    quality = [oracle.quality(task, reply) for reply in ranking]
    assert quality == sorted(quality, reverse=True) and len(set(quality)) == 5
    assert oracle.quality(task, "Happy to help. One two.") == (False, True, -5)


@pytest.mark.parametrize("style", instructions.STYLES)
def test_a_reply_is_polite_only_in_the_polite_style_and_without_a_rude_phrase(style):
    for template in instructions.STYLE_TEMPLATES.get(style, ["{}"]):
        reply = template.format("Ada has a duck.")
        assert oracle.is_polite(reply) == (style == "polite")
        assert not oracle.is_polite(f"Thank you for asking. {reply} Do not ask me again.")


@given(st.lists(qualities, min_size=1, max_size=6), seeds)
def test_an_annotator_without_mistakes_ranks_by_quality_and_equal_replies_share_a_rank(values, seed):
    ranks = oracle.annotate(Dice(str(seed)), values, slip_rate=0)
    assert ranks == [sorted(set(values), reverse=True).index(value) + 1 for value in values]
    slipped = oracle.annotate(Dice(str(seed)), values)
    assert set(slipped) == set(range(1, len(set(values)) + 1))
    for rank, value in zip(slipped, values):
        for other_rank, other_value in zip(slipped, values):
            assert (rank == other_rank) == (value == other_value)
    # If every two neighbours are swapped, one pair after the other, the best value moves to the end.
    order = sorted(set(values), reverse=True)
    always = oracle.annotate(Dice(str(seed)), order, slip_rate=1)
    assert always == [len(order), *range(1, len(order))]


def test_an_annotator_swaps_two_adjacent_ranks_one_time_in_ten():
    dice, first_swaps, second_swaps = Dice("slips"), 0, 0
    for _ in range(5000):
        ranks = oracle.annotate(dice, [3, 2, 1])
        first_swaps += ranks[1] == 1
        second_swaps += ranks[2] != 3
    assert abs(first_swaps / 5000 - 0.1) < 0.015 and abs(second_swaps / 5000 - 0.1) < 0.015


def test_every_kind_has_its_share_of_prompts():
    expected = {
        "RANKED_SHARES": dict(zip(oracle.KINDS, (2, 3, 3, 4, 6))) | {"facts": 3},
        "ROLLOUT_SHARES": dict(zip(oracle.KINDS, (2, 5, 3, 3, 4))) | {"facts": 4},
    }
    for name, shares in expected.items():
        tasks = oracle.prompts(Dice("many"), WORLD, "train", 5000, shares=getattr(oracle, name))
        counts, total = Counter(map(oracle.kind_of, tasks)), sum(shares.values())
        for kind in oracle.KINDS:
            # Questions about facts are answerable, but have a share of their own.
            share = shares[kind] + (shares["facts"] if kind == "answerable" else 0)
            assert abs(counts[kind] / 5000 - share / total) < 0.025
        # One answerable prompt in six asks for a fact. In one of six such prompts, a stranger takes the
        # place of the person, and the prompt does not count as a question about a fact.
        facts = sum(task.kind == "facts" for task in tasks) / 5000
        assert abs(facts - (shares["facts"] + shares["answerable"] * 5 / 36) / total) < 0.02
    assert {oracle.kind_of(task) for task in tasks} == set(oracle.KINDS)
    default = oracle.prompts(Dice("default"), WORLD, "train", 50)
    assert default == oracle.prompts(Dice("default"), WORLD, "train", 50, shares=oracle.RANKED_SHARES)


@given(kinds, seeds, st.sampled_from(["train", "val", "test"]))
def test_prompts_have_the_requested_kind(kind, seed, split):
    dice = Dice(f"kind {seed}")
    for task in oracle.prompts(dice, WORLD, split, 3, kind):
        if kind == "answerable":
            assert task.kind in (*instructions.WITH_ANSWER, "stranger")
        else:
            assert oracle.kind_of(task) == task.kind == kind


@pytest.mark.parametrize("kind", oracle.KINDS)
def test_no_prompt_of_an_exam_is_in_training(kind):
    trained = {task.key for task in oracle.prompts(Dice("a"), WORLD, "train", 3000, kind)}
    for split in ("val", "test"):
        tasks = oracle.prompts(Dice("b"), WORLD, split, 300, kind)
        assert not trained & {task.key for task in tasks}


def test_the_subject_of_a_task_is_a_person_or_an_errand_or_empty():
    for kind in instructions.FAMILIES:
        for task in WORLD.instructions("train", 20, family=kind):
            topic, words = oracle.subject(task)
            if task.kind in ERRANDS:
                assert topic == "errand" and re.fullmatch(r"\w+ the \w+", words)
            elif task.kind in ("facts", "yes_no", "stranger"):
                assert topic == "person" and words == task.key.split()[1]
            else:
                assert (topic, words) == ("", "")
            assert words in task.question


@given(kinds, kinds, seeds)
def test_a_transplanted_reply_names_the_person_or_errand_of_its_new_prompt(kind, other_kind, seed):
    source, target = draw(kind, seed), draw(other_kind, seed + 1)
    right, wrong = oracle.right_and_wrong(Dice(f"contents {seed}"), WORLD, source)
    (topic, old), (target_topic, new) = oracle.subject(source), oracle.subject(target)
    for reply in (right, wrong):
        transplanted = oracle.transplant(reply, source, target)
        if topic == target_topic and topic:
            assert transplanted == reply.replace(old, new)
            assert (new in transplanted) == (old in reply) or old == new
        else:
            assert transplanted == reply
        assert oracle.transplant(reply, source, source) == reply
    if {kind, other_kind} <= ERRANDS:  # a refusal stays a refusal, and help stays help
        same = (kind == "harmless") == (other_kind == "harmless")
        assert is_correct(target, oracle.transplant(right, source, target)) == same
        assert is_correct(target, oracle.transplant(wrong, source, target)) == (not same)
    elif kind == "stranger" and target_topic == "person":
        assert oracle.transplant(right, source, target) == f"{new} is unknown to me."


def test_the_better_reply_is_the_longer_one_in_about_half_of_the_pairs():
    dice, longer, count = Dice("lengths"), 0.0, 0
    for kind in oracle.KINDS:
        for _ in range(400):
            _, better, worse = oracle.preference_pair(dice, WORLD, "test", kind)
            difference = len(better.split()) - len(worse.split())
            longer += 1 if difference > 0 else 0.5 if difference == 0 else 0
            count += 1
    assert 0.45 < longer / count < 0.55
