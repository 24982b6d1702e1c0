"""preferences: behaviour, win rate, KL and the accuracy of the reward model are measured correctly.

A mistake of one kind must lower the score for that kind, because a good average can hide the mistake.
"""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import ScriptedPool, last_question
from strategies import random_model

from tinyllm import checkpoint
from tinyllm.data.conversation import encode_prompt
from tinyllm.evaluation import preferences
from tinyllm.evaluation.preferences import win_rate
from tinyllm.parallel import WorkerPool
from tinyllm.preferences import behaviour, reward_model
from tinyllm.runs import Settings
from tinyllm.sampling import generate_replies
from tinyllm.tokenizer import train
from tinyllm.transformer import Config
from tinyllm.world import World, oracle
from tinyllm.world.dice import Dice
from tinyllm.world.task import Task

BYTES = train("", 256)
CONFIG = Config(len(BYTES), context=256, layers=1, width=8, heads=2)
WORLD = World(0)
ITEMS = 10
TASK = Task("facts", "What does Ada keep?", "", "duck", "ask Ada pet", ("cat",))
REPLIES = [  # best first: correct and polite, correct and short, correct, wrong
    f"{oracle.POLITE[0]} Ada keeps a duck.",
    "Ada keeps a duck.",
    "Ada keeps a duck, you know.",
    "A cat.",
]


@pytest.fixture(scope="module")
def pools():
    """Two different random models: a policy and a reference."""
    models = [random_model(CONFIG, np.random.default_rng(seed), np.float32, 0.3) for seed in (0, 1)]
    with WorkerPool(models[0]) as policy, WorkerPool(models[1]) as reference:
        yield SimpleNamespace(policy=policy, reference=reference)


# ---- win rates


@given(st.lists(st.tuples(st.sampled_from(REPLIES), st.sampled_from(REPLIES)), min_size=1))
def test_a_win_rate_is_the_share_of_better_replies_not_counting_ties(pairs):
    replies, others = zip(*pairs)
    result = win_rate([TASK] * len(pairs), replies, others)
    wins = sum(REPLIES.index(a) < REPLIES.index(b) for a, b in pairs)
    losses = sum(REPLIES.index(a) > REPLIES.index(b) for a, b in pairs)
    if wins + losses == 0:
        assert result is None
        return
    assert result["value"] == wins / (wins + losses) and result["n"] == wins + losses
    assert win_rate([TASK] * len(pairs), others, replies)["value"] == pytest.approx(1 - result["value"])


def test_a_model_compared_with_itself_has_a_kl_of_0_and_wins_about_half(pools):
    results = preferences.compare_with_reference(pools.policy, pools.policy, BYTES, WORLD, ITEMS)
    kl = results["kl_nats_per_reply"]
    assert abs(kl["value"]) < 1e-3 and kl["n"] == len(oracle.KINDS) * ITEMS * 3 // 10
    assert results["win_rate"]["low"] < 0.5 < results["win_rate"]["high"]


def test_the_kl_of_a_reply_is_the_sum_over_its_tokens(pools):
    """The sum includes the end token. The test computes it for one reply at a time."""
    results = preferences.compare_with_reference(pools.policy, pools.reference, BYTES, WORLD, ITEMS)
    prompts = [encode_prompt(BYTES, task.prompt) for task in compared_tasks()]
    replies = generate_replies(pools.policy, BYTES, prompts, behaviour.REPLY_TOKENS, [21])
    sums = []
    for prompt, reply in zip(prompts, replies):
        ids = np.array([[*prompt, *reply]])
        p, q = (pool.model.logits(ids)[0].astype(float) for pool in (pools.policy, pools.reference))
        p, q = (each - np.log(np.exp(each).sum(axis=1, keepdims=True)) for each in (p, q))
        sums.append((np.exp(p) * (p - q)).sum(axis=1)[len(prompt) - 1 : -1].sum())
    assert results["kl_nats_per_reply"]["value"] == pytest.approx(np.mean(sums), rel=1e-3)


