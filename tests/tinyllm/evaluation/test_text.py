import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm import exams
from tinyllm.intervals import share
from tinyllm.parallel import Team
from tinyllm.tokenizer import train
from tinyllm.transformer import Config

BYTES = train("", 256)
LEVEL = Config(vocab=len(BYTES), context=8, layers=1, width=4, heads=2)  # all zero: every token as likely


@given(st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=5), st.integers(1, 2))
def test_a_level_model_needs_log2_of_the_vocabulary_for_each_byte_and_nothing_for_special_tokens(
    documents, workers
):
    with Team(LEVEL, workers) as team:
        found = exams.reading(team, BYTES, documents, 8)
    bits = found["bits_per_byte"]
    assert bits["n"] == sum(map(len, documents))
    assert bits["low"] <= bits["value"] == pytest.approx(math.log2(len(BYTES)), rel=1e-5)
    characters = sum(len(document.decode("utf-8", "replace")) for document in documents)
    assert found["validation_nats_per_character"] * characters == pytest.approx(
        bits["n"] * math.log(len(BYTES)), rel=1e-5
    )


def test_the_interval_is_wilsons():
    assert share(0, 0) is None
    for hits, n, low, high in (
        (5, 10, 0.2366, 0.7634),
        (0, 10, 0, 0.2775),
        (10, 10, 0.7225, 1),
        (81, 263, 0.2553, 0.3662),
    ):
        found = share(hits, n)
        assert found["value"] == hits / n and found["n"] == n
        assert (found["low"], found["high"]) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


@given(st.integers(1, 300), st.data())
def test_an_interval_holds_its_value(n, data):
    found = share(data.draw(st.integers(0, n)), n)
    assert 0 <= found["low"] <= found["value"] + 1e-12 and found["value"] <= found["high"] + 1e-12 <= 1 + 1e-9


def test_hidden_tokens_are_scored_on_what_was_hidden_alone():
    """A level model always guesses token 0, which is right exactly where a 0 was hidden."""
    documents = [bytes([0] * 400), bytes([1] * 100)]
    with Team(LEVEL, 1) as team:
        found = exams.hidden_tokens(team, BYTES, documents)
    top, majority = found["masked_top1"], found["masked_majority"]
    assert (
        top == majority and top["value"] == pytest.approx(0.8, abs=0.1) and 0.1 * 500 < top["n"] < 0.2 * 500
    )


def test_a_cloze_counts_true_endings():
    with Team(LEVEL, 1) as team:
        assert exams.cloze(team, BYTES, [("a b", "\0\0"), ("a", "x")])["value"] == 0
        answers = exams.likeliest(team.replica, [[1, 2], [3]])
    assert answers == [[0] * 8, [0] * 8] and np.isfinite(answers).all()
