"""sampling: the KV cache, the other rows of a batch and the number of workers do not change a reply.

If sampling and training computed different logits, reinforcement learning would use wrong probabilities.
"""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import configs, random_model, rngs

from tinyllm import sampling
from tinyllm.data.conversation import encode_prompt, shift
from tinyllm.objectives import log_softmax
from tinyllm.parallel import WorkerPool
from tinyllm.sampling import Decoder, answer, choose, generate, generate_replies, show_reply, window_start
from tinyllm.tokenizer import train
from tinyllm.transformer import Config, Transformer

BYTES = train("", 256)
END = BYTES.special["<|end|>"]
TINY = Config(vocab=5, context=4, layers=1, width=4, heads=2)

# ---- generate


def generate_slowly(model, prompt, draws, stop=-1, mask=None, **how):
    """The same as generate, but for one prompt and without a cache."""
    sequence = list(prompt)
    for draw in draws:
        visible = np.array(sequence[window_start(len(sequence), model.config.context) :])
        logits = model.logits(visible)[-1:]
        if mask is not None:
            logits[0, ~mask(sequence[len(prompt) :])] = -np.inf
        sequence.append(int(choose(logits, np.array([draw]), **how)[0]))
        if sequence[-1] == stop:
            break
    return sequence[len(prompt) :]


sampling_options = st.sampled_from(
    [{"temperature": 0}, {"temperature": 1.0}, {"temperature": 0.7, "top_k": 2}, {"top_p": 0.6}]
)
lengths = st.lists(st.integers(1, 14), min_size=1, max_size=4)


@settings(max_examples=60)
@given(configs(causal=True), rngs, lengths, st.integers(0, 12), sampling_options, st.booleans())
def test_batched_generation_with_a_cache_equals_one_by_one_generation_without_a_cache(
    config, rng, lengths, count, options, masked
):
    model = random_model(config, rng)
    prompts = [rng.integers(0, config.vocab, n).tolist() for n in lengths]
    draws = rng.random((len(prompts), count))
    stop = int(rng.integers(0, config.vocab))
    even, stops = np.arange(config.vocab) % 2 == 0, np.arange(config.vocab) == stop
    allowed = (lambda tokens: np.roll(even, len(tokens)) | stops) if masked else None
    mask = (lambda row, tokens, room: allowed(tokens)) if masked else None
    together = generate(model, prompts, count, draws, stop=stop, mask=mask, **options)
    for prompt, row_draws, tokens in zip(prompts, draws, together, strict=True):
        assert tokens == generate_slowly(model, prompt, row_draws, stop, allowed, **options)


@settings(max_examples=40)
@given(configs(causal=True), rngs, lengths, st.data())
def test_a_row_is_the_same_in_any_batch(config, rng, lengths, data):
    model = random_model(config, rng)
    prompts = [rng.integers(0, config.vocab, n).tolist() for n in lengths]
    draws = rng.random((len(prompts), 8))
    whole = generate(model, prompts, 8, draws, stop=0)
    rows = data.draw(st.lists(st.sampled_from(range(len(prompts))), min_size=1, max_size=5), label="rows")
    some = generate(model, [prompts[row] for row in rows], 8, draws[rows], stop=0)
    assert some == [whole[row] for row in rows]


@settings(max_examples=40)
@given(configs(causal=True), rngs, lengths)
def test_without_draws_every_token_is_the_most_likely_one(config, rng, lengths):
    model = random_model(config, rng)
    prompts = [rng.integers(0, config.vocab, n).tolist() for n in lengths]
    for prompt, tokens in zip(prompts, generate(model, prompts, 6)):
        sequence = list(prompt)
        for token in tokens:
            visible = np.array(sequence[window_start(len(sequence), config.context) :])
            assert token == model.logits(visible)[-1].argmax()
            sequence.append(token)
        assert len(tokens) == 6


