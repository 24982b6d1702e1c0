"""A model on disk: a Hugging Face Llama folder. Skip this on first reading: it is about file formats only.

    config.json          LlamaConfig's keys
    model.safetensors    the published names and shapes, F32
    tokenizer.json, tokenizer_config.json
    stage.json           in folders written by a stage: its settings, the SHA-256 of the weights, ...

transformers opens our folders. `load` opens plain Llama folders: one file or several with an index, F32, F16
or BF16, and without a tokenizer or with one of ours. What our layers cannot compute is rejected by name.
"""

import re
from pathlib import Path

import numpy as np

from tinyllm.checkpoint import huggingface, safetensors
from tinyllm.checkpoint.files import read_json, sha256, write_json
from tinyllm.data.conversation import TEMPLATE
from tinyllm.errors import TinyllmError
from tinyllm.tokenizer import Tokenizer
from tinyllm.transformer import Parameters, Transformer

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZER = "tokenizer.json"


def save(folder, model, tokenizer=None):
    """Write a checkpoint folder, every file whole or not at all, the weights last.

    Other files in the folder stay. Raises TinyllmError if a file cannot be written.
    """
    folder, special = Path(folder), tokenizer.special if tokenizer else {}
    write_json(folder / "config.json", huggingface.config_to_json(model.config, special))
    if tokenizer is not None:
        contents, config = tokenizer.to_json(TEMPLATE)
        write_json(folder / TOKENIZER, contents)
        write_json(folder / "tokenizer_config.json", config)
    published = {
        huggingface.published_name(name): huggingface.to_published(name, w, model.config).astype(np.float32)
        for name, w in model.params.items()
    }
    safetensors.write(folder / WEIGHTS, published)


def load(folder):
    """Folder -> (model, tokenizer); the tokenizer is None if there is none. Raises TinyllmError."""
    folder = Path(folder)
    try:
        return _load(folder)
    except OSError as error:
        raise TinyllmError(f"{error.filename or folder} cannot be read: {error.strerror}") from None


def load_language_model(folder):
    """Like `load`, for a model that has to write text: with a tokenizer, causal, and with a token head."""
    model, tokenizer = load(folder)
    if tokenizer is None:
        raise TinyllmError(f"{folder} has no {TOKENIZER}: it cannot read or write text")
    if model.config.head != "tokens" or not model.config.causal:
        kind = "a reward model" if model.config.head != "tokens" else "a masked model"
        raise TinyllmError(f"{folder} holds {kind}, which cannot write text: choose another stage")
    return model, tokenizer


def _load(folder):
    if not folder.is_dir():
        raise TinyllmError(f"{folder} not found" if not folder.exists() else f"{folder} is not a folder")
    notes = read_json(folder / "stage.json") if (folder / "stage.json").exists() else {"finished": True}
    if not notes.get("finished"):
        raise TinyllmError(f"{folder} holds an unfinished run: continue it with RESUME=1")
    if not (folder / "config.json").exists():
        raise TinyllmError(f"{folder} is not a checkpoint: it has no config.json")
    if "sha256" in notes and notes["sha256"] != digest(folder):
        raise TinyllmError(
            f"{folder / WEIGHTS} was altered or truncated: its hash is not the one in stage.json. Restore it "
            'from a copy, or delete "sha256" from stage.json to accept a change of your own'
        )
    try:
        config = huggingface.config_from_json(read_json(folder / "config.json"))
    except ValueError as error:
        raise TinyllmError(f"{folder / 'config.json'}: {error}") from None
    params = _fill(folder, config, _read_weights(folder))
    tokenizer = Tokenizer.load(folder) if (folder / TOKENIZER).exists() else None
    if tokenizer is not None and len(tokenizer) > config.vocab:
        raise TinyllmError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, the model only {config.vocab}"
        )
    return Transformer(config, params), tokenizer


def _fill(folder, config, tensors):
    """Published tensors -> our Parameters. Nothing may be missing, of another shape, or left over."""
    if config.layers > len(tensors):  # checked before allocating: a damaged config may claim a billion
        raise TinyllmError(
            f"{folder}: config.json says {config.layers} layers, but there are only {len(tensors)} tensors"
        )
    expected = {huggingface.published_name(name): name for name in config.shapes()}
    for published, name in expected.items():
        if published not in tensors:
            raise TinyllmError(f"{folder}: the weights have no tensor {published}")
        shape, dtype = tensors[published].shape, tensors[published].dtype
        if shape != config.shapes()[name]:
            expected_shape = config.shapes()[name]
            raise TinyllmError(f"{folder}: {published} has shape {shape}, config.json says {expected_shape}")
        if dtype != np.float32:
            raise TinyllmError(
                f"{folder}: {published} holds {dtype} numbers; convert the weights to F32, F16 or BF16"
            )
    head, table = (tensors.get(huggingface.TOP[name]) for name in ("head", "embedding"))
    for published in tensors.keys() - expected.keys():
        is_copy = published == huggingface.TOP["head"] and config.tied and np.array_equal(head, table)
        if not is_copy and not published.endswith("rotary_emb.inv_freq"):  # both can be derived
            raise TinyllmError(f"{folder}: the weights hold {published}, which a plain Llama does not have")
    params = Parameters(config)
    for published, name in expected.items():
        params[name][:] = huggingface.from_published(name, tensors[published], config)
    return params


def digest(folder):
    """What identifies the weights of a checkpoint: the SHA-256 of its weight file, or of its index."""
    for name in (WEIGHTS, INDEX):
        if (Path(folder) / name).exists():
            return sha256(Path(folder) / name)
    raise TinyllmError(f"{folder} is not a checkpoint: it has no {WEIGHTS}")


def _read_weights(folder):
    if (folder / WEIGHTS).exists():
        return safetensors.read(folder / WEIGHTS)[0]
    if not (folder / INDEX).exists():
        raise TinyllmError(f"{folder} is not a checkpoint: it has no {WEIGHTS}")
    shard_of = read_json(folder / INDEX).get("weight_map")
    names = list(shard_of.values()) if isinstance(shard_of, dict) else [None]
    if not all(isinstance(name, str) and re.fullmatch(r"[\w-][\w.-]*", name, re.ASCII) for name in names):
        raise TinyllmError(f"{folder / INDEX} is damaged: weight_map does not name files of this folder")
    tensors = {}
    for shard in sorted(set(names)):
        tensors |= safetensors.read(folder / shard)[0]
    return tensors
