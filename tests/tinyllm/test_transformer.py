"""transformer: backward is the derivative of forward, and a causal model never sees later tokens.

With a wrong gradient, a model still learns, but worse. A causal model that saw later tokens would have a
low loss in training and generate nonsense.
"""

import numpy as np
import pytest
from gradcheck import close, slope
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import configs, random_model, rngs

from tinyllm import optimizer
from tinyllm.objectives import weighted_nll
from tinyllm.transformer import Config, Parameters, Transformer


def whole_gradient(model, ids, dout, at=None):
    _, cache = model.forward(ids, at)
    grads = Parameters(model.config, np.full(model.params.flat.shape, np.nan))
    model.backward(dout, cache, grads)
    return grads


heads = st.sampled_from(["tokens", "score"])
# The share of positions with an output. None means that all positions have one.
shares = st.sampled_from([None, 0.0, 0.1, 0.5, 1.0])


def draw_positions(share, shape, rng):
    """The argument `at` of Transformer.forward. Each position is True with probability `share`."""
    return None if share is None else rng.random(shape) < share


@settings(max_examples=60)
@given(heads.flatmap(lambda head: configs(head=head)), st.integers(1, 3), shares, rngs)
def test_the_gradient_of_the_whole_model_is_the_derivative_of_its_output(config, B, share, rng):
    model = random_model(config, rng)
    ids = rng.integers(0, config.vocab, (B, config.context))
    at = draw_positions(share, ids.shape, rng)
    r = rng.standard_normal(model.forward(ids, at)[0].shape)
    gradient = whole_gradient(model, ids, r, at)
    assert np.isfinite(gradient.flat).all()  # every entry was written
    params, start = model.params.flat, model.params.flat.copy()
    for name in gradient:
        direction = Parameters(config, np.zeros_like(start))
        direction[name][:] = rng.standard_normal(direction[name].shape)

        def along(t, moved=direction.flat):
            params[:] = start + t * moved
            return (model.forward(ids, at)[0] * r).sum()

        # If the width is 1, several RMSNorms with inputs near 0 need finite differences below 1e-6.
        close(slope(along, 1e-7), gradient.flat @ direction.flat, 1e-5, name)
        params[:] = start


@given(heads.flatmap(lambda head: configs(head=head)), shares.filter(lambda share: share is not None), rngs)
def test_outputs_and_gradients_at_some_positions_equal_those_of_the_whole_sequence(config, share, rng):
    model = random_model(config, rng)
    ids = rng.integers(0, config.vocab, (2, config.context))
    at, whole = draw_positions(share, ids.shape, rng), model.forward(ids)[0]
    out = model.forward(ids, at)[0]
    assert out.shape == whole[at].shape
    np.testing.assert_allclose(out, whole[at], rtol=1e-12, atol=1e-12)
    r = rng.standard_normal(whole.shape)
    r[~at] = 0
    gradient, expected = whole_gradient(model, ids, r[at], at), whole_gradient(model, ids, r)
    np.testing.assert_allclose(gradient.flat, expected.flat, rtol=1e-12, atol=1e-12)


@given(configs(causal=True), rngs, st.data())
def test_logits_do_not_depend_on_later_tokens(config, rng, data):
    model = random_model(config, rng)
    ids = rng.integers(0, config.vocab, (2, config.context))
    t = data.draw(st.integers(0, config.context), label="first changed position")
    changed = ids.copy()
    changed[:, t:] = rng.integers(0, config.vocab, changed[:, t:].shape)
    np.testing.assert_allclose(model.logits(ids)[:, :t], model.logits(changed)[:, :t], rtol=1e-9, atol=1e-12)


@given(configs(causal=False), rngs)
def test_a_masked_model_sees_later_tokens(config, rng):
    model = random_model(config, rng)
    ids = np.zeros((1, config.context), int)
    changed = ids.copy()
    changed[:, -1] = 1
    assert (model.logits(ids)[:, 0] != model.logits(changed)[:, 0]).any()


@given(st.sampled_from(["tokens", "score"]).flatmap(lambda head: configs(head=head)), rngs)
def test_rows_of_a_batch_do_not_affect_each_other(config, rng):
    model = random_model(config, rng)
    ids = rng.integers(0, config.vocab, (3, config.context))
    alone = np.stack([model.logits(row) for row in ids])
    np.testing.assert_allclose(model.logits(ids), alone, rtol=1e-9, atol=1e-12)


