"""The GGUF format of llama.cpp: one file with a model's settings, its vocabulary and its tensors.

    4 bytes   "GGUF"
    uint32    version, 2 or 3; uint64 number of tensors; uint64 number of settings
    settings  name, type, value
    tensors   name, number of dimensions, dimensions (the innermost first), type, offset
    data      the tensors, each at its offset from the next multiple of general.alignment

Little-endian throughout. A string is its length (uint64) and its bytes. Large models are published in this
form because its tensors may be quantised: 4 or 8 bits per weight, with a scale for every 32 of them.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; the blocks: ggml-quants.c in the same repository.
"""

import math
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinyllm.errors import TinyllmError

MAGIC, VERSIONS = b"GGUF", (2, 3)
NUMBERS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd"))  # codes of struct
STRING, ARRAY = 8, 9
TYPES = {0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K", 11: "Q3_K"}
TYPES |= {12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 30: "BF16"}
BLOCKS = {  # what can be read: type -> the layout of a block, and how many weights it holds
    "F32": ([("w", "<f4")], 1),
    "F16": ([("w", "<f2")], 1),
    "BF16": ([("w", "<u2")], 1),
    "Q8_0": ([("scale", "<f2"), ("q", "i1", 32)], 32),
    "Q4_0": ([("scale", "<f2"), ("q", "u1", 16)], 32),
    "Q4_1": ([("scale", "<f2"), ("least", "<f2"), ("q", "u1", 16)], 32),
}


class Stored(NamedTuple):
    """A tensor in the mapped file, not yet read."""

    dtype: str
    shape: tuple
    data: np.ndarray  # its bytes

    def read(self, first=0, last=None):
        """-> the array in float32, or its rows from `first` to before `last`.

        A quantised weight is scale * q, in Q4_0 scale * (q - 8), in Q4_1 scale * q + least.
        """
        block = self.data.reshape(self.shape[0], -1)[first:last].view(np.dtype(BLOCKS[self.dtype][0]))
        shape = (len(block), *self.shape[1:])
        if self.dtype in ("F32", "F16"):
            return block["w"].astype(np.float32).reshape(shape)
        if self.dtype == "BF16":  # the upper half of a float32
            return (block["w"].astype(np.uint32) << 16).view(np.float32).reshape(shape)
        q = block["q"]  # (rows, blocks, numbers of a block)
        if self.dtype != "Q8_0":  # the first 16 weights are the lower halves of the bytes
            q = np.concatenate([q & 15, q >> 4], axis=-1)
        w = q.astype(np.float32)
        if self.dtype == "Q4_0":
            w -= 8
        w *= block["scale"].astype(np.float32)[..., None]
        if self.dtype == "Q4_1":
            w += block["least"].astype(np.float32)[..., None]
        return w.reshape(shape)


class _Reader:
    """Takes values from the front of a mapped file. Raises ValueError or struct.error where it ends early."""

    def __init__(self, data):
        self.data, self.at = memoryview(data), 0

    def numbers(self, codes):
        """The next numbers, one for each code of `struct`."""
        found = struct.unpack_from("<" + codes, self.data, self.at)
        self.at += struct.calcsize("<" + codes)
        return found

    def number(self, code):
        return self.numbers(code)[0]

    def bytes(self, count):
        self.at += count
        if self.at > len(self.data):
            raise ValueError(f"a value of {count} bytes ends beyond the end of the file")
        return self.data[self.at - count : self.at]

    def string(self):
        return str(self.bytes(self.number("Q")), "utf-8")

    def value(self):
        """A setting: a number, a string, or a list of either."""
        kind, count = self.number("I"), None
        if kind == ARRAY:
            kind, count = self.numbers("IQ")
        if kind == STRING:
            return self.string() if count is None else [self.string() for _ in range(count)]
        if kind not in NUMBERS:
            raise ValueError(f"a setting has the unknown type {kind}")
        array = self.bytes((1 if count is None else count) * struct.calcsize("<" + NUMBERS[kind]))
        values = np.frombuffer(array, np.dtype(NUMBERS[kind]).newbyteorder("<")).tolist()
        return values[0] if count is None else values


def scan(path):
    """File -> ({setting: value}, {name: Stored}); no tensor is read. Raises TinyllmError if it is damaged."""
    if Path(path).stat().st_size < 24:
        raise TinyllmError(f"{path} is not a GGUF file: it is too short")
    data = np.memmap(path, np.uint8, "r").view(np.ndarray)  # a slice of a memmap itself is slow
    reader = _Reader(data)
    magic, version = reader.bytes(4).tobytes(), reader.number("I")
    if magic != MAGIC or version not in VERSIONS:
        what = f"version {version}" if magic == MAGIC else f"a file that begins with {magic!r}"
        raise TinyllmError(f"{path}: expected a GGUF file of version 2 or 3 (little-endian), found {what}")
    try:
        settings, places = _header(reader)
        alignment = settings.get("general.alignment", 32)
        if type(alignment) is not int or not 0 < alignment <= 2**16:
            raise ValueError(f"general.alignment is {alignment!r}")
        begin = reader.at + -reader.at % alignment
        tensors = {name: _located(name, *place, data, begin) for name, place in places.items()}
    except (ValueError, struct.error) as error:
        raise TinyllmError(f"{path} is truncated or damaged: {error}. Restore it from a copy") from None
    return settings, tensors


def _header(reader):
    """-> {setting: value}, {tensor: (shape, kind, offset)}"""
    tensor_count, setting_count = reader.numbers("QQ")
    settings = _unique((reader.string(), reader.value()) for _ in range(setting_count))
    return settings, _unique((reader.string(), _place(reader)) for _ in range(tensor_count))


def _place(reader):
    count = reader.number("I")
    if not 1 <= count <= 8:
        raise ValueError(f"a tensor has {count} dimensions")
    return reader.numbers("Q" * count)[::-1], *reader.numbers("IQ")


def _located(name, shape, kind, offset, data, begin):
    dtype = TYPES.get(kind, f"type {kind}")
    if dtype not in BLOCKS:
        return Stored(dtype, shape, None)
    layout, weights = BLOCKS[dtype]
    start, size = begin + offset, math.prod(shape) // weights * np.dtype(layout).itemsize
    if math.prod(filter(None, shape)) >= 2**48 or shape[-1] % weights:
        raise ValueError(f"{name} has the impossible shape {shape}")
    if start + size > len(data):
        raise ValueError(f"{name} ends beyond the end of the file")
    return Stored(dtype, shape, data[start : start + size])


def _unique(pairs):
    found = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name} occurs twice")
        found[name] = value
    return found
