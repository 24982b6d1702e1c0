"""Calls in text: how a model writes them, how they are read back, how results return.

    I will look it up. <tool_call>{"name":"weather","arguments":{"city":"Oslo"}}</tool_call>
    <tool_response>{"celsius":-3}</tool_response>

This is the format of Hermes (Nous Research, 2024), which Qwen took over. Behind the opening tag the JSON is
read first and the closing tag is wanted after it, so nothing inside a string can end a call. Where the JSON
is broken, the call ends at the next tag of either kind, so its siblings survive. JSON without the tag is
text, whatever it looks like: no example or quotation is ever executed."""

import codecs
import json
from dataclasses import dataclass

from tools.json_reader import JSONError, Reader

OPEN, CLOSE = "<tool_call>", "</tool_call>"
SPACE = " \t\r\n"


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Call:
    """A call that is well formed. Whether such a tool is there and takes these arguments, the registry
    knows."""

    name: str
    arguments: dict


@dataclass(frozen=True)
class BadCall:
    """A call that cannot be executed: its text with the tags, and a sentence that says what to write
    instead. `cut_off` tells a reply that ended too early from one that is wrong."""

    text: str
    problem: str
    cut_off: bool = False


def parse(reply):
    """A whole reply, str or UTF-8 bytes -> [Text | Call | BadCall], in order, no two Texts in a row.

    Never raises: bytes that are no UTF-8 become U+FFFD."""
    parser = StreamParser()
    return merged([*parser.feed(reply), *parser.finish()])


def merged(parts):
    """Joins Texts that follow one another."""
    found = []
    for part in parts:
        if isinstance(part, Text) and found and isinstance(found[-1], Text):
            part = Text(found.pop().text + part.text)
        found.append(part)
    return found


class StreamParser:
    """Reads a reply that arrives in pieces (str or bytes): feed(piece) and finish() return what became
    certain. Put together and merged it is what `parse` returns, however the text is cut."""

    def __init__(self):
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""  # what is not settled yet: begins with OPEN once there is a reader
        self._reader, self._fed, self._end = None, 0, None
        self._problem, self._searched = None, 0

    def feed(self, piece):
        self._text += piece if isinstance(piece, str) else self._decoder.decode(piece)
        return list(self._settle(final=False))

    def finish(self):
        self._text += self._decoder.decode(b"", final=True)
        return list(self._settle(final=True))

    def _settle(self, final):
        while self._text:
            if self._reader is None:
                start = self._text.find(OPEN)
                if start < 0:
                    keep = 0 if final else beginning(self._text, OPEN)
                    start = len(self._text) - keep
                if start:
                    yield Text(self._take(start))
                if not self._text.startswith(OPEN):
                    return
                self._reader, self._fed, self._end = Reader(only=False), len(OPEN), None
                self._problem, self._searched = None, len(OPEN)
            found = self._call(final) if self._problem is None else None
            if found is None and self._problem is not None:
                found = self._broken(final)
            if found is None:
                return
            self._reader = None
            yield found

    def _take(self, count):
        taken, self._text = self._text[:count], self._text[count:]
        return taken

    def _call(self, final):
        """The call at the front of the text; None where more text is needed or self._problem says why not."""
        if self._end is None:
            try:
                self._reader.feed(self._text[self._fed :])
                self._fed = len(self._text)
                if final and not self._reader.done:
                    self._reader.finish()
            except JSONError as error:
                self._problem = error
                return None
            if not self._reader.done:
                return None
            self._end = len(self._text) - len(self._reader.rest)
        behind = self._text[self._end :].lstrip(SPACE)
        if behind.startswith(CLOSE):
            return call_of(self._reader.value, self._take(len(self._text) - len(behind) + len(CLOSE)))
        if not CLOSE.startswith(behind):
            same = next(n for n, pair in enumerate(zip(behind, CLOSE)) if pair[0] != pair[1])
            self._problem = f"After the JSON of a call comes {CLOSE}, not {behind[: same + 1]!r}."
        elif final:
            return BadCall(self._take(len(self._text)), f"The call was cut off before its {CLOSE}.", True)
        return None

    def _broken(self, final):
        """The BadCall up to the next tag; None where no tag has come yet."""
        ends = [
            (at, at + len(tag) * (tag == CLOSE))
            for tag in (OPEN, CLOSE)
            if (at := self._text.find(tag, self._searched)) >= 0
        ]
        self._searched = max(len(OPEN), len(self._text) - len(CLOSE))
        if not ends and not final:
            return None
        cut_off = not ends and getattr(self._problem, "cut_off", False)
        return BadCall(self._take(min(ends)[1] if ends else len(self._text)), str(self._problem), cut_off)


def beginning(text, tag):
    """How many characters at the end of the text the tag may begin with."""
    return next((n for n in range(min(len(tag), len(text)), 0, -1) if text.endswith(tag[:n])), 0)


def call_of(value, text):
    """The JSON of a call -> Call, or BadCall with what to write instead."""
    problem = None
    if not isinstance(value, dict):
        problem = 'A call is an object: {"name": ..., "arguments": {...}}, one call in each pair of tags.'
    elif "arguments" not in value:
        instead = next((key for key in ("parameters", "args", "input") if key in value), None)
        problem = (
            f"Write arguments instead of {instead}." if instead else "The call has no arguments: write {}."
        )
    elif value.keys() - {"name", "arguments"}:
        extra = ", ".join(sorted(value.keys() - {"name", "arguments"}))[:80]
        problem = f"A call has name and arguments and nothing else: take out {extra}."
    if problem is None and not (isinstance(value.get("name"), str) and value["name"]):
        problem = "The call has no name: write the tool's name as a string."
    if problem is None and not isinstance(value["arguments"], dict):
        is_text = isinstance(value["arguments"], str)
        problem = "Write the arguments as an object" + (
            ", not as a string that holds one." if is_text else "."
        )
    return BadCall(text, problem) if problem else Call(value["name"], value["arguments"])


def compact(value):
    """Canonical JSON: what the grammar accepts, as far as the order of keys is right already. Raises
    ValueError for what JSON cannot write."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def render_call(call):
    """A Call -> its text. parse(render_call(call)) == [call]."""
    return OPEN + compact({"name": call.name, "arguments": call.arguments}) + CLOSE


def render_result(value):
    """A result, any JSON value -> the text that returns it. It holds no "<" but those of its own tags, so no
    tool can forge a tag; < inside is written \\u003c, which is the same JSON."""
    return f"<tool_response>{compact(value).replace('<', chr(92) + 'u003c')}</tool_response>"


def render_tools(definitions):
    """[{"name", "description", "parameters"}] -> the text that tells a model what it may call and how."""
    lines = "\n".join(compact(definition) for definition in definitions)
    return (
        "You may call tools. Each line is one tool; parameters is the JSON Schema of its arguments.\n"
        f"<tools>\n{lines}\n</tools>\n"
        f'To call one, write {OPEN}{{"name":NAME,"arguments":OBJECT}}{CLOSE}, once for each call. Results '
        "come back as <tool_response>JSON</tool_response>. Answer without a call when you need none."
    )
