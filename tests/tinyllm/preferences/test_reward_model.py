"""reward_model: preferred replies get higher scores, and scores are read at the end token and normalised.

A score that is read elsewhere, or that depends on padding, would reward something other than the reply.
"""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import random_model, rngs

from tinyllm import checkpoint, runs
from tinyllm.checkpoint.files import read_json
from tinyllm.data.conversation import encode_prompt
from tinyllm.errors import TinyllmError
from tinyllm.objectives import plackett_luce
from tinyllm.parallel import WorkerPool
from tinyllm.preferences import reward_model
from tinyllm.preferences.rankings import Ranking, encode_ranking
from tinyllm.tokenizer import train
from tinyllm.transformer import Config

BYTES = train("", 256)
END = BYTES.special["<|end|>"]
CONFIG = Config(len(BYTES), context=32, layers=1, width=16, heads=2)
RANKINGS = [
    Ranking([{"role": "user", "content": f"{i}?"}], ["aa", "zq", "a", "qz"], [1, 2, 1, 2]) for i in range(12)
] + [Ranking([{"role": "user", "content": f"{i}!"}], ["za", "aq"], [2, 1]) for i in range(3)]


def encode(prompt, text):
    """The ids of a prompt and a reply, as stage 3 scores them."""
    messages = [{"role": "user", "content": prompt}]
    return [*encode_prompt(BYTES, messages), *BYTES.encode(f" {text}"), END]


@pytest.fixture(scope="module")
def reward_settings():
    return reward_model.RewardSettings(workers=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, reward_settings):
    """The folder of a reward model that has learned to prefer "aa" to "zq"."""
    path = tmp_path_factory.mktemp("reward")
    checkpoint.save(path / "parent", random_model(CONFIG, np.random.default_rng(0), np.float32, 0.1), BYTES)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        folder = reward_model.train(reward_settings, path / "parent", RANKINGS, 40)
    return path / folder


def test_preferred_replies_score_higher_even_after_unseen_prompts(trained, reward_settings):
    with reward_model.scorer(trained, reward_settings) as score:
        for prompt in ("3?", "99?"):
            preferred, other = score([encode(prompt, "aa"), encode(prompt, "zq")])
            assert preferred > other + 0.5
        last, first = score([encode("1!", "aq"), encode("1!", "za")])
        assert last > first


def test_the_scores_of_the_training_replies_have_mean_0_and_standard_deviation_1(trained, reward_settings):
    rows = [ids for ranking in RANKINGS for ids, _ in encode_ranking(BYTES, ranking)]
    with reward_model.scorer(trained, reward_settings) as score:
        scores = score(rows)
    with WorkerPool(checkpoint.load(trained)[0]) as pool:
        raw = reward_model.raw_scores(pool, rows)
    assert scores.mean() == pytest.approx(0, abs=1e-5) and scores.std() == pytest.approx(1, abs=1e-5)
    scale = read_json(trained / "scale.json")
    assert (scale["mean"], scale["deviation"]) == (pytest.approx(raw.mean()), pytest.approx(raw.std()))


def test_a_reward_model_is_a_checkpoint_with_a_score_head_and_not_a_language_model(trained):
    model, tokenizer = checkpoint.load(trained)
    assert model.config.head == "score" and len(tokenizer) == len(BYTES)
    with pytest.raises(TinyllmError, match="a reward model"):
        checkpoint.load_language_model(trained)


def test_a_finished_reward_model_is_not_trained_again(trained, reward_settings, monkeypatch):
    monkeypatch.chdir(trained.parents[3])
    monkeypatch.setattr(reward_model, "Run", None)
    folder = reward_model.train(reward_settings, trained.parents[3] / "parent", RANKINGS, 40)
    assert folder.resolve() == trained


@pytest.mark.parametrize("name", ["reward_steps", "steps"])
def test_a_reward_model_made_with_another_number_of_steps_is_refused(
    trained, reward_settings, monkeypatch, name
):
    """stage.json calls the number reward_steps; older files call it steps."""
    monkeypatch.chdir(trained.parents[3])
    notes, parent = read_json(trained / "stage.json"), trained.parents[3] / "parent"
    notes["settings"][name] = notes["settings"].pop("reward_steps")
    monkeypatch.setattr(runs, "read_notes", lambda folder: notes)
    same_steps = dataclasses.replace(reward_settings, reward_steps=40)
    assert reward_model.train(same_steps, parent, RANKINGS, 40).resolve() == trained
    with pytest.raises(TinyllmError, match="made with reward_steps=40 instead of 5"):
        reward_model.train(reward_settings, parent, RANKINGS, 5)


