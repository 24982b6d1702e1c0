"""A model on disk: a Hugging Face Llama folder, written whole or not at all.

    config.json          LlamaConfig's keys
    model.safetensors    the published names and shapes, F32
    tokenizer.json, tokenizer_config.json
    SHA256SUMS           of the files above, as `sha256sum -c` reads it: what was altered is refused

`transformers`, vLLM and llama.cpp open our folders, and `load` opens any Llama-family folder: one file
or several with an index, F32, F16 or BF16. What it cannot represent is refused by name.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np

from tinyllm import tensors as safetensors
from tinyllm.conversation import TEMPLATE
from tinyllm.tokenizer import Tokenizer, TokenizerError
from tinyllm.transformer import Config, Parameters, Transformer

SUMS = "SHA256SUMS"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

TOP = {"embedding": "model.embed_tokens.weight", "norm": "model.norm.weight", "head": "lm_head.weight", "score": "score.weight"}
INSIDE = {"attention.wq": "self_attn.q_proj", "attention.wk": "self_attn.k_proj", "attention.wv": "self_attn.v_proj",
          "attention.wo": "self_attn.o_proj", "mlp.gate": "mlp.gate_proj", "mlp.up": "mlp.up_proj",
          "mlp.down": "mlp.down_proj", "attention.norm": "input_layernorm", "mlp.norm": "post_attention_layernorm"}


class CheckpointError(Exception):
    """A checkpoint cannot be read or written. The message names the file, and says what to do."""


# ---- saving --------------------------------------------------------------------------------------

def save(folder, model, tokenizer=None, extra=None, drop=()):
    """Write a checkpoint folder, replacing an old one in a single step.

    extra: {file name: dict}, written as JSON or, for names ending in .safetensors, as tensors. Other
    things that lie in an old folder (metrics, samples, sub-folders) come along, but for those named in
    `drop`. All is first written to a temporary sibling and flushed to disk; a crash at any moment
    leaves the old or the new one whole. Raises CheckpointError, with the old one untouched.
    """
    folder = Path(folder)
    new, old = _siblings(folder)
    try:
        recover(folder)
        for leftover in (new, old):
            shutil.rmtree(leftover, ignore_errors=True)
        new.mkdir(parents=True)
        _write(new, model, tokenizer, extra or {})
        if folder.exists():
            _bring_along(folder, new, drop)
        for path in [*new.rglob("*"), new]:
            _flush(path)
        if folder.exists():
            os.rename(folder, old)
        os.rename(new, folder)             # between these two renames `recover` takes the new one
        _flush(folder.parent)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        recover(folder)
        raise CheckpointError(f"{folder} could not be saved: {error.strerror or error}. What was there before is "
                              "untouched; make room, or choose another place") from None
    shutil.rmtree(old, ignore_errors=True)


def recover(folder):
    """Finish a swap that a crash cut in two. `save` and `load` do it by themselves."""
    new, old = _siblings(Path(folder))
    if old.exists() and not Path(folder).exists():
        os.rename(new if new.exists() else old, folder)


def _siblings(folder):
    return folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")


def _write(folder, model, tokenizer, extra):
    _write_json(folder / "config.json", _config_to_json(model.config, tokenizer))
    safetensors.write(folder / WEIGHTS, {_published(name): _turned(name, array, model.config, _interleaved_to_halves)
                                         for name, array in model.params.items()})
    if tokenizer is not None:
        tokenizer.save(folder, TEMPLATE)
    for name, value in extra.items():
        if name.endswith(".safetensors"):
            safetensors.write(folder / name, value)
        else:
            _write_json(folder / name, value)
    names = sorted(path.name for path in folder.iterdir())
    (folder / SUMS).write_text("".join(f"{_sha256(folder / name)}  {name}\n" for name in names), encoding="utf-8", newline="\n")


def _bring_along(old, new, drop):
    """Copy what is not part of the old checkpoint itself."""
    itself = {SUMS, INDEX, *drop, *_sums(old)} | {shard.name for shard in old.glob("model*.safetensors")}
    for path in old.iterdir():
        if path.name not in itself and not (new / path.name).exists():
            copy = shutil.copytree if path.is_dir() else shutil.copy2
            copy(path, new / path.name)


def _flush(path):
    """Wait until a file, or the list of names in a folder, is on the disk (Windows cannot flush folders)."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")


