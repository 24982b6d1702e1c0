"""Stage 4 must train on solutions and rehearse earlier stages, then make replies with right answers likelier.

A reward for a wrong or unfinished reply would teach mistakes without any error message. So the RL step is
compared with the exact gradient.
"""

import json
import re
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from exact import (
    TinyTokenizer,
    all_groups,
    all_replies,
    expected_return,
    gradient_of_step,
    in_float64,
    probability,
    slopes,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import last_question
from stage_runs import (
    copy_stage,
    logged,
    metrics,
    read_stage,
    record,
    rows_of,
    shorten_rollouts,
    stage,
    weights,
)
from strategies import random_model

from tinyllm import checkpoint, optimizer
from tinyllm.data import corpus, formats
from tinyllm.data.conversation import decode_reply, encode_prompt, is_learned
from tinyllm.errors import TinyllmError
from tinyllm.objectives import weighted_nll
from tinyllm.optimizer import Rates
from tinyllm.parallel import WorkerPool
from tinyllm.preferences import rollouts
from tinyllm.sampling import generate
from tinyllm.stages import s4_reason
from tinyllm.stages.s4_reason import GROUP, PROMPTS, REINFORCE_RATES, ReasonSettings
from tinyllm.stages.sizes import SIZES
from tinyllm.tokenizer import train
from tinyllm.training import Run
from tinyllm.transformer import Config
from tinyllm.world import World, conversations
from tinyllm.world.people import NAMES
from tinyllm.world.task import Task, final_answer

STAGE = "4-reason"
BYTES = train("", 256)
END = BYTES.special["<|end|>"]
CONFIG = Config(len(BYTES), context=64, layers=1, width=8, heads=2)


def reason(stage=STAGE, **options):
    return s4_reason.main(ReasonSettings(**{"size": "tiny", "workers": 1} | options), stage)


# ---- one RL step


def problem(answer):
    return Task("story", f"What is {answer}?", f"#### {answer}", answer, f"story {answer}")


def reply(text, ends=True):
    return BYTES.encode(f" {text}") + [END] * ends


class Step:
    """One reinforce_step with given problems and replies."""

    def __init__(self, tasks, replies, tokenizer=BYTES, config=CONFIG, seed=0):
        calls = []
        world = SimpleNamespace(
            problems=lambda split, count, **which: calls.append((split, count, which)) or tasks
        )

        def train_step(step, objective, batch, rates, total=None):
            calls.append(
                SimpleNamespace(step=step, objective=objective, batch=batch, rates=rates, total=total)
            )

        def generate(pool, tokenizer, prompts, max_tokens, seed):
            self.prompts, self.room = prompts, max_tokens
            return replies

        model = random_model(config, np.random.default_rng(seed), scale=0.3)
        with pytest.MonkeyPatch.context() as patch, WorkerPool(model) as pool:
            patch.setattr(rollouts, "generate_replies", generate)
            log = lambda **values: calls.append(values)
            run = SimpleNamespace(
                pool=pool,
                model=pool.model,
                tokenizer=tokenizer,
                train_step=train_step,
                log=log,
                show=lambda **fields: None,
            )
            s4_reason.reinforce_step(run, world, 0, 7)
            self.policy = in_float64(pool.model)
        self.drawn, self.update, self.log = calls
        (self.batch,) = self.update.batch


RIGHT, WRONG, OTHER = reply("5-3=2 #### 2"), reply("#### 3"), reply("two")
CUT_OFF = reply("so #### 2", ends=False)


def weights_of(step, replies):
    """The weight of each reply. All its tokens must have this weight. The prompt and the padding must have
    weight 0."""
    reply_weights = []
    for ids, targets, row in zip(replies, step.batch["targets"], step.batch["weights"]):
        stop = np.flatnonzero(targets == ids[-1])[-1] + 1
        inside = np.zeros(len(row), bool)
        inside[stop - len(ids) : stop] = True
        assert targets[inside].tolist() == ids and len(set(row[inside])) == 1 and not row[~inside].any()
        reply_weights.append(row[inside][0])
    return np.array(reply_weights)


def test_the_weight_of_a_reply_is_its_reward_minus_the_mean_reward_of_its_group():
    groups = [[RIGHT, WRONG, WRONG, OTHER, WRONG, WRONG, RIGHT, WRONG], [WRONG] * 7 + [RIGHT]]
    step = Step([problem("2"), problem("2")], sum(groups, []))
    expected = [[1 - 2 / 8, *[-2 / 8] * 5, 1 - 2 / 8, -2 / 8], [-1 / 8] * 7 + [7 / 8]]
    np.testing.assert_allclose(weights_of(step, sum(groups, [])), np.ravel(expected), atol=1e-6)
    assert step.log["reward"] == 3 / 16


def test_a_reply_with_the_right_answer_but_no_end_token_counts_as_wrong():
    replies = [CUT_OFF, RIGHT, *[WRONG] * 6]
    cut_off, right, wrong, *_ = weights_of(Step([problem("2")], replies), replies)
    assert cut_off == wrong < 0 < right


@pytest.mark.parametrize("text", [RIGHT, WRONG])
def test_replies_in_a_group_with_equal_rewards_have_weight_0(text):
    step = Step([problem("2")], [text] * 8)
    assert not step.batch["weights"].any() and step.update.total == 8 * len(text)


def test_a_reply_is_compared_with_the_answer_to_its_own_problem():
    replies = [RIGHT] * 4 + [WRONG] * 4
    step = Step([problem("2"), problem("3")], replies * 2)
    assert (weights_of(step, replies * 2) > 0).tolist() == [True] * 4 + [False] * 8 + [True] * 4
    assert weights_of(step, replies * 2).all()


def test_the_step_is_a_policy_gradient_averaged_over_all_reply_tokens_with_a_low_learning_rate():
    replies = [RIGHT, CUT_OFF, *[WRONG] * 6]
    step = Step([problem("2")], replies)
    assert step.update.objective is weighted_nll and step.update.step == 7
    assert step.update.rates is REINFORCE_RATES and step.update.total == sum(map(len, replies))
    assert REINFORCE_RATES.method == "adamw" and REINFORCE_RATES.adamw < 1e-4


def test_every_step_draws_new_training_stories_and_a_group_of_replies_to_each():
    step = Step([problem("2"), problem("33")], [RIGHT] * 16)
    assert step.drawn == ("train", PROMPTS, {"kind": "story", "steps": None, "draw": 7})
    prompts = [encode_prompt(BYTES, problem(answer).prompt) for answer in ("2", "33") for _ in range(GROUP)]
    assert step.prompts == prompts and step.room == CONFIG.context - len(prompts[-1])
    for row, prompt in zip(step.batch["ids"], prompts):
        assert row[: len(prompt)].tolist() == prompt


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 2]))
def test_the_expected_step_is_the_gradient_of_the_probability_of_a_right_answer(seed, longest):
    """There are only two tokens, so the expectation is computed as a sum over all groups of eight replies.

    Each reply is compared with a mean that includes its own reward, so each of the G replies adds only
    (G - 1) / G of the gradient.
    """
    tokenizer, rng = TinyTokenizer(["#### 2\n"]), np.random.default_rng(seed)
    replies = all_replies(2, longest)
    groups = all_groups(replies, GROUP)
    config = Config(2, context=24 + longest, layers=1, width=4, heads=1)
    task = problem("2")
    texts = [replies[i] for group, _ in groups for i in group]
    step = Step([task] * len(groups), texts, tokenizer, config, int(rng.integers(2**32)))
    prompt = encode_prompt(tokenizer, task.prompt)
    p = [probability(step.policy, prompt, ids) for ids in replies]
    row_weights = [orders * np.prod([p[i] for i in group]) for group, orders in groups for _ in group]
    assert sum(row_weights) == pytest.approx(GROUP)
    descent = gradient_of_step(step.policy, step.update.objective, step.batch, row_weights)
    right = [ids[-1] == 1 and final_answer(decode_reply(tokenizer, ids)) == "2" for ids in replies]
    assert 0 < sum(right) < len(replies)
    objective = lambda model: expected_return(model, model, prompt, replies, right, 0.0)
    for direction, slope in slopes(objective, step.policy, rng):
        assert (GROUP - 1) * slope == pytest.approx(-descent @ direction, rel=1e-5, abs=1e-7)


