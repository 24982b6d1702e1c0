"""Rankings on disk, and what is learned from them. One JSON object on a line, written as soon as it is made:

    {"prompt": [{"role", "content"}, ...], "completions": ["...", ...], "ranks": [2, 1, 3, 3],
     "annotator": "...", "time": "...", "sampling": {...}, "model": "sha256 of the checkpoint"}

1 is the best; equal ranks are ties. Published preference sets are understood as well: {"chosen", "rejected"}
with a "prompt", or as two whole conversations, as messages or as text with turns of Human and Assistant.
"""

import datetime
import json
import re
import sys
from typing import NamedTuple

from tinyllm.conversation import ROLES, spell
from tinyllm.corpus import CorpusError
from tinyllm.formats import usable

TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")


class Ranking(NamedTuple):
    """Completions of one prompt (messages) and the rank of each."""

    prompt: list
    completions: list
    ranks: list


def read(path):
    """A file -> rankings. Malformed lines are reported with their number and left out, and so are rankings
    that say nothing: identical texts, or all of them tied. Raises CorpusError where none is left."""
    found = usable(path, understand)
    telling = [ranking for ranking in found if len(set(ranking.ranks)) > 1]
    if len(telling) < len(found):
        print(f"{path}: {len(found) - len(telling)} of {len(found)} rankings prefer nothing (identical "
              "texts, or ties) and are left out", file=sys.stderr)
    if not telling:
        raise CorpusError(f"{path} has no ranking that prefers one text to another")
    return telling


def understand(entry):
    """One object of a file -> Ranking. Raises ValueError where it is none."""
    if "ranks" in entry or "completions" in entry:
        prompt, texts, ranks = messages(entry.get("prompt")), entry.get("completions"), entry.get("ranks")
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError('needs "completions" as a list of texts')
        if len(texts) < 2:
            raise ValueError("has fewer than two completions")
        whole = isinstance(ranks, list) and all(type(rank) is int and rank > 0 for rank in ranks)
        if not whole or len(ranks) != len(texts):
            raise ValueError(f'needs "ranks", one number from 1 on for each of the {len(texts)} completions')
        return Ranking(prompt, *distinct(texts, ranks))
    if "chosen" not in entry or "rejected" not in entry:
        raise ValueError('needs "completions" and "ranks", or "chosen" and "rejected"')
    before = messages(entry["prompt"]) if "prompt" in entry else None
    (asked, good), (other, bad) = (last_reply(entry[side], before) for side in ("chosen", "rejected"))
    if asked != other:
        raise ValueError("has a chosen and a rejected reply to different prompts")
    return Ranking(asked, *distinct([good, bad], [1, 2]))


def distinct(texts, ranks):
    """Of identical texts only one stays, with the better rank: to prefer a text to itself says nothing."""
    best = {}
    for text, rank in zip(texts, ranks):
        best[text] = min(rank, best.get(text, rank))
    return list(best), list(best.values())


def messages(value):
    """A prompt or a conversation, as messages or as text, with or without turns -> messages."""
    if isinstance(value, str) and value.strip():
        parts = TURN.split(value)
        if len(parts) == 1:
            return [{"role": "user", "content": value.strip()}]
        names = {"Human": "user", "Assistant": "assistant"}
        return [{"role": names[name], "content": text.strip()} for name, text in zip(parts[1::2], parts[2::2])
                if text.strip()]
    good = isinstance(value, list) and value and all(
        isinstance(m, dict) and m.get("role") in ROLES and isinstance(m.get("content"), str) for m in value)
    if not good:
        raise ValueError(f"needs texts, or messages with a role of {', '.join(ROLES)} and a content")
    return [{"role": m["role"], "content": m["content"]} for m in value]


def last_reply(value, prompt=None):
    """A reply to `prompt`, or a whole conversation -> (the prompt, the reply)."""
    if prompt is not None and isinstance(value, str) and not TURN.search(value) and value.strip():
        return prompt, value.strip()
    found = messages(value)
    if found[-1]["role"] != "assistant":
        raise ValueError("has a conversation that does not end with a reply of the assistant")
    before = found[:-1] or prompt
    if not before:
        raise ValueError("has a reply without a prompt")
    return before, found[-1]["content"]


def write(file, ranking, **notes):
    """One line with the time, on disk before anything else happens."""
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    file.write(json.dumps({**ranking._asdict(), "time": now, **notes}, ensure_ascii=False) + "\n")
    file.flush()


def spelled(tokenizer, ranking, context):
    """-> [(ids, learned)] of each completion after its prompt; None where one of them is too long."""
    rows = [spell(tokenizer, [*ranking.prompt, {"role": "assistant", "content": text}])
            for text in ranking.completions]
    begin = len(spell(tokenizer, ranking.prompt)[0]) + 1                     # earlier replies are not judged
    rows = [(ids, [0] * begin + learned[begin:]) for ids, learned in rows]
    return rows if max(len(ids) for ids, _ in rows) <= context + 1 else None


def parse_order(answer, count):
    """What a person has typed, the best first, ties with =, such as "2=1 4 3" -> ranks. Raises ValueError."""
    groups = [part.split("=") for part in re.sub(r"\s*=\s*", "=", answer.strip()).split()]
    named = [name for group in groups for name in group]
    wanted = [str(i + 1) for i in range(count)]
    if sorted(named) != wanted:
        raise ValueError(f"name each of {' '.join(wanted)} once, the best first; = for ties: 2=1 4 3")
    place = {name: rank for rank, group in enumerate(groups, 1) for name in group}
    return [place[name] for name in wanted]