@settings(max_examples=60)
@given(configs(causal=True), rngs, st.data())
def test_tokens_are_sampled_from_the_logits_that_training_computes(config, rng, data):
    model = random_model(config, rng, np.float32)
    n = data.draw(st.integers(1, config.context - 1), label="tokens in the prompt")
    room, sampling_logits = config.context - n, []
    prompt = rng.integers(0, config.vocab, n).tolist()
    with pytest.MonkeyPatch.context() as patch:
        record = lambda logits, *options: sampling_logits.append(logits) or choose(logits, *options)
        patch.setattr(sampling, "choose", record)
        (tokens,) = generate(model, [prompt], room, rng.random((1, room)))
    training_logits, _ = model.forward(shift(np.array([prompt + tokens]))["ids"])
    np.testing.assert_allclose(np.concatenate(sampling_logits), training_logits[0, n - 1 :], atol=1e-4)


@settings(max_examples=40)
@given(configs(causal=True), rngs, st.integers(0, 7))
def test_each_draw_decides_its_own_token_and_nothing_else_is_random(config, rng, t):
    model, prompts = random_model(config, rng), [[0], [1], [0]]
    draws = rng.random((3, 8))
    first = generate(model, prompts, 8, draws)
    assert generate(model, prompts, 8, draws.copy()) == first
    changed_draws = draws.copy()
    changed_draws[0, t:], changed_draws[2] = rng.random(8 - t), draws[0]
    changed, unchanged, repeated = generate(model, prompts, 8, changed_draws)
    assert changed[:t] == first[0][:t] and unchanged == first[1]
    assert repeated == first[0]  # row 2 now has the prompt and the draws of row 0


def test_different_draws_give_different_tokens():
    model = random_model(TINY, np.random.default_rng(0))
    draws = np.random.default_rng(1).random((40, 6))
    assert len(set(map(tuple, generate(model, [[1]] * 40, 6, draws)))) > 20


@settings(max_examples=40)
@given(configs(causal=True), rngs, lengths)
def test_a_row_ends_after_its_first_stop_token_which_is_kept(config, rng, lengths):
    model = random_model(config, rng)
    prompts = [rng.integers(0, config.vocab, n).tolist() for n in lengths]
    draws, stop = rng.random((len(prompts), 9)), int(rng.integers(0, config.vocab))
    endless = generate(model, prompts, 9, draws)
    stopped = generate(model, prompts, 9, draws, stop=stop)
    for tokens, all_tokens in zip(stopped, endless):
        end = next((i for i, token in enumerate(all_tokens) if token == stop), 8)
        assert tokens == all_tokens[: end + 1]


@settings(max_examples=40)
@given(configs(causal=True), rngs, lengths)
def test_the_mask_receives_each_row_with_its_new_tokens_and_the_room_left_and_may_return_none(
    config, rng, lengths
):
    model, calls = random_model(config, rng), []
    prompts = [rng.integers(0, config.vocab, n).tolist() for n in lengths]
    draws = rng.random((len(prompts), 5))
    mask = lambda row, tokens, room: calls.append((row, tokens.tolist(), room))
    written = generate(model, prompts, 5, draws, stop=0, mask=mask)
    for row, tokens in enumerate(written):
        expected = [(row, tokens[:i], 5 - i) for i in range(len(tokens))]
        assert [call for call in calls if call[0] == row] == expected
    assert written == generate(model, prompts, 5, draws, stop=0)


def test_zero_tokens_may_be_requested_and_a_mask_that_allows_nothing_is_refused():
    model = random_model(TINY, np.random.default_rng(0))
    assert generate(model, [[1]], 0, np.zeros((1, 0))) == [[]]
    with pytest.raises(ValueError, match="allows no token"):
        generate(model, [[1]], 3, mask=lambda row, tokens, room: np.zeros(5, bool))


# ---- the cache


