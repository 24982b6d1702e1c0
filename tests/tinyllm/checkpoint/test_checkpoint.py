"""checkpoint: a loaded model must equal the saved one bit for bit.

An interrupted save must leave the old model or the new one. Weights that do not match the hash in stage.json
must never load.
"""

import json
import multiprocessing
import os
import random
import signal
import time
import tracemalloc

import numpy as np
import pytest
from faults import PowerCut, disk_faults
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import configs, random_model, rngs

from tinyllm import checkpoint
from tinyllm.checkpoint import huggingface, safetensors
from tinyllm.checkpoint.files import write_json
from tinyllm.errors import TinyllmError
from tinyllm.tokenizer import train
from tinyllm.transformer import Config, Transformer

heads = st.sampled_from(["tokens", "score"])
SMALL = Config(vocab=300, context=8, layers=1, width=4, heads=2)
TOKENIZER = train("hello hello", 258)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "model"


def filled(value):
    model = Transformer(SMALL)
    model.params.flat[:] = value
    return model


def same(a, b):
    return a.config == b.config and np.array_equal(a.params.flat, b.params.flat)


def write_stage(folder, **notes):
    """Write the stage.json of a finished stage."""
    write_json(folder / "stage.json", {"finished": True, "sha256": checkpoint.digest(folder)} | notes)


def save_stage(folder, model):
    """Save as training does: the folder is first marked as unfinished, and at the end as finished."""
    write_json(folder / "stage.json", {"finished": False})
    checkpoint.save(folder, model, TOKENIZER)
    write_stage(folder)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def finished_stage(tmp_path_factory):
    """The files of a finished stage: {name: bytes}. It is faster to write these files than to save
    a model."""
    folder = tmp_path_factory.mktemp("finished")
    save_stage(folder, filled(1))
    return contents(folder)


def write_files(folder, files):
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)


# ---- saving and loading


@settings(max_examples=40)
@given(heads.flatmap(lambda head: configs(head=head)), rngs)
def test_a_loaded_model_equals_the_saved_one_bit_for_bit(tmp_path_factory, config, rng):
    folder = tmp_path_factory.mktemp("c") / "model"
    model = random_model(config, rng, np.float32)
    checkpoint.save(folder, model)
    loaded, tokenizer = checkpoint.load(folder)
    assert same(loaded, model) and tokenizer is None
    files = contents(folder)
    checkpoint.save(folder, loaded)
    assert contents(folder) == files


def test_the_tokenizer_is_saved_and_loaded(folder):
    checkpoint.save(folder, filled(1), TOKENIZER)
    assert checkpoint.load(folder)[1].merges == TOKENIZER.merges != []
    config = json.loads((folder / "config.json").read_text())
    assert config["bos_token_id"] == TOKENIZER.special["<|begin|>"]
    names = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert contents(folder).keys() == names


