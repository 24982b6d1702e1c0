"""generation: a right reply scores 1, a wrong one 0. A wrong reply lowers only scores for that kind of task.

A right reply must not be cut off by the token limit of its exam, and no baseline may score high.
"""

import re

import numpy as np
import pytest
from scripted import ScriptedPool, last_question
from strategies import random_model

from tinyllm.data import corpus
from tinyllm.data.conversation import encode_prompt
from tinyllm.evaluation import generation
from tinyllm.parallel import WorkerPool
from tinyllm.tokenizer import train
from tinyllm.transformer import Config
from tinyllm.world import World, conversations, instructions
from tinyllm.world.instructions import WITH_ANSWER
from tinyllm.world.task import Task
from tools.builtin import TOOLS
from tools.registry import Registry

BYTES = train("", 256)
WORLD = World(0)
ITEMS = 40
CALL = '<tool_call>{"name":"calculator","arguments":{"expression":"2+2"}}</tool_call>'
EXAMS = (generation.instructions, generation.reasoning, generation.tool_calls)


@pytest.fixture(scope="module")
def tasks():
    """{prompt_key: task} for the tasks of all exams."""
    tasks = WORLD.held_out_fact_questions() + WORLD.instructions("test", ITEMS, family="follow_up")
    tasks += fixed_reply_tasks()
    for family in WITH_ANSWER:
        tasks += WORLD.instructions("test", ITEMS // 4, family=family)
        tasks += WORLD.instructions("test", ITEMS // 4, family=family, unseen=True)
    for kind in (*generation.LOGIC_TOKENS, "story", "calculator"):
        tasks += WORLD.problems("test", ITEMS, kind=kind)
    tasks += WORLD.problems("test", ITEMS, kind="story", steps=5)
    tasks += map(conversations.with_tools, tasks[:])
    return {prompt_key(BYTES.decode(encode_prompt(BYTES, task.prompt))): task for task in tasks}


def fixed_reply_tasks():
    """Every question with a fixed reply, in held-out wordings."""
    kinds = ("small_talk", "unknown_topic")
    return [task for kind in kinds for task in instructions.unseen_fixed_replies(kind)]


def prompt_key(text):
    """The text of a prompt -> (all turns before the last question, the last question)."""
    before, _, rest = text.rpartition("<|user|> ")
    return before, rest.partition("<|end|>")[0]


def examine(reply, ends=True, exams=EXAMS, items=ITEMS):
    """The exam results of a model that writes reply(text of the prompt)."""
    pool, results = ScriptedPool(BYTES, reply, ends), {}
    for exam in exams:
        results |= exam(pool, BYTES, WORLD, items)
    return results


def values(results):
    """The values of all rows, without the baselines."""
    return {key: result["value"] for key, result in results.items() if isinstance(result, dict)}


def right_reply(tasks, text):
    """The right reply to a prompt of the exams."""
    task = tasks[prompt_key(text)]
    if text.endswith("####"):
        return task.answer
    return task.later_turns[-1]["content"] if "<|tool|>" in text else task.reply


def test_a_model_that_is_always_right_scores_1_in_every_exam(tasks):
    results = examine(lambda text: right_reply(tasks, text))
    assert values(results) == dict.fromkeys(values(results), 1)
    counts = {key: results[key]["n"] for key in values(results)}
    assert len(WORLD.held_out_fact_questions()) == 240 and counts.pop("fact_questions") == 240 // 6
    assert counts.pop("small_talk_exact") == 24 and counts.pop("unknown_topic_exact") == 12
    assert counts.pop("instruction_yes_no") == ITEMS // 4
    for key in ("instruction_exact", "instruction_exact_with_tools", "unseen_wording", "stops"):
        assert counts.pop(key) == ITEMS // 4 * len(WITH_ANSWER)
    assert counts.pop("logic_exact") == 3 * 14
    assert {counts.pop(f"logic_{kind}") for kind in generation.LOGIC_TOKENS} == {14}
    for key in ("follow_up_exact", "reasoning_exact", "reasoning_five_steps", "calculator_exact"):
        assert counts.pop(key) == ITEMS
    assert min(counts.values()) >= ITEMS // 4


@pytest.mark.parametrize("reply", ["", "That is unknown to me.", "#### ", "<tool_call>{}</tool_call>"])
def test_a_model_that_always_writes_the_same_reply_scores_0(reply):
    results = values(examine(lambda text: reply))
    assert results.pop("stops") == 1
    assert results == dict.fromkeys(results, 0)


def test_a_reply_that_is_cut_off_does_not_count_as_ended():
    assert examine(lambda text: "", ends=False, exams=EXAMS[:1])["stops"]["value"] == 0


def test_wrong_replies_to_one_family_of_tasks_lower_a_score_by_the_share_of_that_family(tasks):
    def reply(text):
        return "" if tasks[prompt_key(text)].kind == "yes_no" else right_reply(tasks, text)

    results = values(examine(reply, exams=EXAMS[:1]))
    assert results.pop("instruction_yes_no") == 0
    for key in ("instruction_exact", "instruction_exact_with_tools", "unseen_wording"):
        assert results.pop(key) == pytest.approx(1 - 1 / len(WITH_ANSWER))
    assert results == dict.fromkeys(results, 1)


def test_a_model_confused_by_the_description_of_the_tools_loses_only_the_score_with_tools(tasks):
    description = conversations.TOOLS_MESSAGE["content"]
    results = values(
        examine(lambda text: "" if description in text else right_reply(tasks, text), exams=EXAMS[:1])
    )
    assert results.pop("instruction_exact_with_tools") == 0
    assert results == dict.fromkeys(results, 1)


def test_wrong_replies_to_one_kind_of_logic_problem_cost_a_third_of_the_score(tasks):
    def reply(text):
        return "" if tasks[prompt_key(text)].kind == "truth" else right_reply(tasks, text)

    results = values(examine(reply, exams=[generation.reasoning]))
    assert results["logic_truth"] == 0 and results["logic_order"] == results["logic_mistake"] == 1
    assert results["logic_exact"] == pytest.approx(2 / 3)


def test_a_right_answer_without_steps_is_not_a_valid_chain_of_thought(tasks):
    results = values(
        examine(lambda text: f"#### {tasks[prompt_key(text)].answer}", exams=[generation.reasoning])
    )
    assert results["reasoning_exact"] == results["reasoning_five_steps"] == 1
    assert results["chain_valid"] == 0


def test_valid_steps_to_a_wrong_answer_are_not_a_valid_chain_of_thought(tasks):
    """Each story gets the solution of another story, with a different answer."""
    stories = [task for task in tasks.values() if task.kind == "story"]

    def reply(text):
        task = tasks[prompt_key(text)]
        return next((other.reply for other in stories if other.answer != task.answer), "")

    results = values(examine(reply, exams=[generation.reasoning]))
    assert results["reasoning_exact"] == results["chain_valid"] == 0


def test_a_model_that_needs_to_write_steps_fails_if_it_must_answer_at_once(tasks):
    """If a model must answer at once, the prompt ends with ####, and the next tokens count as the answer."""
    results = values(examine(lambda text: tasks[prompt_key(text)].reply, exams=[generation.reasoning]))
    assert results["reasoning_exact"] == 1 and results["reasoning_direct"] == 0


def test_a_model_that_calls_the_tool_but_ignores_its_result_makes_valid_calls_and_solves_nothing(tasks):
    results = values(examine(lambda text: tasks[prompt_key(text)].reply, exams=[generation.tool_calls]))
    assert results == {"calculator_exact": 0, "tool_call_valid": 1, "tool_call_valid_masked": 1}


def test_with_the_mask_of_the_call_grammar_any_model_makes_valid_calls():
    config = Config(len(BYTES), context=256, layers=1, width=8, heads=2)
    with WorkerPool(random_model(config, np.random.default_rng(0), np.float32, 0.1)) as pool:
        results = values(generation.tool_calls(pool, BYTES, WORLD, 3))
    assert results == {"calculator_exact": 0, "tool_call_valid": 0, "tool_call_valid_masked": 1}


# ---- conversations with tools


def converse(reply, rounds=8, conversations=([{"role": "user", "content": "?"}],)):
    return generation.converse_with_tools(
        ScriptedPool(BYTES, reply), BYTES, conversations, Registry(TOOLS), 50, rounds
    )


def test_tools_run_until_there_is_an_answer_or_no_round_is_left():
    (messages,) = converse(lambda text: "It is 4." if "_response>4<" in text else CALL)
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "assistant"]
    assert messages[-1]["content"] == "It is 4."
    assert [len(converse(lambda text: CALL, rounds)[0]) for rounds in (1, 2, 3)] == [2, 4, 6]
    for invalid in (CALL.replace("calculator", "sorcerer"), CALL + CALL, CALL[:-1], "<tool_call>"):
        assert len(converse(lambda text, invalid=invalid: invalid)[0]) == 2


def test_each_conversation_continues_on_its_own():
    """Only conversations that call a tool get another round. The others keep their first reply."""
    conversations = [[{"role": "user", "content": f"{i}?"}] for i in range(6)]

    def reply(text):
        number = int(last_question(text)[0])
        if "<|tool|>" in text:
            return f"done {number}"
        return CALL if number % 2 else f"plain {number}"

    for i, messages in enumerate(converse(reply, 8, conversations)):
        assert messages[0] == conversations[i][0]
        assert messages[-1]["content"] == (f"done {i}" if i % 2 else f"plain {i}")
    assert all(len(messages) == 1 for messages in conversations)  # converse does not change its argument


def test_a_call_that_fails_gets_the_error_as_its_result():
    (messages,) = converse(lambda text: "Oh." if "<|tool|>" in text else CALL.replace("2+2", "2/0"))
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "assistant"]
    assert "zero" in messages[2]["content"]


