"""A model on disk: a Hugging Face Llama folder. Skip this package at first: it only deals with file formats.

    config.json          LlamaConfig's keys
    model.safetensors    the published names and shapes, F32 or F16
    tokenizer.json, tokenizer_config.json
    stage.json           only in the folder of a stage: the stage's settings, the SHA-256 of the weights, ...

Hugging Face's transformers library can open our folders. `load` opens folders and GGUF files of plain Llama
models. Their tokenizers must use byte-level BPE; a folder without a tokenizer opens, too. If a model needs
a feature that our layers lack, an error names the feature.
"""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from tinyllm.checkpoint import gguf, huggingface, safetensors, vocabulary
from tinyllm.checkpoint.files import read_json, reading, sha256, write_json
from tinyllm.data.conversation import TEMPLATE
from tinyllm.errors import TinyllmError
from tinyllm.transformer import Parameters, Transformer

WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
HEADS = 64  # tensors are read in pieces, each the size of this many heads of wq


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
    for name, w in model.params.items():  # only wq and wk are copied; the others are views
        key = huggingface.stored_name(name, huggingface.PUBLISHED)
        published[key] = huggingface.to_published(name, w, model.config)
    safetensors.write(folder / WEIGHTS, published, dtype=dtype)


def load(folder):
    """Folder or GGUF file -> (model, tokenizer); the tokenizer may be None. Raises TinyllmError."""
    folder = Path(folder)
    with reading(folder, "a checkpoint"):
        config, tensors, names, tokenizer = (_open_gguf if folder.is_file() else _open)(folder)
        params = _read_parameters(folder, config, tensors, names)
        if tokenizer is not None:
            if len(tokenizer) > config.vocab:
                raise ValueError(f"{len(tokenizer)} tokens in its tokenizer, but {config.vocab} in the model")
            tokenizer.bytes_of += [b""] * (config.vocab - len(tokenizer))  # some have unused embeddings
    return Transformer(config, params), tokenizer


def _open(folder):
    """-> config, stored tensors, the table of their names (see stored_name), tokenizer"""
    notes = read_json(folder / "stage.json") if (folder / "stage.json").exists() else {"finished": True}
    if not notes.get("finished"):
        raise TinyllmError(f"{folder} holds an unfinished stage: run its command again with RESUME=1")
    if not (folder / "config.json").exists():
        raise TinyllmError(f"{folder} not found, or not a checkpoint: it has no config.json")
    if "sha256" in notes and notes["sha256"] != digest(folder):
        raise TinyllmError(
            f"{folder / WEIGHTS} was altered or truncated: its hash is not the one in stage.json. Restore it "
            'from a copy, or delete "sha256" from stage.json to accept a change of your own'
        )
    config = huggingface.config_from_json(read_json(folder / "config.json"))
    path, tensors = _weight_file(folder), {}
    files = {WEIGHTS} if path.name == WEIGHTS else set(read_json(path)["weight_map"].values())
    missing = files - {each.name for each in folder.iterdir()}
    if missing:
        raise ValueError(f"weight files are missing: {missing}")
    for name in sorted(files):
        tensors |= safetensors.scan(folder / name)[0]
    tokenizer = vocabulary.load(folder) if (folder / TOKENIZER).exists() else None
    return config, tensors, huggingface.PUBLISHED, tokenizer


def _open_gguf(path):
    settings, tensors = gguf.scan(path)
    config = huggingface.config_from_gguf(settings, tensors)
    return config, tensors, huggingface.GGUF, vocabulary.from_gguf(path, settings)


def load_language_model(folder):
    """Like `load`, but only for models that can write text: causal models with a tokenizer and a head that
    predicts tokens."""
    model, tokenizer = load(folder)
    if tokenizer is None:
        raise TinyllmError(f"{folder} has no {TOKENIZER}: without it, the model cannot read or write text")
    if model.config.head != "tokens" or not model.config.causal:
        kind = "a reward model" if model.config.head != "tokens" else "a masked model"
        raise TinyllmError(f"{folder} holds {kind}, which cannot write text: choose another stage")
    return model, tokenizer


def _read_parameters(folder, config, tensors, names):
    """The stored tensors as our Parameters. names: PUBLISHED or GGUF (see stored_name).

    Raises ValueError if a tensor is missing, has the wrong shape, or is left over and cannot be derived from
    the others. Tensors are read a piece at a time: a second copy of the model may not fit into memory.
    """
    if config.layers > len(tensors):  # a damaged config may claim a billion layers
        raise ValueError(f"{config.layers} layers according to the settings, but {len(tensors)} tensors")
    for name, shape in config.shapes().items():  # checked before memory is allocated
        key = huggingface.stored_name(name, names)
        if key not in tensors:
            raise ValueError(f"the weights have no tensor {key}")
        if tensors[key].shape != shape:
            raise ValueError(f"{key} has shape {tensors[key].shape}, but the settings say {shape}")
    params = Parameters(config)
    piece = HEADS * config.head_dim * config.width
    for name, w in tqdm(params.items(), desc=f" reading {folder}", unit=" tensors", leave=False, delay=1):
        tensor, flat = tensors.pop(huggingface.stored_name(name, names)), w.reshape(-1)
        for first in range(0, w.size, piece):
            part = tensor.read(first, piece)
            flat[first : first + piece] = huggingface.from_stored(name, part, config, names)
    for key, tensor in tensors.items():  # a leftover tensor is harmless if it can be derived
        is_head = config.tied and key == huggingface.stored_name("head", names)
        is_copy = is_head and np.array_equal(tensor.read(), params["embedding"].reshape(-1))
        if not is_copy and not key.endswith("rotary_emb.inv_freq"):
            raise ValueError(f"the weights hold {key}, which a plain Llama does not have")
    return params


def digest(folder):
    """The identity of a checkpoint's weights: the SHA-256 of the weight file, or of the index file."""
    return sha256(_weight_file(Path(folder)))


def _weight_file(folder):
    """The weight file, or the index of several weight files."""
    weights, index = folder / WEIGHTS, folder / f"{WEIGHTS}.index.json"
    return index if index.exists() and not weights.exists() else weights
