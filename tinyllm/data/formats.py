"""The files people have: instructions as JSON or JSONL, problems in GSM8K's JSONL.

    {"instruction": ..., "input": ..., "output": ...}      or      {"messages": [{"role", "content"}, ...]}
    {"question": ..., "answer": "He earns 12/60 = $<<12/60=0.2>>0.2 a minute.\\n#### 0.2"}

Annotations in << >> become calls of the calculator, with the result as it stands there."""

import json
import re
import sys
from pathlib import Path

from tinyllm.conversation import ROLES
from tinyllm.corpus import CorpusError
from tinyllm.world import split_of
from tools.protocol import Call, render_call, render_result

ANNOTATION = re.compile(r"<<([^<>=]*)=([^<>]*)>>")


def entries(path):
    """A JSON array, or a JSON object on every line -> [(place, object)]. Raises CorpusError."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}"
        ) from None
    if text.lstrip().startswith("["):
        try:
            return [(f"entry {i}", entry) for i, entry in enumerate(json.loads(text), 1)]
        except ValueError as error:
            raise CorpusError(f"{path} is no JSON: {error}") from None
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                found.append((f"line {number}", json.loads(line)))
            except ValueError as error:
                found.append((f"line {number}", error))
    return found


def usable(path, understand):
    """understand(entry) -> messages, for every entry; those with a ValueError are reported and left out.

    Raises CorpusError where none is left."""
    found, bad = [], []
    for place, entry in entries(path):
        try:
            if not isinstance(entry, dict):
                raise ValueError(
                    f"is no JSON object: {entry}" if isinstance(entry, ValueError) else "is no JSON object"
                )
            found.append(understand(entry))
        except ValueError as error:
            bad.append(f"{place} {error}")
    if bad:
        more = f" and {len(bad) - 1} more are" if len(bad) > 1 else " is"
        print(f"{path}: {bad[0]};{more} left out", file=sys.stderr)
    if not found:
        raise CorpusError(f"{path} holds nothing to learn from" + (f": {bad[0]}" if bad else ": it is empty"))
    return found


def instructions(path):
    """-> conversations, each a list of {"role", "content"}."""
    return usable(path, conversation)


def conversation(entry):
    if "messages" in entry:
        messages = entry["messages"]
        good = (
            isinstance(messages, list)
            and messages
            and all(
                isinstance(m, dict) and m.get("role") in ROLES and isinstance(m.get("content"), str)
                for m in messages
            )
        )
        if not good:
            raise ValueError(f"has messages without a role of {', '.join(ROLES)} and a text as content")
        if not any(m["role"] == "assistant" for m in messages):
            raise ValueError("has no message of the assistant: there is nothing to learn")
        return [{"role": m["role"], "content": m["content"]} for m in messages]
    asked, given, said = (entry.get(key, "") for key in ("instruction", "input", "output"))
    if (
        not all(isinstance(part, str) for part in (asked, given, said))
        or not asked.strip()
        or not said.strip()
    ):
        raise ValueError('needs "instruction" and "output" as texts, or "messages"')
    question = f"{asked}\n{given}" if given.strip() else asked
    return [{"role": "user", "content": question}, {"role": "assistant", "content": said}]


def problems(path):
    """-> conversations whose last message ends with #### and the answer."""
    return usable(path, problem)


def problem(entry):
    question, answer = entry.get("question"), entry.get("answer")
    if not isinstance(question, str) or not isinstance(answer, str) or "####" not in answer:
        raise ValueError('needs "question" and "answer" as texts, the answer with ####')
    messages, said, at = [{"role": "user", "content": question}], "", 0
    for found in ANNOTATION.finditer(answer):
        said += answer[at : found.start()]
        call = render_call(Call("calculator", {"expression": found[1].strip()}))
        messages += [{"role": "assistant", "content": said + call},
                     {"role": "tool", "content": render_result(number(found[2]))}]  # fmt: skip
        said, at = "", found.end()
    return [*messages, {"role": "assistant", "content": said + answer[at:]}]


def number(text):
    try:
        return json.loads(text.strip())
    except ValueError:
        return text.strip()


def split(conversations):
    """-> (to train on, held out): one in ten by what is asked, the same on every machine."""
    test = [split_of(messages[0]["content"]) == "val" for messages in conversations]
    return [[m for m, held in zip(conversations, test) if held == side] for side in (False, True)]
