"""corpus: validation text must never be trained on, and the windows of an epoch must not overlap.

Otherwise the validation loss would measure memorisation, or some of the text would be learned more often than
the rest.
"""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from stage_runs import record
from tqdm import tqdm

from tinyllm.data import corpus
from tinyllm.errors import TinyllmError
from tinyllm.runs import fingerprint
from tinyllm.tokenizer import train

BYTES = train("", 256)
documents = st.lists(
    st.binary(min_size=1, max_size=30) | st.text(min_size=1, max_size=20).map(str.encode),
    min_size=1,
    max_size=6,
)

# ---- documents


@given(documents, st.floats(0.01, 0.99))
@example([b"\x00\x80\x80\x80\x80\x00\x00\x00"], 0.5)
def test_the_text_is_cut_once_into_a_training_and_a_validation_part(documents, share):
    training, validation = corpus.split(documents, share)
    whole = b"".join(documents)
    assert b"".join(training) + b"".join(validation) == whole
    assert all(training) and all(validation)
    cut = len(b"".join(training))
    assert int(len(whole) * (1 - share)) - 3 <= cut <= len(whole) * (1 - share)


@given(st.lists(st.text(min_size=1), min_size=1, max_size=4), st.floats(0.01, 0.99))
def test_the_cut_is_never_inside_a_character(texts, share):
    for part in corpus.split([text.encode() for text in texts], share):
        for document in part:
            document.decode()


def test_reading_a_folder_gives_its_text_files_sorted_by_path(tmp_path):
    (tmp_path / "b.txt").write_bytes(b"second")
    (tmp_path / "a.md").write_bytes(b"first")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.txt").write_bytes(b"third")
    (tmp_path / ".hidden").write_bytes(b"no")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_bytes(b"no")
    (tmp_path / "image.bin").write_bytes(b"\0\1\2")
    (tmp_path / "empty.txt").write_bytes(b" \n")
    assert corpus.read(tmp_path) == [b"first", b"second", b"third"]
    assert corpus.read(tmp_path / "b.txt") == [b"second"]


