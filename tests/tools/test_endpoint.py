"""endpoint: whatever a server sends becomes a reply, or a ChatError that quotes it.

Servers differ in how they stream, report errors and send calls. The tests call a local server over HTTP."""

import http.server
import json
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.agent import run
from tools.builtin import TOOLS, calculator
from tools.endpoint import ChatError, endpoint, events, lines_of, parts_of
from tools.protocol import BadCall, Call, Text, Thought, merged, render_call
from tools.registry import Registry, tool

REGISTRY = Registry([calculator])
QUESTION = [{"role": "user", "content": "12 * 7?"}]
CALL = render_call(Call("calculator", {"expression": "12*7"}))


class Server:
    """An OpenAI-compatible server. It sends `replies` one by one; `requests` holds the bodies that it gets.

    A reply is (status, headers, pieces of the body), or a function from a request to such a tuple."""

    def __init__(self):
        self.requests, self.headers, self.replies = [], [], []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.requests.append(body)
                outer.headers.append(dict(self.headers))
                reply = outer.replies.pop(0)
                status, headers, pieces = reply(body) if callable(reply) else reply
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if "Transfer-Encoding" not in headers:
                    self.send_header("Connection", "close")
                self.end_headers()
                for piece in pieces:
                    if "Transfer-Encoding" in headers:
                        piece = b"%x\r\n%s\r\n" % (len(piece), piece)
                    self.wfile.write(piece)
                    self.wfile.flush()
                if "Transfer-Encoding" in headers:
                    self.wfile.write(b"0\r\n\r\n")
                self.close_connection = True

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"http://127.0.0.1:{self.server.server_port}"
        self.url = f"{self.host}/v1"


@pytest.fixture
def server():
    local = Server()
    threading.Thread(target=local.server.serve_forever, args=(0.01,), daemon=True).start()
    yield local
    local.server.shutdown()
    local.server.server_close()


def in_json(message, reason="stop", **more):
    body = {"choices": [{"message": message, "finish_reason": reason}], **more}
    return 200, {"Content-Type": "application/json"}, [json.dumps(body).encode()]


def streamed(*deltas, reason="stop", done=True, chunked=True):
    pieces = [{"choices": [{"delta": delta, "finish_reason": None}]} for delta in deltas]
    pieces += [{"choices": [{"delta": {}, "finish_reason": reason}]}] if reason else []
    body = [f"data: {json.dumps(piece, ensure_ascii=False)}\n\n".encode() for piece in pieces]
    headers = {"Content-Type": "text/event-stream"} | ({"Transfer-Encoding": "chunked"} if chunked else {})
    return 200, headers, [b": ping\n\n", *body, *[b"data: [DONE]\n\n"] * done]


def text_in_pieces(text):
    return [{"content": text[i : i + 3]} for i in range(0, len(text), 3)]


def raw(body, kind="text/event-stream", status=200):
    return status, {"Content-Type": kind}, [body if isinstance(body, bytes) else body.encode()]


def test_a_conversation_with_a_call_runs_over_http(server):
    server.replies += [streamed(*text_in_pieces("é " + CALL)), in_json({"content": "84"})]
    conversation = run(endpoint(server.url + "/", "m", key="k", temperature=0), REGISTRY, QUESTION)
    assert conversation.outcome == "answered"
    assert conversation.answer == "84"
    assert conversation.messages[2]["content"] == "é " + CALL
    body = server.requests[1]
    assert server.headers[1]["Authorization"] == "Bearer k" and body["temperature"] == 0
    assert [m["role"] for m in body["messages"]] == ["system", "user", "assistant", "user"]
    assert body["model"] == "m" and body["stream"] is True


@pytest.mark.parametrize(
    "reply",
    [
        streamed({"content": "I say"}, reason="length"),
        streamed({"content": "I say"}, reason=None, done=False),
        in_json({"content": "a"}, "length"),
        raw('{"choices":[{}]}'),  # an empty reply, without a finish reason
    ],
)
def test_a_reply_that_ended_too_early_counts_as_cut_off(server, reply):
    server.replies.append(reply)
    assert run(endpoint(server.url, "m"), REGISTRY, QUESTION).outcome == "cut off"


