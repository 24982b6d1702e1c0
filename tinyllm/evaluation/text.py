"""Held-out measurements. Every one is run after every stage, so a stage that forgets is seen to forget.

A result is {"value", "low", "high", "n"}: n items, and the interval that holds the true value with 95 %
confidence. What does not apply to a run is None.
"""

import math
import time

import numpy as np

from tinyllm import corpus, interviews, verdicts
from tinyllm.conversation import pad, shift
from tinyllm.intervals import Z, share
from tinyllm.ngram import ngram_nats
from tinyllm.objectives import hide_tokens
from tinyllm.rollouts import token_nats
from tinyllm.sampling import generate
from tinyllm.training import write_json
from tinyllm.world import World, people

# ---- what workers compute ------------------------------------------------------------------------

def top_guesses(replica, ids):
    """The most likely token at every position of ids (B, T)."""
    return replica.model.forward(ids)[0].argmax(axis=-1)


def likeliest(replica, prompts, tokens=8):
    """Greedy continuations of a list of prompts."""
    return [new for new, _ in generate(replica.model, prompts, tokens, temperature=0)]


# ---- exams ---------------------------------------------------------------------------------------

def reading(team, tokenizer, documents, window):
    """How surprising the whole validation text is, document by document, every position scored once.

    Bits per byte compares models of any vocabulary; nats per character is the custom for character
    models. Special tokens are left out of both sums: they are not in the text.
    """
    batches = corpus.every_window(documents, tokenizer, window, 32)
    width = np.array([len(piece) for piece in tokenizer.bytes_of])
    width[tokenizer.ordinary:] = 0                                                   # special tokens
    sizes = [width[targets] * weights for _, targets, weights in batches]            # in bytes
    found = team.run(token_nats, [(inputs, targets) for inputs, targets, _ in batches])
    nats = np.concatenate([(nats * (size > 0)).sum(axis=1) for nats, size in zip(found, sizes)])
    size = np.concatenate([size.sum(axis=1) for size in sizes])                      # of each window
    rate = nats.sum() / size.sum()
    error = np.sqrt(np.square(nats - rate * size).sum()) / size.sum()                # of a ratio of two sums
    characters = sum(len(document.decode("utf-8", "replace")) for document in documents)
    bits = [float(x / math.log(2)) for x in (rate, rate - Z * error, rate + Z * error)]
    return {"bits_per_byte": dict(zip(("value", "low", "high"), bits), n=int(size.sum())),
            "validation_nats_per_character": float(nats.sum() / characters)}


def counting(training, validation):
    """The same figures for a 5-gram table over the same two texts."""
    text = b"\0".join(validation)                                                    # tells documents apart
    nats = ngram_nats(b"\0".join(training), text)[np.frombuffer(text, np.uint8) != 0]
    characters = sum(len(document.decode("utf-8", "replace")) for document in validation)
    return {"fivegram_bits_per_byte": float(nats.sum() / len(nats) / math.log(2)),
            "fivegram_nats_per_character": float(nats.sum() / characters)}


def hidden_tokens(team, tokenizer, documents, seed=0):
    """For a masked model: how often its first guess is the token that was hidden, and how often
    the most frequent token would have been."""
    batches, context = [], team.replica.model.config.context
    for i, (window, _, weights) in enumerate(corpus.every_window(documents, tokenizer, context, 32)):
        hidden, targets, chosen = hide_tokens(window, tokenizer.ordinary, tokenizer.special["<|mask|>"],
                                              np.random.default_rng([seed, i]))
        batches.append((hidden, targets, chosen * weights > 0))
    guesses = team.run(top_guesses, [hidden for hidden, _, _ in batches])
    asked = np.concatenate([targets[chosen] for _, targets, chosen in batches])
    hits = sum(int((guess == targets)[chosen].sum()) for guess, (_, targets, chosen) in zip(guesses, batches))
    return {"masked_top1": share(hits, asked.size),
            "masked_majority": share(int(np.bincount(asked).max()), asked.size)}


def cloze(team, tokenizer, items):
    """Sentences of the world without their last word: how often the likeliest ending is the true one."""
    asked = [corpus.opening(tokenizer, text) for text, _ in items]
    written = sum(team.run(likeliest, [asked[i:i + 50] for i in range(0, len(asked), 50)]), [])
    endings = map(tokenizer.decode, written)
    hits = sum(ending.startswith(f" {answer}.") for ending, (_, answer) in zip(endings, items))
    return share(hits, len(items))


def ranked(team, tokenizer, world):
    """The facts that are never asked about, without a question: which value makes the likeliest sentence?
    So a model that has never seen a conversation can show what it knows."""
    rows, first = [], []
    for task in world.questions():
        _, name, relation = task.key.split()
        first.append((len(rows), people.VALUES[relation].index(task.answer)))
        tell = people.TELL[relation][0]
        rows += [corpus.opening(tokenizer, tell.format(name=name, value=value))
                 for value in people.VALUES[relation]]
    ids, targets, weights = shift(*pad([(row, 1) for row in rows]))
    parts = [slice(i, i + 240) for i in range(0, len(rows), 240)]
    nats = np.concatenate(team.run(token_nats, [(ids[part], targets[part]) for part in parts]))
    nats = (nats * weights).sum(axis=1)
    right_ones = sum(int(nats[at:at + 12].argmin()) == value for at, value in first)
    return {"facts_ranked": share(right_ones, len(first))}


def run(team, tokenizer, settings, folder, problems=()):
    """Every exam on the team's model; the results go to exams.json in `folder`, and are returned. `problems`
    are conversations of a file that were held out."""
    began = time.monotonic()
    training, validation = corpus.load(settings)
    results, config = counting(training, validation), team.replica.model.config
    if config.causal:
        results |= reading(team, tokenizer, validation, corpus.window(settings, config.context))
        if not settings.text:
            world, thinks = World(settings.seed), folder.name.startswith("4")
            results |= {"floor_bits_per_byte": world.floor(),
                        "fact_cloze": cloze(team, tokenizer, world.fact_clozes()),
                        "story_cloze": cloze(team, tokenizer, world.story_clozes(300))}
            results |= ranked(team, tokenizer, world) | interviews.run(team, tokenizer, world, votes=thinks)
            results |= verdicts.run(team, tokenizer, world, folder)
    else:
        results |= hidden_tokens(team, tokenizer, validation)
    if problems:
        results |= interviews.own_problems(team, tokenizer, problems)
    results["seconds"] = round(time.monotonic() - began, 1)
    write_json(folder / "exams.json", results)
    return results
