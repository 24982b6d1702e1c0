"""ngram: the fast version gives the probabilities of Witten and Bell's formula, and they sum to 1.

If the baseline were too weak, a model could beat it without having learned anything.
"""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm.evaluation.ngram import ngram_nats

data = st.binary(min_size=1, max_size=40) | st.text("ab", min_size=1, max_size=40).map(str.encode)
orders = st.integers(1, 5)


def witten_bell(training, history, byte):
    """p(byte | history), computed from the formula in the docstring of ngram_nats."""
    shorter = witten_bell(training, history[1:], byte) if history else 1 / 256
    after = Counter(
        training[i + len(history)]
        for i in range(len(training) - len(history))
        if training[i : i + len(history)] == history
    )
    if not after:
        return shorter
    return (after[byte] + len(after) * shorter) / (after.total() + len(after))


@given(data, data, orders)
def test_the_fast_version_gives_the_result_of_the_formula(training, text, order):
    expected = [
        -np.log(witten_bell(training, text[max(0, i - order + 1) : i], text[i])) for i in range(len(text))
    ]
    np.testing.assert_allclose(ngram_nats(training, text, order), expected, rtol=1e-9)


@given(data, st.binary(max_size=6), orders)
@settings(max_examples=10)  # each example needs 256 texts
def test_probabilities_sum_to_1(training, history, order):
    nats = [ngram_nats(training, history + bytes([byte]), order)[-1] for byte in range(256)]
    assert np.exp(-np.array(nats)).sum() == pytest.approx(1, abs=1e-9)


@given(data, orders)
def test_a_byte_costs_the_same_whatever_follows_it(text, order):
    nats = ngram_nats(b"some training text", text, order)
    np.testing.assert_allclose(ngram_nats(b"some training text", text + b"more", order)[: len(text)], nats)


def test_a_longer_context_predicts_what_a_shorter_one_cannot():
    """b or c may follow "a", but only c follows "ba". Order 3 sees "ba"; order 2 sees only "a"."""
    training = b"xabacxabac" * 20
    nats = {order: ngram_nats(training, b"xabac", order)[4] for order in (2, 3)}
    assert nats[2] > 0.6 and nats[3] < 0.2
