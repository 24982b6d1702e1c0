"""Tool calls as text: how a model writes them, how they are read back, how results are returned.

    I will look it up. <tool_call>{"name":"weather","arguments":{"city":"Oslo"}}</tool_call>
    <tool_response>{"celsius":-3}</tool_response>

This is the format of Hermes (Nous Research, 2024), which Qwen adopted. After the opening tag, the JSON is
read to its end before the closing tag is expected, so nothing inside a string can end a call. If the JSON is
broken, the call ends at the next opening or closing tag, so that later calls survive. JSON outside the tags
is text and never executed, whatever it looks like. A call inside a thought, <think>like this</think>, is not
executed either."""

import codecs
import json
import re
from dataclasses import dataclass, field

from tools.json_reader import JSONError, read
from tools.validation import validate

OPEN, CLOSE = "<tool_call>", "</tool_call>"
THINK, THOUGHT = "<think>", "</think>"
TAG = re.compile(f"{OPEN}|{CLOSE}")
SPACE = " \t\r\n"
BEFORE_TOOLS = (
    "You may call tools. Each line is one tool; parameters is the JSON Schema of its arguments.\n<tools>\n"
)
AFTER_TOOLS = (
    f'\n</tools>\nTo call one, write {OPEN}{{"name":NAME,"arguments":OBJECT}}{CLOSE}, once for each call. '
    "Results come back as <tool_response>JSON</tool_response>. Answer without a call when you need none."
)


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Thought:
    """A model's reasoning before its answer. `text` may include its tags; `words` leaves them out."""

    text: str

    @property
    def words(self):
        return self.text.replace(THINK, "").replace(THOUGHT, "")


@dataclass(frozen=True)
class Call:
    """A well-formed call. Only the registry knows whether the tool exists and takes these arguments.
    `text` is the model's text, `id` the server's id for the call."""

    name: str
    arguments: dict
    id: str = ""
    text: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True)
class BadCall:
    """A call that cannot be executed: `text` is what the model wrote, `problem` says what is wrong.
    `cut_off`: whether the reply ended too early."""

    text: str
    problem: str
    cut_off: bool = False
    name: str = ""
    id: str = ""


def parse(reply, ended=False):
    """A whole reply, str or UTF-8 bytes -> [Text | Thought | Call | BadCall], in order, with no two Texts or
    Thoughts in a row. Joined together, the texts of the parts are the reply.

    ended: whether the model is known to have finished. If so, a call that lacks only its closing tag counts
    as a call and gets the tag, because many servers stop at a closing tag and do not send it. Never raises:
    bytes that are not UTF-8 become U+FFFD."""
    parser = StreamParser()
    return merged([*parser.feed(reply), *parser.finish(ended)])


def merged(parts):
    """Joins consecutive Texts and consecutive Thoughts.

    If the prompt ends with <think>, the reply has </think> without <think>. Then everything before </think>
    is a Thought."""
    joined = []
    for part in parts:
        if joined and isinstance(part, (Text, Thought)) and type(part) is type(joined[-1]):
            part = type(part)(joined.pop().text + part.text)
        if isinstance(part, Thought) and THOUGHT in part.text and THINK not in part.text:
            part, joined = Thought("".join(each.text for each in joined) + part.text), []
        joined.append(part)
    return joined


