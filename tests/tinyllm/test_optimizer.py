import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import configs, rngs

from tinyllm import optimizer


@given(configs(head="tokens"), st.sampled_from(["muon", "adamw"]))
def test_parts_cover_the_buffer_once_and_gains_never_decay(config, method):
    parts = optimizer.parts(config, method)
    assert [p.start for p in parts[1:]] == [p.stop for p in parts[:-1]]
    assert parts[0].start == 0 and parts[-1].stop == config.size()
    gains = config.size() - sum(len(s) == 1 and s[0] for s in config.shapes().values())
    assert all(part.decays == (part.start < gains) for part in parts)
    assert any(part.shape for part in parts) == (method == "muon")


@given(configs(), st.sampled_from(["muon", "adamw"]), rngs)
def test_without_a_gradient_matrices_shrink_and_gains_stay(config, method, rng):
    params = rng.standard_normal(config.size())
    before, moments = params.copy(), np.zeros((2, config.size()))
    for part in optimizer.parts(config, method):
        optimizer.update(part, params, np.zeros(config.size()), moments, 0, 0.1, 0.1, 0.5)
    gains = config.size() - sum(len(s) == 1 and s[0] for s in config.shapes().values())
    np.testing.assert_allclose(params[:gains], 0.95 * before[:gains])
    np.testing.assert_array_equal(params[gains:], before[gains:])


@given(configs(), st.sampled_from(["muon", "adamw"]), rngs)
def test_any_order_of_parts_gives_the_same_bytes(config, method, rng):
    w, g = rng.standard_normal((2, config.size())).astype(np.float32)
    results = []
    for shuffle in (False, True):
        params, moments, parts = (
            w.copy(),
            np.zeros((2, config.size()), np.float32),
            optimizer.parts(config, method),
        )
        for step in range(2):
            for i in rng.permutation(len(parts)) if shuffle else range(len(parts)):
                optimizer.update(parts[i], params, g, moments, step, 0.1, 0.1, 0.1)
        results.append(params)
    np.testing.assert_array_equal(*results)


@given(rngs, st.floats(1e-4, 1), st.floats(0, 1))
def test_the_first_adamw_step_has_the_size_of_the_rate(rng, rate, decay):
    w = rng.standard_normal(5)
    g = rng.standard_normal(5) + 3
    before, m, v = w.copy(), np.zeros(5), np.zeros(5)
    optimizer.adamw(w, g, m, v, 0, rate, decay)
    np.testing.assert_allclose(w, before * (1 - rate * decay) - rate * np.sign(g), rtol=1e-5, atol=1e-9)


@given(rngs, st.integers(1, 8), st.integers(1, 8), st.floats(1e-3, 1e3))
def test_orthogonalised_matrices_keep_their_directions_at_strength_about_one(rng, rows, columns, size):
    u, _, vt = np.linalg.svd(rng.standard_normal((rows, columns)), full_matrices=False)
    s = rng.uniform(0.2, 1, len(vt)) * size
    out = optimizer.orthogonalise((u * s) @ vt)
    inner = u.T @ out @ vt.T
    assert (np.diag(inner) > 0.6).all() and (np.diag(inner) < 1.3).all()
    np.testing.assert_allclose(inner - np.diag(np.diag(inner)), 0, atol=1e-6)


@given(rngs, st.integers(1, 9), st.floats(1e-3, 1e3))
def test_clipping_scales_down_and_never_up(rng, n, limit):
    g = rng.standard_normal(n)
    before = g.copy()
    norm = optimizer.clip(g, limit)
    assert norm == pytest.approx(np.linalg.norm(before))
    np.testing.assert_allclose(g, before * min(1, limit / norm))


@given(st.integers(1, 500), st.integers(0, 50), st.just(0.0) | st.just(1.0) | st.floats(0.01, 0.99))
def test_the_schedule_rises_stays_and_falls_and_never_reaches_zero(steps, warmup, falling):
    warmup = min(warmup, steps)
    rates = [optimizer.schedule(step, steps, warmup, falling) for step in range(steps)]
    begin = max(warmup, steps - falling * steps)  # of the fall
    for step, rate in enumerate(rates):
        assert 0 < rate <= 1
        if warmup <= step <= begin:
            assert rate == pytest.approx(1)
        elif step < min(warmup, begin):
            assert rate == pytest.approx((step + 1) / (warmup + 1))
        elif step > begin and steps - begin >= 1:
            assert rate == pytest.approx((steps - step) / (steps - begin))


@pytest.mark.parametrize("method", ["adamw", "muon"])
def test_a_bowl_is_descended(method):
    target, w = np.arange(12.0).reshape(3, 4) / 10, np.zeros((3, 4))
    m, v = np.zeros_like(w), np.zeros_like(w)
    for step in range(400):
        rate = 0.1 * optimizer.schedule(step, 400, 10)
        g = w - target
        if method == "muon":
            optimizer.muon(w, g, m, rate, 0.0)
        else:
            optimizer.adamw(w, g, m, v, step, rate, 0.0)
    np.testing.assert_allclose(w, target, atol=0.02)