# ---- responses


EVENT = '{"choices":[{"delta":{"content":"Yes"},"finish_reason":"stop"}]}'
TOLERATED = [
    f'data: {EVENT[:-1]},"error":null}}\n\ndata: [DONE]\n\n',
    f"data:\n\ndata: {EVENT}\n\n",
    f"data: : OPENROUTER PROCESSING\n\n: ping\n\nevent: x\nid: 1\nretry: 3\ndata: {EVENT}\n\n",
    "data: " + EVENT.replace(",", ",\n: ping\ndata: ", 1) + "\n\n",
    f"data: {EVENT}\r\n\r\ndata: [DONE]\r\n\r\n",
    f"\ufeffdata:{EVENT}\ndata:[DONE]",
    f'data: {EVENT}\n\ndata: {{"choices":[],"usage":{{"total_tokens":3}}}}\n\ndata: [DONE]\n\n',
    f'data: {{"choices":null}}\n\ndata: {{"choices":[{{"delta":null}}]}}\n\ndata: {EVENT}\n\n',
    json.dumps(json.loads(EVENT.replace("delta", "message")), indent=2),
    json.dumps(json.loads(EVENT.replace("delta", "message")), indent=2).replace("\n", "\r\n\r\n"),
    '{"choices":[{"message":{"content":[{"type":"text","text":"Y"},{"type":"text","text":"es"}]}}]}',
    '{"choices":[{"message":{"content":null,"refusal":"Yes"},"finish_reason":null}]}',
    '{"choices":[{"message":{"reasoning":"hm","content":"Yes"}}]}',
]


@pytest.mark.parametrize("body", TOLERATED)
@pytest.mark.parametrize("kind", ["text/event-stream", "application/json", "text/plain"])
def test_a_response_is_read_by_its_content_whatever_its_content_type(server, body, kind):
    server.replies.append(raw(body, kind))
    conversation = run(endpoint(server.url, "m"), REGISTRY, QUESTION)
    assert (conversation.answer, conversation.outcome) == ("Yes", "answered")
    assert conversation.usage == ({"total_tokens": 3} if "total_tokens" in body else {})


REFUSED = [
    ('{"choices":null,"error":{"message":"overloaded"}}', "an error: overloaded"),
    ('{"choices":[],"error":"overloaded"}', "an error: overloaded"),
    ('data: {"error":{"code":3}}\n\n', r"an error: \{'code': 3\}"),
    ('{"error":{"message":"in mid-stream"}}', "an error: in mid-stream"),
    ('{"object":"error","message":"wrong model"}', "an error: wrong model"),
    ('event: error\n\ndata: {"choices":[]}\n\n', "without choices"),
    (
        f'data: {EVENT}\n\nevent: error\ndata: {{"message":"overloaded","code":503}}\n\n',
        "an error: overloaded",
    ),
    (f'data: {EVENT}\n\nevent:error\ndata: {{"detail":"overloaded"}}\n\n', "an error: .*overloaded"),
    ('event: error\ndata: {"error":{"message":"overloaded"}}\n\n', "an error: overloaded"),
    ("event: error\ndata: overloaded\n\n", "something other than a chat completion.*overloaded"),
    ('{"choices":[{"error":{"message":"provider down"},"message":{"content":""}}]}', "error: provider down"),
    ("<!DOCTYPE html><html>Sign in</html>", "something other than a chat completion.*Sign in"),
    ("data: {broken\n\n", "something other than a chat completion.*broken"),
    (f"data: {{broken\n\ndata: {EVENT}\n\ndata: [DONE]\n\n", "something other than.*broken"),
    ("data: {broken\ndata: [DONE]\n\n", "something other than.*broken"),
    ("<p>Sign\n\nin</p>\n\n", "something other than.*Sign"),
    ('data: "text"\n\n', "something other"),
    ("[1, 2]", "something other"),
    ("", "without choices"),
    ("data: [DONE]\n\n", "without choices"),
]