# ---- the stage


def test_rl_starts_with_new_optimizer_moments_and_has_its_own_learning_rate(tiny, monkeypatch):
    shorten_rollouts(monkeypatch)
    steps = record(monkeypatch, Run, "train_step")
    logs = record(monkeypatch, Run, "log", lambda note: {"line": note.self.bar.desc})
    has_moments = lambda note: {"has_moments": any(moment.any() for moment in note.moments)}
    updates = record(monkeypatch, optimizer, "update", has_moments)
    resets = record(monkeypatch, Run, "reset_moments")
    reason(steps=3, rollouts=3, tokens=1024, muon_rate=0.5, adamw_rate=0.25)
    rates = Rates("muon", muon=0.5, adamw=0.25, steps=3)
    assert [note.rates for note in steps] == [rates] * 3 + [REINFORCE_RATES] * 3
    assert [note.step for note in steps] == list(range(6)) and len(resets) == 1
    first = [note for note in updates if note.part.start == 0]  # the first part of the parameters
    assert [note.updates for note in first] == [0, 1, 2, 0, 1, 2]
    assert [note.has_moments for note in first[:4]] == [False, True, True, False]
    rewards = logged(STAGE, "reward")
    lines = {note.values["step"]: note.line for note in logs if "reward" in note.values}
    assert list(lines) == [3, 4, 5]
    assert all(line.startswith(f"reward {rewards[step]:.2f}  ") for step, line in lines.items())


