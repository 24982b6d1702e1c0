"""A `generate` function for tools.agent.run: it calls any server that has OpenAI's chat completions API.

    run(endpoint("http://localhost:8080/v1", model="qwen3"), registry, messages)

Tools are called in one of two ways. In text mode, calls are part of the reply, which the agent parses: this
works with any model. With native=True, the server gets the tools, writes them into the prompt in the format
that its model was trained on, and sends calls as JSON.

Servers agree on little beyond the happy path. So a response is judged by its content, not by its
Content-Type. A response that is not a chat completion becomes a ChatError that quotes it."""

import json
import re
from itertools import chain

from tools.agent import Finish
from tools.dialects import read_call
from tools.protocol import THINK, THOUGHT, Thought

FIELDS = ("role", "content", "tool_calls", "tool_call_id")  # the message fields that are sent in native mode
OTHER_LINE = re.compile(r":|event:|id:|retry:")  # lines to skip; some gateways put comments after "data:"


class ChatError(Exception):
    """A server cannot be called, refuses a request, or does not answer with a chat completion."""


def endpoint(url, model=None, *, key=None, native=False, thoughts=False, timeout=60, **settings):
    """A `generate` that calls an OpenAI-compatible server, such as llama.cpp, vLLM or Ollama.

    url is the base URL, such as "http://localhost:8080/v1". thoughts: whether to send the model's thoughts
    back. timeout: seconds to wait for the connection, and for each piece of a response. settings
    (temperature, max_tokens, stream, stream_options ...) are sent unchanged. Raises ChatError at once for a
    key that is invalid, or that would be sent to another machine over plain http."""
    import requests  # imported here, because the core of tools/ needs only the standard library

    from audio.errors import AuthError
    from audio.key import Key, session_for, would_be_readable

    place = url.rstrip("/") + "/chat/completions"
    try:
        auth = Key(key, "key", "Bearer ") if key else None
    except AuthError as error:
        raise ChatError(str(error)) from None
    if key and would_be_readable(place):
        raise ChatError(f"{place} is plain http: the key could be read in transit. Use https, or no key")

    def generate(messages, tools=()):
        body = {"stream": True, **settings, "messages": request_messages(messages, native, thoughts)}
        body |= {"model": model} if model else {}
        body |= {"tools": [{"type": "function", "function": tool} for tool in tools]} if tools else {}
        options = {"auth": auth, "timeout": timeout, "stream": True, "allow_redirects": False}
        try:
            with session_for(place) as session, session.post(place, json=body, **options) as response:
                if response.status_code != 200:
                    raise ChatError(refusal(response))
                yield from parts_of(events(lines_of(response.raw)), native)
                return
        except ChatError as error:
            problem = str(error)
        except requests.ConnectionError as error:
            problem = f"cannot be reached: {error}. Is the server running?"
        except (requests.RequestException, ValueError) as error:
            problem = f"cannot be called: {error}"
        raise ChatError(f"{place} {auth.hidden(problem) if auth else problem}")

    generate.native = native
    return generate


def request_messages(messages, native, thoughts):
    """The messages in the form in which the server gets them.

    In text mode, results are sent as user messages, because the server knows nothing about calls. Many chat
    templates insist that user and assistant take turns, so consecutive user messages become one."""
    kept = []
    for message in messages:
        content, thought = message.get("content") or "", thoughts and message.get("reasoning_content")
        if native:
            thought = {"reasoning_content": thought} if thought else {}
            kept.append({key: message[key] for key in FIELDS if message.get(key) is not None} | thought)
            continue
        if thought:
            content = f"{THINK}{thought}{THOUGHT}{content}"
        role = "user" if message["role"] == "tool" else message["role"]
        if kept and role == "user" == kept[-1]["role"]:
            content = joined(kept.pop()["content"], content)
        kept.append({"role": role, "content": content})
    return kept


def joined(first, second):
    """Joins the contents of two messages, each a string or a list of parts."""
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n{second}"
    lists = [[{"type": "text", "text": each}] if isinstance(each, str) else each for each in (first, second)]
    return lists[0] + lists[1]


def refusal(response):
    """The error message for a response with a status other than 200."""
    if response.is_redirect:
        return f"redirects to {response.headers['Location']}: use that address"
    try:
        text = response.raw.read(10_000, decode_content=True).decode("utf-8", "replace").strip()
    except Exception as error:  # urllib3 has its own exceptions
        text = f"a body that cannot be read ({error})"
    return f"answered {response.status_code}: {words_of((object_in(text) or {}).get('error') or text)}"


def words_of(error):
    """The message of an error, which servers send as a string or as an object."""
    return str(as_dict(error).get("message") or error)[:300]


