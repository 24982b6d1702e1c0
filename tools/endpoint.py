"""A `generate` for tools.agent.run that asks any server with OpenAI's chat completions API.

    run(endpoint("http://localhost:8080/v1", model="qwen3"), registry, messages)

Tools are called in one of two ways. As text, calls are part of the reply and are parsed here: any model
will do, and nothing is hidden. With native=True the server gets the tools, writes them into the prompt as its
model has learned them, and sends calls as JSON.

Servers agree on little but the happy path. What comes is therefore read by what it is, not by what it is
labelled, and everything else is a ChatError that quotes what came."""

import codecs
import io
import json
import re

from tools.agent import NO_REASON, Finish
from tools.dialects import call_of
from tools.protocol import THINK, THOUGHT, Thought

FIELDS = ("role", "content", "tool_calls", "tool_call_id")  # of a message, as servers know them


class ChatError(Exception):
    """A server that cannot be reached, refuses, or answers with something other than a reply."""


def endpoint(url, model=None, *, key=None, native=False, thoughts=False, timeout=60, **settings):
    """A `generate` that asks an OpenAI-compatible server, such as llama.cpp, vLLM or Ollama.

    url is its base, "http://localhost:8080/v1"; thoughts: also send back what the model thought; timeout in
    seconds, to connect and between two pieces of an answer. settings (temperature, max_tokens, stream,
    stream_options ...) are sent as they are. Raises ChatError, here for a key that cannot be sent."""
    import requests  # the one place that needs more than the standard library

    from audio.errors import AuthError
    from audio.key import Key, session_for, would_be_readable

    place = url.rstrip("/") + "/chat/completions"
    try:
        auth = Key(key, "key", "Bearer ") if key else None
    except AuthError as error:
        raise ChatError(str(error)) from None
    if key and would_be_readable(place):
        raise ChatError(f"{place} is plain http: the key could be read on the way. Use https, or no key")

    def generate(messages, tools=()):
        body = {"stream": True, **settings, "messages": request_messages(messages, native, thoughts)}
        body |= {"model": model} if model else {}
        body |= {"tools": [{"type": "function", "function": tool} for tool in tools]} if tools else {}
        how = {"auth": auth, "timeout": timeout, "stream": True, "allow_redirects": False}
        try:
            with session_for(place) as session, session.post(place, json=body, **how) as response:
                if response.status_code != 200:
                    raise ChatError(refusal(response))
                yield from parts_of(events(lines_of(response.raw)), native)
                return
        except ChatError as error:
            problem = str(error)
        except requests.Timeout:
            problem = f"gave no answer within {timeout} s"
        except requests.RequestException as error:
            problem = f"cannot be reached: {error}. Is the server running?"
        raise ChatError(f"{place} {auth.hidden(problem) if auth else problem}")

    generate.native = native
    return generate


def request_messages(messages, native, thoughts):
    """Messages as the server gets them.

    In text mode results are messages of the user, for the server knows nothing of calls; and because many
    chat templates insist that user and assistant take turns, messages of the user that follow one another
    become one."""
    kept = []
    for message in messages:
        content, thought = message["content"], thoughts and message.get("reasoning_content")
        if native:
            thought = {"reasoning_content": thought} if thought else {}
            kept.append({key: message[key] for key in FIELDS if key in message} | thought)
            continue
        if thought:
            content = f"{THINK}{thought}{THOUGHT}{content}"
        role = "user" if message["role"] == "tool" else message["role"]
        if kept and role == "user" == kept[-1]["role"]:
            content = joined(kept.pop()["content"], content)
        kept.append({"role": role, "content": content})
    return kept


def joined(first, second):
    """Two contents of messages, texts or lists of parts -> one."""
    if isinstance(first, str) and isinstance(second, str):
        return f"{first}\n{second}"
    lists = [[{"type": "text", "text": each}] if isinstance(each, str) else each for each in (first, second)]
    return lists[0] + lists[1]


def refusal(response):
    """What an answer with another status than 200 says."""
    if response.is_redirect:
        return f"points to {response.headers['Location']}: use that address"
    text = response.raw.read(10_000, decode_content=True).decode("utf-8", "replace").strip()
    return f"answered {response.status_code}: {words_of((object_in(text) or {}).get('error') or text)}"