@pytest.mark.parametrize("replay", [0.0, 0.25])
def test_batches_hold_problems_and_rehearsed_conversations_and_the_requested_share_of_text(
    tiny, monkeypatch, replay
):
    steps = record(monkeypatch, Run, "train_step", call=False)
    reason(steps=6, rollouts=0, tokens=8192, replay=replay)
    tokenizer = checkpoint.load("runs/demo/2-instruct")[1]
    roles = {tokenizer.special["<|user|>"], tokenizer.special["<|system|>"]}
    count = SIZES["tiny"].problems
    world = World(0)
    questions = {
        name: {task.question for task in tasks}
        for name, tasks in (
            ("problems", world.problems("train", count)),
            ("rehearsal", world.instructions("train", count)),
        )
    }
    whole = ",".join(map(str, corpus.pack(corpus.load("", 0, SIZES["tiny"].characters)[0], tokenizer)))
    counts = {"problems": 0, "rehearsal": 0, "text": 0}
    for note in steps:
        assert len(note.batch) == 4
        assert note.objective is weighted_nll and note.total is None
        for ids, row_weights in rows_of(note.batch):
            if ids[1] in roles:
                question = last_question(tokenizer.decode(ids.tolist()))
                (name,) = [name for name, known in questions.items() if question in known]
                counts[name] += 1
                learned = tokenizer.decode(ids[1:][row_weights > 0].tolist())
                assert learned.endswith("<|end|>") and question not in learned
            else:
                counts["text"] += 1
                assert row_weights.all() and ",".join(map(str, ids)) in whole
    assert counts["text"] / sum(counts.values()) == pytest.approx(replay, abs=0.06)
    assert counts["problems"] > 20 and counts["rehearsal"] > 20


def test_stage_4_starts_from_stage_3_if_there_is_one_and_otherwise_from_stage_2(tiny, monkeypatch):
    starts = record(monkeypatch, Run, "__init__")
    reason(run="first", origin="runs/demo/2-instruct", steps=1, rollouts=0)
    reason("4-two", steps=1, rollouts=0)
    copy_stage("2-instruct", "3-prefer")
    reason("4-three", steps=1, rollouts=0)
    assert [note.parent.name for note in starts] == ["2-instruct", "2-instruct", "3-prefer"]
    with pytest.raises(TinyllmError, match="make stage2 RUN=nothing"):
        reason(run="nothing")


