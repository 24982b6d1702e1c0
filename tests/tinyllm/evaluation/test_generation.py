"""interviews: one who knows every answer gets 1 in every exam, one who says nothing gets 0."""

import pytest

from tinyllm import corpus, interviews
from tinyllm.stages.s0_random import Random
from tinyllm.tokenizer import train
from tinyllm.world import World
from tinyllm.world.instructions import MEASURED
from tinyllm.world.problems import LOGIC
from tools.builtin import TOOLS
from tools.registry import Registry

BYTES = train("", 256)
END = BYTES.special["<|end|>"]


class Examinee:
    """In place of a team of models: answers every prompt by say(text of the prompt)."""

    def __init__(self, say):
        self.say = say

    def run(self, function, jobs):
        assert function is interviews.write_replies
        return [[self.write(prompt) for prompt in prompts] for prompts, *_ in jobs]

    def write(self, prompt):
        return [*BYTES.encode(self.say(BYTES.decode(prompt))), END]


@pytest.fixture(scope="module")
def tasks():
    world = World(0)
    found = world.questions()
    for kind in MEASURED:
        found += world.instructions("test", 50, family=kind)
        found += world.instructions("test", 50, family=kind, unseen=True)
    for kind in (*LOGIC, "story", "calculator"):
        found += world.problems("test", 200 if kind in ("story", "calculator") else 70, kind=kind)
    return found + world.problems("test", 200, kind="story", steps=5)


def test_who_knows_everything_gets_all_of_it(tasks):
    def say(text):
        at, task = max((text.rfind(task.question) + len(task.question), i) for i, task in enumerate(tasks)
                       if task.question in text)  # fmt: skip
        task, rest = tasks[task], text[at:]
        if "<tool_response>" in rest:
            return task.turns[-1]["content"]
        assert not rest.endswith(" "), "no token of an answer begins behind a space"
        return f" {task.answer}" if rest.endswith("####") else task.reply

    found = interviews.run(Examinee(say), BYTES, World(0), votes=True)
    for key, result in found.items():
        if key != "shortcuts" and not key.endswith("_kinds"):
            assert result["value"] == 1 and result["n"] >= 200, key
    assert all(0 <= rate < 0.6 for rate in found["shortcuts"].values())


def test_who_says_nothing_or_always_the_same_gets_nothing():
    for words in ("", "That is unknown to me.", "#### ", "<tool_call>{}</tool_call>"):
        found = interviews.run(Examinee(lambda text, words=words: words), BYTES, World(0), votes=False)
        for key, result in found.items():
            if key not in ("shortcuts", "stops") and not key.endswith("_kinds") and result:
                assert result["value"] == 0, (key, words)


def test_the_majority_is_what_was_said_most_often():
    assert interviews.majority(["3", None, "4", "4"]) == "4" and interviews.majority(["3", "4"]) == "3"
    assert interviews.majority([None, None]) is None


def test_tools_run_until_there_is_an_answer_or_no_round_is_left():
    call = '<tool_call>{"name":"calculator","arguments":{"expression":"2+2"}}</tool_call>'
    registry = Registry(TOOLS)
    done = lambda say, rounds: interviews.with_tools(
        Examinee(say), BYTES, [[{"role": "user", "content": "?"}]], registry, 50, rounds)[0]  # fmt: skip
    first = done(lambda text: "It is 4." if "_response>4<" in text else call, 8)
    assert [m["role"] for m in first] == ["user", "assistant", "tool", "assistant"]
    assert first[-1]["content"] == "It is 4."
    assert len(done(lambda text: call, 3)) == 6
    assert len(done(lambda text: call.replace("calculator", "sorcerer"), 3)) == 2


def test_no_solution_is_cut_off_by_the_room_for_a_reply():
    world = World(0)
    words = train(b" ".join(corpus.spoken(Random()) + world.documents("train", 500_000)), 1280)
    for kind, room in interviews.ROOM.items():
        which = {"kind": "story", "steps": 5} if kind == "longer" else {"kind": kind}
        for task in world.problems("val", 300, **which):
            assert len(words.encode(" " + task.reply)) + 1 <= room


def test_where_nothing_is_asked_nothing_is_answered():
    assert interviews.replies(Examinee(lambda text: "no"), BYTES, [], 10) == []
