import numpy as np
import pytest
from gradcheck import check_backward
from hypothesis import given
from hypothesis import strategies as st
from strategies import rngs, sizes

from tinyllm import layers as L


@given(N=sizes, V=sizes, C=sizes, rng=rngs)
def test_embedding_gradient(N, V, C, rng):
    ids = rng.integers(0, V, N)
    check_backward(
        lambda w: L.embedding_forward(ids, w), L.embedding_backward, [rng.standard_normal((V, C))], rng
    )


@given(N=sizes, I=sizes, O=sizes, rng=rngs)
def test_linear_gradient(N, I, O, rng):
    check_backward(
        L.linear_forward, L.linear_backward, [rng.standard_normal((N, I)), rng.standard_normal((O, I))], rng
    )


@given(N=sizes, I=sizes, O=sizes, rng=rngs)
def test_linear_writes_its_weight_gradient_where_asked(N, I, O, rng):
    dout, cache = (
        rng.standard_normal((N, O)),
        L.linear_forward(rng.standard_normal((N, I)), rng.standard_normal((O, I)))[1],
    )
    place = np.full((O, I), np.nan)
    dw = L.linear_backward(dout, cache, place)[1]
    assert dw is place
    np.testing.assert_array_equal(place, L.linear_backward(dout, cache)[1])


@given(N=sizes, C=sizes, eps=st.sampled_from([1e-5, 1e-2]), rng=rngs)
def test_rmsnorm_gradient(N, C, eps, rng):
    check_backward(
        lambda x, g: L.rmsnorm_forward(x, g, eps),
        L.rmsnorm_backward,
        [rng.standard_normal((N, C)), rng.standard_normal(C)],
        rng,
    )


@given(N=sizes, C=sizes, longer=st.floats(0.1, 10), rng=rngs)
def test_rmsnorm_forgets_how_long_a_row_is(N, C, longer, rng):
    x, g = rng.standard_normal((N, C)), rng.standard_normal(C)
    out, cache = L.rmsnorm_forward(x, g, eps=0.0)
    np.testing.assert_allclose(out, L.rmsnorm_forward(longer * x, g, eps=0.0)[0], rtol=1e-9)
    dx, _ = L.rmsnorm_backward(rng.standard_normal((N, C)), cache)
    np.testing.assert_allclose((dx * x).sum(1), 0, atol=1e-9 * (1 + np.abs(dx).max()))


@given(B=sizes, T=sizes, H=sizes, half=st.integers(1, 3), rng=rngs)
def test_rope_gradient(B, T, H, half, rng):
    turns = L.rope_turns(T, 2 * half, 100.0, np.float64)
    check_backward(
        lambda x: L.rope_forward(x, turns), L.rope_backward, [rng.standard_normal((B, T, H, 2 * half))], rng
    )


@given(T=st.integers(2, 9), half=st.integers(1, 3), shift=st.integers(0, 9), rng=rngs)
def test_rope_scores_depend_on_distance_alone(T, half, shift, rng):
    q, k = rng.standard_normal((2, 2 * half))

    def score(t, s):
        turns = L.rope_turns(t + s + 1, 2 * half, 100.0, np.float64)
        turned = L.rope_forward(np.stack([q, k])[None, :, None], turns[[t, s]])[0]
        return turned[0, 0, 0] @ turned[0, 1, 0]

    assert score(T, 1) == pytest.approx(score(T + shift, 1 + shift), abs=1e-9)


@st.composite
def heads(draw):
    rng, K = draw(rngs), draw(st.integers(1, 2))
    B, T, D = draw(st.integers(1, 3)), draw(st.integers(1, 6)), draw(st.integers(1, 4))
    make = lambda H: rng.standard_normal((B, T, H, D))
    return make(K * draw(st.integers(1, 3))), make(K), make(K), rng


blocks = st.integers(1, 7)


@given(heads(), st.booleans(), blocks)
def test_attention_gradient(qkvr, causal, block):
    *qkv, rng = qkvr
    check_backward(lambda *qkv: L.attention_forward(*qkv, causal, block), L.attention_backward, qkv, rng)


@given(heads(), st.booleans(), blocks)
def test_blocks_change_nothing(qkvr, causal, block):
    *qkv, rng = qkvr
    out, cache = L.attention_forward(*qkv, causal)
    parts, others = L.attention_forward(*qkv, causal, block)
    np.testing.assert_allclose(parts, out, rtol=1e-9)
    dout = rng.standard_normal(out.shape)
    for one, two in zip(L.attention_backward(dout, others), L.attention_backward(dout, cache)):
        np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-12)


@given(heads(), blocks, st.data())
def test_the_future_never_changes_the_past(qkvr, block, data):
    q, k, v, rng = qkvr
    T = q.shape[1]
    t = data.draw(st.integers(0, T), label="first changed position")
    before, _ = L.attention_forward(q, k, v, True, block)
    for a in (q, k, v):
        a[:, t:] += rng.standard_normal(a[:, t:].shape)
    np.testing.assert_allclose(before[:, :t], L.attention_forward(q, k, v, True, block)[0][:, :t], rtol=1e-12)


@given(heads())
def test_without_a_mask_the_order_of_keys_does_not_matter(qkvr):
    q, k, v, rng = qkvr
    order = rng.permutation(k.shape[1])
    np.testing.assert_allclose(
        L.attention_forward(q, k, v)[0], L.attention_forward(q, k[:, order], v[:, order])[0], rtol=1e-9
    )


@given(heads())
def test_grouped_heads_equal_repeated_keys_and_values(qkvr):
    q, k, v, _ = qkvr
    G = q.shape[2] // k.shape[2]
    repeated = L.attention_forward(q, np.repeat(k, G, axis=2), np.repeat(v, G, axis=2))[0]
    np.testing.assert_allclose(L.attention_forward(q, k, v)[0], repeated, rtol=1e-9)


def test_large_scores_do_not_overflow():
    q = np.full((1, 2, 1, 2), 1e4)
    assert np.isfinite(L.attention_forward(q, q, q)[0]).all()


@given(N=sizes, F=sizes, rng=rngs)
def test_swiglu_gradient(N, F, rng):
    check_backward(L.swiglu_forward, L.swiglu_backward, [3 * rng.standard_normal((N, 2 * F))], rng)


@given(heads(), st.sampled_from([np.float32, np.float64]))
def test_precision_is_kept(qkvr, dtype):
    q, k, v, rng = qkvr
    T, C = q.shape[1], 4
    q, k, v = (a.astype(dtype) for a in (q, k, v))
    x, w, g = (rng.standard_normal(shape).astype(dtype) for shape in ((T, C), (C, C), C))
    turns = L.rope_turns(T, C, 100.0, dtype)
    pairs = [
        (L.embedding_forward(np.zeros(T, int), w), L.embedding_backward),
        (L.linear_forward(x, w), L.linear_backward),
        (L.rmsnorm_forward(x, g), L.rmsnorm_backward),
        (L.swiglu_forward(x), L.swiglu_backward),
        (L.attention_forward(q, k, v, True, 2), L.attention_backward),
        (L.rope_forward(x[None, :, None], turns), L.rope_backward),
    ]
    for (out, cache), backward in pairs:
        gradients = backward(np.ones_like(out), cache)
        for array in (out, *(gradients if isinstance(gradients, tuple) else (gradients,))):
            assert array.dtype == dtype
