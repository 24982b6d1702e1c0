"""gguf: a file that follows the description of the format must load with exactly the values that it stores.

A truncated or unsupported file must be refused with a one-line error. A damaged header must never give a
traceback.
"""

import struct

import gguf_files
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm import checkpoint
from tinyllm.checkpoint import gguf, huggingface
from tinyllm.errors import TinyllmError
from tinyllm.transformer import Config, Transformer

CONFIG = Config(vocab=264, context=64, layers=2, width=32, heads=2, kv_heads=1, hidden=64, theta=1e5)


def random_model(seed=0, **changes):
    model = Transformer(Config(**{**vars(CONFIG), **changes}))
    model.params.flat[:] = np.random.default_rng(seed).standard_normal(model.params.flat.size)
    return model


@pytest.mark.parametrize("kind", gguf_files.CODES)
@settings(max_examples=20, deadline=None)
@given(
    rows=st.integers(1, 5),
    blocks=st.integers(1, 3),
    seed=st.integers(0, 99),
    size=st.sampled_from([1e-3, 1.0, 300.0]),
)
def test_every_type_of_tensor_is_read_as_the_format_defines_it(
    kind, rows, blocks, seed, size, tmp_path_factory
):
    path = tmp_path_factory.mktemp("gguf") / "a.gguf"
    w = (np.random.default_rng(seed).standard_normal((rows, 32 * blocks)) * size).astype(np.float32)
    stored = gguf_files.write(path, {"x": "y"}, {"w": w}, lambda name: kind)["w"]
    settings, tensors = gguf.scan(path)
    assert settings == {"x": "y"} and tensors["w"].dtype == kind
    np.testing.assert_array_equal(tensors["w"].read(), stored.reshape(-1))
    np.testing.assert_array_equal(tensors["w"].read(32, 64), stored.reshape(-1)[32:96])
    error = {"F32": 0, "F16": 1e-3, "BF16": 1e-2, "Q8_0": 0.02}.get(kind, 0.2)
    assert np.abs(stored - w).max() <= error * np.abs(w).max() + 1e-6


@pytest.mark.parametrize("kind", ["F32", "BF16", "Q4_1"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_model_from_a_gguf_file_stays_the_same_when_saved_as_a_folder(tmp_path, kind, tied, monkeypatch):
    monkeypatch.setattr(checkpoint, "HEADS", 1 if tied else 64)  # read each tensor in many pieces or whole
    model = random_model(tied=tied)
    stored = gguf_files.write_model(tmp_path / "a.gguf", model, kind)
    loaded, tokenizer = checkpoint.load(tmp_path / "a.gguf")
    assert vars(loaded.config) == vars(model.config) | {"eps": loaded.config.eps}
    for name, w in loaded.params.items():
        np.testing.assert_array_equal(w, stored[huggingface.stored_name(name, huggingface.GGUF)])
    checkpoint.save(tmp_path / "m", loaded, tokenizer)
    again, tokenizer_again = checkpoint.load(tmp_path / "m")
    np.testing.assert_array_equal(again.params.flat, loaded.params.flat)
    assert tokenizer_again.encode("ab été 12") == tokenizer.encode("ab été 12")
    assert tokenizer_again.special == tokenizer.special
    checkpoint.save(tmp_path / "half", loaded, tokenizer, np.float16)
    half = checkpoint.load(tmp_path / "half")[0].params.flat
    np.testing.assert_array_equal(half, loaded.params.flat.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"general.architecture": "qwen2"}, "model_type 'qwen2' is not supported"),
        ({"llama.rope.scaling.type": "yarn"}, "llama.rope.scaling.type 'yarn' is not supported"),
        ({"llama.block_count": 2**30}, "1073741824 layers"),
        ({"llama.embedding_length": 36}, "has shape"),
        ({"llama.attention.head_count": 0}, "heads must be at least 1, not 0"),
        ({"tokenizer.ggml.model": "llama"}, "only gpt2 with one of gpt-2, smollm, llama-bpe, qwen2"),
        ({"tokenizer.ggml.pre": "deepseek"}, "the pre-tokenizer 'deepseek' is not supported"),
        ({"tokenizer.ggml.merges": ["a b", "q zz"]}, "tokenizer: it is damaged (KeyError"),
        ({"tokenizer.ggml.token_type": [3]}, "a GGUF file with a tokenizer: zip"),
        (gguf_files.vocabulary([f"<{i}>" for i in range(20)]), "277 tokens in its tokenizer, but 264 in"),
    ],
)
def test_a_file_that_is_not_a_plain_llama_is_refused_with_the_reason(tmp_path, change, message):
    gguf_files.write_model(tmp_path / "a.gguf", random_model(), **change)
    with pytest.raises(TinyllmError) as error:
        checkpoint.load(tmp_path / "a.gguf")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_tensor_that_no_plain_llama_has_is_refused_and_the_error_names_it(tmp_path):
    model = random_model()
    tensors = {huggingface.stored_name(name, huggingface.GGUF): w for name, w in model.params.items()}
    tensors["blk.0.attn_q.bias"] = np.zeros(32, np.float32)
    gguf_files.write(tmp_path / "a.gguf", gguf_files.settings_of(CONFIG, **gguf_files.vocabulary()), tensors)
    with pytest.raises(TinyllmError, match=r"hold blk\.0\.attn_q\.bias, which a plain Llama does not have"):
        checkpoint.load(tmp_path / "a.gguf")


