"""rollouts: log-probs equal those used to sample the replies, and the mask covers only the replies.

Otherwise all importance ratios would be wrong, or the policy would be trained on the prompts.
"""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import random_model

from tinyllm import parallel, sampling
from tinyllm.objectives import kl_divergence, log_prob_of, log_softmax
from tinyllm.parallel import WorkerPool
from tinyllm.preferences import rollouts
from tinyllm.sampling import generate
from tinyllm.tokenizer import train
from tinyllm.transformer import Config

BYTES = train("", 256)
END = BYTES.special["<|end|>"]
CONFIG = Config(len(BYTES), context=64, layers=2, width=16, heads=2)
PROMPTS = [BYTES.encode(text) for text in ("a", "what?", "once more, please", "b" * 30)] * 3
TOKENS = 20
seeds = st.integers(0, 2**16)


def model_of(seed, config=CONFIG):
    """A random model that ends some of its replies early, but not all."""
    model = random_model(config, np.random.default_rng(seed), np.float32, scale=0.3)
    model.params["embedding"][END] *= 3
    return model


def sample(pool, max_tokens, seed):
    """Sample rollouts -> their replies, and the arrays of their batch by name."""
    result = rollouts.sample_rollouts(pool, BYTES, PROMPTS, max_tokens, seed)
    ids, targets, mask = (result.batch[name] for name in ("ids", "targets", "weights"))
    return SimpleNamespace(ids=ids, targets=targets, mask=mask, replies=result.replies, ended=result.ended)


def compare(policy, reference, batch):
    columns = {"ids": batch.ids, "targets": batch.targets, "weights": batch.mask}
    return rollouts.compare(policy, reference, columns)


@pytest.fixture(scope="module")
def sampled():
    """Rollouts, the worker pool of the policy that sampled them, and the worker pool of another model."""
    with WorkerPool(model_of(3)) as policy, WorkerPool(model_of(4)) as reference:
        batch = sample(policy, TOKENS, [1, 2])
        assert set(batch.ended) == {True, False}
        yield SimpleNamespace(batch=batch, policy=policy, reference=reference)


@given(seeds, st.integers(1, TOKENS))
@settings(max_examples=20)
def test_the_mask_covers_only_the_reply_and_its_end_token(seed, max_tokens):
    with WorkerPool(model_of(seed)) as pool:
        batch = sample(pool, max_tokens, [seed])
    assert batch.ids.shape == batch.targets.shape == batch.mask.shape
    assert max(map(len, batch.replies)) <= max_tokens
    for prompt, reply, ids, targets, mask in zip(
        PROMPTS, batch.replies, batch.ids, batch.targets, batch.mask
    ):
        assert targets[mask > 0].tolist() == reply and set(mask) <= {0, 1}
        length = len(prompt) + len(reply)
        assert [*ids, targets[-1]][:length] == prompt + reply
        assert not mask[: len(prompt) - 1].any() and not mask[length - 1 :].any()
        assert END not in reply[:-1]


def test_a_reply_has_ended_if_its_last_token_is_the_end_token(sampled):
    for reply, ended in zip(sampled.batch.replies, sampled.batch.ended):
        assert ended == (reply[-1] == END)
        assert ended or len(reply) == TOKENS


def test_the_seed_determines_the_replies(sampled):
    again, other = (sample(sampled.policy, TOKENS, seed) for seed in ([1, 2], [1, 3]))
    assert again.replies == sampled.batch.replies != other.replies


