"""Common file formats -> conversations: lists of {"role", "content"}.

Published data sets use many different keys for the same two things, the prompt and the reply. If every stage
read only a few of these formats, most files would have to be converted first. So one function,
`read_messages`, reads them all, for all three kinds of file: instructions, problems, and rankings
(preferences/rankings.py).

    {"messages": [{"role": "user", "content": ...}, ...]}            OpenAI; "content" may be a list of parts,
                                                                     and "weight": 0 excludes a reply
    {"conversations": [{"from": "human", "value": ...}, ...]}        ShareGPT
    {"instruction": ..., "input": ..., "output": ...}                Alpaca; Dolly has "context", "response"
    {"prompt": ..., "completion": ...}                               as strings or as lists of messages
    {"question": ..., "answer": "12/60 = $<<12/60=0.2>>0.2.\\n#### 0.2"}                               GSM8K
    "\\n\\nHuman: ...\\n\\nAssistant: ..."                               HH-RLHF: a prompt or reply with turns

A file is JSONL, or one JSON document: an array, {"data": [...]}, or a single object. Files are in UTF-8. A
number is accepted in place of a text; NaN means that the value is missing. Entries that cannot be used are
skipped, with a message about the first one, because large files often have a few bad entries.
"""

import json
import re
from pathlib import Path

from tinyllm.data.conversation import ROLES, is_learned
from tinyllm.errors import TinyllmError, tell_once
from tinyllm.world import split_of
from tinyllm.world.task import final_answer
from tools.protocol import Call, render_call, render_result

CONVERSATIONS, SYSTEMS = ("messages", "conversations"), ("system", "system_prompt")
PROMPTS, INPUTS = ("prompt", "instruction", "question"), ("input", "context")
REPLIES = ("completion", "response", "output", "answer")
OTHER_ROLES = {"human": "user", "prompter": "user", "gpt": "assistant", "developer": "system"}
TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")
SURROGATE = re.compile(r"[\ud800-\udfff]")
ANNOTATION = re.compile(r"<<([^<>=]*)=([^<>]*)>>")


# ---- a file -> entries


def read_entries(path, parse):
    """parse(entry) for every JSON object of a file. Entries for which `parse` raises ValueError are counted
    and left out.

    Raises TinyllmError if no entry is left, and OSError if the file cannot be read.
    """
    parsed, problems = [], []
    for place, entry in entries(path):
        try:
            entry = parse_json(entry) if isinstance(entry, str) else entry
            if not isinstance(entry, dict):
                raise ValueError("is not a JSON object")
            parsed.append(parse(entry))
        except ValueError as error:
            keys = f" (keys found: {quoted(entry)})" if isinstance(entry, dict) else ""
            problems.append(f"{place} {error}{keys}")
    if not parsed:
        raise TinyllmError(f"{path} has no usable entry: {problems[0] if problems else 'it is empty'}")
    if problems:
        count = f"{len(problems)} of {len(problems) + len(parsed)} entries"
        tell_once(f"{Path(path).absolute()}: left out {count}; the first: {problems[0]}")
    return parsed


def entries(path):
    """A file -> [(place, entry)]. The entries of a JSONL file are its lines, not yet parsed.

    Raises TinyllmError if the file is not UTF-8 or is an invalid JSON document.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TinyllmError(f"{path} is not text in UTF-8: save it as UTF-8 ({error})") from None
    try:
        document = parse_json(text)
    except ValueError as error:
        if re.match(r"\s*(\[|\{\s*\n)", text):  # one document on several lines, not JSONL
            raise TinyllmError(f"{path} {error}; correct the file, or write one object per line") from None
        return [(f"line {i}", line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]
    if isinstance(document, dict) and isinstance(document.get("data"), list):
        document = document["data"]
    if not isinstance(document, list):
        return [("line 1", document)]
    return [(f"entry {i}", entry) for i, entry in enumerate(document, 1)]


def parse_json(text):
    """JSON text -> the value; NaN becomes None. Raises ValueError."""
    try:
        return json.loads(text, parse_constant=lambda name: None)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is not valid JSON: {error}") from None


def quoted(keys):
    return ", ".join(map(repr, keys))[:300] or "none"


# ---- an entry -> messages; a bad entry raises ValueError


def read_messages(entry, keys, role="user"):
    """The first non-empty value under one of the keys -> messages; [] if there is no such value.

    The value is a list of messages, one message, or a text, which becomes one message from `role`. A text
    that begins with a Human turn is split into its turns; if `role` is "assistant", the text must also have
    an Assistant turn. Any other text is kept word for word: a reply may begin with "Assistant:".
    """
    key = next((key for key in keys if not is_empty(entry.get(key))), None)
    value = entry.get(key, [])
    if isinstance(value, (str, int, float)):
        text = read_text(value).strip()
        has_turns = text.startswith("Human:") and (role == "user" or "\n\nAssistant:" in text)
        turns = TURN.split(text)[1:] if has_turns else [role, text]
        pairs = zip(turns[::2], map(str.strip, turns[1::2]))
        value = [{"role": name, "content": content} for name, content in pairs if content]
    return [read_message(message) for message in ([value] if isinstance(value, dict) else value)]


def is_empty(value):
    """Whether a value counts as missing: null (or NaN), false, an empty list or a blank text. The number 0
    does not, because it may be an answer."""
    return value is None or value is False or value == [] or not str(value).strip()


def read_message(message):
    if not isinstance(message, dict):
        raise ValueError("has a message that is not a JSON object")
    role = message.get("role", message.get("from"))
    role = OTHER_ROLES.get(role.lower(), role.lower()) if isinstance(role, str) else None
    content = message.get("content", message.get("value", message.get("text")))
    if role not in ROLES or content is None:
        raise ValueError(
            f"has a message with the role {role!r:.40} and the keys {quoted(message)}: it needs content "
            f"and one of the roles {', '.join(ROLES)} (or human, gpt)"
        )
    unlearned = {"weight": 0} if message.get("weight") == 0 else {}
    return {"role": role, "content": read_text(content)} | unlearned


def read_text(value):
    """A string, a number, or a list of parts {"type": "text", "text": ...} -> str."""
    parts = value if isinstance(value, list) else [value]
    texts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    if not all(type(text) in (str, int, float) for text in texts):
        raise ValueError("has a text that is not a string")
    text = "".join(map(str, texts))
    if SURROGATE.search(text):
        raise ValueError("has half of a surrogate pair, such as \\ud800, which UTF-8 cannot encode")
    return text


def read_prompt(entry):
    """The prompt of an entry -> messages; [] if the entry has none."""
    if not is_empty(entry.get("history")):
        raise ValueError('has a "history": write all turns as "messages"')
    prompt = read_messages(entry, PROMPTS)
    inputs = [read_text(entry[key]).strip() for key in INPUTS if not is_empty(entry.get(key))]
    if inputs:
        question = [message["content"] for message in prompt[-1:]]
        prompt[-1:] = [{"role": "user", "content": "\n".join(question + inputs)}]
    return with_system(entry, prompt or read_messages(entry, CONVERSATIONS))


def with_system(entry, messages):
    """The messages, preceded by the entry's system message if the entry has one under a separate key."""
    if not messages or messages[0]["role"] == "system":
        return messages
    return [*read_messages(entry, SYSTEMS, "system"), *messages]


