"""An induction head: the heads that are built look where they should, and what is to be repeated repeats."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm import optimizer
from tinyllm.conversation import shift
from tinyllm.induction import repeats, wire
from tinyllm.objectives import weighted_nll
from tinyllm.transformer import Config, Parameters, Transformer

seeds = st.integers(0, 2**32 - 1)


def born(seed=0, **shape):
    rng = np.random.default_rng(seed)
    shape = {"vocab": 300, "layers": 2, "width": 64, "heads": 2, "theta": 10_000.0} | shape
    return wire(Transformer(Config(**shape)).initialise(rng), rng)


def attention(model, ids, layer):
    """(B, H, queries, keys)"""
    _, cache = model.forward(ids)
    ((_, _, _, p),) = cache[4][layer][2][3]                        # one block of queries
    return p.reshape(p.shape[0], -1, *p.shape[3:]).swapaxes(2, 3)


@settings(max_examples=30)
@given(seeds, st.sampled_from([1, 2, 4]), st.integers(1, 2))
def test_heads_of_layer_0_look_so_many_tokens_back_whatever_stands_there(seed, kv_heads, group):
    heads = kv_heads * group
    model = born(seed, width=32 * heads + 8, heads=heads, kv_heads=kv_heads, head_dim=32)
    ids = np.random.default_rng(seed).integers(0, 300, (2, 30))
    looks = attention(model, ids, 0)
    for k in range(min(4, kv_heads)):
        for h in range(k * group, (k + 1) * group):
            back = looks[:, h, np.arange(k + 1, 30), np.arange(30 - k - 1)]
            assert back.mean() > 0.6


@settings(max_examples=8)
@given(st.integers(0, 10_000), st.integers(0, 3))
def test_heads_of_layer_1_find_where_the_same_stood_before(first, phrase):
    """Head k by what stands k tokens back: behind a phrase of k tokens, which stands behind every item, it
    finds where that item stood, and those that look less far back do not. In the mean of twelve models: their
    frames are random, and a rough pair may be very rough."""
    looked = []
    for seed in range(first, first + 12):
        model = born(seed, width=128, heads=4, layers=4)
        items = np.random.default_rng(seed).choice(200, (16, 8), replace=False)
        common = np.tile(200 + np.arange(phrase), (16, 8, 1))
        said = np.concatenate([items[..., None], common], axis=2).reshape(16, -1)
        looks, size = attention(model, np.concatenate([said, said], axis=1), 1), said.shape[1]
        place = np.arange(size + phrase, 2 * size, 1 + phrase)[:-1]    # the last token of an item's phrase
        looked.append(looks[:, :, place, place - size + 1].mean(axis=(0, 2)))
    found = np.mean(looked, axis=0)
    assert found[phrase] > 0.25 and all(found[:phrase] < 0.15), found


@pytest.mark.parametrize("shape", [{"layers": 1}, {"heads": 1}, {"heads": 32}])
def test_models_without_room_for_it_stay_as_they_are(shape):
    rng = np.random.default_rng(3)
    config = Config(vocab=300, **{"layers": 2, "width": 64, "heads": 2} | shape)
    model = Transformer(config).initialise(rng)
    before = model.params.flat.copy()
    assert (wire(model, rng).params.flat == before).all()


@given(seeds, st.integers(0, 5), st.integers(1, 130), st.integers(256, 2000))
def test_what_is_to_be_learned_of_repetitions_has_been_said_before(seed, rows, length, vocab):
    ids, weights = repeats(vocab, rows, length, [seed])
    assert ids.shape == weights.shape == (rows, length) and (ids < vocab).all()
    assert (np.array(repeats(vocab, rows, length, [seed])) == np.array((ids, weights))).all()
    for row, learned in zip(ids.tolist(), weights):
        for t in np.flatnonzero(learned):
            assert row[t] in list(after(row[:t], 4))
    if length > 12:
        assert (weights.sum(axis=1) > length / 8).all()


def after(said, most):
    """What came behind the last place where the same n tokens stood as now, for n = 1 to `most`."""
    for n in range(1, most + 1):
        found = [s for s in range(n, len(said)) if said[s - n : s] == said[len(said) - n :]]
        yield said[found[-1]] if found else None


def test_in_a_few_steps_it_goes_on_as_it_went_before_where_others_do_not():
    """Of random tokens that it has never seen, only the order of which is told."""
    learned = {}
    for how in ("wired", "random"):
        rng = np.random.default_rng(5)
        model = Transformer(Config(vocab=300, layers=2, width=64, heads=2, theta=10_000.0)).initialise(rng)
        model = wire(model, rng) if how == "wired" else model
        gradient, moments = Parameters(model.config), np.zeros((2, model.config.size()), np.float32)
        for step in range(60):
            ids, targets, weights = shift(*repeats(300, 12, 65, [step]))
            logits, cache = model.forward(ids)
            model.backward(weighted_nll(logits, targets, weights, weights.sum())[1], cache, gradient)
            optimizer.clip(gradient.flat)
            for part in optimizer.parts(model.config):
                optimizer.update(part, model.params.flat, gradient.flat, moments, step, 0.013, 8e-3, 0.1)
        ids, targets, weights = shift(*repeats(300, 12, 65, [10_000]))
        hits = (model.logits(ids).argmax(axis=-1) == targets) * weights
        learned[how] = hits.sum() / weights.sum()
    assert learned["wired"] > 0.7 and learned["random"] < 0.3, learned
