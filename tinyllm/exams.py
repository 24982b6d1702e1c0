"""Held-out measurements. Every one is run after every stage, so a stage that forgets is seen to forget.

A result is {"value", "low", "high", "n"}: n items, and the interval that holds the true value with 95 %
confidence. What does not apply to a run is None.
"""

import math
import time

import numpy as np

from tinyllm import corpus
from tinyllm.calls import CallMask
from tinyllm.conversation import prompt
from tinyllm.ngram import ngram_nats
from tinyllm.objectives import hide_tokens, log_softmax
from tinyllm.sampling import generate
from tinyllm.training import write_json
from tinyllm.world import World
from tinyllm.world.problems import follows
from tinyllm.world.task import final_answer, right
from tools.builtin import TOOLS
from tools.protocol import Call, parse, render_result
from tools.registry import Registry
from tools.schema import validate

Z = 1.96                     # half-width of a 95 % interval, in standard errors


def share(hits, n):
    """hits out of n, with Wilson's interval (1927), which stays inside [0, 1] however one-sided they are."""
    if n == 0:
        return None
    p, z2 = hits / n, Z * Z
    middle, spread = p + z2 / (2 * n), Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return {"value": p, "low": max(0.0, (middle - spread) / (1 + z2 / n)),
            "high": min(1.0, (middle + spread) / (1 + z2 / n)), "n": n}


# ---- what workers compute ------------------------------------------------------------------------

def token_nats(replica, batch):
    """-log p of every target in a batch (ids, targets) -> (B, T)."""
    ids, targets = batch
    logp = log_softmax(replica.model.forward(ids)[0])
    return -np.take_along_axis(logp, targets[..., None], axis=-1)[..., 0]


def top_guesses(replica, ids):
    """The most likely token at every position of ids (B, T)."""
    return replica.model.forward(ids)[0].argmax(axis=-1)


def likeliest(replica, prompts, tokens=8):
    """Greedy continuations of a list of prompts."""
    return [new for new, _ in generate(replica.model, prompts, tokens, temperature=0)]


def write_replies(replica, job):
    """Replies to prompts, up to the end token where it comes in time -> lists of ids."""
    prompts, tokens, end, temperature, seed, masked_by = job
    mask = masked_by and CallMask(masked_by, Registry(TOOLS), [tokens] * len(prompts), only=True)
    rng = np.random.default_rng(seed)
    found = generate(replica.model, prompts, tokens, rng, temperature, stop=[end], mask=mask)
    return [new for new, _ in found]


# ---- exams ---------------------------------------------------------------------------------------

def reading(team, tokenizer, documents):
    """How surprising the whole validation text is, window by window, every position scored once.

    Bits per byte compares models of any vocabulary; nats per character is the custom for character
    models. Special tokens are left out of both sums: they are not in the text.
    """
    ids = corpus.pack(documents, tokenizer)
    context = team.replica.model.config.context
    batches = corpus.every_window(ids, context, 32)
    nats = np.concatenate(team.run(token_nats, [(inputs, targets) for inputs, targets, _ in batches]))
    targets, weights = (np.concatenate([batch[i] for batch in batches]) for i in (1, 2))
    width = np.array([len(piece) for piece in tokenizer.bytes_of])
    width[tokenizer.ordinary:] = 0                                                   # special tokens
    size = width[targets] * weights                                                  # in bytes
    nats = nats * (size > 0)
    rate = nats.sum() / size.sum()
    error = np.sqrt(np.square(nats.sum(1) - rate * size.sum(1)).sum()) / size.sum()  # of a ratio of two sums
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
    ids = corpus.pack(documents, tokenizer)
    batches = []
    for i, (window, _, weights) in enumerate(corpus.every_window(ids, team.replica.model.config.context, 32)):
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
    asked = [[tokenizer.special["<|begin|>"], *tokenizer.encode(text)] for text, _ in items]
    written = sum(team.run(likeliest, [asked[i:i + 50] for i in range(0, len(asked), 50)]), [])
    endings = map(tokenizer.decode, written)
    hits = sum(ending.startswith(f" {answer}.") for ending, (_, answer) in zip(endings, items))
    return share(hits, len(items))


# ---- conversations -------------------------------------------------------------------------------

def replies(team, tokenizer, prompts, tokens, temperature=0.0, masked=False):
    """Prompts (lists of ids) -> [(text, whether it ended by itself)], in their order."""
    end, order = tokenizer.special["<|end|>"], sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    parts = [order[i:i + 64] for i in range(0, len(order), 64)]
    jobs = [([prompts[i] for i in part], tokens, end, temperature, [11, n], tokenizer if masked else None)
            for n, part in enumerate(parts)]
    found = [None] * len(prompts)
    for part, written in zip(parts, team.run(write_replies, jobs)):
        for i, ids in zip(part, written):
            ended = ids[-1:] == [end]
            found[i] = tokenizer.decode(ids[:-1] if ended else ids), ended
    return found


def asked(team, tokenizer, tasks, tokens, **how):
    return replies(team, tokenizer, [prompt(tokenizer, task.prompt) for task in tasks], tokens, **how)


def hits(tasks, said, is_right=right):
    return share(sum(bool(is_right(task, text)) for task, (text, _) in zip(tasks, said)), len(tasks))


def solved(task, text):
    return final_answer(text) == task.answer.lower()


