"""The agent loop: model and tools take turns until there is an answer or a limit is reached.

    conversation = run(generate, registry, [{"role": "user", "content": "What is 12 * 7?"}])
    conversation.outcome            ANSWERED, STEP_LIMIT, REPEATED_CALL, CUT_OFF, STOPPED or INTERRUPTED
    print(conversation)             the exchange, without thoughts

`generate` is any function from messages to a reply: a str, or an iterator of pieces. A piece is a str, which
is parsed here, or a Thought, Call or BadCall that a server has already parsed; the last piece may be a
Finish. Whatever a model writes, the loop ends: steps, characters and repetitions are bounded, and tools have
timeouts."""

import json
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from tools.dialects import CHAT, HERMES
from tools.protocol import BadCall, Call, StreamParser, Text, Thought, merged, parse, render_call, with_tools
from tools.registry import Registry, Result, failed

ANSWERED, STEP_LIMIT, REPEATED_CALL, CUT_OFF = "answered", "step limit", "repeated call", "cut off"
STOPPED, INTERRUPTED = "stopped by the server", "interrupted"
LENGTH, NO_REASON = "length", "no finish reason"
CUT = (LENGTH, NO_REASON, "max_tokens")  # finish reasons of a reply that was cut off
COMPLETE = "stop tool_calls tool_use eos eos_token end_turn stop_sequence".split()
MOST_CHARACTERS = 100_000  # of a reply


@dataclass(frozen=True)
class Finish:
    """Why a reply ended, in the server's words, and the server's token counts."""

    reason: str = "stop"
    usage: dict = field(default_factory=dict)


@dataclass
class Conversation:
    """The messages of a conversation, and how it ended.

    A message has "role" and "content"; a tool message also has "tool_call_id" and "name"; an assistant
    message may have "reasoning_content" and, in native mode, "tool_calls". finish_reason is that of the last
    reply; usage is the sum over all replies."""

    messages: list
    outcome: str = INTERRUPTED
    steps: int = 0
    finish_reason: str = ""
    usage: Counter = field(default_factory=Counter)

    @property
    def answer(self):
        """The model's last reply, without calls or thoughts."""
        replies = [message["content"] for message in self.messages if message["role"] == "assistant"]
        parts = parse(replies[-1]) if replies else []
        return "".join(part.text for part in parts if isinstance(part, Text)).strip()

    def __str__(self):
        lines = []
        for message in self.messages:
            calls = HERMES.write_calls(CHAT.read_calls(message.get("tool_calls") or []))
            lines.append(f"[{message['role']}] {message['content']}{calls}")
        why = f": {self.finish_reason}" if self.outcome == STOPPED else ""
        return "\n".join([*lines, f"({self.outcome}{why} after {self.steps} step{'s' * (self.steps != 1)})"])

    def save(self, path):
        """Writes all attributes as one JSON object."""
        text = json.dumps(vars(self), ensure_ascii=False, indent=1)
        Path(path).write_text(text, encoding="utf-8", errors="replace")  # a reply may hold lone surrogates


def run(generate, registry, messages, *, max_steps=8, max_repeats=3, allow=None, show=lambda part: None):
    """Lets a model call tools until it answers -> Conversation.

    `messages` are copied. The tools are described in the system message or, if `generate.native` is true,
    given to `generate` as its second argument. Each step is one reply and its calls. A call that is broken
    or fails is answered with the reason for the failure, so that the model can correct the call. A call that
    was already made max_repeats times with the same arguments gets an error and does not run. The second
    reply that repeats a call too often ends the conversation.

    allow(call) is called before each call runs; it returns True, or a reason for refusing, which the model
    gets. show(part) is called with each piece of Text or Thought, each Call and BadCall, and the Result of
    each Call, as soon as it is available.

    Raises ValueError unless max_steps and max_repeats are at least 1. Exceptions from `generate`, `allow` and
    `show` are passed on, and so is Ctrl-C; their attribute `conversation` holds the conversation so far."""
    if min(max_steps, max_repeats) < 1:
        raise ValueError(f"max_steps and max_repeats must be at least 1, not {max_steps} and {max_repeats}")
    native, definitions = getattr(generate, "native", False), registry.definitions()
    conversation = Conversation(introduced(messages, Registry() if native else registry))
    messages, counts, unanswered = conversation.messages, Counter(), []
    try:
        for step in range(1, max_steps + 1):
            reply = generate(messages, definitions) if native else generate(messages)
            parts, finish = read(reply, show)
            calls = with_ids([part for part in parts if isinstance(part, (Call, BadCall))], step)
            warned = any(count > max_repeats for count in counts.values())
            messages.append(assistant_message(parts, calls, native))
            conversation.steps, conversation.finish_reason = step, finish.reason
            conversation.usage.update({key: n for key, n in finish.usage.items() if isinstance(n, int)})
            unanswered += calls
            problems = [problem_with(call, counts, max_repeats) for call in calls]
            running = [call for call, problem in zip(calls, problems) if not problem]
            results = registry.results(running, allow)
            for call, problem in zip(calls, problems):
                result = Result(call.id, call.name, *problem) if problem else next(results)
                messages.append(tool_message(result, native))
                unanswered.pop(0)
                if isinstance(call, Call):
                    show(result)
            repeated = any(problem and problem[1]["type"] == "repeated_call" for problem in problems)
            if outcome := outcome_of(finish.reason, calls, repeated and warned):
                break
    except BaseException as error:
        problem = failed("interrupted", "stopped before a result came; the tool may still be running", False)
        messages += [tool_message(Result(call.id, call.name, *problem), native) for call in unanswered]
        error.conversation = conversation
        raise
    conversation.outcome = outcome or STEP_LIMIT
    return conversation


