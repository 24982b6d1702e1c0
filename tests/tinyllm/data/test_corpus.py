import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tinyllm import corpus
from tinyllm.tokenizer import train

documents = st.lists(
    st.binary(min_size=1, max_size=30) | st.text(min_size=1, max_size=20).map(str.encode),
    min_size=1,
    max_size=6,
)


@given(documents, st.floats(0.01, 0.99))
@example([b"\x00\x80\x80\x80\x80\x00\x00\x00"], 0.5)
def test_a_split_is_one_cut(documents, share):
    training, validation = corpus.split(documents, share)
    whole = b"".join(documents)
    assert b"".join(training) + b"".join(validation) == whole
    assert all(training) and all(validation)
    cut = len(b"".join(training))
    assert int(len(whole) * (1 - share)) - 3 <= cut <= len(whole) * (1 - share)


@given(st.lists(st.text(min_size=1), min_size=1, max_size=4), st.floats(0.01, 0.99))
def test_a_cut_never_goes_through_a_character(texts, share):
    for part in corpus.split([text.encode() for text in texts], share):
        for document in part:
            document.decode()


@given(st.integers(2, 60), st.integers(1, 20), st.integers(1, 5), st.integers(0, 99))
def test_an_epoch_of_windows_visits_no_place_twice(length, context, rows, seed):
    ids = np.arange(length, dtype=np.int32)
    if length <= context:
        with pytest.raises(corpus.CorpusError, match="one context needs"):
            corpus.windows(ids, context, rows, 0, seed)
        return
    per_epoch = max(1, (length - 1) // context - 1)
    seen = [
        tuple(row)
        for step in range(-(-per_epoch // rows))
        for row in corpus.windows(ids, context, rows, step, seed)[0]
    ]
    first = seen[:per_epoch]
    assert len({i for row in first for i in row}) == per_epoch * context
    inputs, targets, weights = corpus.windows(ids, context, rows, 3, seed)
    np.testing.assert_array_equal(targets, inputs + 1)  # ids count up, so the next one is one more
    assert inputs.shape == weights.shape == (rows, context) and (weights == 1).all()
    np.testing.assert_array_equal(inputs, corpus.windows(ids, context, rows, 3, seed)[0])


@given(documents, st.integers(1, 20), st.integers(1, 5))
def test_validation_scores_every_position_once_and_documents_from_their_beginning(documents, context, rows):
    tokenizer = train("", 256)
    batches = corpus.every_window(documents, tokenizer, context, rows)
    assert all(len(ids) <= rows and ids.shape[1] <= context for ids, _, _ in batches)
    rows = [row for batch in batches for row in zip(*batch)]
    found = [(ids[learned > 0].tolist(), targets[learned > 0].tolist()) for ids, targets, learned in rows]
    for document in documents:
        ids, seen = corpus.pack([document], tokenizer).tolist(), 0
        while seen < len(ids) - 1:
            window = ids[seen : seen + context], ids[seen + 1 : seen + 1 + context]
            found.remove((window[0][: len(window[1])], window[1]))
            seen += context
    assert not found


def test_documents_are_told_apart():
    tokenizer = train("", 256)
    begin, end = tokenizer.special["<|begin|>"], tokenizer.special["<|end|>"]
    assert corpus.pack([b"a", b"\xff"], tokenizer).tolist() == [begin, 97, end, begin, 255, end]


def test_a_folder_is_its_text_files_in_order(tmp_path):
    (tmp_path / "b.txt").write_bytes(b"second")
    (tmp_path / "a.md").write_bytes(b"first \xff")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.txt").write_bytes(b"third")
    (tmp_path / ".hidden").write_bytes(b"no")
    (tmp_path / "image.bin").write_bytes(b"\0\1\2")
    (tmp_path / "empty.txt").write_bytes(b" \n")
    assert corpus.read(tmp_path) == [b"first \xff", b"second", b"third"]
    assert corpus.read(tmp_path / "b.txt") == [b"second"]


def test_what_cannot_be_read_is_said(tmp_path):
    (tmp_path / "empty.txt").write_bytes(b"")
    for path, words in (
        (tmp_path / "none.txt", "not found"),
        (tmp_path / "empty.txt", "is empty"),
        (tmp_path, "holds no text"),
    ):
        with pytest.raises(corpus.CorpusError, match=words):
            corpus.read(path)
