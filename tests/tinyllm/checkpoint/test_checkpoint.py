import json
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import configs, random_model, rngs

from tinyllm import checkpoint, llama, tensors
from tinyllm.checkpoint import CheckpointError
from tinyllm.tokenizer import train
from tinyllm.transformer import Config, Transformer

heads = st.sampled_from(["tokens", "score"])
SMALL = Config(vocab=300, context=8, layers=1, width=4, heads=2)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "model"


def filled(value):
    model = Transformer(SMALL)
    model.params.flat[:] = value
    return model


def same(a, b):
    return a.config == b.config and np.array_equal(a.params.flat, b.params.flat)


# ---- what is written comes back --------------------------------------------------------------------


@settings(max_examples=40)
@given(heads.flatmap(lambda head: configs(head=head)), rngs)
def test_a_model_comes_back_bit_for_bit(tmp_path_factory, config, rng):
    folder = tmp_path_factory.mktemp("c") / "model"
    model = random_model(config, rng, np.float32)
    checkpoint.save(folder, model)
    again, tokenizer = checkpoint.load(folder)
    assert same(again, model) and tokenizer is None
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    checkpoint.save(folder, again)
    assert first == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_tokenizer_comes_back(folder):
    tokenizer = train("hello hello", 260)
    checkpoint.save(folder, filled(1), tokenizer)
    assert checkpoint.load(folder)[1].merges == tokenizer.merges
    config = json.loads((folder / "config.json").read_text())
    assert config["bos_token_id"] == tokenizer.special["<|begin|>"]


@settings(max_examples=40)
@given(configs(head="tokens", causal=True), rngs, st.sampled_from(["F32", "F16", "BF16"]), st.integers(1, 4))
def test_other_types_and_shards_are_read(tmp_path_factory, config, rng, dtype, shards):
    folder = tmp_path_factory.mktemp("c") / "model"
    model = random_model(config, rng, np.float32)
    checkpoint.save(folder, model)
    found = tensors.read(folder / "model.safetensors")
    names = sorted(found)
    expected, place = {}, {}
    for i in range(shards):
        part = {}
        for name in names[i::shards]:
            bits = found[name].view(np.uint32) >> 16
            stored = {
                "F32": found[name],
                "F16": found[name].astype(np.float16),
                "BF16": bits.astype(np.uint16),
            }[dtype]
            expected[name] = {
                "F32": found[name],
                "F16": stored.astype(np.float32),
                "BF16": (bits << 16).view(np.float32),
            }[dtype]
            part[name], place[name] = stored, f"model-{i}.safetensors"
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(tensors.DTYPES, "U16", "<u2")
            tensors.write(folder / f"model-{i}.safetensors", part)
        data = (folder / f"model-{i}.safetensors").read_bytes().replace(b'"U16"', b'"BF16"')
        length = int.from_bytes(data[:8], "little") + data.count(b'"BF16"')  # one letter more each
        (folder / f"model-{i}.safetensors").write_bytes(length.to_bytes(8, "little") + data[8:])
    (folder / "model.safetensors").unlink()
    (folder / "SHA256SUMS").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": place}))
    again, _ = checkpoint.load(folder)
    for name in again.params:
        published = llama.published_name(name)
        np.testing.assert_array_equal(
            llama.to_published(name, again.params[name], config), expected[published]
        )


def test_sha256sum_can_check_a_folder(folder):
    checkpoint.save(folder, filled(1))
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=folder, check=True)


def test_extra_files_and_what_else_lies_there(folder):
    checkpoint.save(
        folder, filled(1), extra={"state.json": {"step": 3}, "more.safetensors": {"x": np.arange(3.0)}}
    )
    (folder / "metrics.jsonl").write_text("{}\n")
    (folder / "reward").mkdir()
    (folder / "reward" / "a").write_text("a")
    (folder / "resume").mkdir()
    checkpoint.save(folder, filled(2), extra={"other.json": {}}, drop=("resume",))
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "config.json",
        "model.safetensors",
        "SHA256SUMS",
        "other.json",
        "metrics.jsonl",
        "reward",
    }
    assert (folder / "reward" / "a").read_text() == "a"


# ---- crashes ---------------------------------------------------------------------------------------


class Crash(BaseException):
    """Stands for the power going out: nothing after it runs."""


