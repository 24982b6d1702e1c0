import numpy as np
import pytest
from gradcheck import check_loss
from hypothesis import given
from hypothesis import strategies as st
from strategies import rngs, sizes

from tinyllm.objectives import (
    clipped,
    divergence,
    hide_tokens,
    log_softmax,
    on_a_leash,
    plackett_luce,
    preference,
    weighted_nll,
)


@st.composite
def scored(draw):
    rng, B, T, V = draw(rngs), draw(sizes), draw(sizes), draw(sizes)
    return rng.standard_normal((B, T, V)) * 3, rng.integers(0, V, (B, T)), rng.standard_normal((B, T)), rng


@given(scored(), st.floats(0.1, 100))
def test_weighted_nll_gradient(case, total):
    logits, targets, weights, rng = case
    check_loss(lambda z: weighted_nll(z, targets, weights, total), logits, rng)


@given(scored(), st.floats(0.1, 100))
def test_weighted_nll_is_what_it_says(case, total):
    logits, targets, weights, _ = case
    logp = np.take_along_axis(log_softmax(logits), targets[..., None], -1)[..., 0]
    assert weighted_nll(logits, targets, weights, total)[0] == pytest.approx(-(weights * logp).sum() / total)


@given(scored(), st.data())
def test_parts_of_a_batch_add_up(case, data):
    logits, targets, weights, _ = case
    cut = data.draw(st.integers(0, len(logits)))
    loss, gradient = weighted_nll(logits, targets, weights, 7.0)
    parts = [weighted_nll(logits[s], targets[s], weights[s], 7.0) for s in (slice(0, cut), slice(cut, None))]
    assert loss == pytest.approx(sum(part[0] for part in parts), abs=1e-12)
    np.testing.assert_allclose(gradient, np.concatenate([part[1] for part in parts]), atol=1e-15)


@given(scored(), st.sampled_from([0, 1.0]))
def test_nothing_to_learn_is_zero_not_nan(case, total):
    logits, targets, weights, _ = case
    loss, gradient = weighted_nll(logits, targets, 0 * weights, total)
    assert loss == 0 and not gradient.any()


@given(scored())
def test_the_gradient_of_a_position_sums_to_zero(case):
    logits, targets, weights, _ = case
    np.testing.assert_allclose(weighted_nll(logits, targets, weights, 1)[1].sum(-1), 0, atol=1e-12)


@given(scored())
def test_logits_are_left_as_they_were(case):
    logits, targets, weights, _ = case
    before = logits.copy()
    weighted_nll(logits, targets, weights, 1)
    np.testing.assert_array_equal(logits, before)


def test_huge_logits_do_not_overflow():
    logits = np.array([[[1e4, -1e4, 0]]], np.float32)
    loss, gradient = weighted_nll(logits, np.array([[1]]), np.ones((1, 1)), 1)
    assert loss == pytest.approx(2e4) and np.isfinite(gradient).all()


@given(B=sizes, T=st.integers(1, 60), special=st.floats(0, 1), rng=rngs)
def test_hidden_tokens_are_a_seventh_and_never_special(B, T, special, rng):
    ids = np.where(rng.random((B, T)) < special, 20 + rng.integers(0, 3, (B, T)), rng.integers(0, 20, (B, T)))
    inputs, targets, weights = hide_tokens(ids, ordinary=20, mask_id=22, rng=rng)
    np.testing.assert_array_equal(targets, ids)
    assert not weights[ids >= 20].any() and set(np.unique(weights)) <= {0, 1}
    count = (ids < 20).sum(1)
    np.testing.assert_array_equal(weights.sum(1), np.where(count, np.maximum(1, np.rint(0.15 * count)), 0))
    np.testing.assert_array_equal(inputs[weights == 0], ids[weights == 0])
    changed = inputs[weights == 1]
    assert ((changed < 20) | (changed == 22)).all()


def test_hidden_tokens_are_replaced_in_the_proportions_of_bert():
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 1000, (100, 1000))
    inputs, _, weights = hide_tokens(ids, 1000, 1000, rng)
    hidden = weights == 1
    assert (inputs[hidden] == 1000).mean() == pytest.approx(0.8, abs=0.02)
    assert (inputs[hidden] == ids[hidden]).mean() == pytest.approx(0.1, abs=0.02)


# ---- preferences and reinforcement -----------------------------------------------------------------


@st.composite
def ranked(draw):
    """Scores of completions, some places not taken, ties now and then."""
    rng, P, K, T = draw(rngs), draw(sizes), draw(sizes), draw(sizes)
    ranks = rng.integers(0, K + 1, (P, K))
    return rng.standard_normal((P, K, T)) * 2, rng.integers(0, T, (P, K)), ranks, rng


@given(ranked(), st.floats(0.1, 100))
def test_plackett_luce_gradient(case, total):
    scores, last, ranks, rng = case
    check_loss(lambda r: plackett_luce(r, last, ranks, total), scores, rng)


@given(ranked())
def test_a_ranking_of_all_is_the_product_of_choices_of_the_best(case):
    scores, last, ranks, rng = case
    P, K, _ = scores.shape
    order = np.array([rng.permutation(K) for _ in range(P)])
    r = np.take_along_axis(scores, last[..., None], axis=-1)[..., 0]
    wanted = 0.0
    for p in range(P):
        left = r[p, np.argsort(order[p])]
        wanted -= sum(log_softmax(left[k:])[0] for k in range(K))
    assert plackett_luce(scores, last, order + 1, 1.0)[0] == pytest.approx(wanted)