@pytest.mark.parametrize("body, words", REFUSED)
def test_a_response_that_is_not_a_reply_causes_an_error_that_quotes_it(server, body, words):
    server.replies.append(raw(body))
    with pytest.raises(ChatError, match=words) as caught:
        run(endpoint(server.url, "m"), REGISTRY, QUESTION)
    assert caught.value.conversation.messages[1:] == QUESTION


@pytest.mark.parametrize(
    "status, body, words",
    [
        (500, "no such model", "answered 500: no such model"),
        (400, '{"error":{"message":"too long"}}', "answered 400: too long"),
        (404, "", "answered 404"),
    ],
)
def test_an_error_status_causes_an_error_that_quotes_the_response(server, status, body, words):
    server.replies.append(raw(body, status=status))
    with pytest.raises(ChatError, match=words):
        run(endpoint(server.url, "m"), REGISTRY, QUESTION)


def test_a_server_that_is_missing_silent_broken_or_moved_causes_an_error(server):
    with pytest.raises(ChatError, match="cannot be reached"):
        run(endpoint("http://127.0.0.1:9", "m", timeout=2), REGISTRY, QUESTION)
    server.replies.append((302, {"Location": "https://x.example/v1", "Content-Length": "0"}, []))
    with pytest.raises(ChatError, match="redirects to https://x.example/v1"):
        run(endpoint(server.url, "m"), REGISTRY, QUESTION)
    server.replies.append((200, {"Content-Length": "999"}, [f"data: {EVENT}\n\n".encode()]))
    with pytest.raises(ChatError, match="broke off"):
        run(endpoint(server.url, "m"), REGISTRY, QUESTION)
    server.replies.append((500, {"Content-Length": "999"}, [b'{"error":"boom"}']))
    with pytest.raises(ChatError, match="answered 500: a body that cannot be read"):
        run(endpoint(server.url, "m"), REGISTRY, QUESTION)
    for url, settings in (("http://a..b/v1", {}), (server.url, {"temperature": float("nan")})):
        with pytest.raises(ChatError, match="cannot be called"):
            run(endpoint(url, "m", **settings), REGISTRY, QUESTION)
    server.replies.append(lambda body: time.sleep(1) or raw(""))
    with pytest.raises(ChatError, match=r"cannot be called.*timed out.*0\.2"):
        run(endpoint(server.url, "m", timeout=0.2), REGISTRY, QUESTION)


@pytest.mark.parametrize("reason", ["content_filter", "model_overloaded"])
def test_an_unknown_finish_reason_is_reported(server, reason):
    server.replies.append(streamed({"content": "I"}, reason=reason))
    conversation = run(endpoint(server.url, "m"), REGISTRY, QUESTION)
    assert (conversation.outcome, conversation.finish_reason) == ("stopped by the server", reason)


def test_text_is_shown_as_it_arrives_even_if_it_is_short_and_not_chunked(server):
    shown, seen_early = threading.Event(), []

    def pieces():
        yield f"data: {EVENT}\n\n".replace('"stop"', "null").encode()
        seen_early.append(shown.wait(10))
        yield f"data: {EVENT}\n\n".encode()

    for headers in ({}, {"Transfer-Encoding": "chunked"}):
        shown.clear()
        server.replies.append((200, headers, pieces()))
        run(endpoint(server.url, "m"), REGISTRY, QUESTION, show=lambda part: shown.set())
    assert seen_early == [True, True]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.text("ab", max_size=3) | st.just([]) | st.just({}),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.fixed_dictionaries(
            {},
            optional={
                key: inner
                for key in (
                    "choices delta message content tool_calls function name arguments "
                    "id index finish_reason error usage text reasoning"
                ).split()
            },
        )
    ),
    max_leaves=12,
)


class Body:
    """The raw body of a response, which arrives in pieces of at most `size` bytes."""

    def __init__(self, body, size):
        self.body, self.size = body, size

    def read1(self, amount, decode_content):
        piece, self.body = self.body[: self.size], self.body[self.size :]
        return piece