def read_reply(entry, keys):
    """The prompt and the reply of an entry -> messages that end with the reply. If the reply
    also holds the prompt, as in HH-RLHF, the prompt's own key is ignored. A reply may be the JSON value true
    or false, as in BoolQ."""
    entry = entry | {key: json.dumps(entry[key]) for key in keys if isinstance(entry.get(key), bool)}
    reply = read_messages(entry, keys, "assistant")
    is_whole = reply and reply[0]["role"] in ("system", "user")
    messages = reply if is_whole else [*read_prompt(entry), *reply]
    if not reply or len(messages) < 2 or not is_answer(messages[-1]):
        raise ValueError(
            f"needs a prompt ({', '.join(PROMPTS)} or messages) and a reply ({', '.join(keys)}); both must "
            "have text, and a reply that is a list of messages must end with one from the assistant"
        )
    return messages


def is_answer(message):
    """Whether there is something to learn from a message."""
    return is_learned(message) and not is_empty(message["content"])


def conversation(entry):
    """An entry of an instruction file -> messages."""
    messages = with_system(entry, read_messages(entry, CONVERSATIONS)) or read_reply(entry, REPLIES)
    if not any(map(is_answer, messages)):
        raise ValueError("has nothing to learn from: assistant messages are missing, empty or have weight 0")
    return messages


def problem(entry):
    """An entry of a problem file -> messages; each <<12/60=0.2>> becomes a call and the tool's result."""
    *messages, reply = conversation(entry)
    *steps, last = ANNOTATION.split(reply["content"])
    if reply["role"] != "assistant" or not final_answer(last):
        raise ValueError("needs a last message that is the assistant's and ends with #### and the answer")
    for text, expression, result in zip(steps[::3], steps[1::3], steps[2::3]):
        call = render_call(Call("calculator", {"expression": expression.strip()}))
        messages.append({"role": "assistant", "content": text + call})
        messages.append({"role": "tool", "content": render_result(number(result))})
    return [*messages, {"role": "assistant", "content": last}]


def number(text):
    """The result of an annotation: "12" -> 12, ".5" -> 0.5, "12 apples" -> "12 apples"."""
    if not re.fullmatch(r"\s*-?\d*\.?\d+\s*", text):
        return text.strip()
    return float(text) if "." in text else int(text)


# ---- a file -> conversations


def instructions(path):
    """A file of instructions -> conversations, each with at least one reply to learn from."""
    return read_entries(path, conversation)


def problems(path):
    """A file of problems -> conversations whose last message ends with #### and the answer. Annotations such
    as <<12/60=0.2>> become calls to the calculator, with the result given in the file."""
    return read_entries(path, problem)


def split(items, messages_of=lambda messages: messages):
    """Items -> (training, held out). A hash of the first question decides, so the split is the same on
    every machine. One item in ten is held out. Raises TinyllmError if nothing is left for training."""
    training, held_out = [], []
    for item in items:
        is_held_out = split_of(first_question(messages_of(item))) == "val"
        (held_out if is_held_out else training).append(item)
    if not training:
        raise TinyllmError("nothing is left to train on: every entry happens to be held out; add entries")
    return training, held_out


def first_question(messages):
    """The first user message; without one, the last message. The system message does not count: many
    conversations share it."""
    questions = [message["content"] for message in messages if message["role"] == "user"]
    return questions[0] if questions else messages[-1]["content"]