@given(ranked(), st.floats(-5, 5))
def test_only_differences_of_scores_count(case, shift):
    scores, last, ranks, _ = case
    loss, gradient = plackett_luce(scores, last, ranks, 3.0)
    again, same = plackett_luce(scores + shift, last, ranks, 3.0)
    assert again == pytest.approx(loss, abs=1e-9)
    np.testing.assert_allclose(same, gradient, atol=1e-9)
    np.testing.assert_allclose(gradient.sum(axis=(1, 2)), 0, atol=1e-9)


@given(rngs)
def test_of_two_it_is_bradley_terry_and_a_tie_says_nothing(rng):
    scores = rng.standard_normal((1, 2, 1)) * 3
    last, d = np.zeros((1, 2), int), float(scores[0, 0, 0] - scores[0, 1, 0])
    assert plackett_luce(scores, last, np.array([[1, 2]]), 1.0)[0] == pytest.approx(np.log1p(np.exp(-d)))
    for ranks in ([[1, 1]], [[1, 0]], [[0, 0]]):
        loss, gradient = plackett_luce(scores, last, np.array(ranks), 1.0)
        assert loss == pytest.approx(0, abs=1e-12) and not np.abs(gradient).max() > 1e-12


@st.composite
def pairs(draw):
    rng, P, T, V = draw(rngs), draw(sizes), draw(sizes), draw(sizes)
    logits, targets = rng.standard_normal((P, 2, T, V)) * 2, rng.integers(0, V, (P, 2, T))
    weights = rng.integers(0, 2, (P, 2, T)) + 0.0
    return logits, targets, rng.standard_normal((P, 2)), rng.random(P), weights, rng


@given(pairs(), st.floats(0.1, 100))
def test_preference_gradient(case, total):
    *arguments, rng = case
    check_loss(lambda z: preference(z, *arguments[1:], total), arguments[0], rng)


@given(pairs())
def test_at_the_reference_dpo_has_the_loss_of_a_coin(case):
    logits, targets, _, beta, weights, _ = case
    logp = np.take_along_axis(log_softmax(logits), targets[..., None], -1)[..., 0]
    loss, _ = preference(logits, targets, (logp * weights).sum(axis=-1), beta, weights, len(logits))
    assert loss == pytest.approx(np.log(2))


@st.composite
def rolled(draw):
    logits, targets, weights, rng = draw(scored())
    logp = np.take_along_axis(log_softmax(logits), targets[..., None], -1)[..., 0]
    old = logp + rng.uniform(-0.5, 0.5, logp.shape)
    near = np.abs(np.abs(np.exp(logp - old) - 1) - 0.2) < 1e-4       # at the corner there is no gradient
    return logits, targets, np.where(near, logp, old), rng.standard_normal(logits.shape), weights, rng


@given(rolled(), st.floats(0.1, 100))
def test_gradients_of_clipping_of_divergence_and_of_both(case, total):
    logits, targets, old, reference, weights, rng = case
    mask = np.abs(weights)
    check_loss(lambda z: clipped(z, targets, old, weights, total), logits, rng)
    check_loss(lambda z: divergence(z, reference, weights, total), logits, rng)
    beta = rng.random((len(logits), 1))
    check_loss(lambda z: on_a_leash(z, targets, old, reference, beta, weights, mask, total), logits, rng)


@given(rolled())
def test_ppo_at_ratio_one_is_reinforce(case):
    logits, targets, _, _, weights, _ = case
    logp = np.take_along_axis(log_softmax(logits), targets[..., None], -1)[..., 0]
    np.testing.assert_allclose(clipped(logits, targets, logp, weights, 3.0)[1],
                               weighted_nll(logits, targets, weights, 3.0)[1], atol=1e-12)  # fmt: skip


@given(rolled())
def test_what_clipping_has_made_worse_is_not_learned_from(case):
    logits, targets, old, _, advantages, _ = case
    logp = np.take_along_axis(log_softmax(logits), targets[..., None], -1)[..., 0]
    ratio = np.exp(logp - old)
    beyond = (ratio > 1.2) & (advantages > 0) | (ratio < 0.8) & (advantages < 0)
    gradient = clipped(logits, targets, old, advantages, 1.0)[1]
    assert not gradient[beyond].any()


@given(rolled())
def test_divergence_is_nothing_from_itself_and_more_from_all_others(case):
    logits, _, _, reference, _, _ = case
    ones = np.ones(logits.shape[:2])
    loss, gradient = divergence(logits, logits + 3, ones, 1.0)
    assert loss == pytest.approx(0, abs=1e-9) and np.abs(gradient).max() < 1e-9
    assert divergence(logits, reference, ones, 1.0)[0] >= -1e-12


@given(pairs(), rolled(), ranked())
def test_without_anything_to_learn_all_are_zero(case, other, third):
    logits, targets, reference, beta, weights, _ = case
    assert preference(logits, targets, reference, beta, 0 * weights, 0)[0] == 0
    z, y, old, q, w, _ = other
    for found in (clipped(z, y, old, w, 0), divergence(z, q, w, 0), plackett_luce(*third[:3], 0)):
        assert found[0] == 0 and not found[1].any()