@pytest.mark.parametrize("exists", [False, True])
def test_a_crash_at_any_call_leaves_the_old_or_the_new(folder, monkeypatch, exists):
    """Every call that changes the disk fails in turn."""
    for k in range(200):
        shutil.rmtree(folder.parent)
        folder.parent.mkdir()
        if exists:
            checkpoint.save(folder, filled(1))
        left = [k]

        def guarded(function, left=left):
            def call(*args, **kwargs):
                if left[0] == 0:
                    raise Crash
                left[0] -= 1
                return function(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            for module, name in (
                (os, "rename"),
                (os, "fsync"),
                (os, "open"),
                (shutil, "rmtree"),
                (shutil, "copy2"),
                (tensors, "write"),
                (checkpoint, "_write_json"),
                (checkpoint, "_sha256"),
            ):
                patch.setattr(module, name, guarded(getattr(module, name)))
            try:
                checkpoint.save(folder, filled(2))
                done = True
            except Crash:
                done = False
        if done:
            assert same(checkpoint.load(folder)[0], filled(2)) and k > 8
            return
        try:
            model, _ = checkpoint.load(folder)
            assert same(model, filled(1)) or same(model, filled(2))
        except CheckpointError:
            assert not exists
        checkpoint.save(folder, filled(3))  # and leftovers are no obstacle
        assert same(checkpoint.load(folder)[0], filled(3))
        assert [path.name for path in folder.parent.iterdir()] == ["model"]
    pytest.fail("save never finished")


@pytest.mark.skipif(os.name == "nt", reason="kills with a signal")
def test_killed_at_random_moments(folder):
    script = textwrap.dedent("""
        import sys, tests.test_checkpoint as t
        print("ready", flush=True)
        while True:
            for value in (1, 2):
                t.checkpoint.save(sys.argv[1], t.filled(value))
    """)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([".", "tests"])}
    checkpoint.save(folder, filled(1))
    for seed in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, env=environment
        )
        assert process.stdout.readline() == b"ready\n"
        time.sleep(random.Random(seed).uniform(0.05, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        model, _ = checkpoint.load(folder)
        assert same(model, filled(1)) or same(model, filled(2))


@pytest.mark.skipif(os.name == "nt", reason="needs RLIMIT_FSIZE")
def test_a_full_disk_leaves_the_old_one(folder):
    checkpoint.save(folder, filled(1))
    script = (
        "import resource, sys, tests.test_checkpoint as t\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        "try: t.checkpoint.save(sys.argv[1], t.filled(2))\n"
        "except t.CheckpointError as error: print(error)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([".", "tests"])}
    said = subprocess.run(
        [sys.executable, "-c", script, folder], capture_output=True, text=True, env=environment, check=False
    )
    assert "could not be saved: File too large" in said.stdout and "untouched" in said.stdout, said
    assert same(checkpoint.load(folder)[0], filled(1)) and [p.name for p in folder.parent.iterdir()] == [
        "model"
    ]


# ---- what is refused -------------------------------------------------------------------------------


@settings(max_examples=150)
@given(
    st.sampled_from(
        ["config.json", "model.safetensors", "tokenizer.json", "SHA256SUMS", "model.safetensors.index.json"]
    ),
    st.sampled_from(["flip", "cut", "insert"]),
    st.integers(0, 10**9),
    st.binary(min_size=1, max_size=9),
    st.booleans(),
)
def test_damage_is_refused_in_words(tmp_path_factory, name, how, at, junk, summed):
    """With sums always; without, what is still a whole checkpoint may load, and nothing else ever happens."""
    folder = tmp_path_factory.mktemp("c") / "model"
    checkpoint.save(folder, filled(1), train("hello hello", 258))
    if not summed:
        (folder / "SHA256SUMS").unlink()
    if "index" in name:
        (folder / "model.safetensors").rename(folder / "model-1.safetensors")
        place = dict.fromkeys(tensors.read(folder / "model-1.safetensors"), "model-1.safetensors")
        (folder / name).write_text(json.dumps({"weight_map": place}))
    path = folder / name
    before = path.read_bytes() if path.exists() else b"0123456789"
    at %= len(before)
    after = {
        "flip": before[:at] + bytes([before[at] ^ junk[0]]) + before[at + 1 :],
        "cut": before[:at],
        "insert": before[:at] + junk + before[at:],
    }[how]
    path.write_bytes(after)
    try:
        checkpoint.load(folder)
        assert after == before or not summed
    except CheckpointError as error:
        assert str(folder) in str(error) and "\n" not in str(error).strip()


@pytest.mark.parametrize(
    "change, words",
    [
        ({"model_type": "qwen2"}, "model_type 'qwen2' is not a Llama"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"attention_bias": True}, "attention_bias True"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "rope_parameters"),
        (
            {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
            "partial_rotary_factor",
        ),
        ({"hidden_size": True}, "hidden_size is True"),
        ({"hidden_size": "4"}, "hidden_size is '4'"),
        ({"num_hidden_layers": 10**9}, "1000000000 layers"),
        ({"num_hidden_layers": 2}, "lack model.layers.1"),
        ({"num_hidden_layers": 0}, "layers must be at least 1"),
        ({"intermediate_size": 33}, "has shape"),
        ({"num_attention_heads": 3, "num_key_value_heads": 2}, "do not divide"),
        ({"tie_word_embeddings": False}, "lack lm_head.weight"),
    ],
)
def test_what_cannot_be_represented_is_refused_by_name(folder, change, words):
    checkpoint.save(folder, filled(1))
    (folder / "SHA256SUMS").unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(CheckpointError, match=words):
        checkpoint.load(folder)


def test_rope_theta_is_found_where_older_and_newer_files_write_it(folder):
    checkpoint.save(folder, filled(1))
    (folder / "SHA256SUMS").unlink()
    config = json.loads((folder / "config.json").read_text())
    for rope, theta in (
        ({"rope_theta": 123.0}, 123.0),
        ({"rope_parameters": {"rope_theta": 77.0}}, 77.0),
        ({}, 10000.0),
    ):
        kept = {key: value for key, value in config.items() if not key.startswith("rope")}
        (folder / "config.json").write_text(json.dumps(kept | rope))
        assert checkpoint.load(folder)[0].config.theta == theta


def test_tensors_of_another_model_are_refused(folder):
    checkpoint.save(folder, filled(1))
    (folder / "SHA256SUMS").unlink()
    found = tensors.read(folder / "model.safetensors")
    tensors.write(
        folder / "model.safetensors",
        found | {"model.layers.0.self_attn.q_proj.bias": np.zeros(4, np.float32)},
    )
    with pytest.raises(CheckpointError, match="q_proj.bias, which a plain Llama does not"):
        checkpoint.load(folder)
    tensors.write(
        folder / "model.safetensors", found | {"lm_head.weight": found["model.embed_tokens.weight"]}
    )
    assert same(checkpoint.load(folder)[0], filled(1))  # a copy of the tied table does no harm


def test_missing_things_are_said(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for name, words in (("none", "not found"), ("file", "not a folder"), ("empty", "no config.json")):
        with pytest.raises(CheckpointError, match=words):
            checkpoint.load(tmp_path / name)
    checkpoint.save(tmp_path / "model", filled(1))
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        checkpoint.load(tmp_path / "model")
    (tmp_path / "model" / "SHA256SUMS").unlink()
    (tmp_path / "model" / "pytorch_model.bin").write_text("")
    with pytest.raises(CheckpointError, match="convert pytorch_model.bin"):
        checkpoint.load(tmp_path / "model")


@given(
    st.binary(max_size=200)
    | st.builds(
        lambda head, body: len(head).to_bytes(8, "little") + head + body,
        st.text(max_size=60).map(str.encode),
        st.binary(max_size=40),
    )
)
def test_any_bytes_are_tensors_or_an_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("t") / "x.safetensors"
    path.write_bytes(data)
    try:
        tensors.read(path)
    except tensors.TensorError as error:
        assert str(path) in str(error)


# ---- what only goes wrong on a bad day --------------------------------------------------------------


def unsummed(folder):
    checkpoint.save(folder, filled(1))
    (folder / "SHA256SUMS").unlink()


def write_header(path, header, data=b""):
    head = json.dumps(header).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + data)


@pytest.mark.parametrize("renames", [1, 2])
def test_a_crash_while_a_failure_is_undone(folder, monkeypatch, renames):
    """A rename fails, and the power goes out at every later moment: in the middle of a deletion, too."""
    for k in range(50):
        shutil.rmtree(folder.parent)
        folder.parent.mkdir()
        checkpoint.save(folder, filled(1))
        failed, left = [0], [k]
        rename, rmtree = os.rename, shutil.rmtree

        def step(failed=failed, left=left):
            if failed[0] >= renames:
                if left[0] == 0:
                    raise Crash
                left[0] -= 1

        def failing_rename(*args, step=step, failed=failed, rename=rename):
            step()
            failed[0] += 1
            if failed[0] == renames:
                raise OSError(5, "Input/output error")
            rename(*args)

        def slow_rmtree(path, *args, step=step, rmtree=rmtree, **kwargs):
            for file in sorted(path.iterdir()) if path.is_dir() else []:
                step()
                file.unlink()
            rmtree(path, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(os, "rename", failing_rename)
            patch.setattr(shutil, "rmtree", slow_rmtree)
            try:
                checkpoint.save(folder, filled(2))
            except Crash:
                crashed = True
            except CheckpointError:
                crashed = False
        model, _ = checkpoint.load(folder)
        assert same(model, filled(1)) or (crashed and same(model, filled(2)))
        if not crashed:
            assert [path.name for path in folder.parent.iterdir()] == ["model"] and k > 1
            return
    pytest.fail("save never finished")


def test_any_failure_leaves_the_old_one_and_nothing_else(folder, monkeypatch):
    """Every call that changes the disk says no in turn; `untouched` has to be true each time."""
    for k in range(200):
        shutil.rmtree(folder.parent)
        folder.parent.mkdir()
        checkpoint.save(folder, filled(1))
        left = [k]

        def once(function, left=left):
            def call(*args, **kwargs):
                left[0] -= 1
                if left[0] == -1:
                    raise OSError(28, "No space left on device")
                return function(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            for module, name in ((os, "rename"), (os, "fsync"), (tensors, "write"), (checkpoint, "_sha256")):
                patch.setattr(module, name, once(getattr(module, name)))
            try:
                checkpoint.save(folder, filled(2))
                done = True
            except CheckpointError as error:
                assert "No space left" in str(error) and "untouched" in str(error)
                done = False
        if done:
            assert same(checkpoint.load(folder)[0], filled(2)) and k > 8
            return
        assert same(checkpoint.load(folder)[0], filled(1))
        assert [path.name for path in folder.parent.iterdir()] == ["model"]
    pytest.fail("save never finished")


def test_a_mistake_in_the_program_leaves_nothing_behind(folder):
    checkpoint.save(folder, filled(1))
    with pytest.raises(TypeError):
        checkpoint.save(folder, filled(2), extra={"a.json": {"x": object()}})
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    assert same(checkpoint.load(folder)[0], filled(1))


def test_what_the_user_deleted_does_not_come_back(folder):
    checkpoint.save(folder, filled(1))
    shutil.copytree(folder, folder.with_name(".model.old"))  # a crash while the old one was being removed
    shutil.rmtree(folder)
    with pytest.raises(CheckpointError, match="not found"):
        checkpoint.load(folder)


@pytest.mark.skipif(os.name == "nt", reason="needs symbolic links")
def test_symbolic_links_stay(folder):
    checkpoint.save(folder, filled(1))
    link = folder.with_name("link")
    link.symlink_to(folder)
    (folder / "dangling").symlink_to("nowhere")
    for value in (2, 3):
        checkpoint.save(link, filled(value))
        assert same(checkpoint.load(folder)[0], filled(value)) and link.is_symlink()
    assert (folder / "dangling").is_symlink()
    assert sorted(path.name for path in folder.parent.iterdir()) == ["link", "model"]


@pytest.mark.parametrize("cut", range(0, 300, 7))
def test_sums_cut_short_are_refused(folder, cut):
    checkpoint.save(folder, filled(1), train("hello hello", 258))
    path = folder / "SHA256SUMS"
    data = path.read_bytes()
    path.write_bytes(data[: cut % len(data)])
    with pytest.raises(CheckpointError, match="SHA256SUMS is damaged"):
        checkpoint.load(folder)
    path.write_bytes(b"".join(data.splitlines(keepends=True)[: cut % 4]))  # and at the end of a line
    with pytest.raises(CheckpointError, match="SHA256SUMS is damaged"):
        checkpoint.load(folder)
    checkpoint.save(folder, filled(2))  # but never an obstacle to a new checkpoint
    assert same(checkpoint.load(folder)[0], filled(2))


def test_a_tokenizer_that_the_sums_do_not_know(folder):
    checkpoint.save(folder, filled(1))
    train("hello hello", 258).save(folder)
    with pytest.raises(CheckpointError, match="tokenizer.json is altered"):
        checkpoint.load(folder)


def test_tokenizer_and_tensors_of_a_foreign_model_do_not_stay(folder):
    unsummed(folder)
    train("hello hello", 258).save(folder)
    tensors.write(folder / "adapter.safetensors", {"x": np.zeros(1)})
    checkpoint.save(folder, filled(2))
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors", "SHA256SUMS"}


def test_a_tokenizer_of_another_kind_says_how_to_go_without(folder):
    unsummed(folder)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match="move tokenizer.json away"):
        checkpoint.load(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "SHA256SUMS"])
def test_a_file_that_may_not_be_read(folder, monkeypatch, name):
    checkpoint.save(folder, filled(1), train("hello hello", 258))

    def refusing(function):
        def call(path, *args, **kwargs):
            if str(path).endswith(name):
                raise PermissionError(13, "Permission denied", str(path))
            return function(path, *args, **kwargs)

        return call

    monkeypatch.setattr("pathlib.Path.open", refusing(checkpoint.Path.open))
    monkeypatch.setattr("pathlib.Path.read_bytes", refusing(checkpoint.Path.read_bytes))
    monkeypatch.setattr("builtins.open", refusing(open))
    with pytest.raises(CheckpointError, match=name):
        checkpoint.load(folder)


@pytest.mark.parametrize("name", ["..", ".", "../x", "/x", "a\\b", "a\0b", "\ud800", "", 3, None])
def test_an_index_names_files_of_its_folder(folder, name):
    unsummed(folder)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": name}}))
    with pytest.raises(CheckpointError, match="weight_map does not name files"):
        checkpoint.load(folder)


@pytest.mark.parametrize("shape", [[1] * 65, [0, 2**70], [2**70, 0]])
def test_shapes_beyond_numpy(tmp_path, shape):
    size = int(0 not in shape)
    entry = {"dtype": "U8", "shape": shape, "data_offsets": [0, size]}
    write_header(tmp_path / "x.safetensors", {"x": entry}, bytes(size))
    with pytest.raises(CheckpointError, match="impossible shape"):
        checkpoint.read_tensors(tmp_path / "x.safetensors")


def test_shapes_come_back(tmp_path):
    for shape in ((), (0,), (1,), (2, 0, 3), (2, 3)):
        tensors.write(tmp_path / "x.safetensors", {"x": np.ones(shape)})
        assert checkpoint.read_tensors(tmp_path / "x.safetensors")["x"].shape == shape


def test_weights_are_float32_on_disk_and_nothing_else_in_memory(folder):
    checkpoint.save(folder, random_model(SMALL, np.random.default_rng(0), np.float64))
    found = tensors.read(folder / "model.safetensors")
    assert {array.dtype for array in found.values()} == {np.dtype(np.float32)}
    (folder / "SHA256SUMS").unlink()
    for dtype in (np.int32, np.float64):
        tensors.write(
            folder / "model.safetensors", {name: array.astype(dtype) for name, array in found.items()}
        )
        with pytest.raises(CheckpointError, match=f"holds {np.dtype(dtype)} numbers"):
            checkpoint.load(folder)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"num_hidden_layers": 1.5}, "num_hidden_layers must be at least 1 and whole"),
        ({"num_key_value_heads": 0}, "num_key_value_heads must be at least 1"),
        ({"head_dim": 0}, "head_dim must be at least 1"),
        ({"is_causal": "no"}, "is_causal is 'no', not true or false"),
        ({"is_causal": 0}, "is_causal is 0, not true or false"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes', not true or false"),
        ({"rope_theta": 0, "rope_parameters": None}, "rope_theta is 0"),
        ({"architectures": ["LlamaForTokenClassification"]}, "LlamaForTokenClassification"),
        ({"architectures": ["LlamaForSequenceClassification"], "num_labels": 3}, "more than one label"),
    ],
)
def test_values_that_mean_nothing_are_refused_by_name(folder, change, words):
    unsummed(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(CheckpointError, match=words):
        checkpoint.load(folder)


def test_a_score_head_may_say_num_labels_alone(folder):
    model = Transformer(Config(vocab=9, context=4, layers=1, width=4, heads=2, head="score"))
    checkpoint.save(folder, model)
    (folder / "SHA256SUMS").unlink()
    config = json.loads((folder / "config.json").read_text())
    config.pop("id2label")
    (folder / "config.json").write_text(json.dumps(config | {"num_labels": 1}))
    assert same(checkpoint.load(folder)[0], model)
