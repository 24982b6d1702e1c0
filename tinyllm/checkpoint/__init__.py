"""A model on disk: a Hugging Face Llama folder, written whole or not at all.

    config.json          LlamaConfig's keys
    model.safetensors    the published names and shapes, F32
    tokenizer.json, tokenizer_config.json
    SHA256SUMS           of the files above, as `sha256sum -c` reads it: what was altered is refused

`transformers`, vLLM and llama.cpp open our folders, and `load` opens any Llama-family folder: one file
or several with an index, F32, F16 or BF16. What it cannot represent is refused by name.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np

from tinyllm import llama
from tinyllm import tensors as safetensors
from tinyllm.conversation import TEMPLATE
from tinyllm.tokenizer import Tokenizer, TokenizerError
from tinyllm.transformer import Parameters, Transformer

SUMS = "SHA256SUMS"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZER = "tokenizer.json"


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
    recover(folder)
    place, new, old = _places(folder)
    try:
        for leftover in (new, old):
            shutil.rmtree(leftover, ignore_errors=True)
        new.mkdir(parents=True)
        _write(new, model, tokenizer, extra or {})
        if place.exists():
            _bring_along(place, new, drop)
        for path in [*new.rglob("*"), new]:
            _flush(path)
        if place.exists():
            os.rename(place, old)
        os.rename(new, place)              # between these two renames `recover` takes the new one
        _flush(place.parent)
    except BaseException as error:
        _undo(place, new, old)
        if not isinstance(error, OSError):
            raise
        raise CheckpointError(f"{folder} could not be saved: {error.strerror or error}. What was there "
                              "before is untouched; make room, or choose another place") from None
    shutil.rmtree(old, ignore_errors=True)


def _undo(place, new, old):
    """The old one back first, then away with the new one: `recover` must never find a part of it."""
    with contextlib.suppress(OSError):
        if old.exists():
            if place.exists():             # only the flush of the renames failed
                os.rename(place, new)
            os.rename(old, place)
        shutil.rmtree(new, ignore_errors=True)


def recover(folder):
    """Finish a swap that a crash cut in two; `save` and `load` do it themselves. Raises CheckpointError."""
    try:
        place, new, old = _places(folder)
        if old.exists() and new.exists() and not place.exists():
            os.rename(new, place)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be reached or put in order: {error}") from None


def _places(folder):
    """The folder itself, where a symbolic link to it points, and the two temporary names beside it."""
    place = Path(folder).resolve()
    return place, place.parent / f".{place.name}.new", place.parent / f".{place.name}.old"


def _write(folder, model, tokenizer, extra):
    _write_json(folder / "config.json", llama.config_to_json(model.config, tokenizer and tokenizer.special))
    published = {llama.published_name(name): llama.to_published(name, w, model.config)
                 for name, w in model.params.items()}
    safetensors.write(folder / WEIGHTS, {name: w.astype(np.float32) for name, w in published.items()})
    if tokenizer is not None:
        tokenizer.save(folder, TEMPLATE)
    for name, value in extra.items():
        if name.endswith(".safetensors"):
            safetensors.write(folder / name, value)
        else:
            _write_json(folder / name, value)
    names = sorted((path.name for path in folder.iterdir()), key=lambda name: (name == WEIGHTS, name))
    sums = "".join(f"{_sha256(folder / name)}  {name}\n" for name in names)
    (folder / SUMS).write_text(sums, encoding="utf-8", newline="\n")


def _bring_along(old, new, drop):
    """Copy what is not part of the old checkpoint itself."""
    itself = {SUMS, INDEX, TOKENIZER, "tokenizer_config.json", *drop}
    with contextlib.suppress(CheckpointError):                     # damaged: the new one is no less welcome
        itself |= _sums(old).keys()
    for path in old.iterdir():
        if path.name in itself or path.suffix == ".safetensors" or (new / path.name).exists():
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, new / path.name, symlinks=True)
        else:
            shutil.copy2(path, new / path.name, follow_symlinks=False)


def _flush(path):
    """Wait until a file, or the list of names in a folder, is on the disk (Windows cannot flush folders)."""
    if path.is_symlink() or (path.is_dir() and os.name == "nt"):
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8", newline="\n")


def _sha256(path):
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            found.update(block)
    return found.hexdigest()


# ---- loading -------------------------------------------------------------------------------------

def load(folder):
    """Folder -> (model, tokenizer); the tokenizer is None where there is none. Raises CheckpointError."""
    folder = Path(folder)
    recover(folder)
    try:
        return _load(folder)
    except OSError as error:
        raise CheckpointError(f"{error.filename or folder} cannot be read: {error.strerror}") from None


def _load(folder):
    if not folder.is_dir():
        raise CheckpointError(f"{folder} not found" if not folder.exists() else f"{folder} is not a folder")
    if not (folder / "config.json").exists():
        unfinished = (folder / "resume").exists()
        raise CheckpointError(f"{folder} holds no checkpoint: it has no config.json" + (
            "; an unfinished run is in its resume/: continue it with RESUME=1" if unfinished else ""))
    _check_sums(folder)
    try:
        config = llama.config_from_json(_read_json(folder / "config.json"))
    except llama.Unsupported as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error}") from None
    params = _fill(folder, config, _read_weights(folder))
    try:
        tokenizer = Tokenizer.load(folder) if (folder / TOKENIZER).exists() else None
    except TokenizerError as error:
        raise CheckpointError(f"{error}; to load the model alone, move {TOKENIZER} away") from None
    if tokenizer is not None and len(tokenizer) > config.vocab:
        raise CheckpointError(f"{folder}: the tokenizer has {len(tokenizer)} tokens, the model "
                              f"only {config.vocab}")
    return Transformer(config, params), tokenizer


def _fill(folder, config, found):
    """Published tensors -> our Parameters. Nothing may be missing, of another shape, or left over."""
    if config.layers > len(found):         # before any memory is taken: a damaged config may say a billion
        raise CheckpointError(f"{folder}: config.json means {config.layers} layers, but there are only "
                              f"{len(found)} tensors")
    wanted = {llama.published_name(name): (name, shape) for name, shape in config.shapes().items()}
    for published, (_, shape) in wanted.items():
        if published not in found:
            raise CheckpointError(f"{folder}: the weights lack {published}")
        if found[published].shape != shape:
            raise CheckpointError(f"{folder}: {published} has shape {found[published].shape}, "
                                  f"config.json means {shape}")
        if found[published].dtype != np.float32:
            raise CheckpointError(f"{folder}: {published} holds {found[published].dtype} numbers; "
                                  "convert the weights to F32, F16 or BF16")
    head, table = (found.get(llama.TOP[name]) for name in ("head", "embedding"))
    for published in found.keys() - wanted.keys():
        copy = published == llama.TOP["head"] and config.tied and np.array_equal(head, table)
        if not copy and not published.endswith("rotary_emb.inv_freq"):             # these two can be derived
            raise CheckpointError(f"{folder}: the weights hold {published}, which a plain Llama does not")
    params = Parameters(config)
    for published, (name, _) in wanted.items():
        params[name][:] = llama.from_published(name, found[published], config)
    return params


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
        *lines, end = (folder / SUMS).read_bytes().decode("utf-8").split("\n")
        sums = {name: value for value, name in (line.split("  ", 1) for line in lines)}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError):
        end, sums = "", {}
    if end or WEIGHTS not in sums:         # the weights come last, so a file cut anywhere lacks them
        raise CheckpointError(f"{folder / SUMS} is damaged: restore it, or delete it to go without") from None
    return sums


def _check_sums(folder):
    sums = _sums(folder)
    for name in ("config.json", TOKENIZER):
        if sums and (folder / name).exists():
            sums.setdefault(name, "not listed")
    for name, value in sums.items():
        path = folder / name
        if not path.is_file() or _sha256(path) != value:
            what = "altered or truncated" if path.exists() else "missing"
            raise CheckpointError(f"{path} is {what}: it is not what {SUMS} says. Restore it from a copy, or "
                                  f"delete {SUMS} to accept a change of your own")


def _read_weights(folder):
    if (folder / WEIGHTS).exists():
        return read_tensors(folder / WEIGHTS)
    if not (folder / INDEX).exists():
        hint = ": convert pytorch_model.bin to safetensors" if list(folder.glob("pytorch_model*.bin")) else ""
        raise CheckpointError(f"{folder} has no {WEIGHTS}{hint}")
    place = _read_json(folder / INDEX).get("weight_map")
    inside = lambda name: isinstance(name, str) and re.fullmatch(r"[\w-][\w.-]*", name, re.ASCII)
    if not isinstance(place, dict) or not all(map(inside, place.values())):
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
