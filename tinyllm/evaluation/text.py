"""Exams on text: bits per byte, masked tokens, and the completion of sentences about the built-in world."""

import math

import numpy as np

from tinyllm.data import corpus
from tinyllm.data.batches import mask_tokens
from tinyllm.evaluation.intervals import Z, proportion
from tinyllm.evaluation.ngram import ngram_nats
from tinyllm.preferences.rollouts import log_probs
from tinyllm.sampling import generate_replies


def bits_per_byte(pool, tokenizer, documents, length):
    """The loss on the whole validation text, document by document, every position scored once.

    Bits per byte can be compared between models with different vocabularies; nats per character are usual for
    character models. Special tokens are not part of the text, so neither measure counts them.
    """
    width = np.array([len(piece) for piece in tokenizer.bytes_of])
    width[tokenizer.ordinary :] = 0  # special tokens
    nats, sizes = [], []
    for batch in corpus.every_window(documents, tokenizer, length, 32):
        size = width[batch["targets"]] * batch["weights"]  # in bytes
        loss = -log_probs(pool, batch["ids"], batch["targets"]) * (size > 0)
        nats.append(loss.sum(axis=1))
        sizes.append(size.sum(axis=1))
    nats, sizes = np.concatenate(nats), np.concatenate(sizes)  # of each window
    rate = nats.sum() / sizes.sum()
    error = np.sqrt(np.square(nats - rate * sizes).sum()) / sizes.sum()  # standard error of the rate
    characters = sum(len(document.decode("utf-8", "replace")) for document in documents)
    value, low, high = (float(x / math.log(2)) for x in (rate, rate - Z * error, rate + Z * error))
    return {
        "bits_per_byte": {"value": value, "low": low, "high": high, "n": int(sizes.sum())},
        "validation_nats_per_character": float(nats.sum() / characters),
    }


def fivegram(training, validation):
    """The loss of a 5-gram table of the training text on the validation text, as in bits_per_byte."""
    separators = np.cumsum([len(document) + 1 for document in validation])[:-1] - 1
    nats = np.delete(ngram_nats(b"\0".join(training), b"\0".join(validation)), separators)
    characters = sum(len(document.decode("utf-8", "replace")) for document in validation)
    return {
        "fivegram_bits_per_byte": float(nats.sum() / len(nats) / math.log(2)),
        "fivegram_nats_per_character": float(nats.sum() / characters),
    }


def hidden_tokens(pool, tokenizer, documents):
    """Top-1 accuracy of a masked model on hidden tokens, and of always guessing the most frequent token."""
    correct, answers = [], []
    for i, batch in enumerate(corpus.every_window(documents, tokenizer, pool.model.config.context, 32)):
        rng = np.random.default_rng([0, i])  # every model has to guess the same tokens
        hidden = mask_tokens(batch, tokenizer.ordinary, tokenizer.special["<|mask|>"], rng)
        chosen = hidden["weights"] > 0
        correct.append((top_guesses(pool, hidden["ids"]) == hidden["targets"])[chosen])
        answers.append(hidden["targets"][chosen])
    correct, answers = np.concatenate(correct), np.concatenate(answers)
    majority = answers == np.bincount(answers).argmax()
    return {"masked_top1": proportion(correct), "masked_majority": proportion(majority)}


def top_guesses(pool, ids):
    """ids (B, T) -> the likeliest token at each position (B, T)."""
    return pool.map(_top_guesses, ids, size=pool.rows_at_once(ids.shape[1]))


def _top_guesses(model, ids):
    return model.forward(ids)[0].argmax(axis=-1)


def induction(pool, tokenizer, rows=200, length=16):
    """The model reads a list of random tokens twice: the share of the second reading that it predicts.

    Two attention heads do this together: one tells each token which token precedes it, and the other looks
    for the token that followed an earlier copy of the current token (Elhage et al. 2021; Olsson et al. 2022).
    """
    rng = np.random.default_rng(0)
    once = np.stack([rng.choice(tokenizer.ordinary, length, replace=False) for _ in range(rows)])
    ids = np.concatenate([once, once], axis=1)
    guesses = top_guesses(pool, ids)[:, length - 1 : -1]
    return proportion((guesses == once).reshape(-1))


def cloze(pool, tokenizer, items):
    """How often the model completes a sentence about the built-in world correctly."""
    return proportion(completions(pool, tokenizer, items))


def completions(pool, tokenizer, items):
    """[(beginning of a sentence, its last word)] -> for each, whether the model continues with that word."""
    openings = [corpus.encode_opening(tokenizer, text) for text, _ in items]
    endings = [tokenizer.decode(ids) for ids in generate_replies(pool, tokenizer, openings, 8)]
    return [ending.startswith(f" {word}.") for ending, (_, word) in zip(endings, items)]