@given(rngs, st.lists(st.lists(st.integers(0, CONFIG.vocab - 1), min_size=1, max_size=12), min_size=1))
@settings(max_examples=30)
def test_a_score_is_read_at_the_last_token_whatever_else_is_in_the_batch(rng, rows):
    model = random_model(Config(CONFIG.vocab, 12, 1, 8, 2, head="score"), rng, np.float32)
    with WorkerPool(model) as pool:
        scores = reward_model.raw_scores(pool, rows)
    alone = [model.forward(np.array([row]))[0][0, -1] for row in rows]
    np.testing.assert_allclose(scores, alone, atol=1e-4)


def test_without_rows_there_are_no_scores():
    with WorkerPool(random_model(CONFIG, np.random.default_rng(0), np.float32)) as pool:
        assert reward_model.raw_scores(pool, []).shape == (0,)


ranks = st.sampled_from([1, 2, 3, 10**11])
groups = st.lists(
    st.lists(st.tuples(st.lists(st.integers(0, 9), min_size=1, max_size=6), ranks), min_size=2),
    min_size=1,
    max_size=4,
).map(lambda lists: [([(ids, [0] * len(ids)) for ids, _ in one], [rank for _, rank in one]) for one in lists])


@given(groups)
def test_a_batch_holds_every_completion_with_its_rank_and_the_position_of_its_last_token(groups):
    batch = reward_model.ranking_batch(groups)
    P, K, T = batch["ids"].shape
    assert (P, K) == (len(groups), max(len(rows) for rows, _ in groups))
    assert batch["last"].shape == batch["ranks"].shape == (P, K)
    for p, (rows, ranks) in enumerate(groups):
        assert batch["ranks"][p].tolist() == ranks + [0] * (K - len(ranks))
        for k, (row, _) in enumerate(rows):
            last = batch["last"][p, k]
            assert batch["ids"][p, k, : last + 1].tolist() == row and not batch["ids"][p, k, last + 1 :].any()


@given(rngs, groups)
@settings(max_examples=30)
def test_the_loss_ignores_padding_and_missing_completions(rng, groups):
    model = random_model(Config(10, 6, 1, 8, 2, head="score"), rng)
    batch = reward_model.ranking_batch(groups)

    def loss(ids, last):
        scores = model.forward(ids.reshape(-1, ids.shape[-1]))[0].reshape(ids.shape)
        return plackett_luce(scores, last, batch["ranks"], len(groups))[0]

    ids, last = batch["ids"], batch["last"]
    padding = np.arange(ids.shape[2]) > last[..., None]
    changed = np.where(padding, rng.integers(0, 10, ids.shape), ids)
    assert loss(changed, last) == pytest.approx(loss(ids, last), abs=1e-9)
    missing = batch["ranks"] == 0
    changed = np.where(missing[..., None], rng.integers(0, 10, ids.shape), ids)
    assert loss(changed, last) == pytest.approx(loss(ids, last), abs=1e-9)


def test_scores_that_are_read_one_token_earlier_change_the_loss():
    rng = np.random.default_rng(0)
    model = random_model(Config(10, 6, 1, 8, 2, head="score"), rng)
    batch = reward_model.ranking_batch([([([1, 2, 3], [0] * 3), ([4, 5, 6], [0] * 3)], [1, 2])])
    scores = model.forward(batch["ids"][0])[0][None]
    loss = lambda last: plackett_luce(scores, last, batch["ranks"], 1)[0]
    earlier = batch["last"] - [[1, 0]]
    assert batch["last"].tolist() == [[2, 2]] and abs(loss(earlier) - loss(batch["last"])) > 1e-3


@given(st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=10)
def test_the_score_head_is_new_and_everything_below_it_is_copied_from_stage_2(seed, tied):
    rng = np.random.default_rng(seed)
    base = random_model(Config(20, 8, 2, 500, 2, hidden=3, tied=tied), rng, np.float32)
    model = reward_model.with_score_head(base, seed)
    for name, w in model.params.items():
        if name != "score":
            np.testing.assert_array_equal(w, base.params[name])
    score = model.params["score"]
    assert score.shape == (1, 500) and score.std() * np.sqrt(501) == pytest.approx(1, abs=0.2)
    np.testing.assert_array_equal(score, reward_model.with_score_head(base, seed).params["score"])
    assert not np.array_equal(score, reward_model.with_score_head(base, seed + 1).params["score"])
