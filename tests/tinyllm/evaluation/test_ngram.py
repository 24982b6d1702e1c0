from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.ngram import ngram_nats

data = st.binary(min_size=1, max_size=40) | st.text("ab", min_size=1, max_size=40).map(str.encode)


def slowly(training, text, order):
    """Witten and Bell's formula, one byte at a time."""

    def p(history, byte):
        shorter = p(history[1:], byte) if history else 1 / 256
        after = Counter(
            training[i + len(history)]
            for i in range(len(training) - len(history))
            if training[i : i + len(history)] == history
        )
        if not after:
            return shorter
        return (after[byte] + len(after) * shorter) / (after.total() + len(after))

    return [-np.log(p(text[max(0, i - order + 1) : i], text[i])) for i in range(len(text))]


@given(data, data, st.integers(1, 5))
def test_the_table_is_the_formula(training, text, order):
    np.testing.assert_allclose(ngram_nats(training, text, order), slowly(training, text, order), rtol=1e-9)


@given(data, st.binary(max_size=6), st.integers(1, 5))
def test_probabilities_sum_to_one(training, history, order):
    assert (
        abs(sum(np.exp(-ngram_nats(training, history + bytes([b]), order)[-1]) for b in range(256)) - 1)
        < 1e-9
    )