@settings(max_examples=40)
@given(configs(causal=True), rngs, st.sampled_from(["F32", "F16", "BF16"]), st.integers(1, 4))
def test_half_precision_weights_and_weights_in_several_files_are_read(
    tmp_path_factory, config, rng, dtype, count
):
    folder = tmp_path_factory.mktemp("c") / "model"
    checkpoint.save(folder, random_model(config, rng, np.float32))
    tensors, _ = safetensors.read(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    expected, file_of = {}, {}
    for i in range(count):
        header, data = {}, b""
        for name in sorted(tensors)[i::count]:
            w, file_of[name] = tensors[name], f"model-{i}.safetensors"
            if dtype == "F32":
                stored, expected[name] = w, w
            elif dtype == "F16":
                stored = w.astype(np.float16)
                expected[name] = stored.astype(np.float32)
            else:
                stored = (w.view(np.uint32) >> 16).astype(np.uint16)
                expected[name] = (stored.astype(np.uint32) << 16).view(np.float32)
            offsets = [len(data), len(data) + stored.nbytes]
            header[name] = {"dtype": dtype, "shape": w.shape, "data_offsets": offsets}
            data += stored.tobytes()
        head = json.dumps(header).encode()
        (folder / f"model-{i}.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + data)
    write_json(folder / "model.safetensors.index.json", {"weight_map": file_of})
    write_stage(folder)
    model, _ = checkpoint.load(folder)
    for name, w in model.params.items():
        published = huggingface.to_published(name, w, config)
        key = huggingface.stored_name(name, huggingface.PUBLISHED)
        np.testing.assert_array_equal(published, expected[key])


def test_saving_keeps_other_files_in_the_folder(folder):
    checkpoint.save(folder, filled(1), TOKENIZER)
    (folder / "metrics.jsonl").write_text("{}\n")
    (folder / "reward").mkdir()
    (folder / "reward" / "a").write_text("a")
    before = contents(folder / "reward"), (folder / "metrics.jsonl").read_text()
    checkpoint.save(folder, filled(2))
    assert (contents(folder / "reward"), (folder / "metrics.jsonl").read_text()) == before
    model, tokenizer = checkpoint.load(folder)
    assert same(model, filled(2)) and tokenizer.merges == TOKENIZER.merges


def test_weights_are_saved_as_float32(folder):
    checkpoint.save(folder, random_model(SMALL, np.random.default_rng(0), np.float64))
    tensors, _ = safetensors.read(folder / "model.safetensors")
    assert {array.dtype for array in tensors.values()} == {np.dtype(np.float32)}


def test_loading_and_saving_hold_no_second_model_in_memory(folder):
    config = Config(vocab=500, context=8, layers=8, width=128, heads=4)
    model, size = Transformer(config), 4 * config.size()
    tracemalloc.start()
    checkpoint.save(folder, model)
    _, saving = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    checkpoint.load(folder)
    _, loading = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert saving < 0.2 * size and loading < 1.2 * size  # not counting the model that is saved


@pytest.mark.skipif(os.name == "nt", reason="needs symbolic links")
def test_saving_to_a_symbolic_link_keeps_the_link(folder):
    checkpoint.save(folder, filled(1))
    link = folder.with_name("link")
    link.symlink_to(folder)
    checkpoint.save(link, filled(2))
    assert same(checkpoint.load(folder)[0], filled(2)) and link.is_symlink()


def test_the_digest_is_the_hash_of_the_weights_or_of_their_index(folder):
    checkpoint.save(folder, filled(1))
    digest = checkpoint.digest(folder)
    checkpoint.save(folder, filled(1), TOKENIZER)
    assert checkpoint.digest(folder) == digest
    checkpoint.save(folder, filled(2))
    assert checkpoint.digest(folder) != digest
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        checkpoint.digest(folder)
    (folder / "model.safetensors.index.json").write_text("{}")
    assert checkpoint.digest(folder) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


# ---- a save that fails or is interrupted


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), PowerCut()], ids=type)
@pytest.mark.parametrize("exists", [False, True])
def test_a_fault_at_any_moment_of_a_save_leaves_the_old_model_or_the_new_one(
    tmp_path, finished_stage, fault, exists
):
    loaded, old = set(), {name: data for name, data in finished_stage.items() if name != "stage.json"}
    for k in range(200):
        folder = tmp_path / str(k)
        if exists:
            write_files(folder, old)
        with disk_faults(k, fault, forever=isinstance(fault, PowerCut)) as faults:
            try:
                checkpoint.save(folder, filled(2), TOKENIZER)
            except (TinyllmError, PowerCut):
                pass
        if not faults.raised:
            break
        try:
            model, _ = checkpoint.load(folder)
            assert same(model, filled(1)) or same(model, filled(2))
            loaded.add(int(model.params.flat[0]))
        except TinyllmError:
            assert not exists
        with disk_faults(None):
            checkpoint.save(folder, filled(3), TOKENIZER)  # leftover files do no harm
        assert same(checkpoint.load(folder)[0], filled(3))
    assert same(checkpoint.load(folder)[0], filled(2)) and k > 20
    # The weights are written last. A fault after that leaves model 2.
    assert loaded == ({1, 2} if exists else {2})


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), PowerCut()], ids=type)
def test_a_fault_at_any_moment_leaves_the_old_stage_or_an_unfinished_one_or_the_new_one(
    tmp_path, finished_stage, fault
):
    outcomes = []
    for k in range(200):
        folder = tmp_path / str(k)
        write_files(folder, finished_stage)
        try:
            with disk_faults(k, fault, forever=isinstance(fault, PowerCut)):
                save_stage(folder, filled(2))
        except (TinyllmError, PowerCut):
            try:
                outcomes.append(int(checkpoint.load(folder)[0].params.flat[0]))
            except TinyllmError as error:
                assert "holds an unfinished stage" in str(error)
                outcomes.append("unfinished")
        else:
            break
    assert same(checkpoint.load(folder)[0], filled(2))
    assert list(dict.fromkeys(outcomes)) == [1, "unfinished", 2]  # in this order


