"""Rankings on disk, and their encoding for training. Each ranking is one line of JSON:

    {"prompt": [{"role", "content"}, ...], "completions": ["...", ...], "ranks": [2, 1, 3, 3],
     "annotator": "...", "time": "...", "sampling": {...}, "model": "sha256 of the checkpoint"}

Rank 1 is the best; equal ranks are ties. Published preference sets are read too: {"chosen", "rejected"} as
replies to a prompt, or as two whole conversations, in any of the formats of data/formats.py.
"""

import datetime
import json
import re
from typing import NamedTuple

from tinyllm.checkpoint.files import write_text
from tinyllm.data.batches import report_left_out
from tinyllm.data.conversation import encode_last_reply, encode_prompt
from tinyllm.data.formats import read_entries, read_prompt, read_reply, read_text, split
from tinyllm.sampling import REPLY_TOKENS, reply_room


class Ranking(NamedTuple):
    """One prompt (a list of messages), its completions, and the rank of each completion."""

    prompt: list
    completions: list
    ranks: list


def read(path):
    """A file -> rankings. Skips entries that are malformed or express no preference, with a message about the
    first one skipped. Raises TinyllmError if no entry is left."""
    return read_entries(path, ranking)


def ranking(entry):
    """One object from a file -> Ranking. Raises ValueError if it is malformed or expresses no preference."""
    if "ranks" not in entry and "completions" not in entry:
        (*prompt, chosen), (*same, rejected) = read_reply(entry, ["chosen"]), read_reply(entry, ["rejected"])
        if prompt != same:
            raise ValueError("has a chosen and a rejected reply to different prompts")
        texts, ranks = [chosen["content"], rejected["content"]], [1, 2]
    else:
        prompt, texts, ranks = read_prompt(entry), entry.get("completions"), entry.get("ranks")
        lists = isinstance(texts, list) and isinstance(ranks, list) and len(texts) == len(ranks) > 1
        if not prompt or not lists or not all(type(rank) is int and rank > 0 for rank in ranks):
            raise ValueError(
                'needs a prompt that is not empty; "completions", a list of two or more texts; and "ranks", '
                "one whole number of at least 1 for each text"
            )
        texts = [read_text(text) for text in texts]
    best = {}  # each distinct text once, with the best of its ranks: nobody prefers a text to itself
    for text, rank in zip(texts, ranks):
        best[text] = min(rank, best.get(text, rank))
    if len(set(best.values())) < 2:
        raise ValueError("expresses no preference: all texts are identical or tied")
    return Ranking(prompt, list(best), list(best.values()))


def entry(ranking, annotator, model, seed):
    """A ranking as an object to save. model: the hash of the checkpoint that wrote the completions; seed: the
    seed with which they were sampled."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    sampling = {"temperature": 1.0, "max_tokens": REPLY_TOKENS, "seed": seed}
    return {**ranking._asdict(), "annotator": annotator, "time": now, "sampling": sampling, "model": model}


def save(path, entries):
    """Write objects as a file of rankings. The old file is replaced only when the new one is complete."""
    write_text(path, "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries))


def split_rankings(rankings):
    """Split rankings into (training, held out) by the user's first question, as formats.split does."""
    return split(rankings, lambda ranking: ranking.prompt)


def fitting(rankings, tokenizer, context):
    """The rankings that fit into the context. Those that do not fit are counted and reported. Raises
    TinyllmError if none fits."""
    kept = [ranking for ranking in rankings if fits(ranking, tokenizer, context)]
    report_left_out(kept, rankings, "ranking", context)
    return kept


def fits(ranking, tokenizer, context):
    """Whether the context has room for the prompt with each completion, and with a new reply."""
    longest = max(len(ids) for ids, _ in encode_ranking(tokenizer, ranking)) - 1
    return max(longest, len(encode_prompt(tokenizer, ranking.prompt)) + reply_room(context)) <= context


def encode_ranking(tokenizer, ranking):
    """-> [(ids, mask)] of the prompt with each completion. The mask covers only the completion."""
    replies = [{"role": "assistant", "content": text} for text in ranking.completions]
    return [encode_last_reply(tokenizer, [*ranking.prompt, reply]) for reply in replies]


def better_and_worse(rankings, items):
    """items: one for each completion, ranking by ranking -> [(better item, worse item)], one pair for every
    two completions of the same ranking that are not tied."""
    items, pairs = iter(items), []
    for ranking in rankings:
        ranked = list(zip(ranking.ranks, items))
        pairs += [(a, b) for rank, a in ranked for other, b in ranked if rank < other]
    return pairs


def parse_order(answer, count):
    """An order as a person types it, best first, with = for ties: "2=1 4 3" -> ranks. Raises
    ValueError unless it names every number from 1 to `count` once."""
    groups = [part.split("=") for part in re.sub(r"\s*=\s*", "=", answer).split()]
    ranked = sorted((name, rank) for rank, group in enumerate(groups, 1) for name in group)
    names = [str(i + 1) for i in range(count)]
    if [name for name, _ in ranked] != names:
        raise ValueError(f"name each of {' '.join(names)} once, best first, with = for ties: 2=1 4 3")
    return [rank for _, rank in ranked]
