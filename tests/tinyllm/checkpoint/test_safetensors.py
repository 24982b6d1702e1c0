"""safetensors: arrays must be read with exactly the values that were written.

A truncated file, or a header that does not describe the data, must be refused with a reason.
"""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import rngs

from tinyllm.checkpoint import safetensors
from tinyllm.errors import TinyllmError

TYPES = [np.float64, np.float32, np.float16, np.int64, np.int32, np.uint8]


def write_raw(path, header, data=b""):
    head = json.dumps(header).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + data)


@st.composite
def arrays(draw):
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    array = (draw(rngs).standard_normal(shape) * 50).astype(draw(st.sampled_from(TYPES)))
    return array.T if draw(st.booleans()) else array  # a transposed array is not contiguous


named_arrays = st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=6), arrays(), max_size=4)
named_arrays = named_arrays.filter(lambda tensors: "__metadata__" not in tensors)


@settings(max_examples=60)
@given(named_arrays, st.dictionaries(st.sampled_from("abc"), st.text(max_size=5)))
def test_arrays_and_metadata_are_read_as_they_were_written(tmp_path_factory, tensors, metadata):
    path = tmp_path_factory.mktemp("t") / "x.safetensors"
    safetensors.write(path, tensors, metadata)
    read, read_metadata = safetensors.read(str(path))
    assert read.keys() == tensors.keys() and read_metadata == {"format": "pt"} | metadata
    for name, array in tensors.items():
        assert read[name].dtype == (np.float32 if array.dtype == np.float16 else array.dtype)
        np.testing.assert_array_equal(read[name], array, strict=array.dtype != np.float16)
    data = path.read_bytes()
    safetensors.write(path, tensors, metadata)
    assert path.read_bytes() == data


def test_the_file_has_the_layout_of_the_format(tmp_path):
    path = tmp_path / "x.safetensors"
    safetensors.write(path, {"a": np.array([[1, 2]], "<i4"), "b": np.array([3], np.uint8)})
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    assert size % 8 == 0  # so the arrays are aligned
    assert json.loads(data[8 : 8 + size]) == {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "I32", "shape": [1, 2], "data_offsets": [0, 8]},
        "b": {"dtype": "U8", "shape": [1], "data_offsets": [8, 9]},
    }
    assert data[8 + size :] == b"\1\0\0\0\2\0\0\0\3"


@given(st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=20))
def test_half_precision_is_converted_exactly_to_single_precision(tmp_path_factory, bits):
    path, half = tmp_path_factory.mktemp("t") / "x.safetensors", np.array(bits, "<u2")
    entry = {"shape": [len(bits)], "data_offsets": [0, 2 * len(bits)]}
    for dtype, expected in (
        ("F16", half.view(np.float16).astype(np.float32)),
        ("BF16", (half.astype(np.uint32) << 16).view(np.float32)),
    ):
        write_raw(path, {"x": {"dtype": dtype, **entry}}, half.tobytes())
        read = safetensors.read(path)[0]["x"]
        np.testing.assert_array_equal(read.view(np.uint32), expected.view(np.uint32))


@given(
    st.binary(max_size=200)
    | st.builds(
        lambda head, body: len(head).to_bytes(8, "little") + head + body,
        st.text(max_size=60).map(str.encode),
        st.binary(max_size=40),
    )
)
def test_any_bytes_give_tensors_or_an_error_that_names_the_file(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("t") / "x.safetensors"
    path.write_bytes(data)
    try:
        safetensors.read(path)
    except TinyllmError as error:
        assert str(path) in str(error)


ENTRY = {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}
ONE = {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}


@pytest.mark.parametrize(
    "header, message",
    [
        ([], "expected a JSON object"),
        ("x", "expected a JSON object"),
        ({"x": 3}, "is not subscriptable"),
        ({"x": {"dtype": "U8", "shape": [2]}}, "KeyError.*data_offsets"),
        ({"x": ENTRY | {"data_offsets": [0]}}, "the size of tensor x does not match its shape"),
        ({"x": ENTRY | {"data_offsets": [0, 2, 2]}}, "the size of tensor x does not match its shape"),
        ({"x": ENTRY | {"data_offsets": [0.5, 2]}}, "the size of tensor x does not match its shape"),
        ({"x": ENTRY | {"shape": [-2]}}, "shape must be non-negative"),
        ({"x": ENTRY | {"shape": [True, 2]}}, "an integer is required"),
        ({"x": ENTRY | {"shape": "2"}}, "between instances of 'str' and 'int'"),
        ({"x": ENTRY, "__metadata__": 3}, "'int' object is not iterable"),
        ({"x": ENTRY | {"dtype": "F8_E4M3"}}, "convert x from F8_E4M3 to F32, F16 or BF16"),
        ({"x": ENTRY | {"dtype": ["U8"]}}, "unhashable"),
        ({"x": ENTRY | {"shape": [1]}}, "the size of tensor x does not match its shape"),
        ({"x": ENTRY | {"shape": [3]}}, "it is truncated: x ends beyond the end of the file"),
        ({"x": ENTRY | {"data_offsets": [1, 3]}}, "the size of tensor x does not match its shape"),
        ({"x": ONE, "y": ONE}, "the size of tensor y does not match its shape"),
        ({"x": ENTRY, "y": ENTRY | {"data_offsets": [2, 4]}}, "it is truncated: y ends beyond"),
    ],
)
def test_a_header_that_does_not_describe_the_data_is_refused(tmp_path, header, message):
    path = tmp_path / "x.safetensors"
    write_raw(path, header, b"\1\2")
    with pytest.raises(TinyllmError, match=message) as error:
        safetensors.read(path)
    assert str(path) in str(error.value)


def test_a_header_longer_than_the_file_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "x.safetensors"
    for data in (b"", b"\7", (2**60).to_bytes(8, "little"), (3).to_bytes(8, "little") + b"{}"):
        path.write_bytes(data)
        with pytest.raises(TinyllmError, match="it ends inside its header"):
            safetensors.read(path)


def test_a_tensor_that_is_described_twice_is_refused(tmp_path):
    path, entry = tmp_path / "x.safetensors", json.dumps(ENTRY)
    head = f'{{"x": {entry}, "x": {entry}}}'.encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + b"\1\2")
    with pytest.raises(TinyllmError, match=r"x\.safetensors cannot be read .*: duplicate keys"):
        safetensors.read(path)


@pytest.mark.parametrize("shape", [[1] * 65, [0, 2**70], [2**70, 0], [2**40, 2**40, 0]])
def test_a_shape_that_numpy_cannot_represent_is_refused(tmp_path, shape):
    size = int(0 not in shape)
    entry = {"dtype": "U8", "shape": shape, "data_offsets": [0, size]}
    write_raw(tmp_path / "x.safetensors", {"x": entry}, bytes(size))
    with pytest.raises(TinyllmError, match="dimension|iterator is too large"):
        safetensors.read(tmp_path / "x.safetensors")


def test_an_error_names_the_missing_file(tmp_path):
    with pytest.raises(TinyllmError, match=r"none\.safetensors cannot be read .*: .*No such file"):
        safetensors.read(tmp_path / "none.safetensors")