@given(configs(causal=True), rngs, st.data())
def test_the_decoder_can_drop_rows(config, rng, data):
    model = random_model(config, rng)
    ids = rng.integers(0, config.vocab, (4, config.context))
    rows = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True))
    decoder = Decoder(model, 4, config.context)
    decoder.extend(ids[:, :-1])
    decoder.keep(rows)
    last = decoder.extend(ids[rows, -1:])
    np.testing.assert_allclose(last, model.logits(ids[rows])[:, -1], rtol=1e-7, atol=1e-9)


@given(configs(causal=True), rngs, st.data())
def test_the_decoder_accepts_tokens_in_any_number_of_pieces(config, rng, data):
    model = random_model(config, rng)
    ids = rng.integers(0, config.vocab, (2, config.context))
    decoder, start = Decoder(model, 2, config.context), 0
    while start < config.context:
        stop = data.draw(st.integers(start + 1, config.context), label="stop")
        logits = decoder.extend(ids[:, start:stop])
        np.testing.assert_allclose(logits, model.logits(ids[:, :stop])[:, -1], rtol=1e-7, atol=1e-9)
        start = stop


@given(configs(causal=True), rngs)
def test_the_decoder_keeps_single_precision(config, rng):
    decoder = Decoder(random_model(config, rng, np.float32), 2, 2)
    assert decoder.extend(np.zeros((2, 1), int)).dtype == decoder.cache.dtype == np.float32


@given(configs(causal=True), rngs)
def test_the_decoder_does_not_copy_the_embedding(config, rng):
    """The embedding is a large part of a published model."""
    model = random_model(config, rng)
    assert np.shares_memory(Decoder(model, 1, 1).embedding, model.params["embedding"])


def test_memory_grows_with_the_text_not_with_the_context():
    model = random_model(replace(TINY, context=131072), np.random.default_rng(0), np.float32)
    tracemalloc.start()
    try:
        assert len(generate(model, [[1, 2, 3]] * 16, 5)) == 16
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


@given(st.integers(1, 200), st.integers(1, 40))
def test_the_window_never_exceeds_the_context_and_always_keeps_at_least_half_of_it(length, context):
    start = window_start(length, context)
    assert 1 <= length - start <= context
    assert start % max(1, context // 2) == 0  # so the window moves only once every context / 2 tokens
    assert start == 0 or length - start > context - max(1, context // 2)


# ---- choose


@given(rngs, st.integers(1, 6), st.integers(1, 8), st.integers(0, 9), st.floats(0.05, 1))
def test_top_k_and_top_p_only_remove_the_least_likely_tokens(rng, B, V, top_k, top_p):
    logits = rng.standard_normal((B, V)) * 2
    ids = choose(logits, rng.random(B), 1.0, top_k, top_p)
    p = np.exp(log_softmax(logits))
    likelier = p > p[np.arange(B), ids][:, None]
    assert top_k == 0 or (likelier.sum(1) < top_k).all()
    assert ((p * likelier).sum(1) < top_p + 1e-9).all()


@given(rngs, st.integers(1, 6), st.integers(2, 8), sampling_options)
def test_a_token_with_a_logit_of_minus_infinity_is_never_chosen(rng, B, V, options):
    allowed = rng.random((B, V)) < 0.5
    allowed[:, -1] = True
    logits = np.where(allowed, rng.standard_normal((B, V)) * 2 - 1000, -np.inf)
    assert allowed[np.arange(B), choose(logits, rng.random(B), **options)].all()


@given(rngs, st.integers(1, 6), st.integers(1, 8))
def test_a_draw_picks_the_token_by_the_cumulative_distribution(rng, B, V):
    logits, draws = rng.standard_normal((B, V)), rng.random(B)
    cumulative = np.exp(log_softmax(logits)).cumsum(axis=1)
    ids = choose(logits, draws)
    for row in range(B):
        assert (cumulative[row, ids[row] - 1] if ids[row] else 0) <= draws[row] + 1e-12
        assert draws[row] <= cumulative[row, ids[row]] + 1e-12


def test_tokens_are_as_frequent_as_their_probabilities_say():
    rng = np.random.default_rng(0)
    logits = np.log(np.array([[0.5, 0.3, 0.2, 1e-30]]))
    for temperature, expected in ((1.0, [0.5, 0.3, 0.2, 0]), (0.5, np.array([0.25, 0.09, 0.04, 0]) / 0.38)):
        ids = choose(np.repeat(logits, 20000, 0), rng.random(20000), temperature)
        np.testing.assert_allclose(np.bincount(ids, minlength=4) / 20000, expected, atol=0.015)


def test_the_smallest_and_the_largest_draw_choose_an_allowed_token():
    logits = np.array([[-np.inf, 0.0, -np.inf, 1.0, -np.inf]], np.float32)
    assert choose(logits, np.array([0.0])).tolist() == [1]
    assert choose(logits, np.array([np.nextafter(1, 0)])).tolist() == [3]


# ---- replies of the assistant


def model_that_writes(text):
    """A byte-level model that always replies with `text` and the end token.

    No byte may occur twice in `text`.
    """
    config = Config(len(BYTES), context=64, layers=1, width=len(BYTES) + 1, heads=1, head_dim=2, tied=False)
    model = Transformer(config)
    chain = [BYTES.special["<|assistant|>"], *BYTES.encode(f" {text}"), END]
    model.params["norm"][:] = 1
    model.params["embedding"][:, : len(BYTES)] = np.eye(len(BYTES))
    model.params["head"][chain[1:], chain[:-1]] = 10  # the matrices of the block stay 0
    return model


@pytest.fixture(scope="module")
def prompts():
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, n).tolist() for n in (9, 2, 5, 2, 30, 7, 1, 5, 3, 14, 2)]