def words_of(error):
    """An error, which servers send as a text or an object -> its text."""
    message = error.get("message") if isinstance(error, dict) else error
    return str(message or error)[:300]


def lines_of(raw):
    """The lines of a body as they arrive: reading in blocks would hold each back until its block is full."""
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8-sig")("replace"), True)
    text = ""
    while True:
        try:
            piece = raw.read1(65536, decode_content=True)
        except Exception as error:  # urllib3 has exceptions of its own
            raise ChatError(f"broke off in the middle of its answer: {error}") from None
        if not piece:
            break
        *lines, text = (text + decoder.decode(piece)).split("\n")
        yield from lines
    yield from (text + decoder.decode(b"", final=True) + "\n").split("\n")


def events(lines):
    """Server-sent events, or one JSON object over some lines -> dicts; None for the event [DONE]."""
    data = body = ""
    for line in lines:
        value = line[5:].strip() if line.startswith("data:") else None
        if value == "[DONE]":
            yield None
        elif value is not None and not value.startswith(":"):  # some gateways pack comments as data
            data += value + "\n" * bool(value)
            if event := object_in(data):
                yield event
                data = ""
        elif not line and data:
            raise ChatError(f"sent something else than a chat completion: {data[:200]!r}")
        elif not re.match(r"data:|:|event:|id:|retry:", line):
            body += line + "\n" * bool(line)
    if body:
        event = object_in(body)
        if event is None:
            raise ChatError(f"sent something else than a chat completion: {body[:200]!r}")
        yield event


def object_in(text):
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def parts_of(arriving, native):
    """Events -> pieces of text as they come, Thoughts, at the end Calls and Finish."""
    reason, usage, calls, last, choice = "", {}, [], {}, None
    for event in arriving:
        if event is None:
            reason = reason or "stop"
            break
        if event.get("error"):
            raise ChatError(f"says: {words_of(event['error'])}")
        usage, last = as_dict(event.get("usage")) or usage, event
        for choice in dicts_in(event.get("choices"))[:1]:
            message = as_dict(choice.get("delta")) or as_dict(choice.get("message"))
            yield from texts_of(message)
            for i, call in enumerate(dicts_in(message.get("tool_calls"))):
                collect(calls, call, i if choice.get("message") else None)
            reason = choice.get("finish_reason") or reason or ("stop" if choice.get("message") else "")
        yield ""  # so that the events are counted, whatever is in them
    if choice is None:
        raise ChatError(f"answered without a choice: {json.dumps(last)[:200]}")
    if calls and not native:
        names = ", ".join(f"{call['name']}" for call in calls)
        raise ChatError(f"sent native tool calls ({names}): ask with endpoint(..., native=True)")
    for call in calls:
        yield call_of(call["name"], call["arguments"], call["id"])
    yield Finish(str(reason) or NO_REASON, usage)


def as_dict(value):
    return value if isinstance(value, dict) else {}


def dicts_in(value):
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def texts_of(message):
    """The content of a message or delta, a text or a list of parts."""
    thought = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(thought, str) and thought:
        yield Thought(thought)
    content = message.get("content") or message.get("refusal")
    for part in [{"text": content}] if isinstance(content, str) else dicts_in(content):
        if isinstance(part.get("text"), str):
            yield part["text"]


def collect(calls, delta, index):
    """Adds a part of a call to those it belongs to: by its index, by its id, or else to the last one."""
    index, id = delta.get("index", index), f"{delta.get('id') or ''}"
    same = [c for c in calls if index in (None, c["index"]) and (not id or c["id"] in ("", id))]
    if not same:
        same = [{"index": index, "id": "", "name": "", "arguments": ""}]
        calls += same
    function = as_dict(delta.get("function"))
    arguments = function.get("arguments") or ""
    call = same[-1]
    call["id"] = call["id"] or id
    call["name"] = call["name"] or function.get("name") or ""
    call["arguments"] += arguments if isinstance(arguments, str) else json.dumps(arguments)