@given(
    st.lists(VALUES.map(json.dumps) | st.sampled_from(["[DONE]", "", ": ping", "{"]) | st.text(max_size=5)),
    st.sampled_from(["\n\n", "\n", "\r\n\r\n"]),
    st.sampled_from(["data: ", "data:", "", ": "]),
    st.integers(1, 99),
)
def test_any_body_is_a_reply_or_a_chat_error_however_it_is_split(items, end, start, size):
    body = "".join(start + item + end for item in items).encode("utf-8", "replace")

    def outcome(size):
        try:
            return merged(list(filter(lambda part: part != Text(""), map(as_part, parts(size)))))
        except ChatError as error:
            return str(error)

    def parts(size):
        return list(parts_of(events(lines_of(Body(body, size))), native=True))

    def as_part(piece):
        return Text(piece) if isinstance(piece, str) else piece

    assert outcome(size) == outcome(len(body) + 1)


# ---- native calls


def call_deltas(id="a", name="calculator", arguments='{"expression":"12*7"}', index=0, size=5):
    yield {"tool_calls": [{"index": index, "id": id, "type": "function", "function": {"name": name}}]}
    for i in range(0, len(arguments), size):
        yield {"tool_calls": [{"index": index, "function": {"arguments": arguments[i : i + size]}}]}


WHOLE = {
    "id": "a",
    "type": "function",
    "function": {"name": "calculator", "arguments": '{"expression":"12*7"}'},
}


@pytest.mark.parametrize(
    "reply",
    [
        streamed(*call_deltas(), reason="tool_calls"),
        streamed({"content": None, "tool_calls": [WHOLE]}, reason="stop"),
        in_json({"content": None, "tool_calls": [WHOLE]}, "tool_calls"),
        in_json({"tool_calls": WHOLE}),
        streamed(
            {"tool_calls": [{"index": 0, "id": "a"}]},
            {"tool_calls": [{"index": 0, "function": WHOLE["function"]}]},
        ),
        streamed(
            {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "calculator", "arguments": ""}}]},
            {"tool_calls": [{"index": 0, "id": "b", "function": {"arguments": '{"expression":"12*7"}'}}]},
        ),
        in_json(
            {
                "tool_calls": [
                    {"id": "a", "function": {**WHOLE["function"], "arguments": {"expression": "12*7"}}}
                ]
            }
        ),
    ],
)
def test_native_calls_run_and_are_answered_with_their_ids(server, reply):
    server.replies += [reply, streamed({"content": "84"})]
    conversation = run(endpoint(server.url, "m", native=True), REGISTRY, QUESTION)
    assert (conversation.outcome, conversation.answer) == ("answered", "84")
    first, second = server.requests
    assert first["tools"] == [{"type": "function", "function": calculator.definition}]
    assert first["messages"] == QUESTION
    assert second["messages"][1:] == [
        {"role": "assistant", "content": "", "tool_calls": [WHOLE]},
        {"role": "tool", "tool_call_id": "a", "content": "84"},
    ]


def test_deltas_are_added_to_the_calls_they_belong_to(server):
    several = [
        delta
        for pair in zip(
            call_deltas("a", arguments='{"expression":"1"}'),
            call_deltas("b", arguments='{"expression":"2"}', index=1),
        )
        for delta in pair
    ]
    same_index = [{"tool_calls": [{**WHOLE, "index": 0, "id": id}]} for id in "ab"]
    no_index = [{"tool_calls": [{**WHOLE, "id": id}]} for id in "ab"]
    no_ids = {"tool_calls": [{"function": WHOLE["function"]}] * 2}
    same_place = [{"tool_calls": [{**WHOLE, "index": 0, "id": ""}]}] * 2
    same_id = [*call_deltas(arguments='{"expression":"1"}', size=99), {"tool_calls": [{**WHOLE, "index": 0}]}]
    lists = (several, same_index, no_index, same_place, same_id, [no_ids])
    replies = [streamed(*deltas) for deltas in lists]
    for reply in (*replies, in_json(no_ids)):
        server.replies += [reply, streamed({"content": "ok"})]
        conversation = run(endpoint(server.url, "m", native=True), REGISTRY, QUESTION)
        results = [message for message in conversation.messages if message["role"] == "tool"]
        assert len(results) == len({message["tool_call_id"] for message in results}) == 2
        assert all(message["content"].isdigit() for message in results)