def test_without_conversations_there_are_no_replies():
    assert converse(lambda text: "", conversations=[]) == []
    assert generation.replies_to(ScriptedPool(BYTES, str), BYTES, [], 10) == []


# ---- baselines and token limits


def test_the_most_common_answer_is_counted_within_each_kind_of_problem():
    def task(kind, answer):
        return Task(kind, "", "", answer, "")

    tasks = [task("truth", answer) for answer in ("yes", "yes", "no", "yes")]
    tasks += [task("sums", answer) for answer in ("1", "2", "yes", "yes", "1", "1")]
    assert generation.commonest_answer(tasks) == (3 + 3) / 10


def test_the_baseline_of_adding_all_numbers_is_the_share_of_stories_solved_that_way():
    baselines = examine(lambda text: "", exams=[generation.reasoning])
    stories = WORLD.problems("test", ITEMS, kind="story")
    solved = [sum(map(int, re.findall("[0-9]+", task.question))) == int(task.answer) for task in stories]
    assert 0 < baselines["reasoning_exact_add_all_numbers"] == sum(solved) / ITEMS < 0.6


def test_every_baseline_scores_below_60_percent():
    baselines = examine(lambda text: "", exams=EXAMS[:2], items=200)
    baselines = [share for share in baselines.values() if not isinstance(share, dict)]
    assert len(baselines) == 4 and all(0 <= share < 0.6 for share in baselines)


