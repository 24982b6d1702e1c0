"""value_head: the critic learns to predict returns, and advantages use its values from before each update.

The critic must not change the policy, and prompts and padding must not matter.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stage_runs import record
from strategies import rngs, sizes

from tinyllm.preferences import value_head
from tinyllm.preferences.advantages import gae, returns, standardise
from tinyllm.preferences.value_head import UPDATES, critic_advantages


def replies(rng, B, T, C):
    """States, scores, penalties and a mask of replies. A prompt may come before a reply, and padding
    after the reply."""
    states, scores = rng.standard_normal((B, T, C)), rng.standard_normal(B)
    mask = np.zeros((B, T), np.float32)
    for row in mask:
        start, stop = np.sort(rng.choice(T + 1, 2, replace=False))
        row[start:stop] = 1
    mask[0] = np.arange(T) < 2  # at least two positions: the standard deviation must not be 0
    return states, scores, rng.random((B, T)) * mask, mask


def rewards_of(scores, penalties, mask):
    """The rewards, computed in a plain loop: the score at the last position, and at every other position the
    negative of the next position's penalty."""
    rewards = np.zeros(mask.shape)
    for row, score, penalty, weights in zip(rewards, scores, penalties, mask):
        for t in np.flatnonzero(weights)[:-1]:
            row[t] = -penalty[t + 1]
        row[np.flatnonzero(weights)[-1]] += score
    return rewards


@given(rngs, sizes, st.integers(2, 6), sizes)
def test_advantages_use_the_values_from_before_the_head_is_updated(rng, B, T, C):
    states, scores, penalties, mask = replies(rng, B, T, C)
    head = rng.standard_normal((3, C + 1)).astype(np.float32)
    head[2] = np.abs(head[2])  # a running mean of squares is never negative
    state = {"value_head": head.copy()}
    values = (states @ head[0, :C] + head[0, C]) * mask
    expected = standardise(gae(rewards_of(scores, penalties, mask), values), mask)
    advantages = critic_advantages(state, 7, states, scores, penalties, mask)
    np.testing.assert_allclose(advantages[mask > 0], expected[mask > 0], atol=1e-6)
    assert not np.array_equal(state["value_head"], head)


@given(rngs, sizes, st.integers(2, 6), sizes)
@settings(max_examples=40)
def test_a_new_head_predicts_0_and_is_kept_in_the_state(rng, B, T, C):
    states, scores, penalties, mask = replies(rng, B, T, C)
    state = {}
    advantages = critic_advantages(state, 0, states, scores, penalties, mask)
    without_values = gae(rewards_of(scores, penalties, mask), np.zeros(mask.shape))
    np.testing.assert_allclose(advantages[mask > 0], standardise(without_values, mask)[mask > 0], atol=1e-5)
    assert state["value_head"].shape == (3, C + 1) and state["value_head"].dtype == np.float32
    again = {name: array.copy() for name, array in state.items()}
    second = critic_advantages(again, 1, states, scores, penalties, mask)
    state = {name: array.copy() for name, array in state.items()}  # like a state that was saved and loaded
    np.testing.assert_array_equal(critic_advantages(state, 1, states, scores, penalties, mask), second)


def test_the_updates_of_the_head_are_counted_over_all_steps(monkeypatch):
    """The bias correction of AdamW depends on the number of earlier updates."""
    calls, state = record(monkeypatch, value_head, "adamw"), {}
    for step in range(2):
        critic_advantages(state, step, *replies(np.random.default_rng(0), 2, 3, 2))
    assert [call.updates for call in calls] == [*range(2 * UPDATES)]


@given(rngs, sizes, st.integers(2, 6), sizes)
def test_the_critic_changes_nothing_but_its_own_head(rng, B, T, C):
    """The critic does not change its arguments and returns plain numbers, so the policy gets no gradient."""
    arguments = replies(rng, B, T, C)
    before = [array.copy() for array in arguments]
    state = {}
    advantages = critic_advantages(state, 0, *arguments)
    for array, copy in zip(arguments, before):
        np.testing.assert_array_equal(array, copy)
        assert not np.shares_memory(advantages, array)
    assert set(state) == {"value_head"}


@given(rngs, sizes, st.integers(2, 6), sizes, sizes)
@settings(max_examples=40)
def test_neither_prompt_nor_padding_matters(rng, B, T, C, more):
    states, scores, penalties, mask = replies(rng, B, T, C)
    changed = np.where(mask[..., None] > 0, states, rng.standard_normal(states.shape))
    padding = ((0, 0), (0, more))
    padded = [np.pad(array, padding) for array in (penalties, mask)]
    changed = np.concatenate([changed, np.ones((B, more, C))], axis=1)
    state, changed_state = {}, {}
    for step in range(2):  # in the second step, the head has already been updated
        advantages = critic_advantages(state, step, states, scores, penalties, mask)
        others = critic_advantages(changed_state, step, changed, scores, *padded)[:, :T]
        np.testing.assert_allclose(advantages[mask > 0], others[mask > 0], atol=1e-5)
    np.testing.assert_allclose(state["value_head"], changed_state["value_head"], atol=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
@settings(max_examples=20)
def test_the_head_learns_returns_that_are_linear_in_the_states(seed, C):
    rng = np.random.default_rng(seed)
    states, mask = rng.standard_normal((64, 1, C)).astype(np.float32), np.ones((64, 1), np.float32)
    w, bias, state = rng.uniform(-1, 1, C), rng.uniform(-1, 1), {}
    scores = (states @ w + bias)[:, 0]
    for step in range(30):
        critic_advantages(state, step, states, scores, np.zeros((64, 1)), mask)
    np.testing.assert_allclose(state["value_head"][0], [*w, bias], atol=0.02)


def test_a_reply_better_than_expected_gets_positive_advantages():
    """Of two replies with the same states, the one with the higher score has the higher advantages."""
    states, mask = np.ones((2, 3, 2), np.float32), np.array([[0, 1, 1], [0, 1, 1]], np.float32)
    better, worse = critic_advantages({}, 0, states, np.array([1.0, -1.0]), np.zeros((2, 3)), mask)[:, 1:]
    assert (better > 0).all() and (worse < 0).all()
    assert better[1] == pytest.approx(-worse[1])


def test_the_head_learns_the_score_minus_later_penalties():
    """If every position has a state of its own, the predictions of the head converge to the returns."""
    states = np.zeros((1, 3, 2), np.float32)
    states[0, 1, 0], states[0, 2, 1] = 1, 1
    mask, penalties, state = np.array([[0, 1, 1]], np.float32), np.array([[0.0, 0.25, 0.5]]), {}
    for step in range(40):
        critic_advantages(state, step, states, np.array([2.0]), penalties, mask)
    values = states[0] @ state["value_head"][0, :2] + state["value_head"][0, 2]
    rewards = rewards_of(np.array([2.0]), penalties, mask)
    np.testing.assert_allclose(values[1:], returns(rewards)[0, 1:], atol=0.02)
    np.testing.assert_allclose(values[1:], [1.5, 2.0], atol=0.02)