def save_forever(folder, ready):
    while True:
        for value in (1, 2):
            checkpoint.save(folder, filled(value))
            ready.set()


@pytest.mark.skipif(os.name == "nt", reason="needs fork and SIGKILL")
def test_a_process_killed_while_it_saves_leaves_the_old_model_or_the_new_one(folder):
    fork = multiprocessing.get_context("fork")
    for seed in range(12):
        ready = fork.Event()
        process = fork.Process(target=save_forever, args=(folder, ready))
        process.start()
        assert ready.wait(20)
        time.sleep(random.Random(seed).uniform(0, 0.02))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        model, _ = checkpoint.load(folder)
        assert same(model, filled(1)) or same(model, filled(2))


def save_with_small_files_only(folder, pipe):
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
    try:
        checkpoint.save(folder, filled(2))
    except TinyllmError as error:
        pipe.send(str(error))


@pytest.mark.skipif(os.name == "nt", reason="needs fork and RLIMIT_FSIZE")
def test_a_full_disk_leaves_the_old_model_and_no_other_file(folder):
    checkpoint.save(folder, filled(1))
    before, fork = contents(folder), multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe()
    process = fork.Process(target=save_with_small_files_only, args=(folder, sender))
    process.start()
    assert receiver.poll(20)
    message = receiver.recv()
    process.join()
    assert "model.safetensors could not be saved: File too large" in message and "Free some space" in message
    assert contents(folder) == before


# ---- what is refused


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: data + b"\0",
    ],
)
def test_weights_that_were_truncated_or_altered_after_training_are_refused(folder, change):
    checkpoint.save(folder, filled(1), TOKENIZER)
    write_stage(folder)
    assert same(checkpoint.load(folder)[0], filled(1))
    path = folder / "model.safetensors"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(TinyllmError, match=r"model\.safetensors was altered or truncated.*stage\.json"):
        checkpoint.load(folder)


def test_the_message_about_altered_weights_says_how_to_accept_them(folder):
    checkpoint.save(folder, filled(1))
    write_stage(folder)
    checkpoint.save(folder, filled(2))
    with pytest.raises(TinyllmError, match='delete "sha256" from stage.json'):
        checkpoint.load(folder)
    write_json(folder / "stage.json", {"finished": True})
    assert same(checkpoint.load(folder)[0], filled(2))


@pytest.mark.parametrize("notes", [{}, {"finished": False}, {"finished": None}, {"steps": 3}])
def test_an_unfinished_stage_is_refused(folder, notes):
    checkpoint.save(folder, filled(1))
    write_json(folder / "stage.json", notes)
    with pytest.raises(TinyllmError, match="holds an unfinished stage: run its command again with RESUME=1"):
        checkpoint.load(folder)


