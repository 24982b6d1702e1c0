"""Our model in the published Llama format: config keys, tensor names, order of channels.

If a model needs a feature that our layers lack, a ValueError names the feature. Without this check, the model
would run but compute something else.
"""

from tinyllm.transformer import Config

PUBLISHED = {  # our name -> the published name, without ".weight"
    "embedding": "model.embed_tokens",
    "norm": "model.norm",
    "head": "lm_head",
    "score": "score",
    "attention.wq": "model.layers.{}.self_attn.q_proj",
    "attention.wk": "model.layers.{}.self_attn.k_proj",
    "attention.wv": "model.layers.{}.self_attn.v_proj",
    "attention.wo": "model.layers.{}.self_attn.o_proj",
    "mlp.gate": "model.layers.{}.mlp.gate_proj",
    "mlp.up": "model.layers.{}.mlp.up_proj",
    "mlp.down": "model.layers.{}.mlp.down_proj",
    "attention.norm": "model.layers.{}.input_layernorm",
    "mlp.norm": "model.layers.{}.post_attention_layernorm",
}
GGUF = {  # our name -> the name in a GGUF file, without ".weight"
    "embedding": "token_embd",
    "norm": "output_norm",
    "head": "output",
    "attention.wq": "blk.{}.attn_q",
    "attention.wk": "blk.{}.attn_k",
    "attention.wv": "blk.{}.attn_v",
    "attention.wo": "blk.{}.attn_output",
    "mlp.gate": "blk.{}.ffn_gate",
    "mlp.up": "blk.{}.ffn_up",
    "mlp.down": "blk.{}.ffn_down",
    "attention.norm": "blk.{}.attn_norm",
    "mlp.norm": "blk.{}.ffn_norm",
}
KEYS = {  # our name -> key in config.json
    "vocab": "vocab_size",
    "context": "max_position_embeddings",
    "width": "hidden_size",
    "hidden": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "eps": "rms_norm_eps",
}
GGUF_KEYS = {  # key in config.json -> key in a GGUF file
    "model_type": "general.architecture",
    "max_position_embeddings": "llama.context_length",
    "hidden_size": "llama.embedding_length",
    "intermediate_size": "llama.feed_forward_length",
    "num_hidden_layers": "llama.block_count",
    "num_attention_heads": "llama.attention.head_count",
    "num_key_value_heads": "llama.attention.head_count_kv",
    "head_dim": "llama.rope.dimension_count",
    "rms_norm_eps": "llama.attention.layer_norm_rms_epsilon",
    "rope_theta": "llama.rope.freq_base",
}
# Other keys, each with the only value that a plain Llama may have; all but model_type may be missing. We
# write PLAIN into config.json.
PLAIN = {"model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False}
UNUSED = {"quantization_config": None, "partial_rotary_factor": 1}
PLAIN_ROPE = {"rope_type": "default", "type": "default", "partial_rotary_factor": 1}


def stored_name(name, names):
    """Our name for a parameter -> its name in a file. names: PUBLISHED or GGUF."""
    layer, part = None, name
    if name.startswith("layers."):
        _, layer, part = name.split(".", 2)
    return f"{names[part].format(layer)}.weight"


# Rotary positions rotate pairs of channels. We pair channels 2j and 2j + 1, the two parts of a complex
# number; published weights pair channels j and j + head_dim/2. The rows of wq and wk decide which channel is
# which: reordering the rows of both matrices converts one form into the other and changes no attention score.


def to_published(name, w, config):
    """A parameter's array in our form -> the same array in the published form."""
    return _transposed(name, w, config.head_dim // 2, 2, config.width)


def from_stored(name, w, config, names):
    """The inverse of `to_published`. names: as in stored_name; a GGUF file has our order of channels."""
    return w if names is GGUF else _transposed(name, w, 2, config.head_dim // 2, config.width)


def _transposed(name, w, *shape):
    """wq or wk with the channels of each head reordered; any other array unchanged.

    w holds whole heads and may be flat. shape: (rows, columns, width) of a head. The channels of a head form
    a matrix (rows, columns), which is transposed.
    """
    if not name.endswith(("attention.wq", "attention.wk")):
        return w
    return w.reshape(-1, *shape).swapaxes(1, 2).reshape(w.shape)


def config_from_gguf(settings, tensors):
    """The settings of a GGUF file -> Config. Raises ValueError for a model that is not a plain Llama."""
    scaling = settings.get("llama.rope.scaling.type", "none")
    if scaling != "none":
        raise ValueError(f"llama.rope.scaling.type {scaling!r} is not supported, only 'none'")
    config = {key: settings.get(name) for key, name in GGUF_KEYS.items()}
    config["vocab_size"] = tensors[stored_name("embedding", GGUF)].shape[0]
    config["tie_word_embeddings"] = stored_name("head", GGUF) not in tensors
    return config_from_json(config)


def config_to_json(config, special=None):
    """Config -> config.json as a dict. special: {name: id} of the tokenizer's special tokens."""
    score, special = config.head == "score", special or {}
    published = {
        "architectures": ["LlamaForSequenceClassification" if score else "LlamaForCausalLM"],
        **PLAIN,
        **{key: getattr(config, name) for name, key in KEYS.items()},
        "rope_theta": config.theta,  # older programs look for theta here
        "rope_parameters": {"rope_type": "default", "rope_theta": config.theta},
        "tie_word_embeddings": config.tied and not score,
        "is_causal": config.causal,  # transformers 5 reads this key, too
        "dtype": "float32",
        "bos_token_id": special.get("<|begin|>"),
        "eos_token_id": special.get("<|end|>"),
    }
    if score:  # programs read the last score before the padding, so the padding token must not occur in texts
        published |= {"num_labels": 1, "id2label": {"0": "score"}, "pad_token_id": special.get("<|mask|>")}
    return published


def config_from_json(config):
    """config.json of any plain Llama -> Config. Raises ValueError for other models."""
    for key, only in (PLAIN | UNUSED).items():
        value = config.get(key)
        if value != only and (value is not None or key == "model_type"):
            raise ValueError(f"{key} {value!r} is not supported, only {only!r}")
    kind = config.get("architectures") or ["LlamaForCausalLM"]
    score = kind == ["LlamaForSequenceClassification"]
    if not score and kind != ["LlamaForCausalLM"]:
        raise ValueError(f"architectures {kind!r} is not supported, only LlamaForCausalLM or a score head")
    return Config(
        **{name: _read(config, key, 1e-6 if name == "eps" else 0) for name, key in KEYS.items()},
        theta=_theta(config),
        tied=_read(config, "tie_word_embeddings", False),
        causal=_read(config, "is_causal", True),
        head="score" if score else "tokens",
    )


def _theta(config):
    """The base of the rotary angles: in rope_parameters since transformers 5, formerly at the top level."""
    theta = _read(config, "rope_theta", 10000.0)
    for key in ("rope_parameters", "rope_scaling"):
        rope = config.get(key) or {}
        if not isinstance(rope, dict) or any(
            value not in (None, PLAIN_ROPE.get(name)) for name, value in rope.items() if name != "rope_theta"
        ):
            raise ValueError(f"{key} {rope!r} is not supported, only default rotary positions")
        theta = _read(rope, "rope_theta", theta)
    return theta


def _read(config, key, default):
    """The value of a key. Raises ValueError if the value is negative or not of the default's type."""
    value = config.get(key)
    if value is None:
        return default
    if type(default)(value) != value or value < 0:
        raise ValueError(f"{key} is {value!r}, not a valid {type(default).__name__}")
    return type(default)(value)
