"""repeats: only looking back predicts these rows, and it does so wherever a weight is 1."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.data.repeats import repeats

seeds = st.integers(0, 2**32 - 1)


def continuations(before, longest):
    """What came after the last place where the same n tokens stood as now, for n = 1 to `longest`."""
    for n in range(1, longest + 1):
        places = [at for at in range(n, len(before)) if before[at - n : at] == before[len(before) - n :]]
        yield before[places[-1]] if places else None


@given(seeds, st.integers(0, 5), st.integers(1, 130), st.integers(256, 2000))
def test_where_a_weight_is_1_the_tokens_before_determine_the_next_one(seed, rows, length, vocab):
    """As the continuation of the last one to four tokens: a phrase has at most three, then comes the item."""
    ids, weights = repeats(vocab, rows, length, [seed])
    assert ids.shape == weights.shape == (rows, length) and (ids >= 0).all() and (ids < vocab).all()
    assert set(np.unique(weights)) <= {0, 1}
    for row, row_weights in zip(ids.tolist(), weights):
        for t in np.flatnonzero(row_weights):
            assert row[t] in list(continuations(row[:t], 4))
    if length > 12:
        assert (weights.sum(axis=1) > length / 8).all()


@given(seeds, st.integers(1, 5), st.integers(1, 130))
def test_the_seed_decides_everything(seed, rows, length):
    ids, weights = repeats(300, rows, length, [seed])
    again_ids, again_weights = repeats(300, rows, length, [seed])
    np.testing.assert_array_equal(ids, again_ids)
    np.testing.assert_array_equal(weights, again_weights)


def test_other_seeds_give_other_rows_and_every_token_takes_part_special_ones_too():
    ids = np.concatenate([repeats(300, 8, 256, [seed])[0] for seed in range(40)])
    assert len(np.unique(ids[:, :8], axis=0)) == len(ids)
    assert set(ids.ravel().tolist()) == set(range(300))


def kind(row):
    """What a row of repetitions is, told from its tokens alone."""
    period = next(p for p in range(1, len(row)) if row[:-p] == row[p:] or p == len(row) - 1)
    if period > len(row) // 2:
        return "pairs"  # in a new order each time, so without a period
    return "list" if len(set(row[:period])) == period else "phrases"


def test_rows_are_lists_phrases_and_pairs_about_equally_often():
    kinds = [kind(row) for row in repeats(300, 600, 257, [0])[0].tolist()]
    for name in ("list", "phrases", "pairs"):
        assert 150 < kinds.count(name) < 260, (name, kinds.count(name))
