"""The safetensors format: named arrays in one file. Unlike a pickle, it cannot run code when loaded.

    8 bytes   length of the header, little-endian
    header    JSON: {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}
    data      the arrays one after the other, row-major, little-endian

https://github.com/huggingface/safetensors, README, "Format".
"""

import json
import math
from pathlib import Path

import numpy as np

from tinyllm.checkpoint.files import replacing
from tinyllm.errors import TinyllmError

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "U8": "|u1"}
NAMES = {np.dtype(code): name for name, code in DTYPES.items() if name != "BF16"}
HEADER_LIMIT = 100_000_000  # the format's own limit: a damaged length must not exhaust the memory


def write(path, tensors, metadata=None):
    """Write {name: array}, with {key: text} as metadata, atomically; the same input gives the same bytes.

    Raises TinyllmError if the file cannot be written.
    """
    header, start = {"__metadata__": {"format": "pt"} | (metadata or {})}, 0  # transformers needs the format
    arrays = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    for name, array in arrays.items():
        stop = start + array.nbytes
        header[name] = {"dtype": NAMES[array.dtype], "shape": array.shape, "data_offsets": [start, stop]}
        start = stop
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)  # arrays begin at a multiple of 8
    with replacing(path) as beside, open(beside, "wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for array in arrays.values():
            file.write(array.astype(array.dtype.newbyteorder("<"), copy=False).data)


def read(path):
    """File -> ({name: array}, {key: text}). F16 and BF16 become float32, exactly. Raises TinyllmError."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise TinyllmError(f"{path} cannot be read: {error.strerror}") from None
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(HEADER_LIMIT, len(data) - 8):
        raise TinyllmError(f"{path} is truncated or not a safetensors file: it ends inside its header")
    try:
        header = json.loads(data[8 : 8 + size])
        metadata = header.pop("__metadata__", {})
        entries = sorted(
            (*entry["data_offsets"], name, entry["dtype"], tuple(entry["shape"]))
            for name, entry in header.items()
        )
        numbers = [n for begin, end, _, _, shape in entries for n in (begin, end, *shape)]
        valid = all(type(n) is int and n >= 0 for n in numbers) and isinstance(metadata, dict)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        valid = False
    if not valid:
        raise TinyllmError(f"{path} is damaged: its header is not that of a safetensors file")
    tensors, position = {}, 0
    for begin, end, name, dtype, shape in entries:
        if not isinstance(dtype, str) or dtype not in DTYPES:
            raise TinyllmError(
                f"{path}: type {dtype} of tensor {name} is not supported; convert it to F32, F16 or BF16"
            )
        if begin != position or end - begin != math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize:
            raise TinyllmError(f"{path} is damaged: the size of tensor {name} does not match its shape")
        if 8 + size + end > len(data):
            raise TinyllmError(f"{path} is truncated: it ends inside tensor {name}")
        try:
            tensors[name] = _array(data[8 + size + begin : 8 + size + end], dtype, shape)
        except (ValueError, OverflowError):  # more axes, or larger, than NumPy supports
            raise TinyllmError(f"{path} is damaged: tensor {name} has an impossible shape") from None
        position = end
    if 8 + size + position != len(data):
        raise TinyllmError(f"{path} is damaged: it has extra bytes after its last tensor")
    return tensors, metadata


def _array(data, dtype, shape):
    array = np.frombuffer(data, DTYPES[dtype])
    if dtype == "BF16":  # the upper half of a float32
        array = (array.astype(np.uint32) << 16).view(np.float32)
    elif dtype == "F16":
        array = array.astype(np.float32)
    return array.reshape(shape)
