"""The safetensors format: named arrays in one file. Unlike a pickle, it cannot run code when loaded.

    8 bytes   length of the header, little-endian
    header    JSON: {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}
    data      the arrays one after the other, row-major, little-endian

https://github.com/huggingface/safetensors, README, "Format".
"""

import json
import os

import numpy as np

from tinyllm.checkpoint.files import parse_object, replacing
from tinyllm.checkpoint.stored import PLAIN, TYPES, Stored
from tinyllm.errors import TinyllmError

NAMES = {TYPES[name]: name for name in PLAIN if name != "BF16"}
HEADER_LIMIT = 100_000_000  # the format's own limit: a damaged length must not exhaust memory


def write(path, tensors, metadata=None, dtype=None):
    """Write {name: array}, with {key: text} as metadata, atomically; the same input gives the same bytes.

    dtype: the type to store arrays in, if not their own. Raises TinyllmError if the file cannot be written.
    """
    header, start = {"__metadata__": {"format": "pt"} | (metadata or {})}, 0  # transformers needs the format
    for name, array in tensors.items():
        stored = np.dtype(dtype or array.dtype)
        stop = start + array.size * stored.itemsize
        header[name] = {"dtype": NAMES[stored], "shape": array.shape, "data_offsets": [start, stop]}
        start = stop
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)  # the data begins at a multiple of 8
    with replacing(path) as beside, open(beside, "wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for array in tensors.values():
            file.write(np.ascontiguousarray(array, dtype).data)


def read(path):
    """File -> ({name: array}, {key: text}). Raises TinyllmError if the file is damaged."""
    tensors, metadata = scan(path)
    return {name: tensor.read() for name, tensor in tensors.items()}, metadata


def scan(path):
    """File -> ({name: Stored}, {key: text}), from the header only. Raises TinyllmError if it is damaged."""
    with open(path, "rb") as file:
        length = os.path.getsize(path)
        size = int.from_bytes(file.read(8), "little")
        if size > min(HEADER_LIMIT, length - 8):
            raise TinyllmError(f"{path} is truncated or not a safetensors file: it ends inside its header")
        head = file.read(size)
    tensors, start = {}, 0
    try:
        header = parse_object(head)
        metadata = dict(header.pop("__metadata__", {}))
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            dtype, shape = entry["dtype"], tuple(entry["shape"])
            if dtype not in PLAIN:
                raise TinyllmError(f"{path}: convert tensor {name} from {dtype} to F32, F16 or BF16")
            tensor = Stored(path, dtype, shape, 8 + size + start)
            stop = start + tensor.size(name)
            if entry["data_offsets"] != [start, stop]:
                raise TinyllmError(f"{path} is damaged: the size of tensor {name} does not match its shape")
            tensors[name] = tensor
            start = stop
    except (ValueError, TypeError, KeyError) as error:
        raise TinyllmError(f"{path} is not a safetensors file: {error!r} in its header") from None
    if 8 + size + start != length:
        what = "is truncated" if 8 + size + start > length else "has extra bytes after its last tensor"
        raise TinyllmError(f"{path} is damaged: it {what}")
    return tensors, metadata