@settings(max_examples=150)
@given(
    st.sampled_from(
        ["config.json", "model.safetensors", "tokenizer.json", "stage.json", "model.safetensors.index.json"]
    ),
    st.sampled_from(["flip", "cut", "insert"]),
    st.integers(0, 10**9),
    st.binary(min_size=1, max_size=9),
    st.booleans(),
)
def test_a_damaged_file_loads_or_gives_a_one_line_error(
    tmp_path_factory, finished_stage, name, damage, at, junk, hashed
):
    """If stage.json has the hash of the weights, altered weights are always refused."""
    folder = tmp_path_factory.mktemp("c") / "model"
    write_files(folder, finished_stage)
    if "index" in name:
        (folder / "model.safetensors").rename(folder / "model-1.safetensors")
        tensors = [huggingface.stored_name(ours, huggingface.PUBLISHED) for ours in SMALL.shapes()]
        (folder / name).write_text(json.dumps({"weight_map": dict.fromkeys(tensors, "model-1.safetensors")}))
    notes = {"finished": True} | ({"sha256": checkpoint.digest(folder)} if hashed else {})
    (folder / "stage.json").write_text(json.dumps(notes))
    path = folder / name
    before = path.read_bytes()
    at %= len(before)
    after = {
        "flip": before[:at] + bytes([before[at] ^ junk[0]]) + before[at + 1 :],
        "cut": before[:at],
        "insert": before[:at] + junk + before[at:],
    }[damage]
    path.write_bytes(after)
    try:
        checkpoint.load(folder)
        assert after == before or not (hashed and name.startswith("model"))
    except TinyllmError as error:
        assert str(folder) in str(error) and "\n" not in str(error).strip()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model_type": "qwen2"}, "model_type 'qwen2' is not supported"),
        ({"num_hidden_layers": 10**9}, "1000000000 layers"),
        ({"rope_scaling": {"factor": 2}}, "a checkpoint: rope_scaling {'factor': 2} is not supported"),
        ({"num_hidden_layers": 2}, r"have no tensor model\.layers\.1"),
        ({"intermediate_size": 33}, r"has shape .* the settings say"),
        ({"vocab_size": 10**11}, r"has shape .* the settings say"),
        ({"tie_word_embeddings": False}, r"have no tensor lm_head\.weight"),
    ],
)
def test_a_config_that_is_unsupported_or_does_not_match_the_weights_is_refused(folder, change, message):
    checkpoint.save(folder, filled(1), TOKENIZER)
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | change)
    with pytest.raises(TinyllmError, match=message) as error:
        checkpoint.load(folder)
    assert str(folder) in str(error.value)


def test_unknown_tensors_are_refused_unless_they_can_be_derived_from_the_others(folder):
    checkpoint.save(folder, filled(1))
    path, (tensors, _) = folder / "model.safetensors", safetensors.read(folder / "model.safetensors")
    bias, inv_freq = (f"model.layers.0.self_attn.{name}" for name in ("q_proj.bias", "rotary_emb.inv_freq"))
    safetensors.write(path, tensors | {bias: np.zeros(4, np.float32)})
    with pytest.raises(TinyllmError, match=r"q_proj\.bias, which a plain Llama does not"):
        checkpoint.load(folder)
    table = tensors["model.embed_tokens.weight"]
    safetensors.write(path, tensors | {"lm_head.weight": table, inv_freq: np.zeros(1, np.float32)})
    assert same(checkpoint.load(folder)[0], filled(1))
    safetensors.write(path, tensors | {"lm_head.weight": 2 * table})
    with pytest.raises(TinyllmError, match=r"lm_head\.weight, which a plain Llama does not"):
        checkpoint.load(folder)


def test_weights_of_an_unsupported_type_are_refused(folder):
    checkpoint.save(folder, filled(1))
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"F32"', b'"F8X"'))
    with pytest.raises(TinyllmError, match=r"convert model\.\S+\.weight from F8X to F32"):
        checkpoint.load(folder)


