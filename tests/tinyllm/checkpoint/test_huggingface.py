"""huggingface: a model must stay the same when converted to the published format and back.

A feature that our layers cannot compute must be refused with an error that names it. Otherwise the model
would run, but its results would be wrong.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import configs, rngs

from tinyllm import layers
from tinyllm.checkpoint import huggingface
from tinyllm.checkpoint.files import reading
from tinyllm.errors import TinyllmError
from tinyllm.transformer import Config, Parameters

heads = st.sampled_from(["tokens", "score"])
SMALL = Config(vocab=300, context=8, layers=1, width=4, heads=2)
SCORE = Config(vocab=300, context=8, layers=1, width=4, heads=2, head="score")


@given(heads.flatmap(lambda head: configs(head=head)))
def test_a_config_stays_the_same_when_converted_to_json_and_back(config):
    assert huggingface.config_from_json(huggingface.config_to_json(config)) == config


@settings(max_examples=50)
@given(heads.flatmap(lambda head: configs(head=head)), rngs)
def test_parameters_stay_the_same_when_converted_to_the_published_form_and_back(config, rng):
    params = Parameters(config, rng.standard_normal(config.size()))
    names = [huggingface.stored_name(name, huggingface.PUBLISHED) for name in params]
    assert len(set(names)) == len(names) and all(name.endswith(".weight") for name in names)
    for name, w in params.items():
        published = huggingface.to_published(name, w, config)
        assert published.shape == w.shape
        np.testing.assert_array_equal(np.sort(published, axis=None), np.sort(w, axis=None))
        again = huggingface.from_stored(name, published, config, huggingface.PUBLISHED)
        np.testing.assert_array_equal(again, w)


@pytest.mark.parametrize(
    "ours, published",
    [
        ("embedding", "model.embed_tokens"),
        ("layers.0.attention.wq", "model.layers.0.self_attn.q_proj"),
        ("layers.0.attention.wk", "model.layers.0.self_attn.k_proj"),
        ("layers.1.attention.wv", "model.layers.1.self_attn.v_proj"),
        ("layers.1.attention.wo", "model.layers.1.self_attn.o_proj"),
        ("layers.2.mlp.gate", "model.layers.2.mlp.gate_proj"),
        ("layers.2.mlp.up", "model.layers.2.mlp.up_proj"),
        ("layers.30.mlp.down", "model.layers.30.mlp.down_proj"),
        ("layers.30.attention.norm", "model.layers.30.input_layernorm"),
        ("layers.30.mlp.norm", "model.layers.30.post_attention_layernorm"),
        ("norm", "model.norm"),
        ("head", "lm_head"),
        ("score", "score"),
    ],
)
def test_the_published_names_are_those_of_llama(ours, published):
    assert huggingface.stored_name(ours, huggingface.PUBLISHED) == f"{published}.weight"


def test_only_a_model_whose_head_is_its_embedding_is_published_as_tied():
    """transformers must not tie a score head to the embedding."""
    untied = Config(vocab=9, width=4, heads=2, tied=False)
    published = [huggingface.config_to_json(config) for config in (SMALL, untied, SCORE)]
    assert [config["tie_word_embeddings"] for config in published] == [True, False, False]


@given(configs(), st.integers(1, 6), rngs)
def test_attention_scores_are_the_same_with_the_published_order_of_channels(config, T, rng):
    """transformers rotates x as x * cos + rotate_half(x) * sin, which pairs channel j with j + D/2."""
    C, D, heads = config.width, config.head_dim, config.heads
    x, wq, wk = rng.standard_normal((T, C)), *rng.standard_normal((2, heads * D, C))
    split = lambda x: x.reshape(1, T, heads, D)
    rotations = layers.rotations_at(T, D, config.theta, np.float64)
    q, k = (layers.rope_forward(split(x @ w.T), rotations)[0][0] for w in (wq, wk))

    angles = np.outer(np.arange(T), config.theta ** (-np.arange(0, D, 2) / D))
    cos, sin = (np.tile(f(angles), 2)[:, None] for f in (np.cos, np.sin))
    rotate_half = lambda x: np.concatenate([-x[..., D // 2 :], x[..., : D // 2]], axis=-1)
    published = [
        split(x @ huggingface.to_published(name, w, config).T)[0]
        for name, w in (("layers.0.attention.wq", wq), ("layers.0.attention.wk", wk))
    ]
    published_q, published_k = (y * cos + rotate_half(y) * sin for y in published)
    scores = np.einsum("thd,shd->hts", q, k)
    published_scores = np.einsum("thd,shd->hts", published_q, published_k)
    np.testing.assert_allclose(scores, published_scores, rtol=1e-9, atol=1e-9)


def test_config_json_has_the_ids_of_the_special_tokens():
    special = {"<|begin|>": 290, "<|end|>": 291, "<|mask|>": 296}
    published = huggingface.config_to_json(SCORE, special)
    assert [published[f"{name}_token_id"] for name in ("bos", "eos", "pad")] == [290, 291, 296]
    assert "pad_token_id" not in huggingface.config_to_json(SMALL, special)


def test_rope_theta_is_read_from_older_and_newer_files():
    published = huggingface.config_to_json(SMALL)
    rest = {key: value for key, value in published.items() if not key.startswith("rope")}
    for rope, theta in (
        ({"rope_theta": 123.0}, 123.0),
        ({"rope_parameters": {"rope_theta": 77.0}}, 77.0),
        ({"rope_theta": 123.0, "rope_scaling": None, "rope_parameters": {"rope_theta": 77}}, 77.0),
        ({"rope_scaling": {"type": "default"}}, 10000.0),
        ({}, 10000.0),
    ):
        assert huggingface.config_from_json(rest | rope).theta == theta


def test_missing_keys_get_the_defaults_of_llama_config():
    keys = ("vocab_size", "max_position_embeddings", "hidden_size", "intermediate_size")
    keys += ("num_hidden_layers", "num_attention_heads")
    config = huggingface.config_from_json(dict.fromkeys(keys, 8) | {"hidden_size": 32, "model_type": "llama"})
    assert (config.kv_heads, config.head_dim) == (8, 4)
    assert (config.theta, config.eps, config.tied, config.causal) == (10000.0, 1e-6, False, True)


@pytest.mark.parametrize("key", ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"])
def test_a_config_without_a_required_size_is_refused(key):
    published = huggingface.config_to_json(SMALL)
    del published[key]
    ours = next(name for name, published_key in huggingface.KEYS.items() if published_key == key)
    with pytest.raises(ValueError, match=f"{ours} must be at least 1, not 0"):
        huggingface.config_from_json(published)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model_type": "qwen2"}, "model_type 'qwen2' is not supported"),
        ({"model_type": None}, "model_type None is not supported, only 'llama'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config {'bits': 4} is not supported"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"attention_bias": True}, "attention_bias True"),
        ({"mlp_bias": True}, "mlp_bias True"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling"),
        ({"rope_scaling": "linear"}, "rope_scaling 'linear' is not supported"),
        ({"rope_scaling": {"factor": 2}}, "rope_scaling {'factor': 2} is not supported"),
        ({"rope_scaling": {"type": "linear", "rope_type": "default"}}, "rope_scaling"),
        ({"rope_parameters": {"rope_type": "default", "factor": 2}}, "rope_parameters"),
        (
            {"rope_parameters": {"full_attention": {"rope_type": "default"}}},
            "rope_parameters .*full_attention",
        ),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "rope_parameters"),
        (
            {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
            "partial_rotary_factor",
        ),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ({"rope_theta": "1e4", "rope_parameters": None}, "rope_theta is '1e4', not a valid float"),
        ({"rope_theta": 0, "rope_parameters": None}, "theta must be at least 1, not 0"),
        ({"hidden_size": "4"}, "hidden_size is '4', not a valid int"),
        ({"num_hidden_layers": 0}, "layers must be at least 1, not 0"),
        ({"num_hidden_layers": 1.5}, "num_hidden_layers is 1.5, not a valid int"),
        ({"num_hidden_layers": -1}, "num_hidden_layers is -1, not a valid int"),
        ({"num_hidden_layers": float("nan")}, "NaN"),
        ({"head_dim": 3}, r"\(head_dim\) must be even, not 3"),
        ({"num_attention_heads": 3, "num_key_value_heads": 2}, "do not divide"),
        ({"rms_norm_eps": -1}, "rms_norm_eps is -1, not a valid float"),
        ({"is_causal": "no"}, "is_causal is 'no', not a valid bool"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes', not a valid bool"),
        ({"architectures": ["LlamaForTokenClassification"]}, "LlamaForTokenClassification"),
    ],
)
def test_an_error_names_the_unsupported_feature_or_the_invalid_value(change, message):
    with pytest.raises(ValueError, match=message):
        huggingface.config_from_json(huggingface.config_to_json(SMALL) | change)


json_values = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_infinity=False)
    | st.text(max_size=3)
    | st.just([])
    | st.just({})
)
KEYS = sorted(huggingface.config_to_json(SCORE) | {"rope_scaling": 0, "is_causal": 0, "mlp_bias": 0})


@given(st.dictionaries(st.sampled_from(KEYS), json_values, min_size=1))
def test_any_values_give_a_valid_config_or_a_tinyllm_error(change):
    published = huggingface.config_to_json(SMALL) | change
    try:
        with reading("config.json", "a config"):
            config = huggingface.config_from_json(published)
    except TinyllmError:
        return
    assert huggingface.config_from_json(huggingface.config_to_json(config)) == config