def test_some_problems_come_after_other_turns_or_after_the_description_of_the_tools():
    problems, held_out = s4_reason.load_problems(ReasonSettings(), World(0), 600)
    follows = [any(message.get("weight") == 0 for message in messages) for messages in problems]
    with_tools = [messages[0] == conversations.TOOLS_MESSAGE for messages in problems]
    assert 10 < sum(follows) < 600 / 8 and 10 < sum(with_tools) < 600 / 4
    assert not any(message.get("weight") == 0 for messages in held_out for message in messages)


def test_the_direct_option_teaches_bare_answers_without_rl(tiny, monkeypatch):
    steps = record(monkeypatch, Run, "train_step")
    reason("4-control", direct=True, steps=2, rollouts=5, tokens=1024)
    assert [note.rates.method for note in steps] == ["muon"] * 2 and not Path("runs/demo", STAGE).exists()
    tasks = World(0).problems("train", 40)
    direct, _ = s4_reason.load_problems(ReasonSettings(direct=True), World(0), 40)
    with_chains, _ = s4_reason.load_problems(ReasonSettings(), World(0), 40)
    for task, bare, chain in zip(tasks, direct, with_chains):
        turns = len(task.later_turns) + 1
        assert chain[-turns - 1 :] == task.messages and bare[:-turns] == chain[:-turns]
        assert bare == chain if task.later_turns else bare[-1]["content"] == f"#### {task.answer}"
    assert any(task.later_turns for task in tasks) and not all(task.later_turns for task in tasks)


# ---- rehearsal of replies from stage 3


@pytest.fixture
def preferred(tiny):
    """The folder of stage 3, with a copy of the model of stage 2."""
    copy_stage("2-instruct", "3-prefer")
    return Path("runs/demo/3-prefer")


def own_replies(parent, count):
    return s4_reason.own_replies(ReasonSettings(size="tiny", workers=1), World(0), parent, count)


def rehearse(parent, count=10, path=""):
    return s4_reason.load_rehearsal(ReasonSettings(size="tiny", workers=1), World(0), count, parent, path)


def test_the_rehearsed_replies_are_the_correct_greedy_replies_of_stage_3(preferred, monkeypatch):
    model, tokenizer = checkpoint.load(preferred)
    answer, kept = s4_reason.answer, {}
    ended = lambda *args: [(text, True) for text, _ in answer(*args)]  # as if every reply had ended
    monkeypatch.setattr(s4_reason, "answer", ended)
    for name, is_correct in (
        ("all", lambda *_: True),
        ("some", lambda task, _: task.key.startswith("errand")),
        ("none", lambda *_: False),
    ):
        monkeypatch.setattr(s4_reason, "is_correct", is_correct)
        kept[name] = own_replies(preferred, 28)
    assert not kept["none"] and 0 < len(kept["some"]) < len(kept["all"]) <= 28
    assert all(messages in kept["all"] for messages in kept["some"])
    for *prompt, last in kept["all"]:
        assert is_learned(last) and not any(map(is_learned, prompt))
    assert any(message["role"] == "assistant" for *prompt, _ in kept["all"] for message in prompt)
    with_tools = sum(messages[0] == conversations.TOOLS_MESSAGE for messages in kept["all"])
    assert with_tools / len(kept["all"]) == pytest.approx(1 / 8, abs=0.06)
    for *prompt, message in kept["some"][:3]:
        prompt_ids = encode_prompt(tokenizer, prompt)
        (ids,) = generate(model, [prompt_ids], 64, stop=tokenizer.special["<|end|>"])
        assert message == {"role": "assistant", "content": decode_reply(tokenizer, ids)}


def test_a_reply_without_an_end_token_is_not_rehearsed(preferred, monkeypatch):
    replies = lambda pool, tokenizer, prompts, *_: [(f"{i}", i % 2 == 0) for i in range(len(prompts))]
    monkeypatch.setattr(s4_reason, "answer", replies)
    monkeypatch.setattr(s4_reason, "is_correct", lambda *_: True)
    own = own_replies(preferred, 14)
    assert own and all(int(messages[-1]["content"]) % 2 == 0 for messages in own)