def test_an_error_names_the_missing_file_or_folder(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    missing = r"not found, or not a checkpoint: it has no config\.json"
    for name, message in (("none", missing), ("file", "cannot be read as a GGUF file"), ("empty", missing)):
        with pytest.raises(TinyllmError, match=f"{name} {message}"):
            checkpoint.load(tmp_path / name)
    checkpoint.save(tmp_path / "model", filled(1))
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(TinyllmError, match=r"weight files are missing: {.model\.safetensors.}"):
        checkpoint.load(tmp_path / "model")
    write_json(
        tmp_path / "model" / "model.safetensors.index.json", {"weight_map": {"x": "model-1.safetensors"}}
    )
    with pytest.raises(TinyllmError, match=r"weight files are missing: {'model-1\.safetensors'}"):
        checkpoint.load(tmp_path / "model")


@pytest.mark.parametrize("name", ["..", ".", "../x", "/x", "a\\b", "a\0b", "\ud800", "", 3, None])
def test_an_index_may_name_only_files_in_its_own_folder(folder, name):
    checkpoint.save(folder, filled(1))
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": name}}))
    (folder.parent / "x").write_text("x")
    with pytest.raises(TinyllmError, match="weight files are missing"):
        checkpoint.load(folder)


@pytest.mark.parametrize("index", [{}, {"weight_map": []}, {"weight_map": "x"}])
def test_an_index_without_a_weight_map_is_refused(folder, index):
    checkpoint.save(folder, filled(1))
    (folder / "model.safetensors").unlink()
    write_json(folder / "model.safetensors.index.json", index)
    with pytest.raises(TinyllmError, match="cannot be read as a checkpoint: it is damaged"):
        checkpoint.load(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "stage.json"])
def test_an_error_names_the_file_without_read_permission(folder, monkeypatch, name):
    checkpoint.save(folder, filled(1), TOKENIZER)
    write_stage(folder)

    def refusing(function):
        def call(path, *args, **kwargs):
            if str(path).endswith(name):
                raise PermissionError(13, "Permission denied", str(path))
            return function(path, *args, **kwargs)

        return call

    monkeypatch.setattr("pathlib.Path.open", refusing(checkpoint.Path.open))
    monkeypatch.setattr("pathlib.Path.read_bytes", refusing(checkpoint.Path.read_bytes))
    monkeypatch.setattr("pathlib.Path.read_text", refusing(checkpoint.Path.read_text))
    monkeypatch.setattr("builtins.open", refusing(open))
    with pytest.raises(TinyllmError, match="Permission denied") as error:
        checkpoint.load(folder)
    assert name in str(error.value)


# ---- language models


def test_a_language_model_is_loaded_with_its_tokenizer(folder):
    checkpoint.save(folder, filled(1), TOKENIZER)
    model, tokenizer = checkpoint.load_language_model(folder)
    assert same(model, filled(1)) and tokenizer.merges == TOKENIZER.merges


@pytest.mark.parametrize(
    "shape, tokenizer, message",
    [
        ({"causal": False}, TOKENIZER, "holds a masked model, which cannot write text"),
        ({"head": "score"}, TOKENIZER, "holds a reward model, which cannot write text"),
        ({"head": "score", "causal": False}, TOKENIZER, "holds a reward model"),
        ({}, None, r"has no tokenizer\.json: without it, the model cannot read or write text"),
    ],
)
def test_a_model_that_cannot_write_text_loads_but_not_as_a_language_model(folder, shape, tokenizer, message):
    model = Transformer(Config(vocab=300, context=8, layers=1, width=4, heads=2, **shape))
    checkpoint.save(folder, model, tokenizer)
    with pytest.raises(TinyllmError, match=message) as error:
        checkpoint.load_language_model(folder)
    assert str(folder) in str(error.value)
    assert same(checkpoint.load(folder)[0], model)


def test_a_tokenizer_that_is_too_large_or_of_an_unknown_kind_is_refused(folder):
    small = Config(len(TOKENIZER) - 1, context=8, layers=1, width=4, heads=2)
    checkpoint.save(folder, Transformer(small), TOKENIZER)
    with pytest.raises(TinyllmError, match="265 tokens in its tokenizer, but 264 in the model"):
        checkpoint.load(folder)
    for text in ("{}", "{", '{"model": {"type": "WordPiece", "vocab": {}}, "pre_tokenizer": null}'):
        (folder / "tokenizer.json").write_text(text)
        with pytest.raises(TinyllmError, match=r"tokenizer\.json"):
            checkpoint.load(folder)
