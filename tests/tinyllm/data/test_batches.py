"""batches: an epoch must use every conversation once, each in a row of its own.

Otherwise some conversations would never be learned, or the model would see one conversation while it answers
another.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import rngs, sizes

from tinyllm.data.batches import (
    PIECES,
    ConversationBatches,
    chained,
    encode_fitting,
    length_buckets,
    mask_tokens,
    report_left_out,
)
from tinyllm.data.corpus import pack
from tinyllm.objectives import weighted_nll
from tinyllm.tokenizer import train
from tinyllm.transformer import Config, Transformer

BYTES = train("", 256)
BEGIN = BYTES.special["<|begin|>"]
# Documents of 7 to 66 tokens
TEXT = pack([bytes([97 + i % 26]) * (5 + 7 * i % 60) for i in range(80)], BYTES)


@st.composite
def rows_of_conversations(draw):
    """[(ids, mask)] with random masks; the first token of a row is never learned."""
    lengths, rng = draw(st.lists(st.integers(2, 30), min_size=1, max_size=30)), draw(rngs)
    return [(list(range(i, i + n)), [0, *rng.integers(0, 2, n - 1).tolist()]) for i, n in enumerate(lengths)]


shares = st.sampled_from([0, 0.25, 0.4, 0.5])
token_counts = st.integers(8, 200)
seeds = st.integers(0, 9)


def conversation(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


# ---- what is in a batch


@given(rows_of_conversations(), token_counts, shares, seeds)
def test_an_epoch_uses_every_conversation_once(rows, size, replay, seed):
    plan = ConversationBatches(rows, TEXT, size, replay, seed, len(rows) * 2).plan
    assert all(len(planned) == PIECES for planned in plan)
    used = []
    for numbers in sum(plan, []):
        if len(used) < len(rows):
            used += list(numbers)
    assert sorted(used) == list(range(len(rows)))


@settings(max_examples=40)
@given(rows_of_conversations(), token_counts, shares, seeds)
def test_the_same_seed_gives_the_same_batches(rows, size, replay, seed):
    one, two = (ConversationBatches(rows, TEXT, size, replay, seed, 3) for _ in range(2))
    for step in range(3):
        for piece, same in zip(one.batch(step), two.batch(step), strict=True):
            for name in piece:
                np.testing.assert_array_equal(piece[name], same[name])


@settings(max_examples=40)
@given(rows_of_conversations(), token_counts, shares, seeds)
def test_a_row_holds_one_conversation_and_the_weights_are_its_mask(rows, size, replay, seed):
    batches = ConversationBatches(rows, TEXT, size, replay, seed, 3)
    for step, planned in enumerate(batches.plan):
        for numbers, piece in zip(planned, batches.batch(step), strict=True):
            for row, i in enumerate(numbers):
                ids, mask = rows[i]
                padding = [0] * (piece["ids"].shape[1] + 1 - len(ids))
                assert piece["ids"][row, : len(ids) - 1].tolist() == ids[:-1]
                assert piece["targets"][row].tolist() == ids[1:] + padding
                assert piece["weights"][row].tolist() == mask[1:] + padding


@settings(max_examples=40)
@given(rows_of_conversations(), token_counts, shares, seeds)
def test_the_requested_share_of_rows_is_replayed_text_from_the_beginning_of_a_document(
    rows, size, replay, seed
):
    batches = ConversationBatches(rows, TEXT, size, replay, seed, 3)
    begins = set(np.flatnonzero(TEXT == BEGIN).tolist())
    for step, planned in enumerate(batches.plan):
        for numbers, piece in zip(planned, batches.batch(step), strict=True):
            count = len(piece["ids"]) - len(numbers)
            assert abs(count - replay * len(piece["ids"])) <= 0.5  # rounded to whole rows
            whole = np.concatenate([piece["ids"], piece["targets"][:, -1:]], axis=1)[len(numbers) :]
            assert (piece["weights"][len(numbers) :] == 1).all()
            for row in whole.tolist():
                assert row in [TEXT[at : at + len(row)].tolist() for at in begins]


@pytest.mark.parametrize("replay", [0, 0.2, 0.4, 0.5])
def test_the_share_of_replayed_text_over_a_run_is_the_requested_share(replay):
    rng = np.random.default_rng(0)
    # All masks are 0, so only replayed text has weight.
    rows = [([0] * n, [0] * n) for n in rng.integers(10, 80, 500)]
    batches = ConversationBatches(rows, np.tile(TEXT, 10), 4096, replay, 0, 20)
    replayed = total = 0
    for step in range(20):
        for piece in batches.batch(step):
            replayed += piece["weights"].sum()
            total += piece["weights"].size
    assert replayed / total == pytest.approx(replay, abs=0.02)
    assert total / 20 == pytest.approx(4096, rel=0.1)


def test_replayed_text_may_begin_at_any_document_that_is_not_too_near_the_end_of_the_text():
    rows = [([0] * 10, [0] * 10) for _ in range(40)]
    (piece, *_) = ConversationBatches(rows, TEXT, 4000, 0.5, 0, 1).batch(0)
    replayed = piece["ids"][40:, :8]
    assert len(replayed) == 40 and len(np.unique(replayed, axis=0)) > 10
    short = ConversationBatches(rows, TEXT[:9], 4000, 0.5, 0, 1)  # a text too short to replay
    assert len(short.batch(0)[0]["ids"]) == 40


@given(st.integers(0, 9))
def test_a_text_of_one_long_document_is_replayed_from_any_position(seed):
    """Otherwise every batch would replay the first words of the text, and the model would forget the rest."""
    text = np.arange(5000)
    rows = [([1] * 20, [0] * 20)] * 400
    batches = ConversationBatches(rows, text, 4096, 0.5, seed, 4, anywhere=True)
    starts = {int(row[0]) for step in range(4) for p in batches.batch(step) for row in p["ids"][-8:]}
    assert len(starts) > 20 and max(starts) > 4000 and max(starts) + 20 <= 5000 and min(starts) < 1000


def test_padding_and_other_rows_do_not_change_the_loss_of_a_conversation():
    conversations = [conversation("one?", "1"), conversation("and two?", "2, I think")]
    batches = ConversationBatches(encode_fitting(BYTES, conversations, 64), TEXT, 10_000, 0, 0, 1)
    model = Transformer(Config(len(BYTES), context=64, layers=1, width=16, heads=2))
    model.initialise(np.random.default_rng(0))

    def loss(numbers):
        piece = batches.piece(numbers, 0)
        return weighted_nll(model.forward(piece["ids"])[0], piece["targets"], piece["weights"], 1.0)[0]

    assert loss([0, 1]) == pytest.approx(loss([0]) + loss([1]), rel=1e-5)


def test_conversations_longer_than_the_context_are_left_out_and_reported(capsys):
    conversations = [conversation("x" * n, "y") for n in (3, 100, 200)]
    fitting = encode_fitting(BYTES, conversations, 50)
    assert [len(ids) for ids, _ in fitting] == [11]
    report_left_out(fitting, conversations, "conversation", 50)
    assert "2 of 3 conversations" in capsys.readouterr().err
    # The second conversation has 108 tokens. The last token is only a target, not an input.
    # So a context of 107 tokens is enough.
    assert len(encode_fitting(BYTES, conversations[1:2], 107)) == 1
    assert not encode_fitting(BYTES, conversations[1:2], 106)


@settings(max_examples=40)
@given(st.integers(0, 40), seeds)
def test_two_or_three_conversations_form_a_chain_and_none_of_them_has_a_system_message(count, seed):
    conversations = [conversation(f"{i}?", f"{i}") for i in range(count)]
    with_system = [[{"role": "system", "content": "Be brief."}, *messages] for messages in conversations[:2]]
    chains = chained(conversations + with_system, seed)
    assert len(chains) == count // 4
    for chain in chains:
        parts = [chain[at : at + 2] for at in range(0, len(chain), 2)]
        assert 2 <= len(parts) <= 3 and all(part in conversations for part in parts)


# ---- length buckets: the items in a bucket have similar lengths

items = st.lists(st.integers(1, 50), min_size=1, max_size=40)


@given(items, st.integers(1, 200), st.integers(1, 30), st.lists(st.integers(0, 9), min_size=1, max_size=2))
def test_the_items_in_a_bucket_have_neighbouring_lengths_and_fit_into_the_available_room(
    lengths, room, count, seed
):
    buckets = length_buckets(lengths, room, count, seed)
    assert len(buckets) == count
    for bucket in buckets:
        in_bucket = [lengths[i] for i in bucket]
        shortest, longest = min(in_bucket), max(in_bucket)
        assert len(bucket) == 1 or longest * len(bucket) <= room
        between = [n for n in lengths if shortest < n < longest]
        assert sorted(between) == sorted(n for n in in_bucket if shortest < n < longest)


@given(items, st.integers(1, 200), st.integers(0, 9))
def test_every_epoch_of_buckets_uses_every_item_once(lengths, room, seed):
    order = [i for bucket in length_buckets(lengths, room, 3 * len(lengths), [seed]) for i in bucket]
    for epoch in range(2):
        used = order[epoch * len(lengths) : (epoch + 1) * len(lengths)]
        assert sorted(used) == list(range(len(lengths)))


def test_every_epoch_and_every_seed_has_its_own_order_of_buckets():
    lengths = list(range(1, 41))
    one, other = ([b.tolist() for b in length_buckets(lengths, 40, 200, [seed])] for seed in (0, 1))
    per_epoch = next(n for n in range(1, 200) if sum(map(len, one[:n])) == 40)
    first, second = one[:per_epoch], one[per_epoch : 2 * per_epoch]
    assert first != second and sorted(first) == sorted(second)  # no two items are equally long
    assert other[:per_epoch] != first


# ---- a masked language model


@given(B=sizes, T=st.integers(1, 60), special=st.floats(0, 1), rate=st.sampled_from([0.15, 0.5]), rng=rngs)
def test_masking_chooses_the_given_share_of_ordinary_tokens_and_no_special_tokens(B, T, special, rate, rng):
    ids = np.where(rng.random((B, T)) < special, 20 + rng.integers(0, 3, (B, T)), rng.integers(0, 20, (B, T)))
    padding = rng.random((B, T)) < 0.2
    batch = mask_tokens({"ids": ids, "weights": 1 - padding}, ordinary=20, mask_id=22, rng=rng, rate=rate)
    weights, count = batch["weights"], ((ids < 20) & ~padding).sum(1)
    np.testing.assert_array_equal(batch["targets"], ids)
    assert not weights[(ids >= 20) | padding].any() and set(np.unique(weights)) <= {0, 1}
    np.testing.assert_array_equal(weights.sum(1), np.where(count, np.maximum(1, np.rint(rate * count)), 0))
    np.testing.assert_array_equal(batch["ids"][weights == 0], ids[weights == 0])
    changed = batch["ids"][weights == 1]
    assert ((changed < 20) | (changed == 22)).all()


def test_of_the_chosen_tokens_80_percent_are_masked_10_percent_are_random_and_10_percent_are_unchanged():
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 1000, (100, 1000))
    piece = {"ids": ids, "weights": np.ones(ids.shape)}
    batch = mask_tokens(piece, ordinary=1000, mask_id=1000, rng=rng)
    inputs, original = (batch[name][batch["weights"] == 1] for name in ("ids", "targets"))
    masked, unchanged = inputs == 1000, inputs == original
    assert len(inputs) == 15_000
    assert masked.mean() == pytest.approx(0.8, abs=0.01)
    assert unchanged.mean() == pytest.approx(0.1, abs=0.01)
    random = inputs[~masked & ~unchanged]
    assert len(random) / 15_000 == pytest.approx(0.1, abs=0.01)
    assert random.mean() == pytest.approx(500, abs=30) and len(np.unique(random)) > 600
