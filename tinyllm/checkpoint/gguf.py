"""The GGUF format of llama.cpp: one file with a model's settings, its vocabulary and its tensors.

    4 bytes   "GGUF"
    uint32    version, 2 or 3; uint64 number of tensors; uint64 number of settings
    settings  name, type, value
    tensors   name, number of dimensions, dimensions (the innermost first), type, offset
    data      the tensors, each at its offset from the next multiple of general.alignment

Little-endian throughout. A string is its length (uint64) and its bytes. Large models are published in this
format because its tensors may be quantised, say to 4 or 8 bits per weight with one scale per 32 weights.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; for the blocks, ggml-quants.c in that repository.
"""

import struct

import numpy as np

from tinyllm.checkpoint.stored import TYPES, Stored
from tinyllm.errors import TinyllmError

MAGIC, VERSIONS = b"GGUF", (2, 3)
NUMBERS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd"))  # codes of struct
STRING, ARRAY = 8, 9
KINDS = {0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K", 11: "Q3_K"}
KINDS |= {12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 30: "BF16"}


class _Reader:
    """Reads values from a mapped file, front to back. Raises ValueError or struct.error if it ends early."""

    def __init__(self, data):
        self.data, self.at = memoryview(data), 0

    def numbers(self, codes):
        """The next numbers, one for each code of `struct`."""
        found = struct.unpack_from("<" + codes, self.data, self.at)
        self.at += struct.calcsize("<" + codes)
        return found

    def bytes(self, count):
        self.at += count
        if self.at > len(self.data):
            raise ValueError(f"a value of {count} bytes ends beyond the end of the file")
        return self.data[self.at - count : self.at]

    def string(self):
        return str(self.bytes(*self.numbers("Q")), "utf-8")

    def value(self):
        """A setting: a number, a string, or a list of either."""
        (kind,), count, is_list = self.numbers("I"), 1, False
        if kind == ARRAY:
            (kind, count), is_list = self.numbers("IQ"), True
        if kind == STRING:
            values = [self.string() for _ in range(count)]
        elif kind in NUMBERS:
            dtype = np.dtype(NUMBERS[kind]).newbyteorder("<")
            values = np.frombuffer(self.bytes(count * dtype.itemsize), dtype).tolist()
        else:
            raise ValueError(f"a setting has the unknown type {kind}")
        return values if is_list else values[0]


def scan(path):
    """File -> ({setting: value}, {name: Stored}); reads no tensor. Raises TinyllmError if it is damaged."""
    try:
        data = np.memmap(path, np.uint8, "r").view(np.ndarray)  # slicing a memmap directly is slow
        reader = _Reader(data)
        magic, (version,) = reader.bytes(4).tobytes(), reader.numbers("I")
        if magic != MAGIC or version not in VERSIONS:
            found = f"{magic!r}, version {version}"
            raise TinyllmError(f"{path}: expected a little-endian GGUF file of version 2 or 3, found {found}")
        tensor_count, setting_count = reader.numbers("QQ")
        settings = dict((reader.string(), reader.value()) for _ in range(setting_count))
        places = dict((reader.string(), _place(reader)) for _ in range(tensor_count))
        alignment = settings.get("general.alignment", 32)
        if type(alignment) is not int or not 0 < alignment <= 2**16:
            raise ValueError(f"general.alignment is {alignment!r}")
        begin, tensors = reader.at + -reader.at % alignment, {}
        for name, (shape, kind, offset) in places.items():
            tensor = Stored(path, KINDS.get(kind, f"type {kind}"), shape, begin + offset)
            if tensor.dtype in TYPES and tensor.start + tensor.size(name) > len(data):
                raise ValueError(f"{name} ends beyond the end of the file")
            tensors[name] = tensor
    except (ValueError, struct.error) as error:
        raise TinyllmError(f"{path} is truncated or damaged: {error}. Restore it from a copy") from None
    return settings, tensors


def _place(reader):
    """-> the shape of a tensor, its type, and its offset in the data"""
    (count,) = reader.numbers("I")
    if not 1 <= count <= 8:
        raise ValueError(f"a tensor has {count} dimensions")
    return reader.numbers("Q" * count)[::-1], *reader.numbers("IQ")
