"""A tensor in a file, read on demand, a piece at a time: a second copy of a model may not fit into memory.
A memory map would not help: its pages count as used memory until the system reclaims them.

A block of a quantised type holds 32 weights. A weight is scale * q in Q8_0, scale * (q - 8) in Q4_0, and
scale * q + least in Q4_1.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

PLAIN = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "U8": "|u1"}
BLOCKS = {
    "Q8_0": [("scale", "<f2"), ("q", "i1", 32)],
    "Q4_0": [("scale", "<f2"), ("q", "u1", 16)],
    "Q4_1": [("scale", "<f2"), ("least", "<f2"), ("q", "u1", 16)],
}
TYPES = {name: np.dtype(layout) for name, layout in (PLAIN | BLOCKS).items()}


@dataclass(frozen=True)
class Stored:
    """Where a tensor is in its file. Raises ValueError or TypeError for a type that we cannot read, an
    impossible shape, or a truncated file."""

    path: Path
    name: str
    dtype: str
    shape: tuple
    start: int  # offset in the file

    def __post_init__(self):
        if self.dtype not in TYPES:
            raise ValueError(f"convert {self.name} from {self.dtype} to F32, F16 or BF16")
        np.broadcast_to(0, self.shape)  # NumPy raises ValueError or TypeError for an impossible shape
        if self.end > os.path.getsize(self.path):
            raise ValueError(f"it is truncated: {self.name} ends beyond the end of the file")

    @property
    def per_item(self):
        """How many numbers an item of the tensor's type holds: 32 in a block, otherwise 1."""
        return 32 if self.dtype in BLOCKS else 1

    @property
    def end(self):
        """Offset of the first byte after the tensor."""
        return self.start + math.prod(self.shape) // self.per_item * TYPES[self.dtype].itemsize

    def read(self, first=0, count=2**63):
        """-> a flat array of at most `count` numbers, beginning at index `first`. The array is float32,
        except for F64 and integers. For a quantised type, `first` and `count` must be multiples of 32."""
        layout, left = TYPES[self.dtype], math.prod(self.shape) - first
        offset = self.start + first // self.per_item * layout.itemsize
        block = np.fromfile(self.path, layout, min(count, left) // self.per_item, offset=offset)
        if self.dtype == "BF16":  # the upper half of a float32
            return (block.astype(np.uint32) << 16).view(np.float32)
        if self.dtype == "F16":
            return block.astype(np.float32)
        return _dequantised(block, self.dtype) if self.dtype in BLOCKS else block


def _dequantised(block, dtype):
    q, scale = block["q"], block["scale"].astype(np.float32)[:, None]
    if dtype != "Q8_0":  # the first 16 weights are the lower halves of the bytes
        q = np.concatenate([q & 15, q >> 4], axis=-1)
    if dtype == "Q4_0":
        q = q - np.float32(8)
    least = block["least"].astype(np.float32)[:, None] if dtype == "Q4_1" else 0
    return (scale * q + least).reshape(-1)
