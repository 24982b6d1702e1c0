"""objectives: every gradient is the derivative of its loss, and every loss matches its formula.

A wrong sign or divisor raises no error: the model is merely trained for the wrong goal.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
from gradcheck import check_loss
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import rngs, sizes

from tinyllm import objectives
from tinyllm.objectives import (
    dpo,
    kl_divergence,
    log_prob_of,
    log_softmax,
    plackett_luce,
    policy_gradient_with_kl,
    ppo_clip,
    squared_error,
    weighted_nll,
)

totals = st.just(0) | st.floats(0.1, 100)


def target_log_probs(logits, targets):
    """The log-probability of each target, computed one by one in long doubles."""
    rows = logits.reshape(-1, logits.shape[-1]).astype(np.longdouble)
    log_probs = [row[y] - np.log(np.exp(row).sum()) for row, y in zip(rows, targets.ravel())]
    return np.array(log_probs, float).reshape(targets.shape)


# ---- random inputs for each objective. Weights and advantages are of either sign.


@st.composite
def sequences(draw):
    """logits, targets, weights, rng"""
    rng, B, T, V = draw(rngs), draw(sizes), draw(sizes), draw(sizes)
    return rng.standard_normal((B, T, V)) * 3, rng.integers(0, V, (B, T)), rng.standard_normal((B, T)), rng


@st.composite
def rollouts(draw):
    """logits, targets, old_log_probs, reference_logits, advantages, rng"""
    logits, targets, advantages, rng = draw(sequences())
    log_probs = target_log_probs(logits, targets)
    old = log_probs + rng.uniform(-0.5, 0.5, log_probs.shape)
    at_corner = np.abs(np.abs(np.exp(log_probs - old) - 1) - 0.2) < 1e-4  # where the clip has no derivative
    old = np.where(at_corner, log_probs, old)
    return logits, targets, old, rng.standard_normal(logits.shape), advantages, rng


@st.composite
def pairs(draw):
    """logits, targets, reference_log_probs, weights, beta, rng"""
    rng, P, T, V = draw(rngs), draw(sizes), draw(sizes), draw(sizes)
    logits, targets = rng.standard_normal((P, 2, T, V)) * 2, rng.integers(0, V, (P, 2, T))
    return (
        logits,
        targets,
        rng.standard_normal((P, 2)),
        rng.standard_normal((P, 2, T)),
        rng.uniform(0.1, 1),
        rng,
    )


@st.composite
def rankings(draw):
    """scores, last, ranks, rng. Some slots are unused (rank 0), and some ranks are tied."""
    rng, P, K, T = draw(rngs), draw(sizes), draw(sizes), draw(sizes)
    ranks = rng.integers(0, K + 1, (P, K))
    return rng.standard_normal((P, K, T)) * 2, rng.integers(0, T, (P, K)), ranks, rng


class Case(NamedTuple):
    """An objective and its inputs. `arguments` are arrays with one row for each row of logits (or scores)."""

    objective: Callable
    logits: np.ndarray
    arguments: dict
    options: dict
    rng: np.random.Generator

    def __call__(self, logits=None, total=1.0, rows=slice(None)):
        logits = self.logits if logits is None else logits
        arguments = {name: array[rows] for name, array in self.arguments.items()}
        return self.objective(logits[rows], **arguments, total=total, **self.options)


@st.composite
def cases(draw, objective):
    options = {}
    if objective is weighted_nll:
        logits, targets, weights, rng = draw(sequences())
        arguments = {"targets": targets, "weights": weights}
    elif objective is plackett_luce:
        logits, last, ranks, rng = draw(rankings())
        arguments = {"last": last, "ranks": ranks}
    elif "reference_log_probs" in inspect.signature(objective).parameters:
        # The objective compares pairs of replies, as dpo does.
        logits, targets, reference, weights, beta, rng = draw(pairs())
        arguments = {"targets": targets, "reference_log_probs": reference, "weights": weights}
        options = {"beta": beta}
    else:
        logits, targets, old, reference, advantages, rng = draw(rollouts())
        arguments = {"targets": targets, "old_log_probs": old, "advantages": advantages}
        if objective is kl_divergence:
            arguments = {"reference_logits": reference, "weights": advantages}
        if objective is policy_gradient_with_kl:
            arguments |= {"reference_logits": reference, "weights": rng.standard_normal(advantages.shape)}
            options = {"kl": rng.random()}
    return Case(objective, logits, arguments, options, rng)


def is_objective(function):
    """Whether a function of the module is an objective: it takes logits or scores first, and a `total`."""
    names = list(inspect.signature(function).parameters) if inspect.isfunction(function) else []
    return names[:1] in (["logits"], ["scores"]) and "total" in names


OBJECTIVES = [f for f in vars(objectives).values() if is_objective(f)]


def each_objective(test):
    """A decorator that runs test(case, data) for every objective."""

    @pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.__name__)
    @settings(max_examples=25)
    @given(data=st.data())
    def run(objective, data):
        test(data.draw(cases(objective)), data)

    return run


@given(rngs, sizes)
def test_the_gradient_of_squared_error_is_the_derivative_of_the_loss_or_0_for_a_total_of_0(rng, N):
    values, targets, total = *rng.standard_normal((2, N)), rng.uniform(0.5, 5)
    check_loss(lambda values: squared_error(values, targets, total), values, rng)
    loss, gradient = squared_error(values, targets, 0)
    assert loss == 0 and not gradient.any()


# ---- properties of every objective


@each_objective
def test_the_gradient_is_the_derivative_of_the_loss(case, data):
    total = data.draw(totals, label="total")
    check_loss(lambda logits: case(logits, total), case.logits, case.rng)


@each_objective
def test_with_a_total_of_0_the_loss_and_the_gradient_are_0(case, data):
    loss, gradient = case(total=data.draw(st.sampled_from([0, 0.0])))
    assert loss == 0 and gradient.shape == case.logits.shape and not gradient.any()


@each_objective
def test_loss_and_gradient_are_divided_by_the_total(case, data):
    total = data.draw(st.floats(0.1, 100), label="total")
    loss, gradient = case()
    divided_loss, divided_gradient = case(total=total)
    assert divided_loss == pytest.approx(loss / total, rel=1e-12, abs=1e-12)
    np.testing.assert_allclose(divided_gradient, gradient / total, rtol=1e-9, atol=1e-12)


@each_objective
def test_the_losses_and_gradients_of_parts_of_a_batch_add_up_to_those_of_the_whole(case, data):
    cut = data.draw(st.integers(0, len(case.logits)), label="cut")
    loss, gradient = case(total=7.0)
    (loss1, gradient1), (loss2, gradient2) = (
        case(total=7.0, rows=rows) for rows in (slice(0, cut), slice(cut, None))
    )
    assert loss == pytest.approx(loss1 + loss2, rel=1e-12, abs=1e-12)
    np.testing.assert_allclose(gradient, np.concatenate([gradient1, gradient2]), atol=1e-14)


@each_objective
def test_the_inputs_are_not_changed(case, data):
    arrays = [case.logits, *case.arguments.values()]
    before = [array.copy() for array in arrays]
    case()
    for array, copy in zip(arrays, before):
        np.testing.assert_array_equal(array, copy)


@each_objective
def test_the_gradient_has_the_precision_of_the_models_logits(case, data):
    """Weights and advantages may have another precision."""
    for name in {"reference_logits"} & case.arguments.keys():
        case.arguments[name] = case.arguments[name].astype(np.float32)
    loss, gradient = case(case.logits.astype(np.float32))
    assert type(loss) is float and gradient.dtype == np.float32


@each_objective
def test_adding_a_constant_to_the_logits_of_a_position_changes_nothing(case, data):
    """This means that the gradient sums to 0 over the tokens.

    In a ranking, the constant is added to all scores of a prompt.
    """
    ranks = case.objective is plackett_luce
    shift = case.rng.standard_normal(case.logits.shape[: 1 if ranks else -1])
    loss, gradient = case()
    shifted, same = case(case.logits + (shift[:, None, None] if ranks else shift[..., None]))
    assert shifted == pytest.approx(loss, rel=1e-9, abs=1e-9)
    np.testing.assert_allclose(same, gradient, atol=1e-9)
    np.testing.assert_allclose(gradient.sum(axis=(1, 2) if ranks else -1), 0, atol=1e-9)


# ---- log-probs


@given(sequences())
def test_log_softmax_and_log_prob_of_give_the_log_of_the_probability(case):
    logits, targets, _, _ = case
    log_probs = log_softmax(logits)
    np.testing.assert_allclose(np.exp(log_probs).sum(axis=-1), 1)
    np.testing.assert_allclose(log_prob_of(targets, log_probs), target_log_probs(logits, targets), atol=1e-12)


# ---- weighted_nll


@given(sequences(), st.floats(0.1, 100))
def test_weighted_nll_matches_the_formula_in_its_docstring(case, total):
    logits, targets, weights, _ = case
    expected = -(weights * target_log_probs(logits, targets)).sum() / total
    assert weighted_nll(logits, targets, weights, total)[0] == pytest.approx(expected)


@given(sequences(), st.sampled_from([0, 1.0]))
def test_an_empty_loss_mask_gives_0_not_nan(case, total):
    logits, targets, weights, _ = case
    loss, gradient = weighted_nll(logits, targets, 0 * weights, total)
    assert loss == 0 and not gradient.any()


def test_huge_logits_do_not_overflow():
    logits = np.array([[[1e4, -1e4, 0]]], np.float32)
    loss, gradient = weighted_nll(logits, np.array([[1]]), np.ones((1, 1)), 1)
    assert loss == pytest.approx(2e4) and np.isfinite(gradient).all()


@given(rngs, st.integers(1, 4), st.integers(1, 4))
def test_advantages_that_sum_to_0_can_give_a_loss_of_0_with_a_gradient_that_is_not_0(rng, pairs, V):
    """The value of a policy-gradient loss says little: see weighted_nll."""
    logits, advantages = np.zeros((2 * pairs, 1, V + 1)), np.repeat([[1.0], [-1.0]], pairs, axis=0)
    targets = np.repeat([[0], [V]], pairs, axis=0)
    loss, gradient = weighted_nll(logits, targets, advantages, pairs)
    assert loss == pytest.approx(0, abs=1e-12)
    assert (gradient[:pairs, 0, 0] < 0).all() and (gradient[pairs:, 0, V] > 0).all()


# ---- plackett_luce


@given(rankings())
def test_the_probability_of_a_ranking_is_a_product_of_softmaxes_over_the_completions_not_yet_ranked(case):
    scores, last, _, rng = case
    P, K, _ = scores.shape
    order = np.array([rng.permutation(K) for _ in range(P)])
    r = np.take_along_axis(scores, last[..., None], axis=-1)[..., 0]
    expected = 0.0
    for p in range(P):
        ranked = r[p, np.argsort(order[p])]
        expected -= sum(log_softmax(ranked[k:])[0] for k in range(K))
    assert plackett_luce(scores, last, order + 1, 1.0)[0] == pytest.approx(expected)


@given(rankings())
def test_unused_slots_and_positions_where_no_score_is_read_are_ignored(case):
    scores, last, ranks, rng = case
    loss, gradient = plackett_luce(scores, last, ranks, 1.0)
    is_read = np.arange(scores.shape[2]) == last[..., None]
    ignored = ~is_read | (ranks == 0)[..., None]
    assert not gradient[ignored].any()
    changed = np.where(ignored, rng.standard_normal(scores.shape), scores)
    assert plackett_luce(changed, last, ranks, 1.0)[0] == pytest.approx(loss)


@given(rngs)
def test_plackett_luce_for_two_completions_is_bradley_terry_and_a_tie_gives_no_gradient(rng):
    scores = rng.standard_normal((1, 2, 1)) * 3
    last, d = np.zeros((1, 2), int), float(scores[0, 0, 0] - scores[0, 1, 0])
    assert plackett_luce(scores, last, np.array([[1, 2]]), 1.0)[0] == pytest.approx(np.log1p(np.exp(-d)))
    for ranks in ([[1, 1]], [[1, 0]], [[0, 0]]):
        loss, gradient = plackett_luce(scores, last, np.array(ranks), 1.0)
        assert loss == pytest.approx(0, abs=1e-12) and np.abs(gradient).max() < 1e-12


# ---- dpo


@given(pairs(), st.floats(0.1, 100))
def test_dpo_matches_the_formula_in_its_docstring(case, total):
    logits, targets, reference, weights, beta, _ = case
    gain = (target_log_probs(logits, targets) * weights).sum(axis=-1) - reference
    d = gain[:, 0] - gain[:, 1]
    expected = np.log(1 + np.exp(-beta * d)).sum() / total
    assert dpo(logits, targets, reference, weights, total, beta)[0] == pytest.approx(expected)


@given(pairs())
def test_the_dpo_loss_of_the_reference_model_itself_is_log_2(case):
    logits, targets, _, weights, beta, _ = case
    reference = (target_log_probs(logits, targets) * weights).sum(axis=-1)
    assert dpo(logits, targets, reference, weights, len(logits), beta)[0] == pytest.approx(np.log(2))


@given(pairs())
def test_dpo_makes_the_chosen_reply_likelier_and_the_rejected_one_less_likely(case):
    logits, targets, reference, _, _, _ = case
    gradient = dpo(logits, targets, reference, np.ones(targets.shape), 1.0)[1]
    at_targets = np.take_along_axis(gradient, targets[..., None], axis=-1)
    assert (at_targets[:, 0] <= 0).all() and (at_targets[:, 1] >= 0).all()


# ---- kl_divergence, ppo_clip and policy_gradient_with_kl


@given(rollouts(), st.floats(0.1, 100))
def test_kl_divergence_matches_the_formula_in_its_docstring(case, total):
    logits, _, _, reference, weights, _ = case
    p = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    q = np.exp(reference) / np.exp(reference).sum(axis=-1, keepdims=True)
    expected = (weights * (p * np.log(p / q)).sum(axis=-1)).sum() / total
    assert kl_divergence(logits, reference, weights, total)[0] == pytest.approx(expected)


@given(rollouts())
def test_the_kl_divergence_is_0_for_equal_distributions_and_never_negative(case):
    logits, _, _, reference, _, _ = case
    ones = np.ones(logits.shape[:2])
    loss, gradient = kl_divergence(logits, logits + 3, ones, 1.0)
    assert loss == pytest.approx(0, abs=1e-9) and np.abs(gradient).max() < 1e-9
    assert kl_divergence(logits, reference, ones, 1.0)[0] >= -1e-12


@given(rollouts(), st.floats(0.1, 100), st.sampled_from([0.1, 0.2, 0.3]))
def test_ppo_clip_matches_the_formula_in_its_docstring(case, total, clip):
    logits, targets, old, _, advantages, _ = case
    expected = 0.0
    for logp, old_logp, A in zip(target_log_probs(logits, targets).flat, old.flat, advantages.flat):
        ratio = np.exp(logp - old_logp)
        expected -= min(ratio * A, max(1 - clip, min(1 + clip, ratio)) * A) / total
    assert ppo_clip(logits, targets, old, advantages, total, clip)[0] == pytest.approx(expected)


@given(rollouts())
def test_ppo_at_ratio_1_has_the_gradient_of_reinforce(case):
    logits, targets, _, _, advantages, _ = case
    on_policy = ppo_clip(logits, targets, target_log_probs(logits, targets), advantages, 3.0)[1]
    np.testing.assert_allclose(on_policy, weighted_nll(logits, targets, advantages, 3.0)[1], atol=1e-12)


@given(rollouts())
def test_ppo_stops_learning_from_a_token_whose_ratio_has_moved_beyond_the_clip(case):
    logits, targets, old, _, advantages, _ = case
    ratio = np.exp(target_log_probs(logits, targets) - old)
    beyond = (ratio > 1.2) & (advantages > 0) | (ratio < 0.8) & (advantages < 0)
    gradient = ppo_clip(logits, targets, old, advantages, 1.0)[1]
    assert not gradient[beyond].any()


@given(rollouts(), st.floats(0, 2), totals)
def test_policy_gradient_with_kl_is_ppo_clip_plus_kl_times_kl_divergence(case, kl, total):
    logits, targets, old, reference, advantages, rng = case
    weights = rng.standard_normal(advantages.shape)
    ppo, dppo = ppo_clip(logits, targets, old, advantages * weights, total)
    penalty, dpenalty = kl_divergence(logits, reference, weights, total)
    both = partial(policy_gradient_with_kl, logits, targets, old, reference, advantages, weights)
    loss, gradient = both(total, kl)
    assert loss == pytest.approx(ppo + kl * penalty, abs=1e-12)
    np.testing.assert_allclose(gradient, dppo + kl * dpenalty, atol=1e-12)


@given(rollouts())
def test_in_policy_gradient_with_kl_the_weights_mask_both_terms(case):
    logits, targets, old, reference, advantages, rng = case
    weights = rng.integers(0, 2, advantages.shape).astype(float)
    loss, gradient = policy_gradient_with_kl(logits, targets, old, reference, advantages, weights, 3.0)
    assert not gradient[weights == 0].any()
    masked, V = weights == 0, logits.shape[-1]
    altered = [array.copy() for array in (logits, targets, old, reference, advantages)]
    for array, changed in zip(
        altered, (logits + rng.random(V), (targets + 1) % V, old - 1, 2 * reference, -advantages)
    ):
        array[masked] = changed[masked]
    altered_loss, altered_gradient = policy_gradient_with_kl(*altered, weights, 3.0)
    assert altered_loss == pytest.approx(loss, rel=1e-12, abs=1e-12)
    np.testing.assert_allclose(altered_gradient, gradient, atol=1e-14)
