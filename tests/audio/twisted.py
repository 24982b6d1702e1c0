"""A sandbox that can spoil any of its answers, in more ways than --fault offers. Also helpers for tests."""

import io
import json
import threading
import time
import wave

from audio.sandbox import Handler, Sandbox

CODES = ["400", "401", "403", "404", "408", "422", "425", "429", "500", "502", "503", "504"]
TWISTS = [
    "ok",
    "ok",
    "ok",
    *CODES,
    "reset",
    "lost",
    "truncated",
    "late",
    "stall",
    "drip",
    "garbage",
    "array",
    "nulls",
    "more",
    "empty",
]
LATE = 0.2  # seconds before a late answer begins: longer than the clients in these tests wait
LIMIT = 60  # seconds after which a test that waits for something gives up


class Twisted(Sandbox):
    """`history` names what happens to the first requests, in order. All later ones are answered normally.
    `requests` lists the kind of each request and what happened to it.

    After `late` seconds, or as soon as `release` is set, a late answer begins and a stalled connection is
    closed."""

    def __init__(self, history=(), late=LATE, **more):
        super().__init__(**{"seconds": 0.01, **more})
        self.history, self.late, self.requests, self.local = list(history), late, [], threading.local()
        self.release, self.active, self.retry_after = threading.Event(), 0, "0"
        self.server.RequestHandlerClass = type("Bound", (TwistedHandler,), {"box": self})

    def spoiled(self, kind):
        with self.lock:
            twist = self.history.pop(0) if self.history else "ok"
            self.requests.append((kind, twist))
        self.local.twist = twist
        if twist == "late":
            self.release.wait(self.late)  # then the request is carried out, although the client has given up
        return twist if twist in ("reset", "lost", "truncated", *CODES) else None

    def settle(self):
        """Waits until no request is being worked on."""
        wait_until(lambda: not self.active)


class TwistedHandler(Handler):
    def do_GET(self):
        with self.box.lock:
            self.box.active += 1
        try:
            super().do_GET()
        finally:
            with self.box.lock:
                self.box.active -= 1

    do_POST = do_DELETE = do_GET

    def write(self, status, data, half=False):
        twist = self.box.local.twist
        if twist == "stall":
            self.box.release.wait(self.box.late)
            return self.hang_up()
        if twist == "garbage":
            data = "<html>\xff not JSON"
        if twist == "empty":
            data = ""
        if twist == "array":
            data = json.dumps([data])
        if twist == "nulls" and isinstance(data, dict):
            data = dict.fromkeys(data)
        if twist == "more" and isinstance(data, dict):
            data = {**data, "new_field": {"deep": [1, None]}, "audio_tags": None}
        if twist == "drip":
            return self.drip()
        return super().write(status, data, half)

    def drip(self):
        """Sends a byte every 0.02 s, so that no pause between two bytes is long enough for a time-out."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n")
        self.close_connection = True
        while not self.box.closing.wait(0.02):
            self.wfile.write(b" ")
            self.wfile.flush()


def wait_until(condition):
    """Returns as soon as the condition holds; fails after LIMIT seconds."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(0.005)


def tone(seconds=2.0, value=b"\x00\x20", rate=8000):
    """The bytes of a mono 16-bit WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, rate, 0, "NONE", ""))
        sound.writeframes(value * round(rate * seconds))
    return file.getvalue()