def test_files_that_are_not_text_are_skipped_and_one_message_names_them(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("caf\u00e9", encoding="utf-8")
    (tmp_path / ".DS_Store").write_bytes(b"\0hidden")
    before = fingerprint(tmp_path)
    assert capsys.readouterr().err == ""
    (tmp_path / "null.bin").write_bytes(b"\0\1\2")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\0\0")
    (tmp_path / "wide.txt").write_text("caf\u00e9", encoding="utf-16")
    for _ in range(2):
        assert corpus.read(tmp_path) == ["caf\u00e9".encode()] and fingerprint(tmp_path) == before
    names = "null.bin, picture.png, wide.txt"
    expected = f"left out files that are not text in UTF-8: {names}. To use a file, save it as UTF-8\n"
    assert capsys.readouterr().err == expected
    for i in range(9):
        (tmp_path / f"{i}.bin").write_bytes(b"\0")
    corpus.read(tmp_path)
    assert "4.bin and 7 more. To use" in capsys.readouterr().err


@pytest.mark.parametrize(
    "data", ["caf\u00e9".encode("cp1252"), "Gr\u00fc\u00dfe".encode() + b"\xe9", b"\x81\x40\x83"]
)
def test_bytes_that_are_not_utf_8_are_kept_and_one_message_names_the_file(tmp_path, capsys, data):
    (tmp_path / "old.txt").write_bytes(data)
    for _ in range(2):
        assert corpus.read(tmp_path / "old.txt") == [data]
    message = (
        f"{tmp_path / 'old.txt'} is not UTF-8, but is used as it is. If samples look wrong, save it as UTF-8"
    )
    assert capsys.readouterr().err == f"{message}\n"
    (tmp_path / "new.txt").write_bytes("\ufffd\u00e9".encode())
    assert corpus.read(tmp_path / "new.txt") == ["\ufffd\u00e9".encode()] and not capsys.readouterr().err


def test_a_text_that_is_missing_or_empty_is_refused(tmp_path):
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\0\0")
    for path, message in (
        (tmp_path / "none.txt", "not found"),
        (tmp_path / "empty.txt", "holds no text"),
        (tmp_path / "picture.png", "holds no text"),
        (tmp_path, "holds no text"),
    ):
        with pytest.raises(TinyllmError, match=message):
            corpus.read(path)


def test_the_last_tenth_of_a_file_is_for_validation_and_the_rest_for_training(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(" ".join(map(str, range(2000))), encoding="utf-8")
    training, validation = corpus.load(path, seed=0, characters=0)
    assert b"".join(training) + b"".join(validation) == path.read_bytes()
    assert len(b"".join(validation)) == pytest.approx(path.stat().st_size / 10, abs=2)


@pytest.mark.parametrize("seed", [0, 5])
def test_no_validation_document_of_the_built_in_world_is_trained_on(seed):
    training, validation = corpus.load("", seed, characters=200_000)
    assert 200_000 <= sum(map(len, training)) < 201_000 and 5_000 <= sum(map(len, validation)) < 6_000
    assert not set(training) & set(validation)
    assert corpus.load("", seed, characters=200_000) == (training, validation)
    assert corpus.load("", seed + 1, characters=2000)[0][0] != training[0]


def test_the_messages_that_the_vocabulary_is_learned_from_begin_with_a_space():
    messages = corpus.conversations_for_vocabulary(0)
    assert len(messages) > 8000 and all(message.startswith(b" ") for message in messages)


# ---- ids


def test_documents_are_packed_between_begin_and_end_tokens():
    begin, end = BYTES.special["<|begin|>"], BYTES.special["<|end|>"]
    assert corpus.pack([b"a", b"\xff"], BYTES).tolist() == [begin, 97, end, begin, 255, end]


def test_the_parts_of_a_long_document_get_the_same_ids_as_the_whole(monkeypatch, capsys):
    """A document is encoded in parts, because tokenizing takes many times as much memory as the text."""
    tokenizer = train(["a line\n\n\n" * 9], 264)
    document = b"a line\n\n\n" * 300_000
    whole = [tokenizer.special["<|begin|>"], *tokenizer.encode(document), tokenizer.special["<|end|>"]]
    parts, always = record(monkeypatch, tokenizer, "encode"), {"delay": 0, "mininterval": 0}
    monkeypatch.setattr(corpus, "tqdm", lambda **options: tqdm(**options | always))
    np.testing.assert_array_equal(corpus.pack([b"\n", document], tokenizer)[3:], whole)
    assert len(parts) == 4 and max(len(part.text) for part in parts) < 2**20 + 10
    assert "tokenizing:  39%" in capsys.readouterr().err


@given(st.text(max_size=20), st.text(max_size=20))
def test_an_opening_is_encoded_like_the_beginning_of_a_document_in_the_built_in_world(opening, rest):
    document = corpus.pack([f" {opening}{rest}".encode("utf-8", "surrogatepass")], BYTES)
    ids = corpus.encode_opening(BYTES, opening)
    assert document[: len(ids)].tolist() == ids


# ---- windows


@given(st.integers(2, 60), st.integers(1, 20), st.integers(1, 5), st.integers(0, 99))
def test_the_windows_of_an_epoch_do_not_overlap(length, window, rows, seed):
    ids = np.arange(length, dtype=np.int32)
    if length <= window:
        with pytest.raises(TinyllmError, match="one window needs"):
            corpus.windows(ids, window, rows, 0, seed)
        return
    per_epoch = max(1, (length - 1) // window - 1)
    steps = -(-2 * per_epoch // rows)
    used = np.concatenate([corpus.windows(ids, window, rows, step, seed)["ids"] for step in range(steps)])
    for epoch in (used[:per_epoch], used[per_epoch : 2 * per_epoch]):
        assert len(np.unique(epoch)) == per_epoch * window
        assert epoch.max() - epoch.min() == per_epoch * window - 1  # no gaps
    assert (used[:, 1:] == used[:, :-1] + 1).all()


@given(st.integers(30, 60), st.integers(1, 5), st.integers(0, 9), st.integers(0, 99))
def test_targets_are_the_next_tokens_and_the_batch_depends_only_on_seed_and_step(length, rows, step, seed):
    ids = np.arange(length, dtype=np.int32)
    batch, again = (corpus.windows(ids, 7, rows, step, seed) for _ in range(2))
    np.testing.assert_array_equal(batch["targets"], batch["ids"] + 1)  # ids count up
    assert batch["ids"].shape == batch["weights"].shape == (rows, 7) and (batch["weights"] == 1).all()
    for name, array in batch.items():
        np.testing.assert_array_equal(array, again[name])


def test_every_epoch_has_its_own_order_and_offset():
    ids = np.arange(10_000, dtype=np.int32)
    epochs = [corpus.windows(ids, 100, 98, step, 0)["ids"][:, 0] for step in range(9)]
    assert len({tuple(starts) for starts in epochs}) == 9
    assert len({int(starts.min()) for starts in epochs}) > 4
    assert (corpus.windows(ids, 100, 98, 0, 1)["ids"][:, 0] != epochs[0]).any()


@given(documents, st.integers(1, 20), st.integers(1, 5))
def test_validation_scores_every_token_once_and_each_document_from_its_beginning(documents, length, rows):
    batches = corpus.every_window(documents, BYTES, length, rows)
    assert all(len(batch["ids"]) <= rows and batch["ids"].shape[1] <= length for batch in batches)
    windows = []
    for batch in batches:
        for ids, targets, weights in zip(batch["ids"], batch["targets"], batch["weights"]):
            count = int(weights.sum())
            assert weights.tolist() == [1] * count == [1] * len(weights)  # no padding
            windows.append((ids[:count].tolist(), targets[:count].tolist()))
    for document in documents:
        ids = corpus.pack([document], BYTES).tolist()
        for start in range(0, len(ids) - 1, length):
            targets = ids[start + 1 : start + 1 + length]
            windows.remove((ids[start : start + len(targets)], targets))
    assert not windows


def test_a_text_is_tokenized_again_only_if_it_has_changed(tmp_path, monkeypatch):
    packs, path = record(monkeypatch, corpus, "pack"), tmp_path / "text.safetensors"
    source = {"path": "", "sha256": ""}
    first = corpus.packed(path, source, 0, 2000, BYTES)
    np.testing.assert_array_equal(corpus.packed(path, source, 0, 2000, BYTES), first)
    assert len(packs) == 1 and first.tolist() == corpus.pack(corpus.load("", 0, 2000)[0], BYTES).tolist()
    corpus.packed(path, source, 1, 2000, BYTES)
    corpus.packed(path, source, 1, 3000, BYTES)
    (tmp_path / "own.txt").write_text("The sea is wide. " * 20)
    own = corpus.packed(path, {"path": str(tmp_path / "own.txt"), "sha256": "0"}, 1, 3000, BYTES)
    assert "sea" in BYTES.decode(own.tolist()) and len(packs) == 5
    assert not corpus.packed(path, None, 1, 3000, BYTES).size
