"""Our model in the published Llama format: config keys, tensor names, order of channels.

A feature that our layers cannot compute raises a ValueError that names it. Ignoring it would give a model
that runs but computes something else.
"""

from tinyllm.transformer import Config

TOP = {"embedding": "model.embed_tokens", "norm": "model.norm", "head": "lm_head", "score": "score"}
INSIDE = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "mlp.gate": "mlp.gate_proj",
    "mlp.up": "mlp.up_proj",
    "mlp.down": "mlp.down_proj",
    "attention.norm": "input_layernorm",
    "mlp.norm": "post_attention_layernorm",
}

KEYS = {  # our name -> key in config.json, default of LlamaConfig (0 in place of its None)
    "vocab": ("vocab_size", 32000),
    "context": ("max_position_embeddings", 2048),
    "width": ("hidden_size", 4096),
    "hidden": ("intermediate_size", 11008),
    "layers": ("num_hidden_layers", 32),
    "heads": ("num_attention_heads", 32),
    "kv_heads": ("num_key_value_heads", 0),
    "head_dim": ("head_dim", 0),
    "eps": ("rms_norm_eps", 1e-6),
}
PLAIN_ROPE = {"rope_type": "default", "type": "default", "partial_rotary_factor": 1}


def published_name(name):
    """Our name for a parameter -> the published one."""
    return _stored_name(name, TOP, "model.layers", INSIDE)


def _stored_name(name, top, layers, inside):
    if name in top:
        return f"{top[name]}.weight"
    _, layer, part = name.split(".", 2)
    return f"{layers}.{layer}.{inside[part]}.weight"


# Rotary positions rotate pairs of channels. Our pairs are neighbours, (2j, 2j + 1), the two parts of a
# complex number; published weights pair (j, j + D/2). The rows of wq and wk decide which channel is which:
# reordering the rows of both converts one form into the other and changes no attention score.


