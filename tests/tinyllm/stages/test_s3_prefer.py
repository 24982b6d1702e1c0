"""Stage 3 must make replies with higher scores likelier, keep the policy close to the reference, and keep the
best parameters.

With a wrong sign or baseline, training still runs, but badly. So each step is compared with formulas and
with the exact gradient.
"""

import json
import shutil
import signal
from itertools import pairwise
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
from stage_runs import logged, metrics, parameters, read_stage, record, rows_of, shorten_rollouts, weights
from strategies import random_model

from tinyllm import checkpoint
from tinyllm.data.conversation import encode_prompt
from tinyllm.errors import TinyllmError, tell_once
from tinyllm.objectives import log_prob_of, log_softmax, plackett_luce, policy_gradient_with_kl
from tinyllm.optimizer import Rates
from tinyllm.parallel import WorkerPool
from tinyllm.preferences import behaviour, reward_model, rollouts
from tinyllm.preferences.rankings import read
from tinyllm.stages import s0_random, s2_instruct, s3_prefer
from tinyllm.stages.s3_prefer import ALGORITHMS, GROUP, TRUNCATED, PreferSettings
from tinyllm.stages.sizes import SIZES
from tinyllm.tokenizer import train
from tinyllm.training import Run
from tinyllm.transformer import Config

STAGE = "3-prefer"
BYTES = train("", 256)
END = BYTES.special["<|end|>"]
CONFIG = Config(len(BYTES), context=40, layers=1, width=16, heads=2)
REINFORCED = [name for name, algorithm in ALGORITHMS.items() if algorithm.pairs is None]
algorithms = pytest.mark.parametrize("algorithm", REINFORCED)


def prefer(stage=STAGE, **options):
    return s3_prefer.main(PreferSettings(**{"size": "tiny", "workers": 1} | options), stage)


# ---- one step: replies and scores -> a batch


def user(text):
    return [{"role": "user", "content": text}]


PROMPTS = [user("a?"), user("longer?")]


def fake_run(policy, tokenizer, calls):
    """A stand-in for the Run that reinforce_step gets. train_step and log only record their arguments."""
    return SimpleNamespace(
        pool=policy,
        model=policy.model,
        tokenizer=tokenizer,
        state={},
        train_step=lambda step, objective, batch, rates, total=None: calls.append(
            SimpleNamespace(step=step, objective=objective, batch=batch, rates=rates, total=total)
        ),
        log=lambda **values: calls.append(SimpleNamespace(**values)),
        sample=lambda step, text: None,
        show=lambda **fields: None,
    )


class Step:
    """One reinforce_step with given replies and scores."""

    def __init__(
        self, algorithm, replies, score, kl=0.2, prompts=PROMPTS, tokenizer=BYTES, config=CONFIG, seed=0
    ):
        models = [random_model(config, np.random.default_rng(seed + i), scale=0.3) for i in range(2)]
        calls = []

        def generate(pool, tokenizer, prompts, max_tokens, seed):
            self.prompts, self.room = prompts, max_tokens
            return replies

        def scores(rows):
            self.scored_rows = rows
            return np.array([score(row) for row in rows], float)

        options, rates = PreferSettings(algorithm=algorithm, kl=kl), Rates("adamw")
        with (
            pytest.MonkeyPatch.context() as patch,
            WorkerPool(models[0]) as policy,
            WorkerPool(models[1]) as reference,
        ):
            patch.setattr(rollouts, "generate_replies", generate)
            run = fake_run(policy, tokenizer, calls)
            s3_prefer.reinforce_step(run, options, reference, scores, prompts, 3, rates)
            self.policy, self.reference = in_float64(policy.model), in_float64(reference.model)
            self.state = run.state
        *self.updates, self.log = calls
        ((self.batch,),) = [self.updates[0].batch]
        assert all(update.rates is rates and update.step == 3 for update in self.updates)
        self.mask = self.batch["weights"] > 0

    def advantages(self):
        """The advantages of the tokens of each reply."""
        return [row[mask] for row, mask in zip(self.batch["advantages"], self.mask)]

    def divergences(self):
        """KL(policy || reference) at the tokens of each reply, in float64."""
        log_p, log_q = (
            log_softmax(model.logits(self.batch["ids"])) for model in (self.policy, self.reference)
        )
        kl = (np.exp(log_p) * (log_p - log_q)).sum(axis=-1)
        return [row[mask] for row, mask in zip(kl, self.mask)]


