"""Our model in the words of the published Llama format: config keys, tensor names, order of channels.

What a config asks for and this project's layers cannot do is refused by name, never ignored: a model
that runs and computes something else is worse than none.
"""

import numpy as np

from tinyllm.transformer import Config

TOP = {"embedding": "model.embed_tokens.weight", "norm": "model.norm.weight",
       "head": "lm_head.weight", "score": "score.weight"}
INSIDE = {"attention.wq": "self_attn.q_proj", "attention.wk": "self_attn.k_proj",
          "attention.wv": "self_attn.v_proj", "attention.wo": "self_attn.o_proj",
          "mlp.gate": "mlp.gate_proj", "mlp.up": "mlp.up_proj", "mlp.down": "mlp.down_proj",
          "attention.norm": "input_layernorm", "mlp.norm": "post_attention_layernorm"}


class Unsupported(ValueError):
    """A config.json of something that is not a plain Llama; the message names what."""


def published_name(name):
    """Our name of a parameter -> the published one."""
    if name in TOP:
        return TOP[name]
    _, layer, inside = name.split(".", 2)
    return f"model.layers.{layer}.{INSIDE[inside]}.weight"


# Rotary positions turn pairs of channels. Ours are neighbours, (2j, 2j + 1), the two parts of a complex
# number; published weights pair (j, j + D/2). Which channel is which is decided by the rows of wq and
# wk: reordering the rows of both makes one the other, and changes no score.

def to_published(name, w, config):
    """Our array of a parameter -> the published one."""
    return _reordered(name, w, config, [*range(0, config.head_dim, 2), *range(1, config.head_dim, 2)])


def from_published(name, w, config):
    """The inverse of `to_published`."""
    half = config.head_dim // 2
    return _reordered(name, w, config, [row for j in range(half) for row in (j, half + j)])


def _reordered(name, w, config, order):
    if not name.endswith(("attention.wq", "attention.wk")):
        return w
    return np.reshape(w, (-1, config.head_dim, w.shape[1]))[:, order].reshape(w.shape)


def config_to_json(config, special=None):
    """Config -> config.json as a dict. special: the tokenizer's special tokens, for the ids in there."""
    score, special = config.head == "score", special or {}
    found = {
        "architectures": ["LlamaForSequenceClassification" if score else "LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab,
        "max_position_embeddings": config.context,
        "hidden_size": config.width,
        "intermediate_size": config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": config.eps,
        "rope_theta": config.theta,                                # where older programs look for it
        "rope_parameters": {"rope_type": "default", "rope_theta": config.theta},
        "tie_word_embeddings": config.tied and not score,
        "attention_bias": False,
        "mlp_bias": False,
        "dtype": "float32",
        "bos_token_id": special.get("<|begin|>"),
        "eos_token_id": special.get("<|end|>"),
    }
    if score:                  # they read the last score before padding: pad with what no text holds
        found |= {"num_labels": 1, "id2label": {"0": "score"}, "pad_token_id": special.get("<|mask|>")}
    if not config.causal:                                          # transformers 5 reads is_causal too
        found |= {"is_causal": False, "objective": "masked"}
    return found


def config_from_json(found):
    """config.json of any plain Llama -> Config. Raises Unsupported. Defaults are those of LlamaConfig."""
    if found.get("model_type") != "llama":
        raise Unsupported(f"model_type {found.get('model_type')!r} is not a Llama; only those are read here")
    if found.get("quantization_config"):
        raise Unsupported("the weights are quantised (quantization_config); use the unquantised ones")
    for key, only in (("hidden_act", "silu"), ("attention_bias", False), ("mlp_bias", False)):
        if found.get(key, only) != only:
            raise Unsupported(f"{key} {found[key]!r} is not supported, only {only!r}")
    kind = found.get("architectures") or ["LlamaForCausalLM"]
    score = kind == ["LlamaForSequenceClassification"]
    if not score and kind != ["LlamaForCausalLM"]:
        raise Unsupported(f"architectures {kind!r} is not supported, only models of tokens or of one score")
    labels = found.get("id2label")
    if score and (len(labels) if isinstance(labels, dict) else _number(found, "num_labels", 2)) != 1:
        raise Unsupported("a score head with more than one label is not supported (id2label, num_labels)")
    whole = lambda key, default: _whole(found, key, default)
    try:
        return Config(
            vocab=whole("vocab_size", 32000), context=whole("max_position_embeddings", 2048),
            width=whole("hidden_size", 4096), hidden=whole("intermediate_size", 11008),
            layers=whole("num_hidden_layers", 32), heads=whole("num_attention_heads", 32),
            kv_heads=whole("num_key_value_heads", 0), head_dim=whole("head_dim", 0), theta=_theta(found),
            eps=float(_number(found, "rms_norm_eps", 1e-6)), tied=_flag(found, "tie_word_embeddings", False),
            causal=_flag(found, "is_causal", True), head="score" if score else "tokens")
    except ValueError as error:
        raise Unsupported(str(error)) from None


def _theta(found):
    """The base of the rotary angles: in rope_parameters since transformers 5, before that at the top."""
    theta = _number(found, "rope_theta", 10000.0)
    for key in ("rope_parameters", "rope_scaling"):
        rope = found.get(key) or {}
        if not isinstance(rope, dict) or rope.get("rope_type", rope.get("type", "default")) != "default":
            raise Unsupported(f"{key} {rope!r} is not supported, only plain rotary positions")
        theta = _number(rope, "rope_theta", theta)
        if _number(rope, "partial_rotary_factor", 1) != 1:
            raise Unsupported(f"{key} with partial_rotary_factor is not supported")
    if _number(found, "partial_rotary_factor", 1) != 1:
        raise Unsupported("partial_rotary_factor is not supported")
    if theta == 0:
        raise Unsupported("rope_theta is 0, the base of a power")
    return float(theta)


def _number(where, key, default):
    value = where.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 2**40:
        raise Unsupported(f"{key} is {value!r}, which is not a usable number")
    return value


def _whole(where, key, default):
    """A number of things; 0, our sign for "not said", is only good where the key is absent."""
    value = _number(where, key, default)
    if value != int(value) or (value == 0 and where.get(key) is not None):
        raise Unsupported(f"{key} must be at least 1 and whole, not {value!r}")
    return int(value)


def _flag(where, key, default):
    value = where.get(key)
    if value is not None and not isinstance(value, bool):
        raise Unsupported(f"{key} is {value!r}, not true or false")
    return default if value is None else value