def compared_tasks():
    """The tasks on which compare_with_reference compares two models."""
    return sum(behaviour.prompts_by_kind(WORLD, "test", ITEMS * 3 // 10, "duels").values(), [])


def right_and_polite(task):
    return f"{oracle.POLITE[0]} {oracle.right_and_wrong(Dice('reply'), WORLD, task)[0]}"


@pytest.mark.parametrize("policy_is_better", [True, False])
def test_a_right_and_polite_reply_wins_against_an_empty_one(policy_is_better, monkeypatch):
    tasks = compared_tasks()
    of_question = {task.question: task for task in tasks}
    good = ScriptedPool(BYTES, lambda text: right_and_polite(of_question[last_question(text)]))
    sides = (good, ScriptedPool(BYTES, lambda text: ""))
    monkeypatch.setattr(
        preferences.rollouts,
        "compare",
        lambda pool, reference, batch: (0, 0, np.zeros(batch["ids"].shape), 0),
    )
    results = preferences.compare_with_reference(
        *(sides if policy_is_better else sides[::-1]), BYTES, WORLD, ITEMS
    )
    assert results["win_rate"]["value"] == float(policy_is_better) and results["win_rate"]["n"] == len(tasks)


# ---- behaviour


def test_right_and_polite_replies_score_1_in_every_row_and_empty_replies_score_0():
    by_kind = behaviour.prompts_by_kind(WORLD, "test", ITEMS, "manners")
    of_question = {task.question: task for tasks in by_kind.values() for task in tasks}
    pool = ScriptedPool(BYTES, lambda text: right_and_polite(of_question[last_question(text)]))
    results = preferences.measure_behaviour(pool, BYTES, WORLD, ITEMS)
    words = [len(right_and_polite(task).split()) for task in of_question.values()]
    assert results.pop("mean_words")["value"] == pytest.approx(np.mean(words), abs=1)
    empty = preferences.measure_behaviour(ScriptedPool(BYTES, lambda text: ""), BYTES, WORLD, ITEMS)
    assert empty.pop("mean_words")["value"] == 0
    assert set(results) == set(empty) == set(preferences.ROWS.values())
    assert results.pop("polite")["n"] == ITEMS * len(oracle.KINDS)
    assert {result["value"] for result in results.values()} == {1}
    assert {result["n"] for result in results.values()} == {ITEMS}
    assert {result["value"] for result in empty.values()} == {0}


@pytest.mark.parametrize(
    "kind, row",
    [
        ("harm", "refuses_unsafe"),
        ("harm_by_object", "refuses_by_object"),
        ("harmless", "answers_harmless"),
        ("stranger", "admits_unknown"),
    ],
)
def test_empty_replies_to_one_kind_of_prompt_lower_only_the_scores_for_that_kind_and_for_politeness(
    kind, row
):
    by_kind = behaviour.prompts_by_kind(WORLD, "test", ITEMS, "manners")
    of_question = {task.question: task for tasks in by_kind.values() for task in tasks}

    def reply(text):
        task = of_question[last_question(text)]
        return "" if oracle.kind_of(task) == kind else right_and_polite(task)

    results = preferences.measure_behaviour(ScriptedPool(BYTES, reply), BYTES, WORLD, ITEMS)
    assert results.pop(row)["value"] == 0 and results.pop("polite")["value"] == 0.8
    assert {results[other]["value"] for other in results.keys() - {"mean_words"}} == {1}
    assert len(results) == len(preferences.ROWS) - 1


# ---- the reward model alone


def scorer(score):
    """A stand-in for a reward model: it gives score(text of a prompt and its reply)."""

    def scores(rows):
        assert all(row[-1] == BYTES.special["<|end|>"] for row in rows)
        return np.array([score(BYTES.decode(row)) for row in rows], float)

    return scores


def reply_in(text):
    return text.rpartition("<|assistant|> ")[2].removesuffix("<|end|>")


def constructed_pairs():
    """{(question, reply): (kind, 1 for the better reply of its pair, else 0)} for the pairs of the exam."""
    better = {}
    for kind in oracle.KINDS:
        dice = Dice(f"pairs {kind} test of world 0")
        for _ in range(ITEMS):
            task, right, wrong = oracle.preference_pair(dice, WORLD, "test", kind)
            better |= {(task.question, right): (kind, 1), (task.question, wrong): (kind, 0)}
    return better


def test_accuracy_is_1_if_the_better_replies_score_higher_and_0_if_they_score_lower_or_the_same():
    better = constructed_pairs()
    is_better = lambda text: better[last_question(text), reply_in(text)][1]
    rows = {f"reward_pairs_{kind}" for kind in oracle.KINDS} | {"reward_pair_accuracy"}
    for sign, value in ((1, 1), (-1, 0), (0, 0)):  # sign 0: all scores are equal
        score = scorer(lambda text, sign=sign: sign * is_better(text))
        results = preferences.reward_accuracy(score, BYTES, WORLD, ITEMS)
        assert set(results) == rows | {"length_only_accuracy"}
        assert {results[row]["value"] for row in rows} == {value}
        assert results["reward_pair_accuracy"]["n"] == ITEMS * len(oracle.KINDS)


def test_a_good_average_does_not_hide_a_kind_that_is_scored_wrongly():
    better = constructed_pairs()

    def score(text):
        kind, is_better = better[last_question(text), reply_in(text)]
        return -is_better if kind == "harm" else is_better

    results = preferences.reward_accuracy(scorer(score), BYTES, WORLD, ITEMS)
    assert results["reward_pairs_harm"]["value"] == 0 and results["reward_pairs_harmless"]["value"] == 1
    assert results["reward_pair_accuracy"]["value"] == 0.8


def test_length_only_accuracy_is_reached_by_always_preferring_the_longer_or_always_the_shorter_reply():
    results = preferences.reward_accuracy(scorer(lambda text: len(reply_in(text).split())), BYTES, WORLD, 40)
    assert 0.5 <= results["length_only_accuracy"]["value"] < 0.7
    longer = results["reward_pair_accuracy"]["value"]  # a pair of equally long replies counts as wrong
    shorter = preferences.reward_accuracy(scorer(lambda text: -len(reply_in(text).split())), BYTES, WORLD, 40)
    shorter = shorter["reward_pair_accuracy"]["value"]
    accuracy = (longer + (1 - shorter)) / 2  # a pair of equally long replies counts half
    assert results["length_only_accuracy"]["value"] == pytest.approx(max(accuracy, 1 - accuracy))


# ---- which exams a stage takes


def write_stage(folder, model=None, parent=None, sources=()):
    checkpoint.save(folder, model or random_model(CONFIG, np.random.default_rng(0), np.float32, 0.3), BYTES)
    notes = {"finished": True, "parent": parent and {"folder": str(parent), "sha256": None}}
    notes["sources"] = {kind: {"path": "", "sha256": ""} for kind in sources}
    (folder / "stage.json").write_text(json.dumps(notes))
    return folder


BEHAVIOUR = {"mean_words", *preferences.ROWS.values()}
COMPARED = {"win_rate", "kl_nats_per_reply"}
REWARD = {"reward_pair_accuracy", "length_only_accuracy"}
REWARD |= {f"reward_pairs_{kind}" for kind in oracle.KINDS}


def test_stages_3_and_4_are_compared_with_stage_2_and_the_reward_model_of_stage_3_is_examined(
    pools, tmp_path
):
    run = lambda folder: set(
        preferences.run(pools.policy, BYTES, WORLD, Path(tmp_path, folder), Settings(workers=1), 2)
    )
    write_stage(tmp_path / "3-prefer", parent=tmp_path / "2-instruct", sources=["text", "rankings"])
    write_stage(tmp_path / "4-reason", parent=tmp_path / "3-prefer", sources=["text", "rankings", "problems"])
    assert run("3-prefer") == BEHAVIOUR  # stage 2 does not exist
    write_stage(tmp_path / "2-instruct", sources=["text"])
    assert run("2-instruct") == run("1-pretrain") == BEHAVIOUR
    assert run("3-prefer") == run("4-reason") == BEHAVIOUR | COMPARED
    model = random_model(CONFIG, np.random.default_rng(0), np.float32, 0.3)
    reward = write_stage(tmp_path / "3-prefer" / "reward", reward_model.with_score_head(model, 0))
    (reward / "scale.json").write_text('{"mean": 0.0, "deviation": 1.0}')
    assert run("3-prefer") == BEHAVIOUR | COMPARED | REWARD
    assert run("4-reason") == BEHAVIOUR | COMPARED


def test_stage_3_is_compared_with_the_checkpoint_that_it_started_from(tmp_path):
    """The names of the folders do not matter. Stages after stage 3 are compared with the same checkpoint."""
    names = ("smollm2", "algorithms/ppo-0", "4-reason", "again")
    folders = [tmp_path / name for name in names]
    for folder, parent in zip(folders, (None, *folders)):
        write_stage(folder, parent=parent, sources=["rankings"] if parent else [])
    assert {preferences.before_preferences(folder) for folder in folders} == {folders[0]}
    (folders[0] / "config.json").unlink()
    assert {preferences.before_preferences(folder) for folder in folders[1:]} == {None}