def to_published(name, w, config):
    """A parameter's array in our form -> in the published form."""
    return _transposed(name, w, config.head_dim // 2, 2)


def from_published(name, w, config):
    """The inverse of `to_published`."""
    return _transposed(name, w, 2, config.head_dim // 2)


def _transposed(name, w, rows, columns):
    """wq or wk with the channels of each head transposed as a matrix; any other array unchanged."""
    if not name.endswith(("attention.wq", "attention.wk")):
        return w
    return w.reshape(-1, rows, columns, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


GGUF_TOP = {"embedding": "token_embd", "norm": "output_norm", "head": "output"}
GGUF_INSIDE = {
    "attention.wq": "attn_q",
    "attention.wk": "attn_k",
    "attention.wv": "attn_v",
    "attention.wo": "attn_output",
    "mlp.gate": "ffn_gate",
    "mlp.up": "ffn_up",
    "mlp.down": "ffn_down",
    "attention.norm": "attn_norm",
    "mlp.norm": "ffn_norm",
}
GGUF_KEYS = {  # key in config.json -> key in a GGUF file
    "max_position_embeddings": "context_length",
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "rope.dimension_count",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
}


def gguf_name(name):
    """Our name for a parameter -> its name in a GGUF file, where wq and wk have our order of channels."""
    return _stored_name(name, GGUF_TOP, "blk", GGUF_INSIDE)


def config_from_gguf(settings, tensors):
    """The settings of a GGUF file -> Config. Raises ValueError for a model that is not a plain Llama."""
    settings = {"llama.rope.scaling.type": "none"} | settings
    for key, only in (("general.architecture", "llama"), ("llama.rope.scaling.type", "none")):
        if settings.get(key) != only:
            raise ValueError(f"{key} {settings.get(key)!r} is not supported, only {only!r}")
    config = {key: settings.get(f"llama.{name}") for key, name in GGUF_KEYS.items()}
    embedding = tensors.get(gguf_name("embedding"))
    if embedding is None:
        raise ValueError(f"it has no tensor {gguf_name('embedding')}")
    config |= {"model_type": "llama", "vocab_size": embedding.shape[0]}
    return config_from_json(config | {"tie_word_embeddings": gguf_name("head") not in tensors})


def config_to_json(config, special=None):
    """Config -> config.json as a dict. special: {name: id} of the tokenizer's special tokens."""
    score, special = config.head == "score", special or {}
    published = {
        "architectures": ["LlamaForSequenceClassification" if score else "LlamaForCausalLM"],
        "model_type": "llama",
        **{key: getattr(config, name) for name, (key, _) in KEYS.items()},
        "hidden_act": "silu",
        "rope_theta": config.theta,  # where older programs look for it
        "rope_parameters": {"rope_type": "default", "rope_theta": config.theta},
        "tie_word_embeddings": config.tied and not score,
        "attention_bias": False,
        "mlp_bias": False,
        "dtype": "float32",
        "bos_token_id": special.get("<|begin|>"),
        "eos_token_id": special.get("<|end|>"),
    }
    if score:  # programs read the last score before padding: pad with a token that occurs in no text
        published |= {"num_labels": 1, "id2label": {"0": "score"}, "pad_token_id": special.get("<|mask|>")}
    if not config.causal:  # transformers 5 reads is_causal too
        published |= {"is_causal": False, "objective": "masked"}
    return published


def config_from_json(config):
    """config.json of any plain Llama -> Config, with the defaults of LlamaConfig. Raises ValueError."""
    if config.get("model_type") != "llama":
        raise ValueError(f"model_type {config.get('model_type')!r} is not supported, only 'llama'")
    if config.get("quantization_config"):
        raise ValueError("the weights are quantised (quantization_config): use the unquantised ones")
    plain = {"hidden_act": "silu", "attention_bias": False, "mlp_bias": False, "partial_rotary_factor": 1}
    for key, only in plain.items():
        if config.get(key) not in (None, only):
            raise ValueError(f"{key} {config[key]!r} is not supported, only {only!r}")
    kind = config.get("architectures") or ["LlamaForCausalLM"]
    score = kind == ["LlamaForSequenceClassification"]
    if not score and kind != ["LlamaForCausalLM"]:
        raise ValueError(f"architectures {kind!r} is not supported, only LlamaForCausalLM or a score head")
    labels = config.get("id2label")
    if score and (len(labels) if isinstance(labels, dict) else _read(config, "num_labels", 2)) != 1:
        raise ValueError("a score head with more than one label is not supported (id2label, num_labels)")
    return Config(
        **{name: _read(config, key, default) for name, (key, default) in KEYS.items()},
        theta=_theta(config),
        tied=_read(config, "tie_word_embeddings", False),
        causal=_read(config, "is_causal", True),
        head="score" if score else "tokens",
    )


def _theta(config):
    """The base of the rotary angles: in rope_parameters since transformers 5, at the top level until then."""
    theta = _read(config, "rope_theta", 10000.0)
    for key in ("rope_parameters", "rope_scaling"):
        rope = config.get(key) or {}
        if not isinstance(rope, dict) or any(
            value not in (None, PLAIN_ROPE.get(name)) for name, value in rope.items() if name != "rope_theta"
        ):
            raise ValueError(f"{key} {rope!r} is not supported, only default rotary positions")
        theta = _read(rope, "rope_theta", theta)
    if theta == 0:
        raise ValueError("rope_theta must not be 0")
    return theta


def _read(config, key, default):
    """The value of a key, with the type of its default: a flag, a count of at least 1, or a number."""
    value = config.get(key)
    if value is None:
        return default
    valid, expected = {
        bool: (type(value) is bool, "true or false"),
        int: (type(value) is int and 1 <= value < 2**40, "a whole number of at least 1"),
        float: (type(value) in (int, float) and 0 <= value < 2**40, "a number of at least 0"),
    }[type(default)]
    if not valid:
        raise ValueError(f"{key} is {value!r}, expected {expected}")
    return type(default)(value)
