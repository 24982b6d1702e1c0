"""Model and tools in turns, until there is an answer or a limit.

    conversation = run(generate, registry, [{"role": "user", "content": "What is 12 * 7?"}])
    conversation.outcome            one of OUTCOMES
    print(conversation)             the whole exchange

`generate` is any function from messages to a reply: a str, or an iterator of pieces. Whatever it writes,
the loop ends: steps, characters and repetitions are bounded, and tools have timeouts."""

import json
from dataclasses import dataclass
from pathlib import Path

from tools.protocol import BadCall, Call, StreamParser, Text, merged, render_result, render_tools
from tools.registry import Guard

ANSWERED, STEP_LIMIT, REPEATED_CALL, CUT_OFF = "answered", "step limit", "repeated call", "cut off"
OUTCOMES = (ANSWERED, STEP_LIMIT, REPEATED_CALL, CUT_OFF)
MOST_CHARACTERS, MOST_CALLS = 100_000, 32


class CutOff(Exception):
    """Raised by a `generate` whose reply ended because of its length."""


class ChatError(Exception):
    """A chat endpoint that cannot be reached or answers with an error."""


@dataclass
class Conversation:
    """Messages ({"role", "content"}; of role tool also "tool_call_id" and "name"), and how it ended."""

    messages: list
    outcome: str
    steps: int

    @property
    def answer(self):
        """The last reply of the model without its calls."""
        said = [m["content"] for m in self.messages if m["role"] == "assistant"]
        parser = StreamParser()
        parts = [*parser.feed(said[-1]), *parser.finish()] if said else []
        return "".join(part.text for part in parts if isinstance(part, Text)).strip()

    def __str__(self):
        lines = [f"[{message['role']}] {message['content']}" for message in self.messages]
        return "\n".join([*lines, f"({self.outcome} after {self.steps} step{'s' * (self.steps != 1)})"])

    def save(self, path):
        """Writes one JSON object: outcome, steps and messages."""
        Path(path).write_text(json.dumps(vars(self), ensure_ascii=False, indent=1), encoding="utf-8")


def run(generate, registry, messages, *, max_steps=8, show=lambda part: None):
    """Lets a model answer, calling tools on the way -> Conversation.

    `messages` are copied, and the tools are described in the system message. Each step is one reply and its
    calls, which run side by side. A call that is broken or fails is answered with the reason, so that the
    model can mend it. show(part) sees every Text, Call, BadCall and Result as soon as it is certain. Raises
    ValueError for a limit below 1, and whatever `generate` raises."""
    if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 1:
        raise ValueError(f"max_steps must be a whole number from 1 up, not {max_steps!r}")
    messages, guard = introduced(messages, registry), Guard()
    for step in range(1, max_steps + 1):
        reply, parts, whole = read(generate(messages), show)
        messages.append({"role": "assistant", "content": reply})
        calls = [part for part in parts if not isinstance(part, Text)]
        if not whole or any(isinstance(part, BadCall) and part.cut_off for part in calls):
            return Conversation(messages, CUT_OFF, step)
        if not calls:
            return Conversation(messages, ANSWERED, step)
        if any([isinstance(call, Call) and guard.stops(call) for call in calls[:MOST_CALLS]]):
            return Conversation(messages, REPEATED_CALL, step)
        messages += answers(registry, calls, step, show)
    return Conversation(messages, STEP_LIMIT, max_steps)


def introduced(messages, registry):
    """A copy of the messages whose system message describes the tools."""
    messages = [dict(message) for message in messages]
    if registry.tools:
        told = render_tools(registry.definitions())
        if messages and messages[0]["role"] == "system":
            messages[0]["content"] += "\n\n" + told
        else:
            messages.insert(0, {"role": "system", "content": told})
    return messages


def read(reply, show):
    """A str or an iterator of pieces -> (the text, its parts, whether it came to its end)."""
    parser, pieces, parts, length, whole = StreamParser(), [], [], 0, True

    def take(found):
        parts.extend(found)
        for part in found:
            show(part)

    try:
        for piece in [reply] if isinstance(reply, (str, bytes)) else reply:
            piece = piece.decode("utf-8", "replace") if isinstance(piece, bytes) else piece
            piece = piece[: MOST_CHARACTERS - length]
            length += len(piece)
            pieces.append(piece)
            take(parser.feed(piece))
            if length >= MOST_CHARACTERS or len(pieces) > MOST_CHARACTERS:
                whole = False
                break
    except CutOff:
        whole = False
    take(parser.finish())
    return "".join(pieces), merged(parts), whole


def answers(registry, calls, step, show):
    """Executes what can be executed -> one message of role tool for each call, in order."""
    good = [(i, call) for i, call in enumerate(calls[:MOST_CALLS]) if isinstance(call, Call)]
    ids = [f"call_{step}_{i + 1}" for i in range(len(calls))]
    done = registry.execute([call for _, call in good], [ids[i] for i, _ in good])
    results = {result.id: result for result in done}
    for i, call in enumerate(calls):
        result = results.get(ids[i])
        if result:
            show(result)
            value = result.value if result.ok else {"error": result.value}
        else:
            many = f"more than {MOST_CALLS} calls in one reply: call the others later"
            problem = call.problem if isinstance(call, BadCall) else many
            value = {"error": {"type": "bad_call", "message": problem, "retryable": True}}
        yield {
            "role": "tool",
            "content": render_result(value),
            "tool_call_id": ids[i],
            "name": getattr(call, "name", ""),
        }


def endpoint(url, model, *, key=None, timeout=60, **settings):
    """A `generate` that asks an OpenAI-compatible server, such as llama.cpp, vLLM or Ollama.

    url is its base, "http://localhost:8080/v1"; settings (temperature, max_tokens ...) are sent as they are.
    Results go back as user messages, because the calls are ours and written in text. Raises ChatError."""
    import requests  # the one place that needs more than the standard library

    def generate(messages):
        sent = [
            {"role": "user" if m["role"] == "tool" else m["role"], "content": m["content"]} for m in messages
        ]
        body = {"model": model, "messages": sent, "stream": True, **settings}
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        place = url.rstrip("/") + "/chat/completions"
        try:
            with requests.post(place, json=body, headers=headers, timeout=timeout, stream=True) as response:
                if response.status_code != 200:
                    raise ChatError(f"{place} answered {response.status_code}: {response.text[:300]}")
                yield from pieces_of(response)
        except requests.RequestException as error:
            raise ChatError(f"{place} cannot be reached: {error}. Is the server running?") from None

    return generate


def pieces_of(response):
    """Server-sent events (or one JSON object, from servers that do not stream) -> pieces of text."""
    if "json" in response.headers.get("Content-Type", ""):
        choice = response.json()["choices"][0]
        yield choice["message"]["content"] or ""
        if choice.get("finish_reason") == "length":
            raise CutOff
        return
    ended = False
    for line in response.iter_lines():
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            return
        event = json.loads(data)
        if "error" in event:
            raise ChatError(f"the server says: {event['error']}")
        for choice in event.get("choices", [])[:1]:
            yield choice.get("delta", {}).get("content") or ""
            if choice.get("finish_reason") == "length":
                raise CutOff
            ended = ended or bool(choice.get("finish_reason"))
    if not ended:
        raise CutOff
