"""agent: whatever the model writes, the loop ends, and says how; over HTTP too."""

import http.server
import itertools
import json
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.agent import OUTCOMES, ChatError, CutOff, endpoint, run
from tools.builtin import calculator
from tools.protocol import Call, render_call
from tools.registry import Registry, Result

REGISTRY = Registry([calculator])
ASK = [{"role": "user", "content": "12 * 7?"}]
CALL = render_call(Call("calculator", {"expression": "12*7"}))


def script(*replies):
    left = iter(replies)
    return lambda messages: next(left)


def test_a_call_runs_and_its_result_comes_back():
    seen = []
    found = run(script("so " + CALL, "84."), REGISTRY, ASK, show=seen.append)
    assert (found.outcome, found.steps, found.answer) == ("answered", 2, "84.")
    assert [m["role"] for m in found.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert found.messages[3]["content"] == "<tool_response>84</tool_response>" and len(ASK) == 1
    assert (
        Result("call_1_1", "calculator", True, 84) in seen
        and Call("calculator", {"expression": "12*7"}) in seen
    )
    assert "calculator" in found.messages[0]["content"] and "84" in str(found)


def test_the_tools_join_a_system_message_that_is_there():
    found = run(script("hi"), REGISTRY, [{"role": "system", "content": "Be kind."}, *ASK])
    assert found.messages[0]["content"].startswith("Be kind.") and "<tools>" in found.messages[0]["content"]
    assert [m["role"] for m in run(script("hi"), Registry(), ASK).messages] == ["user", "assistant"]


def test_every_outcome_is_named():
    different = (render_call(Call("calculator", {"expression": str(i)})) for i in itertools.count())
    assert run(lambda m: next(different), REGISTRY, ASK, max_steps=3).outcome == "step limit"
    assert run(lambda m: CALL, REGISTRY, ASK).outcome == "repeated call"
    assert run(script(CALL[:-3]), REGISTRY, ASK).outcome == "cut off"
    assert run(lambda m: itertools.repeat("la "), REGISTRY, ASK).outcome == "cut off"

    def stops(messages):
        yield "so "
        raise CutOff

    assert run(stops, REGISTRY, ASK).outcome == "cut off"


def test_bad_calls_and_failures_are_told_to_the_model():
    found = run(script("<tool_call>{}</tool_call>" + CALL + render_call(Call("x", {})), "ok"), REGISTRY, ASK)
    results = [m["content"] for m in found.messages if m["role"] == "tool"]
    assert "no arguments" in results[0] and "84" in results[1] and "use calculator" in results[2]
    assert [m["tool_call_id"] for m in found.messages if m["role"] == "tool"] == [
        "call_1_1",
        "call_1_2",
        "call_1_3",
    ]


def test_nothing_runs_of_a_reply_that_was_cut_off():
    ran = []

    def note(text: str) -> None:
        ran.append(text)

    call = render_call(Call("note", {"text": "a"}))
    assert run(script(call + call[:-5]), Registry([note]), ASK).outcome == "cut off" and ran == []


PIECES = st.sampled_from([CALL, "<tool_call>", "</tool_call>", "{", '"', "x", "[" * 70]) | st.text(max_size=4)


@given(st.lists(st.lists(PIECES, max_size=5), min_size=1, max_size=4), st.integers(1, 5))
@settings(max_examples=60)
def test_any_model_ends_within_its_limits(replies, steps):
    turns = itertools.cycle(replies)
    found = run(lambda messages: iter(next(turns)), REGISTRY, ASK, max_steps=steps)
    assert found.outcome in OUTCOMES and 1 <= found.steps <= steps
    assert sum(m["role"] == "assistant" for m in found.messages) == found.steps


@pytest.mark.parametrize("limit", [0, -1, True, 1.5])
def test_a_limit_that_is_none_is_refused(limit):
    with pytest.raises(ValueError, match="from 1 up"):
        run(script("hi"), REGISTRY, ASK, max_steps=limit)


def test_the_exchange_can_be_saved(tmp_path):
    found = run(script(CALL, "ü"), REGISTRY, ASK)
    found.save(tmp_path / "talk.json")
    saved = json.loads((tmp_path / "talk.json").read_text(encoding="utf-8"))
    assert saved == {"messages": found.messages, "outcome": "answered", "steps": 2}


@pytest.fixture
def server():
    """An OpenAI-compatible server: answers what `replies` holds, keeps what it was asked."""
    asked, replies = [], []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(
                (
                    self.path,
                    dict(self.headers),
                    json.loads(self.rfile.read(int(self.headers["Content-Length"]))),
                )
            )
            kind, body = replies.pop(0)
            self.send_response(200 if kind != "error" else 500)
            self.send_header("Content-Type", "application/json" if kind == "json" else "text/event-stream")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=web.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{web.server_port}/v1", asked, replies
    web.shutdown()
    web.server_close()


def events(text, reason="stop", done=True):
    pieces = [{"choices": [{"delta": {"content": text[i : i + 3]}}]} for i in range(0, len(text), 3)]
    pieces.append({"choices": [{"delta": {}, "finish_reason": reason}]})
    body = "".join(
        f"data: {json.dumps(piece, ensure_ascii=False)}\n\n" for piece in pieces[: None if done else -1]
    )
    return "sse", (": ping\n\n" + body + "data: [DONE]\n\n" * done).encode()


def test_a_chat_endpoint_over_http(server):
    url, asked, replies = server
    replies += [
        events("é " + CALL),
        ("json", json.dumps({"choices": [{"message": {"content": "84"}}]}).encode()),
    ]
    found = run(endpoint(url + "/", "m", key="k", temperature=0), REGISTRY, ASK)
    assert (
        found.outcome == "answered" and found.answer == "84" and found.messages[2]["content"] == "é " + CALL
    )
    path, headers, body = asked[1]
    assert (
        path == "/v1/chat/completions" and headers["Authorization"] == "Bearer k" and body["temperature"] == 0
    )
    assert [m["role"] for m in body["messages"]] == ["system", "user", "assistant", "user"] and body[
        "model"
    ] == "m"


LENGTH = b'{"choices":[{"message":{"content":"a"},"finish_reason":"length"}]}'


@pytest.mark.parametrize("reply", [events("I say", "length"), events("I say", done=False), ("json", LENGTH)])
def test_a_reply_that_ended_too_early_is_cut_off(server, reply):
    url, _, replies = server
    replies.append(reply)
    assert run(endpoint(url, "m"), REGISTRY, ASK).outcome == "cut off"


def test_a_server_that_fails_is_named(server):
    url, _, replies = server
    replies.append(("error", b"no such model"))
    with pytest.raises(ChatError, match="500: no such model"):
        run(endpoint(url, "m"), REGISTRY, ASK)
    with pytest.raises(ChatError, match="cannot be reached"):
        run(endpoint("http://127.0.0.1:9", "m", timeout=2), REGISTRY, ASK)
