"""layers: each backward is the derivative of its forward, and each forward matches its formula.

A wrong gradient raises no error: the model merely learns worse.
"""

import math

import numpy as np
import pytest
from gradcheck import check_backward
from hypothesis import given
from hypothesis import strategies as st
from strategies import rngs, sizes

from tinyllm import layers as L

# ---- embedding


@given(N=sizes, V=sizes, C=sizes, rng=rngs)
def test_embedding_backward_is_the_derivative_of_embedding_forward(N, V, C, rng):
    ids = rng.integers(0, V, N)
    forward = lambda w: L.embedding_forward(ids, w)
    check_backward(forward, L.embedding_backward, [rng.standard_normal((V, C))], rng)


# ---- linear


@given(N=sizes, I=sizes, O=sizes, rng=rngs)
def test_linear_backward_is_the_derivative_of_linear_forward(N, I, O, rng):
    arguments = [rng.standard_normal((N, I)), rng.standard_normal((O, I))]
    check_backward(L.linear_forward, L.linear_backward, arguments, rng)


@given(N=sizes, I=sizes, O=sizes, rng=rngs)
def test_linear_backward_can_write_the_weight_gradient_into_a_given_array(N, I, O, rng):
    dout, x, w = (rng.standard_normal(shape) for shape in ((N, O), (N, I), (O, I)))
    _, cache = L.linear_forward(x, w)
    dw = np.full((O, I), np.nan)
    assert L.linear_backward(dout, cache, dw)[1] is dw
    np.testing.assert_array_equal(dw, L.linear_backward(dout, cache)[1])


# ---- RMSNorm


@given(N=sizes, C=sizes, eps=st.sampled_from([1e-5, 1e-2]), rng=rngs)
def test_rmsnorm_backward_is_the_derivative_of_rmsnorm_forward(N, C, eps, rng):
    arguments = [rng.standard_normal((N, C)), rng.standard_normal(C)]
    check_backward(lambda x, g: L.rmsnorm_forward(x, g, eps), L.rmsnorm_backward, arguments, rng)


@given(N=sizes, C=sizes, eps=st.sampled_from([1e-5, 1e-2]), rng=rngs)
def test_rmsnorm_matches_the_formula_in_its_docstring(N, C, eps, rng):
    x, g = rng.standard_normal((N, C)), rng.standard_normal(C)
    expected = g * x / np.sqrt((x**2).mean(axis=1, keepdims=True) + eps)
    np.testing.assert_allclose(L.rmsnorm_forward(x, g, eps)[0], expected, rtol=1e-12)


@given(N=sizes, C=sizes, factor=st.floats(0.1, 10), rng=rngs)
def test_scaling_a_row_does_not_change_its_rmsnorm(N, C, factor, rng):
    x, g = rng.standard_normal((N, C)), rng.standard_normal(C)
    out, cache = L.rmsnorm_forward(x, g, eps=0.0)
    np.testing.assert_allclose(out, L.rmsnorm_forward(factor * x, g, eps=0.0)[0], rtol=1e-9)
    dx, _ = L.rmsnorm_backward(rng.standard_normal((N, C)), cache)
    np.testing.assert_allclose((dx * x).sum(1), 0, atol=1e-9 * (1 + np.abs(dx).max()))


# ---- rotary positions


@given(B=sizes, T=sizes, H=sizes, half=st.integers(1, 3), rng=rngs)
def test_rope_backward_is_the_derivative_of_rope_forward(B, T, H, half, rng):
    rotations = L.rotations_at(T, 2 * half, 100.0, np.float64)
    forward = lambda x: L.rope_forward(x, rotations)
    check_backward(forward, L.rope_backward, [rng.standard_normal((B, T, H, 2 * half))], rng)


@given(T=st.integers(2, 9), half=st.integers(1, 3), shift=st.integers(0, 9), rng=rngs)
def test_the_score_of_a_rotated_query_and_key_depends_only_on_their_distance(T, half, shift, rng):
    q, k = rng.standard_normal((2, 2 * half))

    def score(t, s):
        rotations = L.rotations_at(t + s + 1, 2 * half, 100.0, np.float64)
        rotated, _ = L.rope_forward(np.stack([q, k])[None, :, None], rotations[[t, s]])
        return rotated[0, 0, 0] @ rotated[0, 1, 0]

    assert score(T, 1) == pytest.approx(score(T + shift, 1 + shift), abs=1e-9)


@given(T=sizes, half=st.integers(1, 3), t=st.integers(0, 4), rng=rngs)
def test_rope_rotates_each_pair_of_channels_by_its_angle(T, half, t, rng):
    t %= T
    x = rng.standard_normal((1, T, 1, 2 * half))
    out, _ = L.rope_forward(x, L.rotations_at(T, 2 * half, 100.0, np.float64))
    for j in range(half):
        angle = t * 100.0 ** (-2 * j / (2 * half))
        rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        np.testing.assert_allclose(out[0, t, 0, 2 * j : 2 * j + 2], rotation @ x[0, t, 0, 2 * j : 2 * j + 2])


# ---- attention


@st.composite
def heads(draw):
    """Random queries, keys and values in grouped heads, and the generator that drew them."""
    rng, K = draw(rngs), draw(st.integers(1, 2))
    B, T, D = draw(st.integers(1, 3)), draw(st.integers(1, 6)), draw(st.integers(1, 4))
    make = lambda H: rng.standard_normal((B, T, H, D))
    return make(K * draw(st.integers(1, 3))), make(K), make(K), rng


