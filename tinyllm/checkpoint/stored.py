"""A tensor in a file, read on demand, a piece at a time: a second copy of a model may not fit into memory.
(The pages of a memory map would count as used until the system reclaims them.)

A block of a quantised type holds 32 weights: scale * q in Q8_0, scale * (q - 8) in Q4_0, scale * q +
least in Q4_1.
"""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

PLAIN = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "U8": "|u1"}
BLOCKS = {
    "Q8_0": [("scale", "<f2"), ("q", "i1", 32)],
    "Q4_0": [("scale", "<f2"), ("q", "u1", 16)],
    "Q4_1": [("scale", "<f2"), ("least", "<f2"), ("q", "u1", 16)],
}
TYPES = {name: np.dtype(layout) for name, layout in (PLAIN | BLOCKS).items()}
FLOATS = {"F32", "F16", "BF16", *BLOCKS}


class Stored(NamedTuple):
    path: Path
    dtype: str  # a key of TYPES, or the name of a type that we cannot read
    shape: tuple
    start: int  # offset in the file

    def size(self, name=""):
        """The size in bytes. Raises ValueError, with the tensor's name, for an impossible shape."""
        counts = all(type(n) is int and n >= 0 for n in self.shape)
        counts = counts and len(self.shape) <= 8 and math.prod(filter(None, self.shape)) < 2**48
        numbers = 32 if self.dtype in BLOCKS else 1
        if not counts or math.prod(self.shape[-1:]) % numbers:
            raise ValueError(f"impossible shape of {name}")
        return math.prod(self.shape) // numbers * TYPES[self.dtype].itemsize

    def read(self, first=0, last=None):
        """-> the array, or its rows [first:last]; as float32, except for F64 and integers."""
        shape, layout = self.shape, TYPES[self.dtype]
        if shape:
            shape = (len(range(*slice(first, last).indices(shape[0]))), *shape[1:])
        row = self.size() // max(1, math.prod(self.shape[:1]))  # bytes
        count = self._replace(shape=shape).size() // layout.itemsize
        block = np.fromfile(self.path, layout, count, offset=self.start + first * row)
        if self.dtype == "BF16":  # the upper half of a float32
            block = (block.astype(np.uint32) << 16).view(np.float32)
        elif self.dtype == "F16":
            block = block.astype(np.float32)
        elif self.dtype in BLOCKS:
            block = _dequantised(block, self.dtype)
        return block.reshape(shape)


def _dequantised(block, dtype):
    q = block["q"]
    if dtype != "Q8_0":  # the first 16 weights are the lower halves of the bytes
        q = np.concatenate([q & 15, q >> 4], axis=-1)
    w = q.astype(np.float32)
    if dtype == "Q4_0":
        w -= 8
    w *= block["scale"].astype(np.float32)[:, None]
    if dtype == "Q4_1":
        w += block["least"].astype(np.float32)[:, None]
    return w