@given(configs(), rngs)
def test_named_parameters_and_joined_matrices_are_views_of_one_buffer(config, rng):
    params = Parameters(config)
    values = rng.standard_normal(params.flat.shape).astype(np.float32)
    params.flat[:] = values
    assert sum(view.size for view in params.values()) == config.size()
    np.testing.assert_array_equal(np.concatenate([view.ravel() for view in params.values()]), values)
    for i, block in enumerate(params.blocks):
        joined = np.concatenate([params[f"layers.{i}.attention.{w}"] for w in ("wq", "wk", "wv")])
        np.testing.assert_array_equal(block["wqkv"], joined)
        joined = np.concatenate([params[f"layers.{i}.mlp.gate"], params[f"layers.{i}.mlp.up"]])
        np.testing.assert_array_equal(block["gate_up"], joined)


@given(configs(head="tokens"), rngs)
def test_a_model_in_single_precision_computes_in_single_precision(config, rng):
    model = random_model(config, rng, np.float32)
    ids = rng.integers(0, config.vocab, (2, 3))
    out, cache = model.forward(ids)
    _, dout = weighted_nll(out, ids, np.ones(ids.shape), 6)
    grads = Parameters(config)
    model.backward(dout, cache, grads)
    assert out.dtype == dout.dtype == grads.flat.dtype == np.float32


def test_a_new_model_gives_every_token_about_the_same_probability():
    model = Transformer(Config(vocab=50, width=32)).initialise(np.random.default_rng(0))
    ids = np.random.default_rng(1).integers(0, 50, (4, 32))
    loss, _ = weighted_nll(model.logits(ids), np.roll(ids, -1, 1), np.ones(ids.shape), ids.size)
    assert loss == pytest.approx(np.log(50), abs=0.05)


@pytest.mark.parametrize("layers", [1, 8])
def test_new_weights_have_the_right_standard_deviations_and_new_gains_are_1(layers):
    config = Config(vocab=500, layers=layers, width=64, heads=2, tied=False)
    for name, w in Transformer(config).initialise(np.random.default_rng(0)).params.items():
        writes_into_residual = name.endswith(("wo", "down"))
        expected = 0.02 / np.sqrt(2 * layers) if writes_into_residual else 0.02
        assert (w == 1).all() if w.ndim == 1 else w.std() == pytest.approx(expected, rel=0.05), name


def test_one_batch_can_be_overfitted():
    rng = np.random.default_rng(0)
    config = Config(vocab=9, context=8, layers=2, width=16, heads=2)
    rates = optimizer.Rates(muon=0.02, adamw=0.01, decay=0.0)
    model, grads = Transformer(config).initialise(rng), Parameters(config)
    moments, ids = np.zeros((2, config.size()), np.float32), rng.integers(0, 9, (3, 9))
    for step in range(150):
        out, cache = model.forward(ids[:, :-1])
        loss, dout = weighted_nll(out, ids[:, 1:], np.ones((3, 8)), 24)
        model.backward(dout, cache, grads)
        for part in optimizer.parts(config):
            optimizer.update(part, model.params.flat, grads.flat, moments, step, rates, 1.0)
    assert loss < 0.3


@pytest.mark.parametrize(
    "wrong", [{"width": 10, "heads": 3}, {"heads": 4, "kv_heads": 3}, {"layers": 0}, {"width": 6, "heads": 2}]
)
def test_impossible_shapes_are_refused_with_the_reason(wrong):
    with pytest.raises(ValueError, match=r"must be|do not divide"):
        Config(vocab=10, **wrong)


@given(configs(), rngs, st.integers(1, 4), st.booleans())
def test_the_last_layers_get_the_same_gradient_whether_or_not_the_others_are_frozen(
    config, rng, last, at_some
):
    model = random_model(config, rng, np.float64)
    ids = rng.integers(0, config.vocab, (2, 3))
    at = rng.random(ids.shape) < 0.7 if at_some else None
    out, cache = model.forward(ids, at)
    dout = rng.standard_normal(out.shape)
    whole, begin = Parameters(config, dtype=np.float64), config.begin(last)
    model.backward(dout, cache, whole)
    model.frozen = max(0, config.layers - last)
    out, cache = model.forward(ids, at)
    part = Parameters(config, np.zeros(config.size() - begin))
    model.backward(dout, cache, part)
    assert begin + part.flat.size == config.size() and (begin > 0) and config.begin(0) == 0
    for name, gradient in part.items():
        expected = whole[name]
        if name.endswith(".norm") and int(name.split(".")[1]) < model.frozen:
            expected = 0 * expected  # the gain of a frozen layer gets no gradient
        np.testing.assert_allclose(gradient, expected, atol=1e-12, err_msg=name)
    assert {name.split(".")[1] for name in part if name.startswith("layers") and whole[name].ndim == 2} == {
        str(i) for i in range(model.frozen, config.layers)
    }