def test_a_call_that_is_sent_again_runs_once_but_one_with_another_name_is_a_separate_call(server):
    again = [{"tool_calls": [{**WHOLE, "index": 0}]}] * 2
    begun = {"function": {"name": "calculator", "arguments": ""}, "index": 0}
    again_later = [{"tool_calls": [call]} for call in (begun, {**WHOLE, "index": 0}, {**begun, "id": "a"})]
    bare = [{"tool_calls": [{"function": {"name": name}}]} for name in ("now", "calculator")]
    other = [
        {"tool_calls": [{**WHOLE, "function": {"name": name, "arguments": "{}"}}]}
        for name in ("now", "calculator")
    ]
    both = ["now", "calculator"]
    cases = [(again, both[1:], "84"), (again_later, both[1:], "84"), (bare, both, "is missing")]
    for deltas, names, last in (*cases, (other, both, "is missing")):
        server.replies += [streamed(*deltas), streamed({"content": "ok"})]
        conversation = run(endpoint(server.url, "m", native=True), Registry(TOOLS), QUESTION)
        assert [message["name"] for message in conversation.messages if message["role"] == "tool"] == names
        assert last in conversation.messages[-2]["content"]


def test_broken_native_arguments_get_an_error_and_are_not_sent_back(server):
    server.replies += [streamed(*call_deltas(arguments='{"expression":')), streamed({"content": "ok"})]
    conversation = run(endpoint(server.url, "m", native=True), REGISTRY, QUESTION)
    assert conversation.outcome == "answered" and "not JSON" in conversation.messages[2]["content"]
    assert server.requests[1]["messages"][1]["tool_calls"][0]["function"]["arguments"] == "{}"


def test_native_calls_in_text_mode_cause_an_error_that_names_them(server):
    server.replies.append(streamed(*call_deltas()))
    with pytest.raises(ChatError, match=r"native tool calls \(calculator\): use .*native=True"):
        run(endpoint(server.url, "m"), REGISTRY, QUESTION)


# ---- requests


def test_consecutive_results_and_questions_become_one_user_message(server):
    server.replies += [streamed({"content": CALL + CALL}), streamed({"content": "84"})]
    conversation = run(endpoint(server.url, "m"), REGISTRY, QUESTION)
    messages = server.requests[1]["messages"]
    assert [m["role"] for m in messages] == ["system", "user", "assistant", "user"]
    assert messages[3]["content"] == "\n".join(["<tool_response>84</tool_response>"] * 2)
    server.replies += [streamed({"content": "ok"})]
    picture = [{"type": "image_url", "image_url": {"url": "data:,"}}]
    run(
        endpoint(server.url, "m"),
        REGISTRY,
        [*conversation.messages[:-1], {"role": "user", "content": picture}],
    )
    messages = server.requests[2]["messages"]
    assert [m["role"] for m in messages] == ["system", "user", "assistant", "user"]
    assert messages[3]["content"][0]["type"] == "text" and messages[3]["content"][1:] == picture


@pytest.mark.parametrize("native", [False, True])
def test_thoughts_are_sent_back_only_on_request(server, native):
    for thoughts in (False, True):
        server.replies += [
            in_json({"reasoning_content": "hm", "content": "Yes"}),
            in_json({"content": "Yes"}),
        ]
        generate = endpoint(server.url, "m", native=native, thoughts=thoughts)
        shown = []
        conversation = run(generate, REGISTRY, QUESTION, show=shown.append)
        assert Thought("hm") in shown and conversation.answer == "Yes"
        run(generate, REGISTRY, [*conversation.messages, *QUESTION])
        assert ("hm" in json.dumps(server.requests[-1]["messages"])) is thoughts


# ---- the key