def instructions(team, tokenizer, world):
    """Questions whose content was never trained; then in wordings that were never trained; then facts that
    were read but never asked about."""
    kinds = ("facts", "yes_no", "summary", "translate", "transform", "sums")
    tasks = sum((world.instructions("test", 50, family=kind) for kind in kinds), [])
    said = asked(team, tokenizer, tasks, 64)
    unseen = sum((world.instructions("test", 50, family=kind, unseen=True) for kind in kinds), [])
    facts = world.questions()
    each = {kind: hits(tasks[i * 50:i * 50 + 50], said[i * 50:i * 50 + 50]) for i, kind in enumerate(kinds)}
    return {"instruction_exact": hits(tasks, said),
            "fact_questions": hits(facts, asked(team, tokenizer, facts, 40)),
            "unseen_wording": hits(unseen, asked(team, tokenizer, unseen, 64)),
            "stops": share(sum(ended for _, ended in said), len(said)), "instruction_kinds": each}


def reasoning(team, tokenizer, world, votes):
    """Problems of several steps, with their chain of thought, and without: the answer at once."""
    tasks = world.problems("test", 200, kind="story")
    longer = world.problems("test", 200, kind="story", steps=5)
    said = asked(team, tokenizer, tasks, 200)
    at_once = tokenizer.encode("#### ")
    direct = replies(team, tokenizer, [prompt(tokenizer, task.prompt) + at_once for task in tasks], 5)
    results = {"reasoning_direct": hits(tasks, [(f"#### {text}", ended) for text, ended in direct], solved),
               "reasoning_exact": hits(tasks, said, solved),
               "chain_valid": hits(tasks, said, lambda task, text: solved(task, text) and follows(text)),
               "reasoning_five_steps": hits(longer, asked(team, tokenizer, longer, 240), solved),
               "reasoning_majority8": None}
    if votes:
        many = asked(team, tokenizer, tasks * 8, 200, temperature=0.7)
        ballots = [[final_answer(text) for text, _ in many[i::len(tasks)]] for i in range(len(tasks))]
        results["reasoning_majority8"] = share(
            sum(majority(ballot) == task.answer.lower() for task, ballot in zip(tasks, ballots)), len(tasks))
    logic = sum((world.problems("test", 70, kind=kind) for kind in ("order", "truth", "mistake")), [])
    results["logic_exact"] = hits(logic, asked(team, tokenizer, logic, 120), solved)
    return results


def majority(answers):
    """The answer given most often (Wang et al. 2022, "Self-Consistency"), the first of several."""
    given = [answer for answer in answers if answer is not None]
    return max(given, key=given.count, default=None)


def calling(team, tokenizer, world):
    """Problems for the calculator: is the call valid, and is the answer right, once the tool has run?"""
    registry, tasks = Registry(TOOLS), world.problems("test", 200, kind="calculator")
    texts = [text for text, _ in asked(team, tokenizer, tasks, 60)]
    said = [parse(text) for text in texts]
    masked = [parse(text) for text, _ in asked(team, tokenizer, tasks, 120, masked=True)]
    again, open_ = [], []
    for i, (task, parts) in enumerate(zip(tasks, said)):
        if valid(parts, registry):
            call = next(part for part in parts if isinstance(part, Call))
            result = render_result(registry.execute([call])[0].value)
            again.append(prompt(tokenizer, [*task.prompt, {"role": "assistant", "content": texts[i]},
                                            {"role": "tool", "content": result}]))
            open_.append(i)
    final = replies(team, tokenizer, again, 20) if again else []
    right_ones = sum(solved(tasks[i], text) for i, (text, _) in zip(open_, final))
    return {"calculator_exact": share(right_ones, len(tasks)),
            "tool_call_valid": share(sum(valid(parts, registry) for parts in said), len(tasks)),
            "tool_call_valid_masked": share(sum(valid(parts, registry) for parts in masked), len(tasks))}


def valid(parts, registry):
    """Whether a reply holds one call, of a tool that there is, with arguments that fit it."""
    calls = [part for part in parts if isinstance(part, Call)]
    return (len(calls) == 1 and calls[0].name in registry.tools
            and validate(calls[0].arguments, registry.tools[calls[0].name].parameters) == [])


def say(run, messages):
    """A conversation's first question and what the model answers now."""
    question = messages[:1]
    ((text, _),) = replies(run.team, run.tokenizer, [prompt(run.tokenizer, question)], 200)
    return f"{question[0]['content']}\n{text}"


def run(team, tokenizer, settings, folder):
    """Every exam on the team's model; the results go to exams.json in `folder`, and are returned."""
    began = time.monotonic()
    training, validation = corpus.load(settings)
    results = counting(training, validation)
    if team.replica.model.config.causal:
        results |= reading(team, tokenizer, validation)
        if not settings.text:
            world, knows = World(settings.seed), folder.name not in ("0-random", "1-pretrain")
            results |= {"floor_bits_per_byte": world.floor(),
                        "fact_cloze": cloze(team, tokenizer, world.fact_clozes()),
                        "story_cloze": cloze(team, tokenizer, world.story_clozes(300))}
            results |= instructions(team, tokenizer, world) | reasoning(team, tokenizer, world, votes=knows)
            results |= calling(team, tokenizer, world)
    else:
        results |= hidden_tokens(team, tokenizer, validation)
    results["seconds"] = round(time.monotonic() - began, 1)
    write_json(folder / "exams.json", results)
    return results
