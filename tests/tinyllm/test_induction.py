"""induction: the wired heads look where they should, and the model learns to continue repetitions early."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinyllm import optimizer
from tinyllm.data.conversation import shift
from tinyllm.data.repeats import repeats
from tinyllm.induction import wire
from tinyllm.objectives import weighted_nll
from tinyllm.transformer import Config, Parameters, Transformer

seeds = st.integers(0, 2**32 - 1)


def wired_model(seed=0, **shape):
    rng = np.random.default_rng(seed)
    shape = {"vocab": 300, "layers": 2, "width": 64, "heads": 2, "theta": 10_000.0} | shape
    return wire(Transformer(Config(**shape)).initialise(rng), rng)


def attention(model, ids, layer):
    """(B, H, queries, keys)"""
    _, (_, _, _, _, caches, _, _) = model.forward(ids)
    _, _, (_, _, _, parts, _), *_ = caches[layer]
    ((_, _, _, p),) = parts  # one block of queries
    return p.reshape(p.shape[0], -1, *p.shape[3:]).swapaxes(2, 3)


@settings(max_examples=30)
@given(seeds, st.sampled_from([1, 2, 4]), st.integers(1, 2))
def test_head_k_of_layer_0_looks_k_plus_1_tokens_back_whatever_the_token(seed, kv_heads, group):
    heads = kv_heads * group
    model = wired_model(seed, width=32 * heads + 8, heads=heads, kv_heads=kv_heads, head_dim=32)
    ids = np.random.default_rng(seed).integers(0, 300, (2, 30))
    p = attention(model, ids, 0)
    for k in range(min(4, kv_heads)):
        for h in range(k * group, (k + 1) * group):
            back = p[:, h, np.arange(k + 1, 30), np.arange(30 - k - 1)]
            assert back.mean() > 0.6


@settings(max_examples=6)
@given(st.integers(0, 10_000), st.integers(0, 3))
def test_head_k_of_layer_1_matches_the_token_k_back_and_attends_to_the_token_after_its_match(first, k):
    """Every item is followed by the same phrase of k tokens, so only the token k back tells where the item
    was before: head k finds it, and the heads that look less far back do not. In the mean of twelve models:
    their frames are random, and a roughly wired pair may be very rough."""
    attended = []
    for seed in range(first, first + 12):
        model = wired_model(seed, width=128, heads=4)
        items = np.random.default_rng(seed).choice(200, (16, 8), replace=False)
        phrase = np.tile(200 + np.arange(k), (16, 8, 1))
        once = np.concatenate([items[..., None], phrase], axis=2).reshape(16, -1)
        p, size = attention(model, np.concatenate([once, once], axis=1), 1), once.shape[1]
        last = np.arange(size + k, 2 * size, 1 + k)[:-1]  # the last token of an item's phrase
        attended.append(p[:, :, last, last - size + 1].mean(axis=(0, 2)))
    of_head = np.mean(attended, axis=0)
    assert of_head[k] > 0.25 and all(of_head[:k] < 0.15), of_head


@pytest.mark.parametrize("shape", [{"layers": 1}, {"heads": 1}, {"heads": 32}])
def test_models_without_room_for_a_pair_are_left_unchanged(shape):
    rng = np.random.default_rng(3)
    config = Config(vocab=300, **{"layers": 2, "width": 64, "heads": 2} | shape)
    model = Transformer(config).initialise(rng)
    before = model.params.flat.copy()
    assert (wire(model, rng).params.flat == before).all()


@pytest.mark.parametrize("wired, least, most", [(True, 0.6, 1), (False, 0, 0.3)])
def test_a_wired_model_learns_in_40_steps_to_continue_repetitions_and_a_random_one_does_not(
    wired, least, most
):
    """Of random tokens in an order that it has never seen."""
    rng = np.random.default_rng(5)
    model = Transformer(Config(vocab=300, layers=2, width=64, heads=2, theta=10_000.0)).initialise(rng)
    model = wire(model, rng) if wired else model
    gradient, moments = Parameters(model.config), np.zeros((2, model.config.size()), np.float32)
    rates = optimizer.Rates(muon=0.013, adamw=8e-3, decay=0.1)
    for step in range(40):
        batch = shift(*repeats(300, 12, 65, [step]))
        logits, cache = model.forward(batch["ids"])
        _, dlogits = weighted_nll(logits, batch["targets"], batch["weights"], batch["weights"].sum())
        model.backward(dlogits, cache, gradient)
        optimizer.clip(gradient.flat)
        for part in optimizer.parts(model.config):
            optimizer.update(part, model.params.flat, gradient.flat, moments, step, rates, 1.0)
    batch = shift(*repeats(300, 12, 65, [10_000]))
    hits = (model.logits(batch["ids"]).argmax(axis=-1) == batch["targets"]) * batch["weights"]
    assert least < hits.sum() / batch["weights"].sum() < most