def test_no_right_reply_is_cut_off():
    """With a vocabulary like that of the built-in recipes, every right reply fits into its exam's limit."""
    documents = corpus.conversations_for_vocabulary(0) + WORLD.documents("train", 200_000)
    tokenizer = train(documents, 1280)  # fewer merges than the recipes have, so replies are longer
    stories = WORLD.problems("test", 200, kind="story")
    longer = WORLD.problems("test", 200, kind="story", steps=5)
    instructed = [task for family in WITH_ANSWER for task in WORLD.instructions("test", 50, family=family)]
    tasks_and_limits = [
        (stories, generation.STORY_TOKENS),
        (longer, generation.LONG_STORY_TOKENS),
        (WORLD.problems("test", 200, kind="calculator"), 60),
        (instructed + WORLD.instructions("test", 200, family="follow_up"), 64),
        (WORLD.held_out_fact_questions() + fixed_reply_tasks(), 40),
        *((WORLD.problems("test", 200, kind=kind), limit) for kind, limit in generation.LOGIC_TOKENS.items()),
    ]
    for tasks, limit in tasks_and_limits:
        for task in tasks:
            assert len(tokenizer.encode(f" {task.reply}")) + 1 <= limit, task
    assert max(len(tokenizer.encode(f" {task.answer}")) for task in stories + longer) + 1 <= 5