blocks = st.integers(1, 7)


@given(heads(), st.booleans(), blocks)
def test_attention_backward_is_the_derivative_of_attention_forward(qkvr, causal, block):
    *qkv, rng = qkvr
    check_backward(lambda *qkv: L.attention_forward(*qkv, causal, block), L.attention_backward, qkv, rng)


@given(heads(), st.booleans(), blocks)
def test_attention_equals_the_plain_version_in_its_docstring(qkvr, causal, block):
    q, k, v, _ = qkvr
    (B, T, H, D), G = q.shape, q.shape[2] // k.shape[2]
    out, _ = L.attention_forward(q, k, v, causal, block)
    for b in range(B):
        for h in range(H):
            s = q[b, :, h] @ k[b, :, h // G].T / math.sqrt(D)
            if causal:
                s[np.triu_indices(T, 1)] = -np.inf
            p = np.exp(s) / np.exp(s).sum(axis=1, keepdims=True)
            np.testing.assert_allclose(out[b, :, h], p @ v[b, :, h // G], rtol=1e-9, atol=1e-12)


@given(heads(), st.booleans(), blocks)
def test_the_block_size_does_not_change_the_result(qkvr, causal, block):
    *qkv, rng = qkvr
    out, cache = L.attention_forward(*qkv, causal)
    blockwise, block_cache = L.attention_forward(*qkv, causal, block)
    np.testing.assert_allclose(blockwise, out, rtol=1e-9)
    dout = rng.standard_normal(out.shape)
    gradients = L.attention_backward(dout, cache)
    for actual, expected in zip(L.attention_backward(dout, block_cache), gradients):
        np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-12)


@given(heads(), blocks, st.data())
def test_the_future_never_changes_the_past(qkvr, block, data):
    q, k, v, rng = qkvr
    T = q.shape[1]
    t = data.draw(st.integers(0, T), label="first changed position")
    before, _ = L.attention_forward(q, k, v, True, block)
    for a in (q, k, v):
        a[:, t:] += rng.standard_normal(a[:, t:].shape)
    after, _ = L.attention_forward(q, k, v, True, block)
    np.testing.assert_allclose(before[:, :t], after[:, :t], rtol=1e-12)


@given(heads())
def test_without_a_causal_mask_the_order_of_keys_does_not_matter(qkvr):
    q, k, v, rng = qkvr
    order = rng.permutation(k.shape[1])
    out, _ = L.attention_forward(q, k, v)
    np.testing.assert_allclose(out, L.attention_forward(q, k[:, order], v[:, order])[0], rtol=1e-9)


@given(heads())
def test_grouped_heads_give_the_same_result_as_repeated_keys_and_values(qkvr):
    q, k, v, _ = qkvr
    G = q.shape[2] // k.shape[2]
    repeated = L.attention_forward(q, np.repeat(k, G, axis=2), np.repeat(v, G, axis=2))[0]
    np.testing.assert_allclose(L.attention_forward(q, k, v)[0], repeated, rtol=1e-9)


def test_large_attention_scores_do_not_overflow():
    q = np.full((1, 2, 1, 2), 1e4)
    assert np.isfinite(L.attention_forward(q, q, q)[0]).all()


# ---- SwiGLU


@given(N=sizes, F=sizes, rng=rngs)
def test_swiglu_backward_is_the_derivative_of_swiglu_forward(N, F, rng):
    check_backward(L.swiglu_forward, L.swiglu_backward, [3 * rng.standard_normal((N, 2 * F))], rng)


@given(N=sizes, F=sizes, rng=rngs)
def test_swiglu_matches_the_formula_in_its_docstring(N, F, rng):
    x = 3 * rng.standard_normal((N, 2 * F))
    gate, up = x[:, :F], x[:, F:]
    np.testing.assert_allclose(L.swiglu_forward(x)[0], gate / (1 + np.exp(-gate)) * up, rtol=1e-9, atol=1e-12)


def test_large_gates_do_not_overflow():
    with np.errstate(all="raise"):
        out, _ = L.swiglu_forward(np.array([[-1e4, 1e4, 3.0, 3.0]], np.float32))
    np.testing.assert_array_equal(out, [[0, 3e4]])


# ---- every layer


@given(heads(), st.sampled_from([np.float32, np.float64]))
def test_every_layer_keeps_the_precision_of_its_input(qkvr, dtype):
    q, k, v, rng = qkvr
    T, C = q.shape[1], 4
    q, k, v = (a.astype(dtype) for a in (q, k, v))
    x, w, g = (rng.standard_normal(shape).astype(dtype) for shape in ((T, C), (C, C), C))
    rotations = L.rotations_at(T, C, 100.0, dtype)
    pairs = [
        (L.embedding_forward(np.zeros(T, int), w), L.embedding_backward),
        (L.linear_forward(x, w), L.linear_backward),
        (L.rmsnorm_forward(x, g), L.rmsnorm_backward),
        (L.swiglu_forward(x), L.swiglu_backward),
        (L.attention_forward(q, k, v, True, 2), L.attention_backward),
        (L.rope_forward(x[None, :, None], rotations), L.rope_backward),
    ]
    for (out, cache), backward in pairs:
        gradients = backward(np.ones_like(out), cache)
        for array in (out, *(gradients if isinstance(gradients, tuple) else (gradients,))):
            assert array.dtype == dtype
