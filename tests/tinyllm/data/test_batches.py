"""lessons: batches of conversations leak nothing from one to another, and lose nothing."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.lessons import PIECES, REPEATED, Lessons, spell_all
from tinyllm.objectives import weighted_nll
from tinyllm.tokenizer import train
from tinyllm.transformer import Config, Transformer

BYTES = train("", 256)
TEXT = np.arange(1000, dtype=np.int32) % 256
rows = st.lists(st.integers(2, 30), min_size=1, max_size=30).map(
    lambda sizes: [(list(range(i, i + n)), [0, *[1] * (n - 1)]) for i, n in enumerate(sizes)]
)


@given(rows, st.integers(8, 200), st.sampled_from([0, 0.25, 0.5]), st.integers(0, 9))
def test_an_epoch_holds_every_conversation_once(rows, size, replay, seed):
    lessons = Lessons(rows, TEXT, size, replay, seed)
    seen, batches = [], lessons.batches(len(rows) * 2)
    for chosen in sum(batches, []):
        if len(seen) < len(rows):
            seen += list(chosen)
    assert sorted(seen) == list(range(len(rows)))
    again = Lessons(rows, TEXT, size, replay, seed).batches(len(rows) * 2)
    assert all((a == b).all() for one, two in zip(batches, again) for a, b in zip(one, two))


@given(rows, st.integers(8, 200), st.sampled_from([0, 0.25, 0.5]), st.integers(0, 9))
def test_a_batch_holds_one_conversation_a_row_and_the_share_of_text(rows, size, replay, seed):
    lessons = Lessons(rows, TEXT, size, replay, seed)
    for ids, targets, weights, chosen in (
        (*piece, chosen)
        for step, batch in enumerate(lessons.batches(3))
        for piece, chosen in zip(lessons.batch(batch, step), batch, strict=True)
    ):
        for row, i in enumerate(chosen):
            whole, learned = rows[i]
            assert list(ids[row, : len(whole) - 1]) == whole[:-1] and weights[row].sum() == sum(learned)
            assert list(targets[row][weights[row] > 0]) == whole[1:]
        assert len(chosen) == 1 or len(chosen) * (ids.shape[1] + 1) <= size * (1 - replay) / PIECES
        assert len(ids) - len(chosen) == round(len(chosen) * replay / (1 - replay))
        assert (weights[len(chosen) :] == 1).all() and (ids[len(chosen) :, 0] == TEXT[0]).all()


def test_what_stands_behind_a_conversation_or_in_another_row_changes_nothing():
    said = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}]
            for q, a in (("one?", "1"), ("and two?", "2, I think"))]  # fmt: skip
    both = Lessons(spell_all(BYTES, said, 64), TEXT, 10_000, 0, 0)
    model = Transformer(Config(len(BYTES), context=64, layers=1, width=16, heads=2))
    model.initialise(np.random.default_rng(0))

    def loss(lessons, chosen):
        ((ids, targets, weights),) = lessons.batch([chosen], 0)
        return weighted_nll(model.forward(ids)[0], targets, weights, 1.0)[0]

    assert np.isclose(loss(both, [0, 1]), loss(both, [0]) + loss(both, [1]), rtol=1e-5)


def test_too_long_conversations_are_counted_and_left_out(capsys):
    said = [
        [{"role": "user", "content": "x" * n}, {"role": "assistant", "content": "y"}] for n in (3, 100, 200)
    ]
    assert len(spell_all(BYTES, said, 50)) == 1
    assert "2 of 3 conversations" in capsys.readouterr().err


@given(rows, st.integers(8, 9000), st.integers(0, 9))
def test_a_sixteenth_of_a_batch_repeats_itself(rows, size, seed):
    plain, lessons = Lessons(rows, TEXT, size, 0.5, seed), Lessons(rows, TEXT, size, 0.5, seed, 256)
    (chosen,) = plain.batches(1)
    *pieces, (ids, targets, weights) = lessons.batch(chosen, 0)
    for piece, without in zip(pieces, plain.batch(chosen, 0), strict=True):
        assert all((a == b).all() for a, b in zip(piece, without, strict=True))
    assert abs(ids.size - size / 16) <= REPEATED and ids.shape[1] == REPEATED and weights.sum() > 0
    rows, places = np.nonzero(weights)
    assert all(row[place] in row[:place] for row, place in zip(targets[rows], places))
    assert (ids != lessons.batch(chosen, 1)[-1][0]).any()
