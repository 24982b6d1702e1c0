"""A model on disk: a Hugging Face Llama folder. Skip this on first reading: it only deals with file formats.

    config.json          LlamaConfig's keys
    model.safetensors    the published names and shapes, F32 or F16
    tokenizer.json, tokenizer_config.json
    stage.json           in folders written by a stage: its settings, the SHA-256 of the weights, ...

transformers opens our folders. `load` opens plain Llama folders and GGUF files with byte-level BPE; a
folder may have no tokenizer. Features that our layers cannot compute are rejected by name.
"""

import re
from pathlib import Path

import numpy as np
from tqdm import tqdm

from tinyllm.checkpoint import gguf, huggingface, safetensors, vocabulary
from tinyllm.checkpoint.files import read_json, sha256, write_json
from tinyllm.checkpoint.stored import FLOATS
from tinyllm.data.conversation import TEMPLATE
from tinyllm.errors import TinyllmError
from tinyllm.transformer import Parameters, Transformer

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZER = "tokenizer.json"
PIECE = 2**20  # weights read at once


def save(folder, model, tokenizer=None, dtype=np.float32):
    """Write a checkpoint folder: each file atomically, the weights last, as float32 or float16.

    Other files in the folder are kept. Raises TinyllmError if a file cannot be written.
    """
    folder, special = Path(folder), tokenizer.special if tokenizer else {}
    write_json(folder / "config.json", huggingface.config_to_json(model.config, special))
    if tokenizer is not None:
        contents, config = tokenizer.to_json(TEMPLATE)
        write_json(folder / TOKENIZER, contents)
        write_json(folder / "tokenizer_config.json", config)
    published = {}
    for name, w in model.params.items():  # views, except wq and wk: no second model in memory
        published[huggingface.published_name(name)] = huggingface.to_published(name, w, model.config)
    safetensors.write(folder / WEIGHTS, published, dtype=dtype)


def load(folder):
    """Folder or GGUF file -> (model, tokenizer); the tokenizer may be None. Raises TinyllmError."""
    folder = Path(folder)
    try:
        config, tensors, *names, tokenizer = (_open_gguf if folder.is_file() else _open)(folder)
        params = _read_parameters(folder, config, tensors, *names)
    except OSError as error:
        raise TinyllmError(f"{error.filename or folder} cannot be read: {error.strerror}") from None
    if tokenizer is not None and len(tokenizer) > config.vocab:
        raise TinyllmError(f"{folder}: {len(tokenizer)} tokens in the tokenizer, {config.vocab} in the model")
    if tokenizer is not None:  # some models have a few more rows than tokens
        tokenizer.bytes_of += [b""] * (config.vocab - len(tokenizer))
    return Transformer(config, params), tokenizer


def _open(folder):
    """-> config, stored tensors, stored_name and convert (see _read_parameters), tokenizer"""
    notes = read_json(folder / "stage.json") if (folder / "stage.json").exists() else {"finished": True}
    if not notes.get("finished"):
        raise TinyllmError(f"{folder} holds an unfinished run: continue it with RESUME=1")
    if not (folder / "config.json").exists():
        what = "is not a checkpoint: it has no config.json" if folder.exists() else "not found"
        raise TinyllmError(f"{folder} {what}")
    if "sha256" in notes and notes["sha256"] != digest(folder):
        raise TinyllmError(
            f"{folder / WEIGHTS} was altered or truncated: its hash is not the one in stage.json. Restore it "
            'from a copy, or delete "sha256" from stage.json to accept a change of your own'
        )
    config = _config(folder / "config.json", huggingface.config_from_json, read_json(folder / "config.json"))
    tensors = _scan_weights(folder)
    tokenizer = vocabulary.load(folder) if (folder / TOKENIZER).exists() else None
    return config, tensors, huggingface.published_name, huggingface.from_published, tokenizer


def _open_gguf(path):
    settings, tensors = gguf.scan(path)
    config = _config(path, huggingface.config_from_gguf, settings, tensors)
    tokenizer = vocabulary.from_gguf(path, settings)
    return config, tensors, huggingface.gguf_name, lambda name, w, config: w, tokenizer


def _config(path, read, *contents):
    try:
        return read(*contents)
    except ValueError as error:
        raise TinyllmError(f"{path}: {error}") from None


def load_language_model(folder):
    """Like `load`, for a model that has to write text: with a tokenizer, causal, and with a token head."""
    model, tokenizer = load(folder)
    if tokenizer is None:
        raise TinyllmError(f"{folder} has no {TOKENIZER}: it cannot read or write text")
    if model.config.head != "tokens" or not model.config.causal:
        kind = "a reward model" if model.config.head != "tokens" else "a masked model"
        raise TinyllmError(f"{folder} holds {kind}, which cannot write text: choose another stage")
    return model, tokenizer


def _read_parameters(folder, config, tensors, stored_name, convert):
    """The stored tensors as our Parameters. No tensor may be missing, have the wrong shape or, unless
    it can be derived from the others, be left over.

    Tensors are read a piece at a time: a second copy may not fit into memory. stored_name maps our name to
    the stored one. convert(our name, array, config) puts rows (of wq and wk: whole heads) into our order of
    channels.
    """
    if config.layers > len(tensors):  # a damaged config may claim a billion layers
        raise TinyllmError(f"{folder}: {config.layers} layers in its settings, but {len(tensors)} tensors")
    for name, shape in config.shapes().items():  # before allocating
        key = stored_name(name)
        if key not in tensors:
            raise TinyllmError(f"{folder}: the weights have no tensor {key}")
        if tensors[key].shape != shape:
            raise TinyllmError(f"{folder}: {key} has shape {tensors[key].shape}, the settings say {shape}")
        if tensors[key].dtype not in FLOATS:
            raise TinyllmError(f"{folder}: convert {key} from {tensors[key].dtype} to F32, F16 or BF16")
    params = Parameters(config)
    for name, w in tqdm(params.items(), desc=f" reading {folder}", unit=" tensors", leave=False, delay=1):
        tensor = tensors.pop(stored_name(name))
        rows = config.head_dim * max(1, PIECE * len(w) // (w.size * config.head_dim))
        for first in range(0, len(w), rows):
            w[first : first + rows] = convert(name, tensor.read(first, first + rows), config)
    for name, tensor in tensors.items():  # left over: harmless if it can be derived from the others
        is_head = config.tied and name == stored_name("head")
        is_copy = is_head and np.array_equal(tensor.read(), params["embedding"])
        if not is_copy and not name.endswith("rotary_emb.inv_freq"):
            raise TinyllmError(f"{folder}: the weights hold {name}, which a plain Llama does not have")
    return params


def digest(folder):
    """The identity of a checkpoint's weights: the SHA-256 of the weight file, or of the index file."""
    return sha256(_weight_file(folder))


def _weight_file(folder):
    for name in (WEIGHTS, INDEX):
        if (Path(folder) / name).exists():
            return Path(folder) / name
    raise TinyllmError(f"{folder} is not a checkpoint: it has no {WEIGHTS}")


def _scan_weights(folder):
    path = _weight_file(folder)
    if path.name == WEIGHTS:
        return safetensors.scan(path)[0]
    shard_of = read_json(path).get("weight_map")
    shards = list(shard_of.values()) if isinstance(shard_of, dict) else [None]
    if not all(isinstance(name, str) and re.fullmatch(r"[\w-][\w.-]*", name, re.ASCII) for name in shards):
        raise TinyllmError(f"{path} is damaged: weight_map does not name files of this folder")
    tensors = {}
    for shard in sorted(set(shards)):
        tensors |= safetensors.scan(folder / shard)[0]
    return tensors
