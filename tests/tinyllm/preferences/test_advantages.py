"""advantages: for any baseline, the expected gradient is the gradient of the expected score minus the KL
penalty.

With wrong advantages a model would still train, but towards another goal.
"""

import itertools
import re

import numpy as np
import pytest
from gradcheck import slope
from hypothesis import given
from hypothesis import strategies as st
from strategies import rngs, sizes

from tinyllm.objectives import log_softmax, policy_gradient_with_kl, ppo_clip
from tinyllm.preferences import advantages

groups = st.integers(2, 5)
BASELINES = [np.mean, advantages.mean_of_others, advantages.group_mean]
baselines = st.sampled_from(BASELINES)


def test_the_worked_example_in_the_docstring_is_correct():
    rows = re.findall(r"^ {4}(\S.*?)((?: +-?\d+\.\d){3})\b", advantages.__doc__, re.M)
    example = {label: np.array([numbers.split()], float) for label, numbers in rows}
    assert list(example) == ["divergence", "later", "2 - 0.5 * later", "advantage"]
    later = advantages.returns_after(example["divergence"])
    advantage = advantages.with_baseline(np.ones_like, np.array([[2.0]]), 0.5 * example["divergence"])
    np.testing.assert_allclose(later, example["later"], atol=1e-9)
    np.testing.assert_allclose(2 - 0.5 * later, example["2 - 0.5 * later"], atol=1e-9)
    np.testing.assert_allclose(advantage, example["advantage"], atol=1e-9)


