"""conversations: the last question of a conversation needs an earlier turn, and its reply is correct.

A training conversation must not end in a question that is held out for the exams.
"""

import re
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tinyllm.world import World, conversations, instructions, people, split_of
from tinyllm.world.dice import Dice
from tinyllm.world.task import is_correct
from tinyllm.world.wordings import WORDINGS
from tools import agent
from tools.builtin import calculator
from tools.registry import Registry

WORLD = World(0)
TEMPLATES = WORDINGS["follow_ups"]
MAKERS = ("same_person", "other_person", "again", "backwards", "first_question", "add_or_take")
seeds = st.integers(0, 10_000)
splits = st.sampled_from(["train", "val", "test"])


def follow_up(seed, split="train"):
    return conversations.follow_up(Dice(str(seed)), WORLD, split)


def contents(messages, role):
    return [message["content"] for message in messages if message["role"] == role]


def maker_of(task):
    """The name of the function that made the last question, recognised by its wording."""
    wordings = [
        (name, text) for name, texts in TEMPLATES.items() if isinstance(texts, list) for text in texts
    ]
    wordings += [("same_person", text) for table in people.TABLES.values() for text in table["follow_ups"]]
    fields = {"name": "[A-Z][a-z]+", "they": "s?he", "b": "[0-9]+"}
    patterns = [
        (name, re.sub(r"\\\{(\w+)\\\}", lambda match: fields[match[1]], re.escape(text)))
        for name, text in wordings
    ]
    (name,) = {name for name, pattern in patterns if re.fullmatch(pattern, task.question)}
    return "add_or_take" if name in ("+", "-") else name


@given(seeds, splits)
def test_a_follow_up_has_one_to_three_turns_before_it_and_its_reply_is_correct(seed, split):
    task = follow_up(seed, split)
    roles = [message["role"] for message in task.messages]
    assert 2 <= len(roles) // 2 <= 4 and roles == ["user", "assistant"] * (len(roles) // 2)
    assert task.messages == [*task.prompt, {"role": "assistant", "content": task.reply}]
    assert is_correct(task, task.reply) and not is_correct(task, "Unknown to me.")
    assert maker_of(task)


@given(seeds, splits)
def test_a_follow_up_asks_only_about_items_of_its_split(seed, split):
    task = follow_up(seed, split)
    if task.key.startswith("ask "):
        _, name, relation = task.key.split()
        assert (relation in WORLD.trained_relations[name]) == (split == "train")
        assert WORLD.facts[name, relation] == task.answer or maker_of(task) == "first_question"
    else:
        assert split_of(task.key) == split


def test_every_kind_of_follow_up_occurs_and_has_the_right_answer():
    counts = Counter()
    for seed in range(1500):
        task = follow_up(seed)
        maker, questions = maker_of(task), contents(task.earlier_turns, "user")
        answers = [instructions.without_style(text) for text in contents(task.earlier_turns, "assistant")]
        counts[maker] += 1
        if maker == "first_question":
            assert task.answer == questions[0]
        elif maker == "again":
            assert instructions.without_style(task.reply) == answers[-1]
        elif maker == "backwards":
            assert task.answer.split(", ") == answers[-1].rstrip(".").split(", ")[::-1]
        elif maker == "add_or_take":
            result = [int(number) for text in answers for number in re.findall(r",(\d+)\.$", text)][-1]
            (operand,) = map(int, re.findall(r"\d+", task.question))
            assert int(task.answer) == (result + operand if result <= 100 else result - operand)
        else:
            name = task.key.split()[1]
            names = re.findall("|".join(rf"\b{each}\b" for each in people.NAMES), " ".join(answers))
            assert (name == names[-1]) == (maker == "same_person")
            if maker == "same_person":
                they = "she" if name in people.WOMEN else "he"
                assert re.search(rf"\b{they}\b", task.question) and name not in task.question
    assert counts.keys() == set(MAKERS)
    assert min(counts.values()) > 80


def test_no_follow_up_asks_to_repeat_or_reverse_small_talk():
    small_talk = {table["reply"] for table in instructions.FIXED_REPLIES["small_talk"]}
    counts = Counter()
    for seed in range(1500):
        task = follow_up(seed)
        if contents(task.earlier_turns, "assistant")[-1] in small_talk:
            counts[maker_of(task)] += 1
    assert counts.keys() == set(MAKERS) - {"again", "backwards"}


def test_one_training_task_in_4_is_a_follow_up_and_one_in_32_describes_the_tools():
    tasks = WORLD.instructions("train", 4000)
    follow_ups = sum(task.kind == "follow_up" for task in tasks) / 4000
    with_tools = sum(task.messages[0] == conversations.TOOLS_MESSAGE for task in tasks) / 4000
    assert abs(follow_ups - 1 / 4) < 0.03 and abs(with_tools - 1 / 32) < 0.015


def test_a_task_gets_the_same_description_of_the_tools_as_an_agent_and_gets_it_only_once():
    task = WORLD.instructions("test", 1, family="facts")[0]
    with_tools = conversations.with_tools(task)
    assert with_tools.prompt == agent.introduced(task.prompt, Registry([calculator]))
    assert with_tools._replace(earlier_turns=()) == task
    assert conversations.with_tools(with_tools) == with_tools


@given(seeds)
def test_a_chat_adds_only_earlier_turns_to_a_problem_and_the_loss_does_not_cover_these_turns(seed):
    (problem,) = WORLD.problems("train", 1, draw=seed)
    task = conversations.in_chat(Dice(str(seed)), WORLD, problem)
    assert task._replace(earlier_turns=()) == problem
    replies = [message for message in task.earlier_turns if message["role"] == "assistant"]
    assert all(message["weight"] == 0 for message in replies)
    assert problem.kind not in ("story", "mistake") or not task.earlier_turns


def test_one_calculator_problem_in_4_describes_the_tools_and_one_in_8_follows_other_turns():
    dice, counts = Dice("chats"), Counter()
    for problem in WORLD.problems("train", 4000, kind="calculator"):
        task = conversations.in_chat(dice, WORLD, problem)
        counts["tools"] += task.messages[0] == conversations.TOOLS_MESSAGE
        counts["turns"] += len(task.earlier_turns) > 1
    assert abs(counts["tools"] / 4000 - 1 / 4) < 0.03 and abs(counts["turns"] / 4000 - 1 / 8) < 0.03