class StreamParser:
    """Reads a reply that arrives in pieces (str or bytes): feed(piece) and finish() return the parts that
    have become certain. Once merged, they are the parts that `parse` returns, however the text is split."""

    def __init__(self):
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""  # not yet parsed
        self._thinks = False
        self._searched, self._tags = len(OPEN), 0  # in a call: where to search next; number of tags so far

    def feed(self, piece):
        self._text += piece if isinstance(piece, str) else self._decoder.decode(piece)
        return list(self._settle(final=False))

    def finish(self, ended=False):
        self._text += self._decoder.decode(b"", final=True)
        return list(self._settle(final=True, ended=ended))

    def _settle(self, final, ended=False):
        while self._text:
            if self._thinks or not self._text.startswith(OPEN):
                yield from self._plain(final)
            calls = self._text.startswith(OPEN) and not self._thinks
            part = self._call(final, ended) if calls else None
            if part is None:
                return
            self._searched, self._tags = len(OPEN), 0
            yield part

    def _plain(self, final):
        """Texts and Thoughts, up to the next call or the possible start of a tag."""
        while self._text:
            kind, tags = (Thought, [THOUGHT]) if self._thinks else (Text, [OPEN, THINK, THOUGHT])
            places = [(at, tag) for tag in tags if (at := self._text.find(tag)) >= 0]
            at, tag = min(places, default=(len(self._text), None))
            if tag is None and not final:
                at -= max(beginning(self._text, tag) for tag in tags)
            if at:
                yield kind(self._take(at))
            if tag in (None, OPEN):
                return
            self._thinks = tag == THINK
            yield Thought(self._take(len(tag)))

    def _take(self, count):
        taken, self._text = self._text[:count], self._text[count:]
        return taken

    def _call(self, final, ended):
        """The call at the start of the text, or None if more text is needed.

        A call can only end at a tag, so its JSON is read whenever a tag has arrived. If the tag is inside a
        string, the JSON is still incomplete."""
        while tag := TAG.search(self._text, self._searched):
            self._searched, self._tags = tag.end(), self._tags + 1
            # If a string is full of tags, the JSON is re-read at only a few of them, because re-reading it at
            # every tag would take quadratic time.
            if self._tags < 20 or self._tags & (self._tags - 1) == 0:
                part = self._read(tag.end())
                if part:
                    return part
        self._searched = max(self._searched, len(self._text) - len(CLOSE) + 1)
        return self._read(len(self._text), True, ended) if final else None

    def _read(self, end, final=False, ended=False):
        """The call in the text up to `end`, with the tag that ends it; None if its JSON is incomplete."""
        text = self._text[len(OPEN) : end]
        try:
            value, stop = read(text)
        except JSONError as error:
            return self._broken(error, error.cut_off) if final or not error.cut_off else None
        after = text[stop:].lstrip(SPACE)
        if after.startswith(CLOSE):
            return call_of(value, self._take(end - len(after) + len(CLOSE)))
        if not CLOSE.startswith(after):
            return self._broken(f"Expected {CLOSE} after the JSON of a call.")
        if ended:
            return call_of(value, self._take(end) + CLOSE[len(after) :])
        return BadCall(self._take(end), f"The call was cut off before its {CLOSE}.", True)

    def _broken(self, problem, cut_off=False):
        """The text up to the next tag, as a BadCall."""
        tag = TAG.search(self._text, len(OPEN))
        end = tag.start() + len(CLOSE) * (tag[0] == CLOSE) if tag else len(self._text)
        return BadCall(self._take(end), str(problem), cut_off and not tag)


def beginning(text, tag):
    """How many characters at the end of the text may be the start of the tag."""
    return next((n for n in range(min(len(tag), len(text)), 0, -1) if text.endswith(tag[:n])), 0)


def call_of(value, text):
    """The JSON of a call -> Call, or a BadCall that says what is wrong."""
    problem = problem_of(value)
    return BadCall(text, problem) if problem else Call(value["name"], value["arguments"], text=text)


def call_schema(name, arguments):
    """The schema of a call whose name and arguments have these schemas."""
    call = {"type": "object", "properties": {"name": name, "arguments": arguments}}
    return {**call, "required": ["name", "arguments"], "additionalProperties": False}


CALL = call_schema({"type": "string", "minLength": 1}, {"type": "object"})


def problem_of(value):
    """What is wrong with the JSON of a call, "" if nothing is."""
    return "; ".join(map(str, validate(value, CALL)))


def compact(value, default=None):
    """JSON without white space. `default` converts values of types that JSON cannot express; without it, they
    raise TypeError. NaN and infinity always raise ValueError."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=default)


def render_call(call):
    """A Call -> its text, without the id: parse(render_call(call)) == [call] if the call has no id."""
    return OPEN + compact({"name": call.name, "arguments": call.arguments}) + CLOSE


def render_result(value):
    """A result (any JSON value) -> the text that returns it to the model. The text has "<" only in its tags,
    so no tool can forge a tag; any other < is written \\u003c, which is the same JSON."""
    return f"<tool_response>{compact(value).replace('<', chr(92) + 'u003c')}</tool_response>"


def render_tools(definitions):
    """[{"name", "description", "parameters"}] -> the text that describes the tools and how to call them."""
    return BEFORE_TOOLS + "\n".join(compact(definition) for definition in definitions) + AFTER_TOOLS


def with_tools(text, definitions):
    """The text with a description of these tools, in place of any earlier description."""
    described = f"{re.escape(BEFORE_TOOLS)}.*?{re.escape(AFTER_TOOLS)}"
    text = re.sub(described, "", text, flags=re.DOTALL).rstrip()
    return "\n\n".join(filter(None, [text, definitions and render_tools(definitions)]))