def test_rehearsal_has_a_higher_share_of_follow_ups_than_stage_2(preferred, monkeypatch):
    calls = []
    answer = lambda pool, tokenizer, prompts, tokens: calls.append(prompts) or [("", False)] * len(prompts)
    monkeypatch.setattr(s4_reason, "answer", answer)
    own_replies(preferred, 800)
    (prompts,) = calls
    turns = [sum(message["role"] == "user" for message in messages) for messages in prompts]
    share = sum(count > 1 for count in turns) / len(turns)
    assert len(turns) == 800 and share == pytest.approx(3 / 5 / 4 + 1 / 5, abs=0.04)


def test_the_replies_of_stage_3_are_repeated_until_there_are_enough(preferred, monkeypatch):
    own = [[{"role": "assistant", "content": text}] for text in "abc"]
    monkeypatch.setattr(s4_reason, "own_replies", lambda *_: own)
    assert rehearse(preferred) == [own[i % 3] for i in range(10)]


def test_the_replies_of_stage_3_are_in_the_batches(preferred, monkeypatch):
    own = [[{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me, as ever."}]]
    monkeypatch.setattr(s4_reason, "own_replies", lambda *_: own)
    steps = record(monkeypatch, Run, "train_step", call=False)
    reason(steps=3, rollouts=0)
    tokenizer = checkpoint.load(preferred)[1]
    texts = [tokenizer.decode(ids.tolist()) for note in steps for ids, _ in rows_of(note.batch)]
    assert sum("Who?<|end|><|assistant|> Me, as ever.<|end|>" in text for text in texts) > 10


def test_without_replies_of_stage_3_the_conversations_of_stage_2_are_rehearsed(preferred, monkeypatch):
    expected = [task.messages for task in World(0).instructions("train", 10)]
    monkeypatch.setattr(s4_reason, "own_replies", lambda *_: [])
    assert rehearse(preferred) == expected
    monkeypatch.setattr(s4_reason, "own_replies", lambda *_: pytest.fail("the parent is not stage 3"))
    assert rehearse(Path("runs/demo/2-instruct")) == expected


def test_a_run_on_your_own_files_rehearses_only_conversations_from_those_files(preferred, monkeypatch):
    monkeypatch.setattr(
        s4_reason, "own_replies", lambda *_: pytest.fail("these are prompts of the built-in world")
    )
    assert rehearse(preferred, path=None) == []
    write_questions("own.jsonl")
    rehearsal = rehearse(preferred, 100, "own.jsonl")
    assert len(rehearsal) == 100 and all("Mine" in messages[0]["content"] for messages in rehearsal)


# ---- files and interruptions


def write_questions(path):
    pairs = [{"instruction": f"Mine {i}?", "output": f"{i}."} for i in range(60)]
    Path(path).write_text("\n".join(map(json.dumps, pairs)))


def write_problems(path):
    lines = []
    for i in range(60):
        answer = f"{i}+1 = <<{i}+1={i + 1}>>{i + 1}\n#### {i + 1}"
        lines.append(json.dumps({"question": f"{i} and 1?", "answer": answer}))
    Path(path).write_text("\n".join(lines))


def test_your_own_problems_are_learned_and_some_are_held_out_for_the_exam(tiny, capsys, monkeypatch):
    write_problems("problems.jsonl")
    steps = record(monkeypatch, Run, "train_step")
    stage("stage4", "--data", "problems.jsonl", "--steps", 4, "--tokens", 2048)
    assert len(steps) == 4 and {note.rates.method for note in steps} == {"muon"}
    training, held_out = formats.split(formats.problems("problems.jsonl"))
    tokenizer = checkpoint.load("runs/demo/2-instruct")[1]
    texts = [tokenizer.decode(ids.tolist()) for note in steps for ids, _ in rows_of(note.batch)]
    is_used = lambda messages: any(f"<|user|> {messages[0]['content']}<|end|>" in text for text in texts)
    assert any(map(is_used, training)) and held_out and not any(map(is_used, held_out))
    exams = json.loads(Path("runs/demo", STAGE, "exams.json").read_text())
    assert exams["own_problems_exact"]["n"] == len(held_out)
    assert read_stage(STAGE)["parent"]["folder"].endswith("2-instruct")


def test_nothing_from_the_built_in_world_enters_a_run_on_your_own_files(tmp_path, monkeypatch):
    """All rows of all batches come from the files, and no sample contains a name from the built-in world."""
    monkeypatch.chdir(tmp_path)
    Path("own.txt").write_text("The sea is wide and the sky is high. " * 200)
    write_questions("own.jsonl")
    write_problems("problems.jsonl")
    steps = record(monkeypatch, Run, "train_step")
    stage("stage0", "--text", "own.txt", "--vocab", 300)
    stage("stage1")
    stage("stage2", "--data", "own.jsonl", "--steps", 4)
    stage("stage4", "--data", "problems.jsonl", "--steps", 4)
    tokenizer = checkpoint.load("runs/demo/4-reason")[1]
    rows = [tokenizer.decode(ids.tolist()) for note in steps for ids, _ in rows_of(note.batch)]
    packed = f"<|begin|>{Path('own.txt').read_text()}<|end|>"
    question = re.compile(r"<\|begin\|><\|user\|> (Mine \d+|\d+ and 1)\?<\|end\|><\|assistant\|> ")
    texts = [row for row in rows if not question.match(row)]
    assert texts and len(rows) - len(texts) > 20
    assert all(text.rstrip("\0") in packed for text in texts)
    samples = "".join(path.read_text() for path in Path("runs").rglob("samples.txt"))
    assert "Mine" in samples and "and 1?" in samples
    assert not any(name in samples for name in NAMES)


def test_a_bad_file_and_a_short_context_are_reported(tiny):
    Path("bad.jsonl").write_text("{}\n")
    with pytest.raises(TinyllmError, match="line 1"):
        reason(data="bad.jsonl")
    config = Config(len(BYTES), context=8, layers=1, width=8, heads=2)
    checkpoint.save("short", random_model(config, np.random.default_rng(0)), BYTES)
    with pytest.raises(TinyllmError, match="no problem fits into the context of 8 tokens"):
        reason(origin="short")


def test_an_interrupted_and_resumed_run_gives_the_same_bytes_as_an_uninterrupted_one(tiny, monkeypatch):
    """The run is interrupted after the last batch of solutions, and again after the first RL step."""
    shorten_rollouts(monkeypatch)
    options = {"steps": 2, "rollouts": 2, "tokens": 1024, "origin": "runs/demo/2-instruct"}
    reason(**options, run="uninterrupted")
    stopped = []

    def stop(note):
        if note.step in (1, 2) and note.step not in stopped:
            stopped.append(note.step)
            note.self.signal = signal.SIGINT
        return {}

    record(monkeypatch, Run, "train_step", stop)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            reason(**options, run="resumed", resume=True)
    reason(**options, run="resumed", resume=True)
    assert stopped == [1, 2] and weights(STAGE, "resumed") == weights(STAGE, "uninterrupted")
    assert [line.get("reward") for line in metrics(STAGE, "resumed")] == [
        line.get("reward") for line in metrics(STAGE, "uninterrupted")
    ]


def test_the_direct_option_cuts_the_solutions_in_your_own_file_to_bare_answers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = {"question": "2+3?", "answer": "2+3 = <<2+3=5>>5\nSo it is 5.\n#### 5 eggs"}
    Path("p.jsonl").write_text("".join(json.dumps(line | {"question": f"{i}?"}) + "\n" for i in range(40)))
    settings = ReasonSettings(data="p.jsonl", direct=True)
    training, held_out = s4_reason.load_problems(settings, World(0), 0)
    assert len(training) > 20 and len(training) + len(held_out) == 40
    assert all([m["role"] for m in messages] == ["user", "assistant"] for messages in training)
    assert {messages[-1]["content"] for messages in training} == {"#### 5 eggs"}
