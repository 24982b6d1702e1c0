"""The safetensors format: named arrays in one file. Unlike a pickle, such a file cannot run code.

    8 bytes   length of the header, little-endian
    header    JSON: {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}
    data      the arrays one after the other, row-major, little-endian

https://github.com/huggingface/safetensors, README, "Format".
"""

import json
import os

import numpy as np

from tinyllm.checkpoint.files import parse_object, reading, replacing
from tinyllm.checkpoint.stored import Stored


def write(path, tensors, metadata=None, dtype=None):
    """Write {name: array}, with {key: text} as metadata, atomically; the same input gives the same bytes.

    dtype: the type in which to store all arrays (default: their own). Raises TinyllmError if the file cannot
    be written.
    """
    header, start = {"__metadata__": {"format": "pt"} | (metadata or {})}, 0  # transformers requires "format"
    for name, array in tensors.items():
        stored = np.dtype(dtype or array.dtype)
        stop = start + array.size * stored.itemsize
        kind = f"{stored.kind.upper()}{8 * stored.itemsize}"  # such as F32
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": [start, stop]}
        start = stop
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)  # the data begins at a multiple of 8
    with replacing(path) as beside, open(beside, "wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for array in tensors.values():
            file.write(np.ascontiguousarray(array, dtype).data)


def read(path):
    """File -> ({name: array}, {key: text}). Raises TinyllmError if the file is missing or damaged."""
    tensors, metadata = scan(path)
    return {name: tensor.read().reshape(tensor.shape) for name, tensor in tensors.items()}, metadata


def scan(path):
    """File -> ({name: Stored}, {key: text}), from the header only. Raises TinyllmError as `read` does."""
    with reading(path, "a safetensors file"), open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if 8 + size > os.path.getsize(path):
            raise ValueError("it ends inside its header, so it is truncated or not in this format")
        header, tensors, end = parse_object(file.read(size)), {}, 8 + size
        metadata = dict(header.pop("__metadata__", {}))
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            tensor = Stored(path, name, entry["dtype"], tuple(entry["shape"]), end)
            if [8 + size + offset for offset in entry["data_offsets"]] != [end, tensor.end]:
                raise ValueError(f"the size of tensor {name} does not match its shape")
            tensors[name], end = tensor, tensor.end
    return tensors, metadata