@pytest.fixture(scope="module")
def undamaged(tmp_path_factory):
    """The bytes of a valid file."""
    path = tmp_path_factory.mktemp("undamaged") / "a.gguf"
    gguf_files.write_model(path, random_model(), "Q8_0")
    return path.read_bytes()


def load_damaged(path, data):
    """Load a file with these bytes -> the one-line error message, or None if the file loads."""
    path.write_bytes(data)
    try:
        checkpoint.load(path)
    except TinyllmError as error:
        assert "\n" not in str(error) and str(path) in str(error)
        return str(error)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_truncated_file_is_refused(undamaged, tmp_path_factory, data):
    length = data.draw(st.integers(0, len(undamaged) - 32) | st.integers(0, 6000))
    assert load_damaged(tmp_path_factory.mktemp("cut") / "a.gguf", undamaged[:length])


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_header_never_gives_a_traceback(undamaged, tmp_path_factory, data):
    # The last name is near the end of the header.
    at = data.draw(st.integers(0, undamaged.rindex(b".weight") + 30))
    new = data.draw(st.binary(min_size=1, max_size=8) | st.just(b"\xff" * 8))
    path = tmp_path_factory.mktemp("damaged") / "a.gguf"
    load_damaged(path, undamaged[:at] + new + undamaged[at + len(new) :])


@pytest.mark.parametrize(
    "at, new, message",
    [
        (0, b"GGML", "found b'GGML', version 3"),
        (4, struct.pack("<I", 1), ", version 1"),
        (4, struct.pack(">I", 3), ", version 50331648"),
        (8, struct.pack("<Q", 2**60), "cannot be read as a GGUF file"),
        (16, struct.pack("<Q", 2**60), "cannot be read as a GGUF file"),
        (24, struct.pack("<Q", 2**63), "beyond the end of the file"),
    ],
)
def test_a_wrong_magic_number_or_an_absurd_count_is_refused(undamaged, tmp_path, at, new, message):
    data = undamaged[:at] + new + undamaged[at + len(new) :]
    assert message in load_damaged(tmp_path / "a.gguf", data)


def test_an_error_names_a_tensor_of_an_unsupported_type_or_beyond_the_end_of_the_file(undamaged, tmp_path):
    # After the name come the number of dimensions, two dimensions, the type and the offset.
    name = b"token_embd.weight"
    at = undamaged.index(name) + len(name) + 4 + 16
    before, after = undamaged[:at], undamaged[at + 12 :]
    for kind, offset, message in (
        (12, 0, "convert token_embd.weight from Q4_K to"),
        (99, 0, "convert token_embd.weight from type 99 to"),
        (8, 2**62, "token_embd.weight ends beyond the end of the file"),
    ):
        data = before + struct.pack("<IQ", kind, offset) + after
        assert message in load_damaged(tmp_path / "a", data)