def test_log_probs_equal_those_used_to_sample_the_replies(sampled, monkeypatch):
    """Equal log-probs make every importance ratio 1 in the first update, whatever else is in the batch."""
    batch, policy, sampled_logits = sampled.batch, sampled.policy, []
    choose = sampling.choose

    def record_logits(logits, *arguments):
        sampled_logits.append(logits)
        return choose(logits, *arguments)

    monkeypatch.setattr(sampling, "choose", record_logits)
    draws = np.random.default_rng([1, 2]).random((len(PROMPTS), 1, TOKENS))
    _, compared, _, _ = compare(policy, sampled.reference, batch)
    log_probs = rollouts.log_probs(policy, batch.ids, batch.targets)
    columns = PROMPTS, draws, batch.replies, batch.mask, compared, log_probs
    for prompt, row_draws, reply, mask, *rows in zip(*columns):
        sampled_logits.clear()
        assert generate(policy.model, [prompt], TOKENS, row_draws, stop=END) == [reply]
        when_drawn = log_prob_of(np.array(reply), log_softmax(np.concatenate(sampled_logits)))
        for row in rows:
            np.testing.assert_allclose(np.exp(row[mask > 0] - when_drawn), 1, atol=1e-4)


def test_the_kl_is_0_for_equal_models_and_otherwise_agrees_with_the_objective(sampled):
    batch, policy, reference = sampled.batch, sampled.policy, sampled.reference
    at, total = batch.mask > 0, batch.mask.sum()
    _, _, kl, _ = compare(policy, policy, batch)
    assert np.abs(kl).max() < 1e-5
    reference_logits, _, kl, _ = compare(policy, reference, batch)
    assert (kl[at] > 0).all() and not kl[~at].any() and kl.shape == batch.ids.shape
    expected = reference.model.forward(batch.ids)[0]
    assert len(reference_logits) == len(at)
    np.testing.assert_allclose(np.concatenate(reference_logits), expected[at], atol=1e-4)
    loss, _ = kl_divergence(policy.model.forward(batch.ids)[0], expected, batch.mask, total)
    assert kl.sum() / total == pytest.approx(loss, rel=1e-4)


def test_the_kl_is_the_mean_log_ratio_under_the_policy(sampled):
    """The test computes KL(policy || reference), not KL(reference || policy), from its definition."""
    batch, policy, reference = sampled.batch, sampled.policy, sampled.reference
    _, _, kl, _ = compare(policy, reference, batch)
    t = batch.mask[0].argmax()
    ids = batch.ids[:1, : t + 1]
    p, q = (np.exp(log_softmax(pool.model.forward(ids)[0][0, -1])) for pool in (policy, reference))
    assert kl[0, t] == pytest.approx((p * np.log(p / q)).sum(), rel=1e-3)


@pytest.mark.parametrize("tied", [True, False])
def test_the_states_are_the_input_of_the_policys_head(sampled, tied):
    config = Config(len(BYTES), context=64, layers=1, width=8, heads=2, tied=tied)
    batch, at = sampled.batch, sampled.batch.mask > 0
    with WorkerPool(model_of(5, config)) as policy:
        _, log_probs, _, states = compare(policy, sampled.reference, batch)
        logits = states @ policy.model.params["embedding" if tied else "head"].T
    assert states.shape == (*at.shape, 8)
    expected = log_prob_of(batch.targets, log_softmax(logits))
    np.testing.assert_allclose(log_probs[at], expected[at], atol=1e-4)


def test_results_are_in_order_even_for_more_rows_than_a_worker_computes_at_once(sampled):
    ids, mask = (np.tile(array, (4, 1)) for array in (sampled.batch.ids, sampled.batch.mask))
    targets = np.roll(np.tile(sampled.batch.targets, (4, 1)), 1, axis=0)
    assert len(ids) > parallel.ROWS
    log_probs = rollouts.log_probs(sampled.policy, ids, targets)
    expected = log_prob_of(targets, log_softmax(sampled.policy.model.forward(ids)[0]))
    np.testing.assert_allclose(log_probs, expected, atol=1e-4)
    batch = SimpleNamespace(ids=ids, targets=targets, mask=mask)
    logits, compared, kl, states = compare(sampled.policy, sampled.reference, batch)
    np.testing.assert_allclose(compared, expected * mask, atol=1e-4)
    assert len(logits) == len(kl) == len(states) == len(ids)
    assert [len(row) for row in logits] == mask.sum(axis=1).tolist()
