"""advantages: what a baseline may change, and what it may not."""

import itertools

import numpy as np
import pytest
from gradcheck import slope
from hypothesis import given
from hypothesis import strategies as st
from strategies import rngs, sizes

from tinyllm import advantages
from tinyllm.objectives import clipped, log_softmax, weighted_nll


@given(rngs, sizes, sizes)
def test_advantages_of_a_group_sum_to_nothing_and_equal_scores_have_none(rng, P, G):
    scores = rng.standard_normal((P, G))
    for baseline in (advantages.against_group, advantages.leave_one_out, advantages.standardised):
        np.testing.assert_allclose(baseline(scores).sum(axis=1), 0, atol=1e-6)
        np.testing.assert_allclose(baseline(np.repeat(scores[:, :1], G, axis=1)), 0, atol=1e-9)
    assert advantages.against_batch(scores).sum() == pytest.approx(0, abs=1e-9)
    assert not advantages.against_batch(np.full((P, G), 0.5)).any()


@given(rngs, sizes, sizes)
def test_equal_scores_give_no_gradient(rng, P, G):
    logits, targets = rng.standard_normal((P * G, 3, 4)), rng.integers(0, 4, (P * G, 3))
    advantage = np.repeat(advantages.leave_one_out(np.ones((P, G))).reshape(-1, 1), 3, axis=1)
    logp = np.take_along_axis(log_softmax(logits), targets[..., None], -1)[..., 0]
    assert not np.abs(clipped(logits, targets, logp, advantage, 1.0)[1]).max() > 1e-12


@given(rngs, sizes, st.integers(2, 5))
def test_leaving_oneself_out_is_the_group_stretched(rng, P, G):
    scores = rng.standard_normal((P, G))
    found = advantages.leave_one_out(scores)
    for p, g in itertools.product(range(P), range(G)):
        assert found[p, g] == pytest.approx(scores[p, g] - np.delete(scores[p], g).mean())
    np.testing.assert_allclose(found, advantages.against_group(scores) * G / (G - 1), atol=1e-9)


@given(rngs, sizes, sizes)
def test_what_is_to_come(rng, B, T):
    rewards, values = rng.standard_normal((2, B, T))
    for t in range(T):
        np.testing.assert_allclose(advantages.to_go(rewards)[:, t], rewards[:, t:].sum(axis=1))
        after = rewards[:, t + 1 :].sum(axis=1)
        np.testing.assert_allclose(advantages.later(rewards)[:, t], after, atol=1e-9)
    np.testing.assert_allclose(advantages.generalised(rewards, values, 1.0),
                               advantages.to_go(rewards) - values, atol=1e-9)  # fmt: skip
    after = np.concatenate([values[:, 1:], np.zeros((B, 1))], axis=1)
    np.testing.assert_allclose(advantages.generalised(rewards, values, 0.0), rewards + after - values)
    perfect = advantages.to_go(rewards)
    np.testing.assert_allclose(advantages.generalised(rewards, perfect, 0.7), 0, atol=1e-9)


@given(rngs, st.floats(0, 2), st.floats(-3, 3))
def test_the_expected_gradient_is_that_of_the_expected_reward(rng, beta, baseline):
    """A world of two tokens and two positions, the second with logits of its own for each first token. Over
    all four replies, REINFORCE on its leash (stage 3) gives the gradient of E[score] - beta KL, whatever the
    baseline."""
    first, second, q1, q2 = rng.standard_normal((4, 2, 2))
    first, q1 = first[0], q1[0]
    score = rng.standard_normal((2, 2))

    def parts(first, second):
        lp1, lp2, lq1, lq2 = map(log_softmax, (first, second, q1, q2))
        return lp1, lp2, (np.exp(lp1) * (lp1 - lq1)).sum(), (np.exp(lp2) * (lp2 - lq2)).sum(axis=-1)

    def objective(first, second):
        lp1, lp2, kl1, kl2 = parts(first, second)
        return (np.exp(lp1)[:, None] * np.exp(lp2) * score).sum() - beta * (kl1 + (np.exp(lp1) * kl2).sum())

    lp1, lp2, kl1, kl2 = parts(first, second)
    found1, found2 = np.zeros(2), np.zeros((2, 2))
    for a, b in itertools.product(range(2), range(2)):
        chance = np.exp(lp1[a] + lp2[a, b])
        away = np.array([[kl1, kl2[a]]])
        advantage = score[a, b] - baseline - beta * advantages.later(away)
        logits = np.stack([first, second[a]])[None]
        gradient = -weighted_nll(logits, np.array([[a, b]]), advantage, 1.0)[1][0]
        found1 += chance * gradient[0]
        found2[a] += chance * gradient[1]
    p1, p2 = np.exp(lp1), np.exp(lp2)
    found1 -= beta * p1 * (lp1 - log_softmax(q1) - kl1)
    found2 -= beta * p1[:, None] * p2 * (lp2 - log_softmax(q2) - kl2[:, None])

    d1, d2 = rng.standard_normal(2), rng.standard_normal((2, 2))
    numeric = slope(lambda t: objective(first + t * d1, second + t * d2))
    assert numeric == pytest.approx((found1 * d1).sum() + (found2 * d2).sum(), abs=1e-6)