@given(rngs, sizes, sizes)
def test_advantages_sum_to_0_and_those_of_equal_scores_are_0(rng, P, G):
    scores = rng.standard_normal((P, G))
    equal = np.repeat(scores[:, :1], G, axis=1)
    np.testing.assert_allclose(
        scores - advantages.group_mean(scores),
        advantages.group_advantages(scores) * (scores.std(axis=1, keepdims=True) + 1e-4),
        atol=1e-9,
    )
    for baseline in (advantages.group_mean, advantages.mean_of_others):
        if G > 1:
            np.testing.assert_allclose((scores - baseline(scores)).sum(axis=1), 0, atol=1e-9)
            np.testing.assert_allclose(equal - baseline(equal), 0, atol=1e-9)
    np.testing.assert_allclose(advantages.group_advantages(scores).sum(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(advantages.group_advantages(equal), 0, atol=1e-9)
    from_mean = advantages.with_baseline(np.mean, scores, np.zeros((P * G, 1)))
    assert from_mean.sum() == pytest.approx(0, abs=1e-9)
    assert not advantages.with_baseline(np.mean, np.ones((P, G)), np.zeros((P * G, 1))).any()


@given(rngs, sizes, groups, st.sampled_from([*BASELINES, None]))
def test_equal_scores_give_no_gradient(rng, P, G, baseline):
    logits, targets = rng.standard_normal((P * G, 3, 4)), rng.integers(0, 4, (P * G, 3))
    scores, no_penalties = np.full((P, G), rng.normal()), np.zeros((P * G, 3))
    if baseline:
        advantage = advantages.with_baseline(baseline, scores, no_penalties)
    else:
        advantage = advantages.group_advantages(scores).reshape(-1, 1) + no_penalties
    log_probs = np.take_along_axis(log_softmax(logits), targets[..., None], -1)[..., 0]
    _, gradient = ppo_clip(logits, targets, log_probs, advantage, 1.0)
    np.testing.assert_allclose(gradient, 0, atol=1e-9)


@given(rngs, sizes, groups)
def test_the_mean_of_others_leaves_out_the_score_of_the_reply_itself(rng, P, G):
    scores = rng.standard_normal((P, G))
    others = advantages.mean_of_others(scores)
    for p, g in itertools.product(range(P), range(G)):
        assert others[p, g] == pytest.approx(np.delete(scores[p], g).mean())
    from_others, from_group = scores - others, scores - advantages.group_mean(scores)
    np.testing.assert_allclose(from_group, from_others * (G - 1) / G, atol=1e-9)


@given(rngs, sizes, groups, sizes, baselines, st.floats(-5, 5))
def test_a_constant_added_to_all_scores_changes_no_advantage(rng, P, G, T, baseline, constant):
    scores, penalties = rng.standard_normal((P, G)), rng.random((P * G, T))
    np.testing.assert_allclose(
        advantages.with_baseline(baseline, scores + constant, penalties),
        advantages.with_baseline(baseline, scores, penalties),
        atol=1e-9,
    )


@given(rngs, sizes, groups, st.integers(1, 5), st.floats(0, 2), st.data())
def test_more_divergence_at_a_position_lowers_only_the_advantages_before_it(rng, P, G, T, kl, data):
    """The baseline does not depend on the reply itself, so only the returns at earlier positions change."""
    scores, divergence = rng.standard_normal((P, G)), rng.random((P * G, T))
    reply = data.draw(st.integers(0, P * G - 1), label="reply")
    at = data.draw(st.integers(0, T - 1), label="position of more divergence")
    more = divergence.copy()
    more[reply, at] += 1
    before, after = (
        advantages.with_baseline(advantages.mean_of_others, scores, kl * each)[reply]
        for each in (divergence, more)
    )
    np.testing.assert_allclose(after[at:], before[at:], atol=1e-9)
    np.testing.assert_allclose(after[:at], before[:at] - kl, atol=1e-9)


@given(rngs, sizes, groups, st.floats(0.1, 10), st.floats(-5, 5))
def test_advantages_of_grpo_do_not_change_if_all_scores_are_scaled_and_shifted(rng, P, G, scale, shift):
    scores = rng.standard_normal((P, G))
    np.testing.assert_allclose(
        advantages.group_advantages(scale * scores + shift, eps=0),
        advantages.group_advantages(scores, eps=0),
        rtol=1e-6,
    )
    assert np.abs(advantages.group_advantages(scores)).max() <= np.sqrt(G - 1) + 1e-9  # for any scores


@given(rngs, sizes, sizes)
def test_a_return_is_the_sum_of_the_rewards_at_its_own_and_all_later_positions(rng, B, T):
    rewards = rng.standard_normal((B, T))
    returns = advantages.returns(rewards)
    for t in range(T):
        np.testing.assert_allclose(returns[:, t], rewards[:, t:].sum(axis=1), atol=1e-9)
        after = rewards[:, t + 1 :].sum(axis=1)
        np.testing.assert_allclose(advantages.returns_after(rewards)[:, t], after, atol=1e-9)
    np.testing.assert_allclose(advantages.returns_after(rewards), returns - rewards, atol=1e-9)


@given(rngs, sizes, sizes, st.floats(0, 1))
def test_gae_is_the_return_minus_the_value_for_lam_1_and_the_one_step_error_for_lam_0(rng, B, T, lam):
    rewards, values = rng.standard_normal((2, B, T))
    returns = advantages.returns(rewards)
    next_values = np.concatenate([values[:, 1:], np.zeros((B, 1))], axis=1)
    deltas = rewards + next_values - values
    np.testing.assert_allclose(advantages.gae(rewards, values, lam=1), returns - values, atol=1e-9)
    np.testing.assert_allclose(advantages.gae(rewards, values, lam=0), deltas, atol=1e-9)
    sums = [sum(lam ** (s - t) * deltas[:, s] for s in range(t, T)) for t in range(T)]
    np.testing.assert_allclose(advantages.gae(rewards, values, lam), np.stack(sums, axis=1), atol=1e-9)
    perfect_values = returns
    np.testing.assert_allclose(advantages.gae(rewards, perfect_values, lam), 0, atol=1e-9)


@given(rngs, sizes, st.integers(2, 5))
def test_standardised_advantages_have_mean_0_and_standard_deviation_1_inside_the_mask(rng, B, T):
    raw, mask = rng.normal(3, 5, (B, T)), rng.integers(0, 2, (B, T)).astype(np.float32)
    mask[:, :2] = 1
    inside = advantages.standardise(raw, mask)[mask > 0]
    assert inside.mean() == pytest.approx(0, abs=1e-4) and inside.std() == pytest.approx(1, abs=1e-4)
    outside = np.where(mask > 0, raw, raw + 100)
    np.testing.assert_allclose(advantages.standardise(outside, mask)[mask > 0], inside)
    assert not advantages.standardise(np.ones((B, T)), mask).any()  # equal advantages become 0, not nan


@given(rngs, st.floats(0, 2), st.floats(-3, 3))
def test_the_expected_gradient_is_the_gradient_of_the_expected_score_minus_the_kl_penalty(rng, kl, baseline):
    """The model has two tokens and two positions, and the logits at the second position depend on the
    first token.

    On average over all four replies, weighted by their probabilities, the gradient of stage 3 is the gradient
    of the expected score minus kl * KL(policy || reference), for any baseline.
    """
    logits1, logits2, reference1, reference2 = rng.standard_normal((4, 2, 2))
    logits1, reference1 = logits1[0], reference1[0]
    score = rng.standard_normal((2, 2))  # of each reply

    def kl_of(logits, reference):
        log_p = log_softmax(logits)
        return (np.exp(log_p) * (log_p - log_softmax(reference))).sum(axis=-1)

    def objective(logits1, logits2):
        p1, p2 = np.exp(log_softmax(logits1)), np.exp(log_softmax(logits2))
        divergence = kl_of(logits1, reference1) + (p1 * kl_of(logits2, reference2)).sum()
        return (p1[:, None] * p2 * score).sum() - kl * divergence

    log_p1, log_p2 = log_softmax(logits1), log_softmax(logits2)
    gradient1, gradient2 = np.zeros(2), np.zeros((2, 2))
    for a, b in itertools.product(range(2), range(2)):
        divergence = np.array([[kl_of(logits1, reference1), kl_of(logits2, reference2)[a]]])
        advantage = advantages.with_baseline(
            lambda returns: np.full(returns.shape, baseline), score[None, [a], b], kl * divergence
        )
        _, dlogits = policy_gradient_with_kl(
            np.stack([logits1, logits2[a]])[None],
            np.array([[a, b]]),
            np.array([[log_p1[a], log_p2[a, b]]]),
            np.stack([reference1, reference2[a]])[None],
            advantage,
            np.ones((1, 2)),
            1.0,
            kl,
        )
        probability = np.exp(log_p1[a] + log_p2[a, b])
        gradient1 -= probability * dlogits[0, 0]
        gradient2[a] -= probability * dlogits[0, 1]

    d1, d2 = rng.standard_normal(2), rng.standard_normal((2, 2))
    numeric = slope(lambda t: objective(logits1 + t * d1, logits2 + t * d2))
    assert numeric == pytest.approx((gradient1 * d1).sum() + (gradient2 * d2).sum(), abs=1e-6)
