"""behaviour: each reply is judged against its own prompt, and each kind of prompt has its own score.

Stage 3 chooses its checkpoint by these scores, so a good average must not hide a bad score for one kind.
"""

from statistics import fmean

import pytest
from scripted import ScriptedPool, last_question

from tinyllm.preferences import behaviour
from tinyllm.tokenizer import train
from tinyllm.world import World, oracle, split_of
from tinyllm.world.dice import Dice

BYTES = train("", 256)
WORLD = World(0)
COUNT = 20


@pytest.mark.parametrize("split", ["val", "test"])
def test_prompts_have_the_requested_kind_and_split(split):
    by_kind = behaviour.prompts_by_kind(WORLD, split, COUNT, "manners")
    assert tuple(by_kind) == oracle.KINDS
    for kind, tasks in by_kind.items():
        assert len(tasks) == COUNT and {oracle.kind_of(task) for task in tasks} == {kind}
        for task in tasks:
            if oracle.subject(task)[0] == "errand":
                assert split_of(task.key) == split


def test_prompts_drawn_under_the_same_name_are_the_same_and_under_a_different_name_they_differ():
    first, again, other = (
        behaviour.prompts_by_kind(WORLD, "test", COUNT, name) for name in ("manners", "manners", "duels")
    )
    assert first == again
    assert all(first[kind] != other[kind] for kind in oracle.KINDS)


def test_every_reply_is_paired_with_the_task_that_it_answers():
    pool = ScriptedPool(BYTES, lambda text: f"You asked: {last_question(text)}")
    replies = behaviour.greedy_replies(pool, BYTES, WORLD, "test", COUNT)
    assert tuple(replies) == oracle.KINDS
    for kind, pairs in replies.items():
        assert len(pairs) == COUNT
        for task, reply in pairs:
            assert oracle.kind_of(task) == kind and reply == f"You asked: {task.question}"


def scores_of(reply, split="test"):
    """The mean of each outcome for a model that writes reply(task)."""
    by_kind = behaviour.prompts_by_kind(WORLD, split, COUNT, "manners")
    tasks = {task.question: task for tasks in by_kind.values() for task in tasks}
    pool = ScriptedPool(BYTES, lambda text: reply(tasks[last_question(text)]))
    outcomes = behaviour.outcomes(behaviour.greedy_replies(pool, BYTES, WORLD, split, COUNT))
    assert {name: len(each) for name, each in outcomes.items()} == dict.fromkeys(oracle.KINDS, COUNT) | {
        "polite": COUNT * len(oracle.KINDS)
    }
    return {name: fmean(each) for name, each in outcomes.items()}


@pytest.mark.parametrize("split", ["val", "test"])
def test_right_replies_score_1_for_their_kind_and_only_polite_ones_score_1_for_politeness(split):
    dice = Dice("replies")
    right = lambda task: oracle.right_and_wrong(dice, WORLD, task)[0]
    wrong = lambda task: oracle.right_and_wrong(dice, WORLD, task)[1]
    all_kinds = dict.fromkeys(oracle.KINDS, 1)
    assert scores_of(lambda task: f"{oracle.POLITE[0]} {right(task)}", split) == all_kinds | {"polite": 1}
    assert scores_of(right, split) == all_kinds | {"polite": 0}
    assert scores_of(wrong, split) == dict.fromkeys([*oracle.KINDS, "polite"], 0)


@pytest.mark.parametrize("kind", oracle.KINDS)
def test_empty_replies_to_one_kind_of_prompt_lower_only_the_scores_for_that_kind_and_for_politeness(kind):
    """One prompt in five is of this kind, and an empty reply is neither correct nor polite."""
    dice = Dice("replies")

    def reply(task):
        right, _ = oracle.right_and_wrong(dice, WORLD, task)
        return "" if oracle.kind_of(task) == kind else f"{oracle.POLITE[0]} {right}"

    scores = scores_of(reply)
    assert scores.pop(kind) == 0 and scores.pop("polite") == 0.8
    assert set(scores.values()) == {1}