def _sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ---- loading -------------------------------------------------------------------------------------

def load(folder):
    """Folder -> (model, tokenizer); the tokenizer is None where the folder has none. Raises CheckpointError."""
    folder = Path(folder)
    recover(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder} not found" if not folder.exists() else f"{folder} is not a folder")
    if not (folder / "config.json").exists():
        hint = "; an unfinished run is in its resume/: continue it with RESUME=1" if (folder / "resume").exists() else ""
        raise CheckpointError(f"{folder} holds no checkpoint: it has no config.json{hint}")
    _check_sums(folder)
    config = _config_from_json(folder / "config.json")
    found = _read_weights(folder)
    # Compared by name before any memory is taken: a damaged config may ask for a billion layers.
    if config.layers > len(found):
        raise CheckpointError(f"{folder / 'config.json'} speaks of {config.layers} layers, the weights hold {len(found)} tensors")
    wanted = {_published(name): (name, shape) for name, shape in config.shapes().items()}
    for published, (_, shape) in wanted.items():
        if published not in found:
            raise CheckpointError(f"{folder}: the weights lack {published}")
        if found[published].shape != shape:
            raise CheckpointError(f"{folder}: {published} has shape {found[published].shape}, config.json means {shape}")
    for published in found.keys() - wanted.keys():
        copy = published == TOP["head"] and config.tied and np.array_equal(found[published], found[TOP["embedding"]])
        if not copy and not published.endswith("rotary_emb.inv_freq"):             # both can be derived
            raise CheckpointError(f"{folder}: the weights hold {published}, which a plain Llama does not have")
    params = Parameters(config)
    for published, (name, _) in wanted.items():
        params[name][:] = _turned(name, found[published], config, _halves_to_interleaved)
    try:
        tokenizer = Tokenizer.load(folder) if (folder / "tokenizer.json").exists() else None
    except TokenizerError as error:
        raise CheckpointError(str(error)) from None
    if tokenizer is not None and len(tokenizer) > config.vocab:
        raise CheckpointError(f"{folder}: the tokenizer has {len(tokenizer)} tokens, the model only {config.vocab}")
    return Transformer(config, params), tokenizer


def digest(folder):
    """What identifies the weights of a checkpoint: the SHA-256 of its weight file, or of its index."""
    folder = Path(folder)
    for name in (WEIGHTS, INDEX):
        if (folder / name).exists():
            return _sha256(folder / name)
    raise CheckpointError(f"{folder} holds no checkpoint: it has no {WEIGHTS}")


def read_tensors(path):
    """An extra tensor file of a checkpoint -> {name: array}."""
    try:
        return safetensors.read(path)
    except safetensors.TensorError as error:
        raise CheckpointError(str(error)) from None


