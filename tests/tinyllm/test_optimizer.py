"""optimizer: AdamW and Muon match their formulas, and learning rates follow their schedule.

The parts of the parameter buffer may be updated in any order. A wrong step raises no error: the model learns
worse, or its weights depend on the number of workers.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import configs, rngs

from tinyllm import optimizer
from tinyllm.optimizer import Rates
from tinyllm.transformer import Parameters

methods = st.sampled_from(["muon", "adamw"])


def gains_start(config):
    """Where the gains begin in the flat buffer: all matrices come before them."""
    return config.size() - sum(shape[0] for shape in config.shapes().values() if len(shape) == 1)


# ---- parts of the buffer


@given(configs(), methods)
def test_parts_cover_the_buffer_once_and_gains_never_decay(config, method):
    parts = optimizer.parts(config, method)
    assert [p.start for p in parts[1:]] == [p.stop for p in parts[:-1]]
    assert parts[0].start == 0 and parts[-1].stop == config.size()
    assert all(part.decays == (part.start < gains_start(config)) for part in parts)


@given(configs(), methods)
def test_muon_updates_the_matrices_of_the_blocks_and_nothing_else(config, method):
    params = Parameters(config)
    for i, part in enumerate(optimizer.parts(config, method), 1):
        params.flat[part.start : part.stop] = i if part.shape else -1
    for name, w in params.items():
        by_muon = method == "muon" and name.startswith("layers.") and w.ndim == 2
        assert (w == w.flat[0]).all() and (w.flat[0] > 0) == by_muon, name


@given(configs(), methods, rngs)
def test_the_order_in_which_parts_are_updated_does_not_change_the_result(config, method, rng):
    w, g = rng.standard_normal((2, config.size())).astype(np.float32)
    parts, rates = optimizer.parts(config, method), Rates(muon=0.1, adamw=0.1, decay=0.1)
    results = []
    for shuffled in (False, True):
        params, moments = w.copy(), np.zeros((2, config.size()), np.float32)
        for step in range(2):
            for i in rng.permutation(len(parts)) if shuffled else range(len(parts)):
                optimizer.update(parts[i], params, g, moments, step, rates, 1.0)
        results.append(params)
    np.testing.assert_array_equal(*results)


@given(configs(), methods, st.floats(0, 1), rngs)
def test_if_the_gradient_is_0_matrices_shrink_by_rate_times_decay_and_gains_stay_the_same(
    config, method, scale, rng
):
    before = Parameters(config, rng.standard_normal(config.size()))
    after, moments = Parameters(config, before.flat.copy()), np.zeros((2, config.size()))
    rates, zeros = Rates(muon=0.1, adamw=0.2, decay=0.5), np.zeros(config.size())
    for part in optimizer.parts(config, method):
        optimizer.update(part, after.flat, zeros, moments, 0, rates, scale)
    for name, w in before.items():
        rate = 0.1 if method == "muon" and name.startswith("layers.") else 0.2
        shrunk = w if w.ndim == 1 else w * (1 - scale * rate * 0.5)
        np.testing.assert_allclose(after[name], shrunk, rtol=1e-12, err_msg=name)


# ---- AdamW


@given(rngs, st.floats(1e-4, 1), st.floats(0, 1))
def test_apart_from_weight_decay_the_first_adamw_step_changes_every_parameter_by_the_learning_rate(
    rng, rate, decay
):
    w, m, v = rng.standard_normal(5), np.zeros(5), np.zeros(5)
    before, g = w.copy(), rng.choice([-1, 1], 5) * rng.uniform(0.5, 5, 5)
    optimizer.adamw(w, g, m, v, 0, rate, decay)
    np.testing.assert_allclose(w, before * (1 - rate * decay) - rate * np.sign(g), atol=1e-7)


@given(rngs, st.floats(1e-3, 1e3))
def test_with_a_constant_gradient_every_adamw_step_changes_every_parameter_by_the_learning_rate(rng, size):
    g = size * rng.choice([-1, 1], 5) * rng.uniform(0.5, 2, 5)
    w, m, v = np.zeros(5), np.zeros(5), np.zeros(5)
    for updates in range(6):
        before = w.copy()
        optimizer.adamw(w, g, m, v, updates, 0.01, 0.0)
        np.testing.assert_allclose(w - before, -0.01 * np.sign(g), rtol=1e-4)


@given(rngs, st.integers(1, 6))
def test_adamw_matches_the_formula_in_its_docstring(rng, count):
    w, m, v = rng.standard_normal(4), np.zeros(4), np.zeros(4)
    expected, first, second = w.copy(), 0.0, 0.0
    for t in range(1, count + 1):
        g = rng.standard_normal(4)
        optimizer.adamw(w, g, m, v, t - 1, 0.1, 0.2)
        first, second = 0.9 * first + 0.1 * g, 0.99 * second + 0.01 * g**2
        corrected = first / (1 - 0.9**t), second / (1 - 0.99**t)
        expected -= 0.1 * (corrected[0] / (np.sqrt(corrected[1]) + 1e-8) + 0.2 * expected)
    np.testing.assert_allclose(w, expected, rtol=1e-9, atol=1e-12)


# ---- Muon


@given(rngs, st.integers(1, 8), st.integers(1, 8), st.floats(1e-3, 1e3))
def test_orthogonalise_keeps_the_singular_vectors_and_brings_the_singular_values_near_1(
    rng, rows, columns, size
):
    u, _, vt = np.linalg.svd(rng.standard_normal((rows, columns)), full_matrices=False)
    s = rng.uniform(0.2, 1, len(vt)) * size
    out = optimizer.orthogonalise((u * s) @ vt)
    inner = u.T @ out @ vt.T
    assert (np.diag(inner) > 0.6).all() and (np.diag(inner) < 1.3).all()
    np.testing.assert_allclose(inner - np.diag(np.diag(inner)), 0, atol=1e-6)


@pytest.mark.parametrize("shape", [(128, 128), (128, 255), (128, 256), (352, 128)])
@pytest.mark.parametrize("smallest", [1, 1e-5, 1e-12])
def test_orthogonalise_applies_its_polynomial_to_the_singular_values_in_single_precision(shape, smallest):
    u, _, vt = np.linalg.svd(np.random.default_rng(0).standard_normal(shape), full_matrices=False)
    s = np.geomspace(1, smallest, 128)
    s[1:] = np.minimum(s[1:], 100 * smallest)  # the rounding error of s[0] must not hide the other values
    g = ((u * s) @ vt).astype(np.float32)
    s /= np.linalg.norm(s)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    out = optimizer.orthogonalise(g)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, (u * s) @ vt, atol=1e-3)


@given(rngs, st.integers(1, 8), st.integers(1, 8), st.floats(1e-3, 1e3))
def test_the_first_muon_step_is_the_orthogonalised_gradient_scaled_up_for_tall_matrices(
    rng, rows, columns, size
):
    w, g = rng.standard_normal((2, rows, columns))
    g *= size
    before = w.copy()
    optimizer.muon(w, g, np.zeros_like(w), 0.1, 0.5)
    step = 0.1 * max(1, rows / columns) ** 0.5 * optimizer.orthogonalise(g + 0.9 * g)
    np.testing.assert_allclose(w, 0.95 * before - step, rtol=1e-9, atol=1e-12)


@given(rngs)
def test_muon_follows_the_nesterov_momentum_of_all_gradients_so_far(rng):
    w, m, (g1, g2) = np.zeros((3, 3)), np.zeros((3, 3)), rng.standard_normal((2, 3, 3))
    optimizer.muon(w, g1, m, 1.0, 0.0)
    np.testing.assert_allclose(m, g1)
    before = w.copy()
    optimizer.muon(w, g2, m, 1.0, 0.0)
    np.testing.assert_allclose(m, 0.9 * g1 + g2)
    np.testing.assert_allclose(before - w, optimizer.orthogonalise(g2 + 0.9 * m), rtol=1e-6, atol=1e-9)


# ---- clipping


@given(rngs, st.integers(1, 9), st.floats(1e-3, 1e3))
def test_clip_scales_a_gradient_that_is_too_long_down_to_the_limit_and_returns_its_old_norm(rng, n, limit):
    g = rng.standard_normal(n)
    before = g.copy()
    norm = optimizer.clip(g, limit)
    assert norm == pytest.approx(np.linalg.norm(before))
    assert np.linalg.norm(g) == pytest.approx(min(norm, limit))
    np.testing.assert_allclose(g, before * min(1, limit / norm))  # same direction


def test_the_default_limit_is_a_norm_of_1():
    g = np.array([3.0, 4.0])
    assert optimizer.clip(g) == 5 and g.tolist() == pytest.approx([0.6, 0.8])


# ---- the schedule


@given(st.integers(1, 500), st.integers(0, 50), st.just(0.0) | st.just(1.0) | st.floats(0.01, 0.99))
def test_the_rate_rises_linearly_stays_constant_falls_linearly_and_is_never_0(steps, warmup, falling):
    rates = Rates(steps=steps, warmup=warmup, falling=falling)
    scales = [rates.scale(step) for step in range(steps)]
    warmup = min(warmup, steps // 10)
    fall_starts = max(warmup, steps - falling * steps)
    for step, scale in enumerate(scales):
        assert 0 < scale <= 1
        if step < warmup:
            assert scale == pytest.approx((step + 1) / (warmup + 1))
        elif step <= fall_starts:
            assert scale == 1
        elif steps - fall_starts >= 1:
            assert scale == pytest.approx((steps - step) / (steps - fall_starts))
        else:  # the decay would be shorter than one step, so the last step keeps the full rate
            assert scale == 1


@given(st.integers(0, 10**6), st.integers(0, 100), st.floats(0, 1))
def test_without_a_number_of_steps_the_rate_is_constant(step, warmup, falling):
    assert Rates(steps=0, warmup=warmup, falling=falling).scale(step) == 1


@pytest.mark.parametrize("method", ["adamw", "muon"])
def test_adamw_and_muon_reach_the_minimum_of_a_quadratic(method):
    target, w = np.arange(12.0).reshape(3, 4) / 10, np.zeros((3, 4))
    m, v, rates = np.zeros_like(w), np.zeros_like(w), Rates(steps=400, warmup=10)
    for step in range(400):
        rate = 0.1 * rates.scale(step)
        g = w - target
        if method == "muon":
            optimizer.muon(w, g, m, rate, 0.0)
        else:
            optimizer.adamw(w, g, m, v, step, rate, 0.0)
    np.testing.assert_allclose(w, target, atol=0.02)
