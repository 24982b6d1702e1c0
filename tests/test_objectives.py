import numpy as np
import pytest
from gradcheck import check_loss
from hypothesis import given
from hypothesis import strategies as st
from strategies import rngs, sizes

from tinyllm.objectives import hide_tokens, log_softmax, weighted_nll


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