def introduced(messages, registry):
    """A copy of the messages, whose system message describes the registry's tools and no others."""
    definitions = registry.definitions()
    messages = [{**message, "content": message.get("content") or ""} for message in messages]
    if not messages or messages[0]["role"] not in ("system", "developer"):
        messages.insert(0, {"role": "system", "content": ""})
    content = messages[0]["content"]
    if isinstance(content, list):
        kept = [part for part in content if "text" not in part or with_tools(part["text"], [])]
        description = with_tools("", definitions)
        messages[0]["content"] = kept + ([{"type": "text", "text": description}] if description else [])
    else:
        messages[0]["content"] = with_tools(content, definitions)
    return messages if messages[0]["content"] else messages[1:]


def read(reply, show):
    """A str or an iterator of pieces -> (its parts, its Finish)."""
    parser, parts, left, finish = StreamParser(), [], MOST_CHARACTERS, Finish()

    def take(new):
        parts.extend(new)
        for part in new:
            show(part)

    for piece in [reply] if isinstance(reply, (str, bytes)) else reply:
        if isinstance(piece, Finish):
            finish = Finish(str(piece.reason or NO_REASON), piece.usage)
            continue
        is_text = isinstance(piece, (str, bytes))
        take(parser.feed(piece[:left]) if is_text else [piece])
        left -= max(1, len(piece if is_text else piece.text))  # so that a stream of empty pieces ends too
        if left <= 0:
            finish = Finish(LENGTH, finish.usage)
            break
    take(parser.finish(ended=finish.reason.lower() in COMPLETE))
    return merged(parts), finish


def with_ids(calls, step):
    """The calls, with the server's ids or, if an id is missing or repeated, with new ids for all."""
    if len({call.id for call in calls} - {""}) == len(calls):
        return calls
    return [replace(call, id=f"call_{step}_{i}") for i, call in enumerate(calls, 1)]


def assistant_message(parts, calls, native):
    """A reply as a message. Thoughts get their own field: most models expect a history without them."""
    kept = [part for part in parts if not isinstance(part, (Thought, Call, BadCall) if native else Thought)]
    content = "".join(part.text or render_call(part) for part in kept)
    thoughts = "".join(part.words for part in parts if isinstance(part, Thought)).strip()
    message = {"role": "assistant", "content": content.lstrip() if len(kept) < len(parts) else content}
    message |= {"reasoning_content": thoughts} if thoughts else {}
    return {**message, "tool_calls": CHAT.write_calls(calls)} if native and calls else message


def tool_message(result, native):
    message = {"role": "tool", "content": HERMES.write_result(result), "tool_call_id": result.id}
    return {**message, "name": result.name, **(CHAT.write_result(result) if native else {})}


def problem_with(call, counts, max_repeats):
    """The reason why a call must not run, as a failure like the registry's, or None if the call may run.
    Counts the call in `counts`, which holds how often each call was made."""
    if isinstance(call, BadCall):
        return failed("cut_off" if call.cut_off else "bad_call", call.problem, True)
    key = call.name, json.dumps(call.arguments, sort_keys=True)
    counts[key] += 1
    message = f"identical calls are limited to {max_repeats}: answer now, or call something else"
    return failed("repeated_call", message, False) if counts[key] > max_repeats else None


def outcome_of(reason, calls, repeats_again):
    """How the conversation ends, or None if it goes on."""
    if reason.lower() in CUT or any(getattr(call, "cut_off", False) for call in calls):
        return CUT_OFF
    if reason.lower() not in COMPLETE:
        return STOPPED
    if not calls:
        return ANSWERED
    return REPEATED_CALL if repeats_again else None