@pytest.fixture(scope="module")
def model():
    config = Config(len(BYTES), context=16, layers=1, width=8, heads=2)
    return random_model(config, np.random.default_rng(0), np.float32, scale=0.7)


@pytest.mark.parametrize("seed", [None, [0], [5, 1]])
def test_replies_do_not_depend_on_the_chunk_size_or_the_number_of_workers(model, prompts, seed):
    draws = [None] * len(prompts)
    if seed:
        draws = np.random.default_rng(seed).random((len(prompts), 1, 12))
    expected = [generate(model, [p], 12, u, stop=END)[0] for p, u in zip(prompts, draws)]
    assert seed is None or len(set(map(tuple, expected))) == len(prompts)
    for workers in (1, 2, 3):
        with WorkerPool(model, workers) as pool:
            for size in (1, 3, 64):
                assert generate_replies(pool, BYTES, prompts, 12, seed, size=size) == expected
            assert generate_replies(pool, BYTES, [], 12, seed) == []


def test_another_seed_gives_different_replies(model, prompts):
    with WorkerPool(model) as pool:
        first, second, again = (generate_replies(pool, BYTES, prompts, 12, seed) for seed in ([1], [2], [1]))
    assert first == again and all(a != b for a, b in zip(first, second))


def test_a_reply_ends_with_its_end_token_or_at_the_maximum_number_of_tokens():
    prompt = encode_prompt(BYTES, [{"role": "user", "content": "hello?"}])
    with WorkerPool(model_that_writes("yes")) as pool:
        whole, short = (generate_replies(pool, BYTES, [prompt], tokens)[0] for tokens in (9, 3))
    assert whole == [*BYTES.encode(" yes"), END] and short == BYTES.encode(" ye")


def test_answer_returns_the_text_of_each_reply_and_whether_it_ended():
    conversations = [
        [{"role": "user", "content": "hello?"}],
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "?"}],
    ]
    with WorkerPool(model_that_writes("yes")) as pool:
        assert answer(pool, BYTES, conversations, 9) == [("yes", True)] * 2
        assert answer(pool, BYTES, conversations, 3) == [("ye", False)] * 2
        assert show_reply(pool, BYTES, conversations[0]) == "hello?\nyes"
