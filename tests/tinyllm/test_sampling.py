import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import configs, random_model, rngs

from tinyllm.objectives import log_softmax
from tinyllm.sampling import Decoder, choose, generate, window_start


def visible(sequence, context):
    return np.array(sequence[window_start(len(sequence), context) :])


def slowly(model, prompt, draws, stop=(), mask=None, **how):
    """generate for one prompt without any cache: the whole context again for each token."""
    sequence, log_probs = list(prompt), []
    for u in draws:
        logits = model.logits(visible(sequence, model.config.context))[-1:]
        allowed = logits.copy()
        if mask is not None:
            allowed[0, ~mask(sequence[len(prompt) :])] = -np.inf
        token = int(choose(allowed, np.array([u]), **how)[0][0])
        log_probs.append(log_softmax(logits)[0, token])
        sequence.append(token)
        if token in stop:
            break
    return sequence[len(prompt) :], log_probs


hows = st.sampled_from(
    [{"temperature": 0}, {"temperature": 1.0}, {"temperature": 0.7, "top_k": 2}, {"top_p": 0.6}]
)


@settings(max_examples=60)
@given(
    configs(causal=True),
    rngs,
    st.lists(st.integers(1, 14), min_size=1, max_size=4),
    st.integers(0, 12),
    hows,
    st.booleans(),
)
def test_cached_batched_generation_equals_one_by_one_without_a_cache(config, rng, lengths, new, how, masked):
    model = random_model(config, rng)
    prompts = [rng.integers(0, config.vocab, n).tolist() for n in lengths]
    draws = rng.random((len(prompts), new))
    stop = [int(rng.integers(0, config.vocab))]
    may = np.arange(config.vocab) % 2 == 0
    rule = (
        (lambda tokens: np.roll(may, len(tokens)) | (np.arange(config.vocab) == stop[0])) if masked else None
    )
    mask = (lambda row, tokens: rule(tokens)) if masked else None
    together = generate(model, prompts, new, draws=draws, stop=stop, mask=mask, **how)
    for prompt, u, (tokens, log_probs) in zip(prompts, draws, together, strict=True):
        expected, expected_log_probs = slowly(model, prompt, u, stop, rule, **how)
        assert tokens == expected
        np.testing.assert_allclose(log_probs, expected_log_probs, rtol=1e-7, atol=1e-9)


@given(configs(causal=True), rngs, st.integers(1, 5))
def test_the_sampler_reports_what_the_trainer_computes(config, rng, n):
    model = random_model(config, rng, np.float32)
    prompt = rng.integers(0, config.vocab, n).tolist()
    room = config.context - n
    if room < 1:
        return
    ((tokens, log_probs),) = generate(model, [prompt], room, rng)
    sequence = np.array(prompt + tokens)
    trainer = log_softmax(model.logits(sequence[:-1]))[np.arange(n - 1, len(sequence) - 1), sequence[n:]]
    np.testing.assert_allclose(log_probs, trainer, atol=1e-4)


@given(configs(causal=True), rngs, st.data())
def test_rows_can_be_dropped(config, rng, data):
    model = random_model(config, rng)
    ids = rng.integers(0, config.vocab, (4, config.context))
    rows = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True))
    decoder = Decoder(model, 4, config.context)
    decoder.extend(ids[:, :-1])
    decoder.keep(rows)
    np.testing.assert_allclose(
        decoder.extend(ids[rows, -1:]), model.logits(ids[rows])[:, -1], rtol=1e-7, atol=1e-9
    )


@given(st.integers(1, 200), st.integers(1, 40))
def test_the_window_never_exceeds_the_context_and_never_forgets_more_than_half(length, context):
    seen = length - window_start(length, context)
    assert 1 <= seen <= context
    assert window_start(length, context) % max(1, context // 2) == 0  # so it is read again only so often
    assert seen == length or seen > context - max(1, context // 2)


@given(rngs, st.integers(1, 6), st.integers(1, 8), st.integers(0, 9), st.floats(0.05, 1))
def test_truncation_only_takes_from_the_tail(rng, B, V, top_k, top_p):
    logits = rng.standard_normal((B, V)) * 2
    ids, said = choose(logits, rng.random(B), 1.0, top_k, top_p)
    np.testing.assert_allclose(said, log_softmax(logits)[np.arange(B), ids])
    p = np.exp(log_softmax(logits))
    better = p > p[np.arange(B), ids][:, None]
    assert top_k == 0 or (better.sum(1) < top_k).all()
    assert ((p * better).sum(1) < top_p + 1e-9).all()


def test_frequencies_follow_the_probabilities():
    rng = np.random.default_rng(0)
    logits = np.log(np.array([[0.5, 0.3, 0.2, 1e-30]]))
    for temperature, expected in ((1.0, [0.5, 0.3, 0.2, 0]), (0.5, np.array([0.25, 0.09, 0.04, 0]) / 0.38)):
        ids, _ = choose(np.repeat(logits, 20000, 0), rng.random(20000), temperature)
        np.testing.assert_allclose(np.bincount(ids, minlength=4) / 20000, expected, atol=0.015)


def test_draws_at_the_edges_stay_in_the_vocabulary():
    logits = np.array([[-np.inf, 0.0, -np.inf, 1.0, -np.inf]], np.float32)
    assert choose(logits, np.array([0.0]))[0].tolist() == [1]
    assert choose(logits, np.array([np.nextafter(1, 0)]))[0].tolist() == [3]


def test_what_cannot_be_generated_is_said():
    model = random_model(next_config(), np.random.default_rng(0))
    assert generate(model, [], 3) == []
    assert generate(model, [[1]], 0, np.random.default_rng(0)) == [([], [])]
    with pytest.raises(ValueError, match="empty"):
        generate(model, [[1], []], 3)
    with pytest.raises(ValueError, match="allows no token"):
        generate(
            model,
            [[1]],
            3,
            np.random.default_rng(0),
            mask=lambda row, tokens: np.zeros(model.config.vocab, bool),
        )


def next_config():
    from tinyllm.transformer import Config

    return Config(vocab=5, context=4, layers=1, width=4, heads=2)