def reply(text, ends=True):
    return BYTES.encode(f" {text}") + [END] * ends


GOOD, BAD, CUT_OFF = reply("good."), reply("so so"), reply("good??", ends=False)
REPLIES = [GOOD, BAD, BAD, GOOD, BAD, GOOD, BAD, GOOD]  # four replies to each prompt


def is_good(row):
    return 1.0 if row[-len(GOOD) :] == GOOD else 0.0


@algorithms
def test_good_replies_get_positive_advantages_and_bad_replies_negative_ones(algorithm):
    step = Step(algorithm, REPLIES, is_good, kl=0.0)
    for text, advantages in zip(REPLIES, step.advantages()):
        assert (advantages > 0).all() if text is GOOD else (advantages < 0).all()
        assert len(advantages) == len(text)


@algorithms
def test_the_loss_covers_the_reply_and_its_end_token_and_nothing_else(algorithm):
    replies = [*REPLIES[:-1], CUT_OFF]
    step = Step(algorithm, replies, is_good)
    assert set(step.batch["weights"].ravel()) == {0.0, 1.0}
    for text, targets, mask in zip(replies, step.batch["targets"], step.mask):
        assert targets[mask].tolist() == text


@algorithms
def test_every_prompt_gets_a_group_of_replies_and_each_reply_is_scored_together_with_its_prompt(algorithm):
    step = Step(algorithm, REPLIES, is_good)
    prompts = [encode_prompt(BYTES, messages) for messages in PROMPTS for _ in range(GROUP)]
    assert step.prompts == prompts and step.room == CONFIG.context // 4
    assert step.scored_rows == [prompt + text for prompt, text in zip(prompts, REPLIES)]
    for (ids, _), expected in zip(rows_of([step.batch]), step.scored_rows):
        assert ids[: len(expected)].tolist() == expected


@algorithms
def test_a_reply_without_an_end_token_gets_a_fixed_low_score(algorithm):
    step = Step(algorithm, [CUT_OFF, GOOD, GOOD, GOOD] * 2, lambda row: 5.0, kl=0.0)
    for number, advantages in enumerate(step.advantages()):
        assert (advantages < 0).all() if number % 4 == 0 else (advantages > 0).all()
    assert step.log.score == pytest.approx((TRUNCATED + 3 * 5) / 4) and step.log.truncated == 0.25


SCORES = [2.0, -1.0, 0.5, 3.0, 1.0, 1.0, -2.0, 0.0]


