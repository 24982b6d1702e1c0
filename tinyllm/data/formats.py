"""Common file formats: instructions in JSON or JSONL, problems in GSM8K's JSONL.

    {"instruction": ..., "input": ..., "output": ...}      or      {"messages": [{"role", "content"}, ...]}
    {"question": ..., "answer": "He earns 12/60 = $<<12/60=0.2>>0.2 a minute.\\n#### 0.2"}

Annotations in << >> become calculator calls, with the result that the file gives.
"""

import json
import re
import sys
from pathlib import Path

from tinyllm.data.conversation import ROLES
from tinyllm.errors import TinyllmError
from tinyllm.world import split_of
from tinyllm.world.task import final_answer
from tools.protocol import Call, render_call, render_result

ANNOTATION = re.compile(r"<<([^<>=]*)=([^<>]*)>>")


def entries(path):
    """A JSON array, or one JSON object per line -> [(place, object or the error)]. Raises TinyllmError."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise TinyllmError(f"{path} cannot be read: {reason}") from None
    if text.lstrip().startswith("["):
        try:
            return [(f"entry {i}", entry) for i, entry in enumerate(json.loads(text), 1)]
        except (ValueError, RecursionError) as error:
            raise TinyllmError(f"{path} is not valid JSON: {error}") from None
    lines = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                lines.append((f"line {number}", json.loads(line)))
            except (ValueError, RecursionError) as error:
                lines.append((f"line {number}", ValueError(str(error))))
    return lines


def read_entries(path, parse):
    """parse(entry) for every entry of a file; entries that raise ValueError are counted and left out.

    Raises TinyllmError if none is left.
    """
    parsed, problems = [], []
    for place, entry in entries(path):
        try:
            if isinstance(entry, ValueError):
                raise ValueError(f"is not valid JSON: {entry}")
            if not isinstance(entry, dict):
                raise ValueError("is not a JSON object")
            parsed.append(parse(entry))
        except ValueError as error:
            problems.append(f"{place} {error}")
    if problems:
        count = f"{len(problems)} of {len(problems) + len(parsed)} entries"
        print(f"{path}: left out {count}; the first: {problems[0]}", file=sys.stderr)
    if not parsed:
        raise TinyllmError(f"{path} has no usable entry: {problems[0] if problems else 'it is empty'}")
    return parsed


def read_messages(value):
    """A list of messages from a file, checked. Raises ValueError."""
    valid = isinstance(value, list) and value
    for message in value if valid else []:
        text = isinstance(message, dict) and isinstance(message.get("content"), str)
        valid = valid and text and message.get("role") in ROLES
    if not valid:
        raise ValueError(
            f"needs a list of messages, each with a role ({', '.join(ROLES)}) and a text as content"
        )
    return [{"role": message["role"], "content": message["content"]} for message in value]


def instructions(path):
    """-> conversations, each a list of {"role", "content"}."""
    return read_entries(path, conversation)


def conversation(entry):
    if "messages" in entry:
        messages = read_messages(entry["messages"])
        if not any(message["role"] == "assistant" for message in messages):
            raise ValueError("has no assistant message: there is nothing to learn")
        return messages
    question, more, answer = (entry.get(key, "") for key in ("instruction", "input", "output"))
    texts = all(isinstance(text, str) for text in (question, more, answer))
    if not texts or not question.strip() or not answer.strip():
        raise ValueError('needs "instruction" and "output" as strings, or "messages"')
    question = f"{question}\n{more}" if more.strip() else question
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def problems(path):
    """-> conversations whose last message ends with #### and the answer."""
    return read_entries(path, problem)


def problem(entry):
    question, answer = entry.get("question"), entry.get("answer")
    if not isinstance(question, str) or not isinstance(answer, str) or not final_answer(answer):
        raise ValueError('needs "question" and "answer" as strings, and #### with a result in the answer')
    messages, text, at = [{"role": "user", "content": question}], "", 0
    for annotation in ANNOTATION.finditer(answer):
        text += answer[at : annotation.start()]
        call = render_call(Call("calculator", {"expression": annotation[1].strip()}))
        messages.append({"role": "assistant", "content": text + call})
        messages.append({"role": "tool", "content": render_result(number(annotation[2]))})
        text, at = "", annotation.end()
    return [*messages, {"role": "assistant", "content": text + answer[at:]}]


def number(text):
    try:
        return json.loads(text.strip())
    except ValueError:
        return text.strip()


def split(items, messages_of=lambda messages: messages):
    """-> (training, held out): one in ten, by a hash of the first message, the same on every machine."""
    training, held_out = [], []
    for item in items:
        is_held_out = split_of(messages_of(item)[0]["content"]) == "val"
        (held_out if is_held_out else training).append(item)
    return training, held_out