def test_netrc_and_the_proxy_variables_are_ignored(server, tmp_path, monkeypatch):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    server.replies += [in_json({"content": "Yes"})] * 2
    assert run(endpoint(server.url, "m", key="secret-key"), REGISTRY, QUESTION).answer == "Yes"
    assert server.headers[0]["Authorization"] == "Bearer secret-key"


@pytest.mark.parametrize(
    "url, key, words",
    [
        ("http://x.example/v1", "k", "plain http.*could be read"),
        ("https://x.example/v1", "schlüssel", "visible ASCII characters only"),
        ("https://x.example/v1", " k", "white space"),
        ("https://x.example/v1", "Bearer k", "bare key"),
    ],
)
def test_a_key_that_cannot_be_sent_safely_is_refused_at_once(url, key, words):
    with pytest.raises(ChatError, match=words):
        endpoint(url, "m", key=key)


def test_an_error_that_repeats_the_key_is_shown_without_it(server):
    server.replies.append(raw("wrong key secret-key", status=401))
    with pytest.raises(ChatError, match="wrong key <key>"):
        run(endpoint(server.url, "m", key="secret-key"), REGISTRY, QUESTION)


# ---- everything together


class Diary:
    def __init__(self):
        self.entries = []

    def write(self, text: str) -> int:
        """Write a line, and return the number of lines."""
        self.entries.append(text)
        return len(self.entries)


@tool
async def rain(town: str) -> dict:
    """Millimetres of rain."""
    return {"millimetres": 12.5, "town": town}


@tool
def pay(amount: int) -> str:
    """Pay."""
    raise AssertionError("this call was not allowed")


CALLS = [
    Call("rain", {"town": "Bern"}, "id-1"),
    Call("write", {"text": "Wet in Bern."}, "id-2"),
    Call("pay", {"amount": 5}, "id-3"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("native", [False, True])
def test_an_agent_calls_three_tools_and_answers(server, native, stream):
    """One tool is async, one is a method, and one is refused by `allow`."""
    text = "Let me see. " + ("" if native else "".join(map(render_call, CALLS)))
    if stream:
        deltas = text_in_pieces(text)
        for i, call in enumerate(CALLS if native else []):
            deltas += call_deltas(call.id, call.name, json.dumps(call.arguments), i)
        first = streamed(*deltas, reason="tool_calls" if native else "stop", chunked=native)
    else:
        functions = [{"name": call.name, "arguments": json.dumps(call.arguments)} for call in CALLS]
        items = [{"id": c.id, "type": "function", "function": f} for c, f in zip(CALLS, functions)]
        first = in_json({"content": text, **({"tool_calls": items} if native else {})}, "stop")
    last = [{"content": "12.5 mm, noted, "}, {"content": "not paid."}]
    server.replies += [
        first,
        streamed(*last) if stream else in_json({"content": "12.5 mm, noted, not paid."}),
    ]
    diary, shown = Diary(), []
    conversation = run(
        endpoint(server.url, "m", native=native, stream=stream),
        Registry([rain, diary.write, pay]),
        [{"role": "user", "content": "Was it wet in Bern? Note it, and pay."}],
        allow=lambda call: call.name != "pay" or "the user said no",
        show=shown.append,
    )
    assert (conversation.outcome, conversation.steps, conversation.answer) == (
        "answered",
        2,
        "12.5 mm, noted, not paid.",
    )
    assert diary.entries == ["Wet in Bern."] and not any(isinstance(part, BadCall) for part in shown)
    results = [message for message in conversation.messages if message["role"] == "tool"]
    ids = [call.id for call in CALLS] if native else ["call_1_1", "call_1_2", "call_1_3"]
    assert [message["tool_call_id"] for message in results] == ids
    for message, words in zip(results, ('"millimetres":12.5', "1", "the user said no")):
        assert words in message["content"]
    assert server.requests[0]["stream"] is stream
    assert [m["role"] for m in server.requests[1]["messages"]][-2:] == (
        ["tool", "tool"] if native else ["assistant", "user"]
    )