def _sums(folder):
    """The SHA256SUMS of a folder as {name: sum}; {} where there is none."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
        return {name: value for value, name in (line.split("  ", 1) for line in lines)}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        raise CheckpointError(f"{folder / SUMS} is damaged: restore the folder from a copy") from None


def _check_sums(folder):
    for name, value in _sums(folder).items():
        path = folder / name
        if not path.is_file() or _sha256(path) != value:
            raise CheckpointError(f"{path} is {'altered or truncated' if path.exists() else 'missing'}: it is not what {SUMS} "
                                  f"says. Restore it from a copy, or delete {SUMS} to accept a change of your own")


def _read_weights(folder):
    if (folder / WEIGHTS).exists():
        return read_tensors(folder / WEIGHTS)
    if not (folder / INDEX).exists():
        hint = ": convert pytorch_model.bin to safetensors" if list(folder.glob("pytorch_model*.bin")) else ""
        raise CheckpointError(f"{folder} has no {WEIGHTS}{hint}")
    place = _read_json(folder / INDEX).get("weight_map")
    if not isinstance(place, dict) or not all(isinstance(name, str) and Path(name).name == name for name in place.values()):
        raise CheckpointError(f"{folder / INDEX} is damaged: weight_map does not name files of this folder")
    found = {}
    for shard in sorted(set(place.values())):
        found |= read_tensors(folder / shard)
    return found


def _read_json(path):
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is damaged: it is not a JSON object")
    return value


# ---- names and conventions -----------------------------------------------------------------------

def _published(name):
    if name in TOP:
        return TOP[name]
    _, layer, inside = name.split(".", 2)
    return f"model.layers.{layer}.{INSIDE[inside]}.weight"


def _turned(name, w, config, order):
    """Rows of wq and wk, reordered within each head; all else as it is."""
    if not name.endswith(("attention.wq", "attention.wk")):
        return w
    return w.reshape(-1, config.head_dim, w.shape[1])[:, order(config.head_dim)].reshape(w.shape)


# Rotary positions turn pairs of channels. Ours are neighbours, (2j, 2j + 1), the parts of a complex
# number; published Llama weights pair (j, j + D/2). Which channel is which is decided by the rows of
# wq and wk, so reordering them makes one the other, and no score changes.

def _interleaved_to_halves(D):
    return np.concatenate([np.arange(0, D, 2), np.arange(1, D, 2)])


def _halves_to_interleaved(D):
    return np.arange(D).reshape(2, -1).T.ravel()


def _config_to_json(config, tokenizer):
    score = config.head == "score"
    return {"architectures": ["LlamaForSequenceClassification" if score else "LlamaForCausalLM"], "model_type": "llama",
            "vocab_size": config.vocab, "max_position_embeddings": config.context, "hidden_size": config.width,
            "num_hidden_layers": config.layers, "num_attention_heads": config.heads, "num_key_value_heads": config.kv_heads,
            "head_dim": config.head_dim, "intermediate_size": config.hidden, "hidden_act": "silu", "rms_norm_eps": config.eps,
            "rope_theta": config.theta, "rope_parameters": {"rope_type": "default", "rope_theta": config.theta},
            "tie_word_embeddings": config.tied and not score, "attention_bias": False, "mlp_bias": False, "dtype": "float32",
            "bos_token_id": tokenizer and tokenizer.special["<|begin|>"],
            "eos_token_id": tokenizer and tokenizer.special["<|end|>"],
            **({"num_labels": 1, "pad_token_id": tokenizer and tokenizer.special["<|end|>"]} if score else {}),
            # Not a Llama for those who read on: attention goes both ways, and the loss was another.
            **({} if config.causal else {"is_causal": False, "objective": "masked"})}


def _config_from_json(path):
    found = _read_json(path)
    number = lambda key, default=None: _number(path, found, key, default)
    if found.get("model_type") != "llama":
        raise CheckpointError(f"{path}: model_type {found.get('model_type')!r} is not a Llama; only that family is read here")
    if found.get("quantization_config"):
        raise CheckpointError(f"{path}: the weights are quantised (quantization_config); use the unquantised ones")
    for key, only in (("hidden_act", "silu"), ("attention_bias", False), ("mlp_bias", False)):
        if found.get(key, only) != only:
            raise CheckpointError(f"{path}: {key} {found[key]!r} is not supported, only {only!r}")
    rope = {}
    for key in ("rope_parameters", "rope_scaling"):
        rope |= found.get(key) or {} if isinstance(found.get(key) or {}, dict) else {"rope_type": found[key]}
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default" or number("partial_rotary_factor", 1) != 1 or rope.get("partial_rotary_factor", 1) != 1:
        raise CheckpointError(f"{path}: rotary positions of type {kind!r} with these settings are not supported, only plain ones: {rope}")
    theta = _number(path, rope, "rope_theta", number("rope_theta", 10000.0))
    score = found.get("architectures") == ["LlamaForSequenceClassification"]
    labels = len(found["id2label"]) if isinstance(found.get("id2label"), dict) else number("num_labels", 1 if "num_labels" in found else 2)
    if score and labels != 1:
        raise CheckpointError(f"{path}: a score head with {labels} labels; only 1 is supported")
    whole = lambda key, default=None: int(number(key, default))
    try:
        return Config(vocab=whole("vocab_size"), context=whole("max_position_embeddings", 2048), layers=whole("num_hidden_layers"),
                      width=whole("hidden_size"), heads=whole("num_attention_heads"),
                      kv_heads=whole("num_key_value_heads", 0), head_dim=whole("head_dim", 0), hidden=whole("intermediate_size"),
                      theta=float(theta), eps=float(number("rms_norm_eps", 1e-6)), tied=score or found.get("tie_word_embeddings") is True,
                      causal=found.get("is_causal", True) is not False, head="score" if score else "tokens")
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from None


def _number(path, where, key, default):
    value = where.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 2**40 or value != value:
        raise CheckpointError(f"{path}: {key} is {value!r}, which is not a usable number")
    return value
