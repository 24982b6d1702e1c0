"""text: every byte of the held-out text counts once, so models with any vocabulary can be compared.

If special tokens counted, or some bytes counted twice, the figures would depend on the tokenizer.
"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import ScriptedPool
from strategies import random_model

from tinyllm.evaluation import text
from tinyllm.evaluation.ngram import ngram_nats
from tinyllm.parallel import WorkerPool
from tinyllm.tokenizer import train
from tinyllm.transformer import Config, Transformer

BYTES = train("", 256)
CONFIG = Config(vocab=len(BYTES), context=8, layers=1, width=4, heads=2)
UNIFORM = Transformer(CONFIG)  # all parameters are 0: every token is equally likely
documents = st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=5)


def characters_in(documents):
    return sum(len(document.decode("utf-8", "replace")) for document in documents)


def uniform_over_bytes():
    """A model that gives all 256 bytes the same probability and special tokens a probability of 0."""
    model = Transformer(Config(vocab=len(BYTES), context=8, layers=1, width=4, heads=2, tied=False))
    model.params["embedding"][:] = 1
    model.params["norm"][:] = 1
    model.params["head"][BYTES.ordinary :] = -100
    return model


@given(documents)
@settings(max_examples=30)
def test_a_uniform_model_of_bytes_needs_8_bits_per_byte(documents):
    with WorkerPool(uniform_over_bytes()) as pool:
        bits = text.bits_per_byte(pool, BYTES, documents, 8)["bits_per_byte"]
    assert [bits[key] for key in ("low", "value", "high")] == pytest.approx([8, 8, 8], rel=1e-5)


@given(documents, st.integers(1, 2), st.integers(2, 8), st.sampled_from([256, 258]))
@settings(max_examples=20)
def test_every_byte_is_counted_once_and_special_tokens_are_not(documents, workers, length, vocab):
    """A uniform model pays log2(vocabulary size) bits for each token, however many bytes the token has."""
    tokenizer = train(b"ab ab ab \0\0 \0\0", vocab)
    documents = [document + b" ab" for document in documents]
    model = Transformer(Config(vocab=len(tokenizer), context=8, layers=1, width=4, heads=2))
    with WorkerPool(model, workers) as pool:
        results = text.bits_per_byte(pool, tokenizer, documents, length)
    bits, tokens = results["bits_per_byte"], sum(len(tokenizer.encode(document)) for document in documents)
    assert bits["n"] == sum(map(len, documents))
    assert bits["value"] * bits["n"] == pytest.approx(tokens * math.log2(len(tokenizer)), rel=1e-5)
    assert bits["low"] <= bits["value"] <= bits["high"]
    nats = results["validation_nats_per_character"] * characters_in(documents)
    assert nats == pytest.approx(tokens * math.log(len(tokenizer)), rel=1e-5)


def test_bits_per_byte_are_the_loss_in_bits_divided_by_the_number_of_bytes():
    """The loss of a document that fits into one window is the sum of -log2 p over its bytes. The end token
    does not count."""
    model, document = random_model(CONFIG, np.random.default_rng(0), np.float32), b"abcab"
    ids = np.array([[BYTES.special["<|begin|>"], *document]])
    logits = model.forward(ids)[0][0].astype(float)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = -sum(math.log2(p[at, byte]) for at, byte in enumerate(document)) / 5
    with WorkerPool(model) as pool:
        results = text.bits_per_byte(pool, BYTES, [document], 8)
    assert results["bits_per_byte"]["value"] == pytest.approx(expected, rel=1e-4)


def test_more_text_makes_the_interval_narrower():
    documents = [bytes(np.random.default_rng(i).integers(97, 123, 20).tolist()) for i in range(80)]
    with WorkerPool(random_model(CONFIG, np.random.default_rng(0), np.float32)) as pool:
        few, many = (text.bits_per_byte(pool, BYTES, documents[:n], 8)["bits_per_byte"] for n in (20, 80))
    width = lambda bits: bits["high"] - bits["low"]
    assert few["low"] < few["value"] < few["high"] and width(many) / width(few) == pytest.approx(0.5, abs=0.2)


@given(documents, st.lists(st.text("ab ", min_size=1, max_size=20), min_size=1, max_size=3))
def test_the_fivegram_table_keeps_documents_apart_and_counts_no_separators(training, validation):
    """A 0 byte between two documents tells the table that a new document begins."""
    validation = [document.encode() for document in validation]
    joined = b"\0".join(validation)
    nats = ngram_nats(b"\0".join(training), joined, order=5)
    total = sum(cost for cost, byte in zip(nats, joined) if byte)
    results = text.fivegram(training, validation)
    bits = results["fivegram_bits_per_byte"] * sum(map(len, validation))
    assert bits == pytest.approx(total / math.log(2), rel=1e-9)
    characters = characters_in(validation)
    assert results["fivegram_nats_per_character"] * characters == pytest.approx(total, rel=1e-9)


def test_only_positions_with_a_hidden_token_are_scored():
    """A uniform model always guesses token 0, which is right exactly where a 0 was hidden."""
    documents = [bytes([0] * 400), bytes([1] * 100)]
    with WorkerPool(UNIFORM) as pool:
        results = text.hidden_tokens(pool, BYTES, documents)
        again = text.hidden_tokens(pool, BYTES, documents)
    top, majority = results["masked_top1"], results["masked_majority"]
    assert top == majority and top["value"] == pytest.approx(0.8, abs=0.1)
    assert 0.1 * 500 < top["n"] < 0.2 * 500
    assert again == results  # every model has to guess the same tokens


def test_the_majority_baseline_always_guesses_the_most_frequent_hidden_token():
    with WorkerPool(UNIFORM) as pool:
        results = text.hidden_tokens(pool, BYTES, [bytes([1] * 400), bytes([0] * 100)])
    assert results["masked_majority"]["value"] == pytest.approx(0.8, abs=0.1)
    assert results["masked_top1"]["value"] == pytest.approx(0.2, abs=0.1)


def test_a_cloze_is_right_if_the_reply_begins_with_the_whole_word_and_a_full_stop():
    words = {" Ada keeps a": "duck. Ada", " Bill keeps a": "duckling.", " Cora keeps a": "cat", " Kurt": "is"}
    items = [("Ada keeps a", "duck"), ("Bill keeps a", "duck"), ("Cora keeps a", "cat"), ("Kurt", "is")]
    pool = ScriptedPool(BYTES, lambda opening: words[opening.removeprefix("<|begin|>")])
    result = text.cloze(pool, BYTES, items)
    assert result["value"] == 0.25 and result["n"] == 4