def lines_of(raw):
    """The lines of a body as they arrive: reading in blocks would hold lines back until a block is full."""
    rest = b""
    try:
        for piece in iter(lambda: raw.read1(65536, decode_content=True), b""):
            *lines, rest = (rest + piece).split(b"\n")
            yield from (line.decode("utf-8-sig", "replace") for line in lines)
    except Exception as error:  # urllib3 has its own exceptions
        raise ChatError(f"broke off in the middle of its answer: {error}") from None
    yield rest.decode("utf-8-sig", "replace")


def events(lines):
    """Server-sent events, or one JSON object on several lines -> dicts; None for the event [DONE]. An event
    that is marked as an error but has no key "error" gets this key, with the event itself as its value."""
    data = failed = is_sse = ""
    for line in chain(lines, ["data:"]):
        is_sse, line = is_sse or line.startswith("data:"), line.removeprefix("data:").strip()
        failed = line and (failed or line.replace(" ", "") == "event:error")
        if line == "[DONE]" and not data:
            yield None
        elif line and not OTHER_LINE.match(line):
            data += line + "\n"
            if event := object_in(data):
                yield {"error": event, **event} if failed or event.get("object") == "error" else event
                data = ""
        elif not line and data and is_sse:  # an empty line ends an event; plain JSON may contain empty lines
            raise ChatError(f"sent something other than a chat completion: {data[:200]!r}")


def object_in(text):
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def parts_of(arriving, native):
    """Events -> text and Thoughts as they arrive; at the end Calls and a Finish."""
    reason, usage, calls, last, choice = "", {}, [], {}, None
    for event in arriving:
        if event is None:
            reason = reason or "stop"
            break
        usage, last = as_dict(event.get("usage")) or usage, event
        choices = dicts_in(event.get("choices"))[:1]
        errors = [each["error"] for each in (event, *choices) if each.get("error")]
        if errors:
            raise ChatError(f"reports an error: {words_of(errors[0])}")
        for choice in choices:
            message = as_dict(choice.get("delta")) or as_dict(choice.get("message"))
            yield from texts_of(message)
            for i, call in enumerate(dicts_in(message.get("tool_calls"))):
                collect(calls, call, i if choice.get("message") else None)
            reason = choice.get("finish_reason") or reason or ("stop" if choice.get("message") else "")
        yield ""  # so that every event counts towards the agent's MOST_CHARACTERS
    if choice is None:
        raise ChatError(f"answered without choices: {json.dumps(last)[:200]}")
    if calls and not native:
        names = ", ".join(call["name"] for call in calls)
        raise ChatError(f"sent native tool calls ({names}): use endpoint(..., native=True)")
    for call in calls:
        yield read_call(call["name"], call["arguments"], call["id"])
    yield Finish(str(reason), usage)


def as_dict(value):
    return value if isinstance(value, dict) else {}


def dicts_in(value):
    """The objects in a list; some servers send a single object instead of a list."""
    items = [value] if isinstance(value, dict) else value
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def texts_of(message):
    """The thoughts and text of a message or delta, whose content is a string or a list of parts."""
    thought = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(thought, str) and thought:
        yield Thought(thought)
    content = message.get("content") or message.get("refusal")
    for part in [{"text": content}] if isinstance(content, str) else dicts_in(content):
        if isinstance(part.get("text"), str):
            yield part["text"]


def collect(calls, delta, index):
    """Adds a delta to the call that it belongs to, or begins a new call.

    If the delta has an index, only calls with the same index are considered. A delta without a name belongs
    to the last call with the same id or, if no call has this id, to the last call. A delta with a name
    belongs to the last incomplete call whose name and id do not contradict the delta's; if there is none, the
    delta begins a new call. But a delta that repeats the id and name of a complete call, with the same
    arguments or none, is ignored."""
    function, id = as_dict(delta.get("function")), f"{delta.get('id') or ''}"
    index, name = delta.get("index", index), f"{function.get('name') or ''}"
    arguments = function.get("arguments") or ""
    arguments = arguments if isinstance(arguments, str) else json.dumps(arguments)
    same = [call for call in calls if index in (None, call["index"])]
    if name:
        same = [call for call in same if call["name"] in ("", name) and call["id"] in ("", id or call["id"])]
        again = [call for call in same if id and id == call["id"] and arguments in ("", call["arguments"])]
        same = again or [call for call in same if not is_complete(call)]
    else:
        same = [call for call in same if call["id"] == id] or same
    if not same:
        same = [{"index": index, "id": "", "name": "", "arguments": ""}]
        calls += same
    same[-1] |= {"id": same[-1]["id"] or id, "name": same[-1]["name"] or name}
    if not is_complete(same[-1]):
        same[-1]["arguments"] += arguments


def is_complete(call):
    return object_in(call["arguments"]) is not None