@pytest.mark.parametrize("algorithm", ["reinforce", "rloo"])
def test_an_advantage_is_the_score_minus_the_kl_of_later_tokens_minus_the_baseline(algorithm):
    texts = [reply("x" * (1 + i % 3)) for i in range(8)]
    next_score = iter(SCORES)
    step = Step(algorithm, texts, lambda row: next(next_score), kl=0.7)
    divergences = step.divergences()
    returns = [score - 0.7 * kl.sum() for score, kl in zip(SCORES, divergences)]
    for i, advantages in enumerate(step.advantages()):
        group = range(i // 4 * 4, i // 4 * 4 + 4)
        others = [returns[j] for j in group if j != i]
        baseline = np.mean(others) if algorithm == "rloo" else np.mean(returns)
        later = [divergences[i][t + 1 :].sum() for t in range(len(advantages))]
        np.testing.assert_allclose(advantages, SCORES[i] - 0.7 * np.array(later) - baseline, atol=1e-4)
        assert later[0] > 0.01
    assert step.log.kl_nats_per_reply == pytest.approx(np.mean([kl.sum() for kl in divergences]), rel=1e-4)
    assert step.log.tokens_per_reply == np.mean([len(text) for text in texts])


def test_grpo_standardises_scores_within_the_group_and_leaves_the_kl_to_the_loss():
    scores = [2.0, -1.0, 0.5, 3.0, 10.0, 10.0, -20.0, 0.0]
    next_score = iter(scores)
    step = Step("grpo", REPLIES, lambda row: next(next_score), kl=0.7)
    for group in (range(4), range(4, 8)):
        group_scores = np.array([scores[i] for i in group])
        standardised = (group_scores - group_scores.mean()) / group_scores.std()
        for i, expected in zip(group, standardised):
            np.testing.assert_allclose(step.advantages()[i], expected, rtol=1e-3)


def test_ppo_rewards_the_last_token_with_the_score_and_penalises_the_kl_at_earlier_tokens():
    """A new critic predicts 0, so the advantages are the standardised discounted returns."""
    next_score = iter(SCORES)
    step = Step("ppo", REPLIES, lambda row: next(next_score), kl=0.7)
    returns = []
    for score, divergence in zip(SCORES, step.divergences()):
        rewards = np.append(-0.7 * divergence[1:], score)
        returns += [
            sum(0.95 ** (s - t) * rewards[s] for s in range(t, len(rewards))) for t in range(len(rewards))
        ]
    standardised = (np.array(returns) - np.mean(returns)) / np.std(returns)
    np.testing.assert_allclose(np.concatenate(step.advantages()), standardised, atol=1e-3)
    assert step.state["value_head"].any()


@algorithms
@pytest.mark.parametrize("kl", [0.0, 0.7])
def test_the_step_is_a_clipped_policy_gradient_with_the_kl_penalty_from_the_settings(algorithm, kl):
    step = Step(algorithm, REPLIES, is_good, kl=kl)
    assert len(step.updates) == (2 if algorithm == "ppo" else 1)
    for update in step.updates:
        assert update.objective.func is policy_gradient_with_kl and update.objective.keywords == {"kl": kl}
        assert update.batch == [step.batch] and update.total is None
    ids, targets, mask = (step.batch[name] for name in ("ids", "targets", "weights"))
    expected = log_prob_of(targets, log_softmax(step.policy.logits(ids)))
    np.testing.assert_allclose(step.batch["old_log_probs"], expected * mask, atol=1e-4)
    for row, at, logits in zip(ids, mask > 0, step.batch["reference_logits"], strict=True):
        np.testing.assert_allclose(logits, step.reference.logits(row)[at], atol=1e-4)


@settings(max_examples=15)
@given(
    st.sampled_from(["reinforce", "rloo"]),
    st.sampled_from([(("a",), 3), (("a", "b"), 2)]),
    st.floats(0, 2),
    st.integers(0, 2**32 - 1),
)
def test_the_expected_step_is_the_gradient_of_the_expected_return(algorithm, texts_and_longest, kl, seed):
    """There are only two or three tokens, so the expectation is computed as a sum over all groups of replies.

    J = E[score - kl * KL], and the step minimises -J. The gradient of J comes from finite differences.
    """
    texts, longest = texts_and_longest
    tokenizer, rng = TinyTokenizer(texts), np.random.default_rng(seed)
    config = Config(len(tokenizer), context=5 + longest, layers=1, width=4, heads=1)
    replies = all_replies(len(tokenizer), longest)
    scores = {tuple(ids): rng.normal() for ids in replies}
    groups = all_groups(replies, GROUP)
    prompt = encode_prompt(tokenizer, user("?"))
    step = Step(
        algorithm,
        [replies[i] for group, _ in groups for i in group],
        lambda row: scores[tuple(row[len(prompt) :])],
        kl,
        [user("?")] * len(groups),
        tokenizer,
        config,
        int(rng.integers(2**32)),
    )
    p = [probability(step.policy, prompt, ids) for ids in replies]
    row_weights = [orders * np.prod([p[i] for i in group]) / GROUP for group, orders in groups for _ in group]
    assert sum(p) == pytest.approx(1) and sum(row_weights) == pytest.approx(1)
    (update,) = step.updates
    descent = gradient_of_step(step.policy, update.objective, step.batch, row_weights)
    final_scores = [scores[tuple(ids)] if ids[-1] == 1 else TRUNCATED for ids in replies]
    objective = lambda model: expected_return(model, step.reference, prompt, replies, final_scores, kl)
    for direction, slope in slopes(objective, step.policy, rng):
        assert slope == pytest.approx(-descent @ direction, rel=1e-3, abs=1e-4)


# ---- the stage


@pytest.fixture
def world(tiny, monkeypatch):
    """A run that has finished stages 0 to 2 on the built-in world; rollouts are cut short."""
    shorten_rollouts(monkeypatch)
    return tiny


def test_the_reference_is_stage_2_and_never_changes(world, monkeypatch):
    monkeypatch.setattr(s3_prefer, "keep_best", lambda *_: None)
    references, policies = [], []

    def copy(note):
        references.append(note.reference.model.params.flat.copy())
        policies.append(note.run.model.params.flat.copy())
        return {}

    record(monkeypatch, s3_prefer, "reinforce_step", copy)
    prefer(steps=3, rate=0.01)
    np.testing.assert_array_equal(references, [parameters("2-instruct")] * 3)
    np.testing.assert_array_equal(policies[0], parameters("2-instruct"))
    for before, after in pairwise(policies):
        assert np.abs(before - after).max() > 1e-3
    assert read_stage(STAGE)["parent"]["sha256"] == checkpoint.digest("runs/demo/2-instruct")


def test_every_step_has_new_training_prompts_and_the_learning_rate_from_the_settings(world, monkeypatch):
    monkeypatch.setattr(s3_prefer, "keep_best", lambda *_: None)
    steps, updates = record(monkeypatch, s3_prefer, "reinforce_step"), record(monkeypatch, Run, "train_step")
    prompts = record(monkeypatch, s3_prefer.oracle, "prompts")
    prefer(steps=4, rate=0.02, algorithm="ppo")
    prefer("3-draw", steps=4, rate=0.02, algorithm="ppo", draw=1)
    for note in steps:
        assert len(note.prompts) == SIZES["tiny"].prompts and len(set(map(str, note.prompts))) > 1
    assert len({str(note.prompts) for note in steps}) == len(steps) == 8
    assert all(note.split == "train" for note in prompts)
    assert [note.shares for note in prompts[1:]] == [s3_prefer.oracle.ROLLOUT_SHARES] * 8
    rates = Rates("adamw", adamw=0.02, decay=0.0, steps=4)
    policy_updates = [note for note in updates if note.self.stage in (STAGE, "3-draw")]
    assert all(note.rates == rates for note in policy_updates)
    assert [note.step for note in policy_updates] == [step for step in range(4) for _ in range(2)] * 2


def write_rankings(path, rankings):
    Path(path).write_text("".join(json.dumps(ranking) + "\n" for ranking in rankings))


RANKINGS = [
    {"prompt": "1?", "completions": ["best", "worst", "middle"], "ranks": [1, 3, 2]},
    {"prompt": "2?", "completions": ["same", "too", "no"], "ranks": [1, 1, 2]},
    {"prompt": "3?", "chosen": "good", "rejected": "bad"},
]


def test_the_reward_model_learns_to_rank_replies_by_the_score_at_their_end_tokens(world, monkeypatch):
    updates = record(monkeypatch, Run, "train_step")
    write_rankings("r.jsonl", RANKINGS)
    prefer(rankings="r.jsonl", steps=1)
    updates = [note for note in updates if note.self.stage == "3-prefer/reward"]
    tokenizer = checkpoint.load("runs/demo/2-instruct")[1]
    rankings = {
        tokenizer.decode(encode_prompt(tokenizer, ranking.prompt)): ranking for ranking in read("r.jsonl")
    }
    assert len(updates) == SIZES["tiny"].reward_steps
    prompts = set()
    for note in updates:
        (piece,) = note.batch
        assert note.objective is plackett_luce and note.total == len(piece["ids"])
        for rows, last, ranks in zip(piece["ids"], piece["last"], piece["ranks"]):
            ranked = {}
            for row, end, rank in zip(rows, last, ranks):
                if rank:
                    prompt, text = tokenizer.decode(row[: end + 1]).split("<|assistant|>")
                    ranked[text] = rank
            ranking = rankings[f"{prompt}<|assistant|>"]
            prompts.add(prompt)
            assert ranked == {
                f" {text}<|end|>": rank for text, rank in zip(ranking.completions, ranking.ranks)
            }
    assert len(prompts) == 3


def test_replies_are_scored_by_the_reward_model_at_their_end_token(world, monkeypatch):
    monkeypatch.setattr(s3_prefer, "keep_best", lambda *_: None)
    scored = record(monkeypatch, reward_model, "raw_scores")
    prefer(steps=1)
    model, _ = checkpoint.load("runs/demo/3-prefer/reward")
    scale = json.loads(Path("runs/demo/3-prefer/reward/scale.json").read_text())
    _, note = scored  # the first call sets the scale, the second one scores the rollouts
    assert model.config.head == "score" and len(note.rows) == SIZES["tiny"].prompts * GROUP
    with reward_model.scorer(Path("runs/demo/3-prefer/reward"), PreferSettings(workers=1)) as score:
        scores = score(note.rows)
    for row, score in zip(note.rows, scores):
        alone = model.logits(np.array(row))[-1]
        assert score == pytest.approx((alone - scale["mean"]) / scale["deviation"], abs=1e-3)


# ---- algorithms that learn from pairs of replies: DPO

PAIRS = [name for name, algorithm in s3_prefer.ALGORITHMS.items() if algorithm.pairs]


@pytest.mark.parametrize("algorithm", PAIRS)
def test_a_pair_is_a_better_and_a_worse_reply_with_their_log_probs_under_the_reference(
    algorithm, world, monkeypatch
):
    updates = record(monkeypatch, Run, "train_step")
    write_rankings("r.jsonl", RANKINGS)
    prefer(rankings="r.jsonl", algorithm=algorithm, steps=6, rate=0.01)
    model, tokenizer = checkpoint.load("runs/demo/2-instruct")
    expected_pairs = {("best", "worst"), ("best", "middle"), ("middle", "worst")}
    expected_pairs |= {("same", "no"), ("too", "no"), ("good", "bad")}
    rates, pairs = Rates("adamw", adamw=0.01, decay=0.0, steps=6), set()
    for note in updates:
        (piece,) = note.batch
        count = SIZES["tiny"].prompts * GROUP // 2
        assert note.objective.__name__ == algorithm and note.rates == rates
        assert note.total == count == len(piece["ids"])
        assert piece["ids"].shape[:2] == (count, 2) == piece["reference_log_probs"].shape
        for ids, targets, mask, expected in zip(
            *(piece[name] for name in ("ids", "targets", "weights", "reference_log_probs"))
        ):
            texts = [tokenizer.decode(row[weight > 0].tolist()) for row, weight in zip(targets, mask)]
            assert all(text.endswith("<|end|>") for text in texts)
            pairs.add(tuple(text.strip().removesuffix("<|end|>") for text in texts))
            log_probs = log_prob_of(targets, log_softmax(model.logits(ids)))
            np.testing.assert_allclose((log_probs * mask).sum(axis=1), expected, atol=1e-3)
    assert pairs == expected_pairs and len(updates) == 6
    assert not Path("runs/demo/3-prefer/reward").exists()


# ---- which parameters are kept


@pytest.mark.parametrize(
    "worst, kept",
    [
        ([0.2, 0.7, 0.68, 0.66], 2),  # a difference of 0.02 is noise, a difference of 0.04 is not
        ([0.7, 0.2, 0.3, 0.4], 0),
        ([0.5, 0.5, 0.5, 0.5], 3),
        ([0.7, 0.68, 0.66, 0.0], 1),  # 0.66 is compared with 0.7, the best, not with 0.68
    ],
)
def test_the_latest_parameters_whose_worst_score_is_close_to_the_highest_one_are_kept(
    world, monkeypatch, worst, kept
):
    next_worst = iter(worst)
    validations = record(
        monkeypatch,
        behaviour,
        "greedy_replies",
        lambda note: {"params": note.pool.model.params.flat.copy()},
        call=False,
    )
    outcomes = lambda replies: (
        dict.fromkeys(s3_prefer.oracle.KINDS, [0.9]) | {"harm": [next(next_worst)], "polite": [1.0]}
    )
    monkeypatch.setattr(behaviour, "outcomes", outcomes)
    prefer(steps=4, rate=0.01)
    assert len({note.params.tobytes() for note in validations}) == 4
    np.testing.assert_array_equal(parameters(STAGE), validations[kept].params)
    assert list(logged(STAGE, "worst").values()) == worst
    assert logged(STAGE, "correct")[0] == pytest.approx((4 * 0.9 + worst[0]) / 5)
    assert all(note.split == "val" and note.count == s3_prefer.VALIDATION_PROMPTS for note in validations)


def test_the_progress_line_shows_the_score_and_the_kl_of_every_step(world, monkeypatch):
    monkeypatch.setattr(s3_prefer, "keep_best", lambda *_: None)
    logs = record(monkeypatch, Run, "log", lambda note: {"line": note.self.bar.desc})
    prefer(steps=3)
    scores, kl = logged(STAGE, "score"), logged(STAGE, "kl_nats_per_reply")
    lines = [note.line for note in logs if "score" in note.values]
    assert all(line.startswith(f"score {scores[i]:.2f}, KL {kl[i]:.2f}  ") for i, line in enumerate(lines))
    assert len(lines) == 3 and all("tok/s" in line and "loss" not in line for line in lines)


def test_with_your_own_rankings_the_prompts_come_from_your_file_and_the_last_parameters_are_kept(
    world, monkeypatch
):
    validations = record(monkeypatch, behaviour, "greedy_replies", call=False)
    steps = record(monkeypatch, s3_prefer, "reinforce_step")
    write_rankings("r.jsonl", RANKINGS)
    prefer(rankings="r.jsonl", steps=3)
    assert not validations
    np.testing.assert_array_equal(parameters(STAGE), steps[-1].run.model.params.flat)
    prompts = {str(ranking.prompt) for ranking in read("r.jsonl")}
    assert {str(prompt) for note in steps for prompt in note.prompts} <= prompts
    assert len({str(note.prompts) for note in steps}) > 1


# ---- learning


@pytest.fixture(scope="module")
def undecided(tmp_path_factory):
    """A folder with a model that answers "aa" as often as "zq", and with rankings that prefer "aa"."""
    path = tmp_path_factory.mktemp("undecided")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        Path("text.txt").write_text("the cat sat on the mat. " * 50)
        shape = {"vocab": 256, "layers": 1, "width": 16, "heads": 2, "context": 32}
        s0_random.main(s0_random.RandomSettings(size="tiny", workers=1, text="text.txt", **shape))
        both = [{"instruction": f"{i}?", "output": "aa" if i % 2 else "zq"} for i in range(40)]
        write_rankings("both.jsonl", both)
        write_rankings(
            "preferred.jsonl", [{"prompt": f"{i}?", "chosen": "aa", "rejected": "zq"} for i in range(40)]
        )
        s2_instruct.main(
            s2_instruct.InstructSettings(
                size="tiny",
                workers=1,
                text="text.txt",
                origin="runs/demo/0-random",
                data="both.jsonl",
                steps=100,
                replay=0.0,
                tokens=512,
            )
        )
    return path


@pytest.fixture
def aa_preferred(undecided, tmp_path, monkeypatch):
    shutil.copytree(undecided, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return {"rankings": "preferred.jsonl", "rate": 0.01}


@algorithms
def test_every_algorithm_with_rollouts_learns_the_preferred_reply(algorithm, aa_preferred):
    prefer(**aa_preferred, algorithm=algorithm, steps=25, kl=0.01)
    score, kl = (list(logged(STAGE, key).values()) for key in ("score", "kl_nats_per_reply"))
    assert len(score) == 25 and np.mean(score[-5:]) > np.mean(score[:5]) + 0.2
    assert 0 <= kl[0] < 1e-4 < kl[-1]
    assert "[score" in Path("runs/demo", STAGE, "samples.txt").read_text()


@pytest.mark.parametrize("algorithm", PAIRS)
def test_an_algorithm_that_learns_from_pairs_lowers_its_loss(algorithm, aa_preferred):
    prefer(**aa_preferred, algorithm=algorithm, steps=20)
    loss = list(logged(STAGE, "loss").values())
    assert loss[-1] < 0.72 * loss[0]
    assert algorithm != "dpo" or loss[0] == pytest.approx(np.log(2), abs=1e-4)


def test_a_higher_kl_penalty_keeps_the_policy_closer_to_stage_2(aa_preferred):
    for run, kl in (("free", 0.0), ("penalised", 20.0)):
        prefer(**aa_preferred, steps=25, kl=kl, run=run, origin="runs/demo/2-instruct")
    free, penalised = (metrics(STAGE, run)[-1]["kl_nats_per_reply"] for run in ("free", "penalised"))
    assert penalised < free / 2


# ---- files


def test_the_simulated_annotator_ranks_replies_unless_you_have_a_file_of_rankings(world, capsys, monkeypatch):
    monkeypatch.setattr(s3_prefer, "keep_best", lambda *_: None)
    prefer(steps=1)
    lines = Path("runs/demo/3-prefer/rankings.jsonl").read_text().splitlines()
    rankings = [json.loads(line) for line in lines]
    assert len(rankings) == SIZES["tiny"].rankings
    assert all(len(ranking["completions"]) == len(ranking["ranks"]) == 5 for ranking in rankings)
    write_rankings("r.jsonl", RANKINGS)
    prefer(steps=1, run="mine", origin="runs/demo/2-instruct", rankings="r.jsonl")
    assert not Path("runs/mine/3-prefer/rankings.jsonl").exists()
    assert read_stage(STAGE, "mine")["sources"]["rankings"]["path"] == str(Path("r.jsonl").resolve())


@pytest.mark.parametrize("algorithm", ["reinforce", *PAIRS])
def test_prompts_longer_than_the_context_are_left_out(algorithm, world, monkeypatch, capsys):
    """A prompt longer than the context leaves no room for a reply. In one published file, every fifth prompt
    is too long."""
    long = [{"prompt": f"{i}? " * 300, "chosen": "aa", "rejected": "zq"} for i in range(5)]
    write_rankings("hh.jsonl", [*long, *RANKINGS])
    tell_once.cache_clear()
    steps = record(monkeypatch, Run, "train_step")
    prefer(rankings="hh.jsonl", steps=2, algorithm=algorithm)
    err = capsys.readouterr().err
    assert err.count("do not fit into the context of 256 tokens and are left out") == 1
    assert all(piece["ids"].shape[-1] <= 256 for note in steps for piece in note.batch)
    write_rankings("long.jsonl", long * 20)
    with pytest.raises(TinyllmError, match="no ranking fits into the context of 256 tokens"):
        prefer(
            rankings="long.jsonl", steps=2, algorithm=algorithm, run="other", origin="runs/demo/2-instruct"
        )


def test_a_bad_file_and_a_missing_parent_are_reported(world, capsys):
    for name, text, message in (("bad.jsonl", "{}\n", "line 1"), ("empty.jsonl", "", "empty")):
        Path(name).write_text(text)
        with pytest.raises(TinyllmError, match=message):
            prefer(rankings=name)
    with pytest.raises(TinyllmError, match="make stage2 RUN=nothing"):
        prefer(run="nothing")


@pytest.mark.parametrize("algorithm", ["reinforce", "ppo", *PAIRS])
def test_an_interrupted_and_resumed_run_gives_the_same_bytes_as_an_uninterrupted_one(
    algorithm, world, monkeypatch
):
    """The run is interrupted while training the reward model (DPO has none) and while training the policy."""
    monkeypatch.setattr(behaviour, "greedy_replies", lambda pool, *_: pool.model.params.flat[:5])
    monkeypatch.setattr(
        behaviour, "outcomes", lambda replies: {kind: [x] for kind, x in zip(s3_prefer.oracle.KINDS, replies)}
    )
    options = {"algorithm": algorithm, "origin": "runs/demo/2-instruct", "steps": 3}
    prefer(**options, run="uninterrupted")
    stopped = []

    def stop(note):
        if (note.self.stage, note.step) not in stopped and note.step == 1:
            stopped.append((note.self.stage, note.step))
            note.self.signal = signal.SIGINT
        return {}

    record(monkeypatch, Run, "train_step", stop)
    stages = [STAGE] if algorithm in PAIRS else ["3-prefer/reward", STAGE]
    for _ in stages:
        with pytest.raises(KeyboardInterrupt):
            prefer(**options, run="resumed", resume=True)
    prefer(**options, run="resumed", resume=True)
    assert [name for name, _ in stopped] == stages
    for name in stages:
        assert weights(name, "uninterrupted") == weights(name, "resumed")
