"""The GGUF format of llama.cpp: one file with a model's settings, its vocabulary and its tensors.

    4 bytes   "GGUF"
    uint32    version, 2 or 3; uint64 number of tensors; uint64 number of settings
    settings  name, type, value
    tensors   name, number of dimensions, dimensions (the innermost first), type, offset
    data      the tensors; offsets count from the next multiple of general.alignment in the file

Little-endian throughout. A string is stored as its length (uint64) and its bytes. Large models are published
in this format because its tensors may be quantised, say to 4 or 8 bits per weight with one scale per 32
weights.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md describes the format;
ggml-quants.c in the same repository defines the quantised blocks.
"""

import struct

import numpy as np

from tinyllm.checkpoint.files import reading
from tinyllm.checkpoint.stored import Stored

NUMBERS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd"))  # type in GGUF -> code in `struct`
STRING, ARRAY = 8, 9
KINDS = {0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K", 11: "Q3_K"}
KINDS |= {12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 30: "BF16"}


class _Reader:
    """Reads values from a memory-mapped file, front to back. Raises ValueError if the file ends early."""

    def __init__(self, data):
        self.data, self.at = memoryview(data), 0

    def bytes(self, count):
        self.at += count
        if self.at > len(self.data):
            raise ValueError(f"it is truncated: a value of {count} bytes ends beyond the end of the file")
        return self.data[self.at - count : self.at]

    def numbers(self, codes):
        """The next numbers. codes: one letter for each, as in `struct`."""
        return struct.unpack(f"<{codes}", self.bytes(struct.calcsize(f"<{codes}")))

    def string(self):
        return str(self.bytes(*self.numbers("Q")), "utf-8")

    def value(self, kind):
        """A setting: a number, a string, or a list of values of one type."""
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            kind, count = self.numbers("IQ")
            if count > len(self.data):  # with a damaged count, the loop below could run for hours
                raise ValueError(f"a list of {count} values ends beyond the end of the file")
            return [self.value(kind) for _ in range(count)]
        return self.numbers(NUMBERS[kind])[0]

    def tensor(self):
        """-> the name of a tensor, its shape, its type, and its offset in the data"""
        name, (count,) = self.string(), self.numbers("I")
        return name, self.numbers(f"{count}Q")[::-1], *self.numbers("IQ")


def scan(path):
    """File -> ({setting: value}, {name: Stored}); reads no tensor data. Raises TinyllmError."""
    with reading(path, "a GGUF file"):
        reader = _Reader(np.memmap(path, np.uint8, "r"))
        magic, (version,) = reader.bytes(4).tobytes(), reader.numbers("I")
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError(f"expected GGUF 2 or 3, little-endian; found {magic!r}, version {version}")
        tensor_count, setting_count = reader.numbers("QQ")
        settings = {reader.string(): reader.value(*reader.numbers("I")) for _ in range(setting_count)}
        places = [reader.tensor() for _ in range(tensor_count)]
        begin, tensors = reader.at + -reader.at % settings.get("general.alignment", 32), {}
        for name, shape, kind, offset in places:
            tensors[name] = Stored(path, name, KINDS.get(kind, f"type {kind}"), shape, begin + offset)
    return settings, tensors
