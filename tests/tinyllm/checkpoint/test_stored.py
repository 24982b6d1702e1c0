"""stored: reading a piece of a tensor must give the same values as reading the whole tensor.

A tensor that cannot be read must be refused before any memory is allocated for it.
"""

import struct

import gguf_files
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import rngs

from tinyllm.checkpoint.stored import Stored

NUMBERS = np.arange(32, dtype=np.uint8) % 16


def stored(folder, dtype, shape, data, start=0):
    path = folder / "x"
    path.write_bytes(bytes(start) + data)
    return Stored(path, "x", dtype, shape, start)


@pytest.mark.parametrize("dtype", gguf_files.CODES)
@settings(max_examples=30, deadline=None)
@given(
    start=st.integers(0, 3),
    rows=st.integers(1, 4),
    first=st.integers(0, 4),
    count=st.integers(1, 4),
    rng=rngs,
)
def test_reading_a_piece_gives_the_same_values_as_reading_the_whole_tensor(
    tmp_path_factory, dtype, start, rows, first, count, rng
):
    data, expected = gguf_files.quantised(rng.standard_normal((rows, 32)).astype(np.float32), dtype)
    tensor = stored(tmp_path_factory.mktemp("t"), dtype, expected.shape, data, start)
    whole, piece = tensor.read(), tensor.read(32 * min(first, rows), 32 * count)
    assert whole.dtype == piece.dtype == np.float32
    np.testing.assert_array_equal(whole, expected.reshape(-1))
    np.testing.assert_array_equal(piece, whole[32 * first :][: 32 * count])


@pytest.mark.parametrize(
    "dtype, head, expected",
    [
        ("Q4_0", struct.pack("<e", 0.5), 0.5 * (NUMBERS.astype(float) - 8)),
        ("Q4_1", struct.pack("<ee", 0.5, -3), 0.5 * NUMBERS - 3.0),
        ("Q8_0", struct.pack("<e", 0.5), 0.5 * NUMBERS),
    ],
)
def test_a_weight_is_the_scale_times_the_stored_number_plus_an_offset(tmp_path, dtype, head, expected):
    halves = NUMBERS[:16] | NUMBERS[16:] << 4  # the low 4 bits hold the first 16 weights
    data = head + (NUMBERS if dtype == "Q8_0" else halves).tobytes()
    np.testing.assert_array_equal(stored(tmp_path, dtype, (1, 32), data).read(), expected)


@pytest.mark.parametrize(
    "dtype, shape, message",
    [
        ("Q4_K", (2,), "convert x from Q4_K to F32, F16 or BF16"),
        ("F16", (3,), "it is truncated: x ends beyond the end of the file"),
        ("F16", (2**62,), "array is too big"),
        ("F16", (-1,), "non-negative"),
        ("F16", (1,) * 65, "dimension"),
    ],
)
def test_a_tensor_that_cannot_be_read_is_refused(tmp_path, dtype, shape, message):
    with pytest.raises(ValueError, match=message):
        stored(tmp_path, dtype, shape, bytes(4))
