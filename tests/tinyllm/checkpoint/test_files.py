"""files: a file must be replaced as a whole, and errors must name the file.

A write that fails or is interrupted must leave the whole old file or the whole new one.
"""

import hashlib

import numpy as np
import pytest
from faults import PowerCut, disk_faults
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm.checkpoint import safetensors
from tinyllm.checkpoint.files import read_json, replacing, sha256, write_json
from tinyllm.errors import TinyllmError

# Python puts lone surrogates into file names that are not UTF-8
texts = st.text(st.characters(codec="utf-8") | st.sampled_from("\udc80\udcff"), max_size=8)
values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
json_objects = st.dictionaries(texts, values | st.lists(values, max_size=3), max_size=4)


def write_both(folder, value):
    """Write a JSON file and a safetensors file."""
    write_json(folder / "a.json", {"value": value})
    safetensors.write(folder / "a.safetensors", {"value": np.full(50, value, np.float32)})


def values_of(folder):
    """The values in the two files; None for a missing file. Raises TinyllmError if a file is damaged."""
    json_file, tensors_file = folder / "a.json", folder / "a.safetensors"
    return (
        read_json(json_file)["value"] if json_file.exists() else None,
        set(safetensors.read(tensors_file)[0]["value"].tolist()).pop() if tensors_file.exists() else None,
    )


@pytest.mark.parametrize("old", [None, 1])
def test_an_error_at_any_write_flush_or_rename_leaves_only_whole_files(tmp_path, old):
    """Each call that changes the disk fails once. A write fails after half of its bytes."""
    calls = set()
    for k in range(100):
        folder = tmp_path / str(k)
        if old:
            with disk_faults(None):
                write_both(folder, old)
        with disk_faults(k, OSError(28, "No space left on device")) as faults:
            try:
                write_both(folder, 2)
            except TinyllmError as error:
                assert "could not be saved: No space left on device" in str(error)
                assert str(folder / "a.") in str(error)
        if not faults.raised:
            break
        calls.add(faults.raised)
        first, second = values_of(folder)
        assert first in (old, 2) and second in (old, 2) and (first == 2 or second == old)
        # no hidden file is left
        assert {path.name for path in folder.glob("*")} <= {"a.json", "a.safetensors"}
        write_both(folder, 3)
        assert values_of(folder) == (3, 3)
    assert values_of(folder) == (2, 2)
    assert calls == {"open", "write", "flush", "rename"} | (set() if old else {"mkdir"})


@pytest.mark.parametrize("old", [None, 1])
def test_a_power_cut_at_any_moment_leaves_whole_files(tmp_path, old):
    """From call k on, nothing reaches the disk, not even the removal of temporary files."""
    for k in range(100):
        folder = tmp_path / str(k)
        if old:
            with disk_faults(None):
                write_both(folder, old)
        with disk_faults(k, PowerCut(), forever=True) as faults:
            try:
                write_both(folder, 2)
            except PowerCut:
                pass
        if not faults.raised:
            break
        first, second = values_of(folder)
        assert first in (old, 2) and second in (old, 2) and (first == 2 or second == old)
        write_both(folder, 3)  # leftover files do no harm
        assert values_of(folder) == (3, 3)
        assert {path.name for path in folder.iterdir()} == {"a.json", "a.safetensors"}
    assert values_of(folder) == (2, 2) and k > 10


def test_the_new_file_is_flushed_before_the_rename_and_the_folder_is_flushed_after_it(tmp_path):
    with disk_faults(None) as faults:
        write_json(tmp_path / "a.json", {})
    assert [call for call in faults.calls if call != "open"] == ["write", "flush", "rename", "flush"]


def test_any_exception_while_writing_leaves_only_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"value": 1})
    with pytest.raises(TypeError):
        write_json(path, {"value": object()})
    for failure in (KeyboardInterrupt, ZeroDivisionError):
        with pytest.raises(failure), replacing(path) as beside:
            beside.write_text("half")
            raise failure
    assert read_json(path) == {"value": 1} and [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_file_that_cannot_be_replaced_is_kept_and_the_error_names_it(tmp_path, monkeypatch):
    """On Windows, a file cannot be replaced while another program has it open."""
    write_json(tmp_path / "a.json", {"value": 1})

    def refuse(old, new):
        raise PermissionError(13, "Access is denied", str(old), 5, str(new))

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(TinyllmError, match=r"a\.json could not be saved: Access is denied"):
        write_json(tmp_path / "a.json", {"value": 2})
    assert read_json(tmp_path / "a.json") == {"value": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_missing_folders_are_created_and_a_path_that_cannot_be_written_is_refused(tmp_path):
    write_json(tmp_path / "new" / "folder" / "a.json", {"value": 1})
    assert read_json(tmp_path / "new" / "folder" / "a.json") == {"value": 1}
    (tmp_path / "file").write_text("")
    with pytest.raises(TinyllmError, match=r"a\.json could not be saved: .*choose a different folder"):
        write_json(tmp_path / "file" / "a.json", {})


@settings(max_examples=50)
@given(json_objects)
def test_json_is_read_as_it_was_written_and_its_bytes_do_not_depend_on_the_machine(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("json") / "a.json"
    write_json(path, value)
    assert read_json(path) == value
    data = path.read_bytes()
    assert b"\r" not in data and data.endswith(b"}\n") and data.decode()
    write_json(path, value)
    assert path.read_bytes() == data


@pytest.mark.parametrize(
    "data, message",
    [
        (b"{", "cannot be read as JSON"),
        (b"", "cannot be read as JSON"),
        (b'{"a": "\xff"}', "cannot be read as JSON"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b"[]", "expected a JSON object"),
        (b"3", "expected a JSON object"),
        (b'{"a": 1, "b": 2, "a": 1}', "duplicate keys among .'a', 'b', 'a'"),
        (b'{"a": {"b": 1, "b": 2}}', "duplicate keys among .'b', 'b'"),
    ],
)
def test_a_file_that_is_not_a_json_object_is_refused_and_the_error_names_it(tmp_path, data, message):
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(TinyllmError, match=message) as error:
        read_json(path)
    assert str(path) in str(error.value)


def test_an_error_names_the_missing_file(tmp_path):
    with pytest.raises(TinyllmError, match=r"none\.json cannot be read"):
        read_json(tmp_path / "none.json")


@pytest.mark.parametrize("size", [0, 1, 2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20])
def test_the_hash_covers_all_bytes(tmp_path, size):
    data = np.random.default_rng(0).bytes(size)
    (tmp_path / "a").write_bytes(data)
    assert sha256(tmp_path / "a") == hashlib.sha256(data).hexdigest()
