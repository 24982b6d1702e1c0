"""A strict JSON parser (RFC 8259) that can be fed text as it arrives.

    parse('{"city": "Oslo"}')             ->  {'city': 'Oslo'}
    reader.feed('{"city": "Os'); reader.feed('lo"}'); reader.finish()    ->  the same

A model's output is not trusted, so whatever two parsers could read differently is refused: duplicate keys,
NaN, 1e400, lone surrogates, comments, trailing commas. Every error says where it is and what to write
instead.

There is one parser. It is a generator that asks for more text whenever it runs out, so text cut anywhere
gives the same result as text in one piece, and an explicit stack takes the place of recursion, so depth is
a number we choose and not a crash."""

import codecs
import re

MAX_DEPTH = 64
MAX_DIGITS = 4300  # where Python's own int() stops, because its time is quadratic

SPACE = re.compile(r"[ \t\n\r]*")
PLAIN = re.compile(r'[^"\\\x00-\x1f\ud800-\udfff]*')  # what a string may hold as it is
NUMERIC = re.compile(r"[-+.0-9eE]*")
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
LETTERS = re.compile(r"[A-Za-z]*")
ESCAPE = re.compile(r'\\(?:u([0-9A-Fa-f]{4})|(["\\/bfnrt]))')
ESCAPE_ENDS = re.compile(r"\\(?:[^u]|u[0-9A-Fa-f]{0,3}[^0-9A-Fa-f]|u[0-9A-Fa-f]{4})", re.DOTALL)
ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
WORDS = {"true": True, "false": False, "null": None}
FIXES = {
    "true": "write true",
    "false": "write false",
    "none": "write null",
    "undefined": "write null",
    **dict.fromkeys(("nan", "infinity", "inf"), "use a number or null"),
}
HINTS = {
    "'": 'Strings and keys take double quotes: ".',
    "/": "JSON has no comments: take it out.",
    "#": "JSON has no comments: take it out.",
    "\ufeff": "Take the byte-order mark out.",
    "+": "Write a positive number without its plus sign.",
    ".": "Write a digit before the point: 0.5.",
    "`": "Take the code fence out: only the JSON itself belongs here.",
    "": "The text ends too early: it was probably cut off.",
}


class JSONError(ValueError):
    """Text that is not JSON. `offset` counts characters from 0, `line` and `column` from 1; `problem` is the
    sentence alone. `cut_off` is true where more text could still have made it right."""

    def __init__(self, problem, offset, line, column, cut_off=False):
        super().__init__(f"{problem} (line {line}, column {column}, character {offset})")
        self.problem, self.offset, self.line, self.column, self.cut_off = (
            problem,
            offset,
            line,
            column,
            cut_off,
        )


def parse(text, *, max_depth=MAX_DEPTH):
    """The value of a whole JSON text, a str or UTF-8 bytes: dict, list, str, int, float, bool or None.

    Integers are exact, numbers with a point or an exponent are floats, and so is nothing else. Takes time
    linear in the text. Raises JSONError; arrays and objects may stand at most max_depth inside one another.
    """
    reader = Reader(max_depth=max_depth)
    reader.feed(text)
    return reader.finish()


class Reader:
    """Reads one JSON value from text that arrives in pieces.

    feed(piece) reads on, finish() returns the value; both raise JSONError, and after one every call raises it
    again. `done` says that the value is complete, which a number at the top level never is before finish().
    With only=False the text may go on after the value: the reader stops there, and `rest` is what it has not
    read."""

    def __init__(self, *, max_depth=MAX_DEPTH, only=True):
        self.max_depth, self.only = max_depth, only
        self.done, self.value = False, None
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text, self._at, self._passed = "", 0, 0  # this piece, where in it, characters before it
        self._line, self._line_start = 1, 0
        self._ended, self._error = False, None
        self._machine = self._read()

    @property
    def rest(self):
        return self._text[self._at :]

    def feed(self, piece):
        """The next piece of text, str or bytes (which may be cut inside a character). Raises JSONError."""
        bad = None
        if not isinstance(piece, str):
            try:
                piece = self._decoder.decode(piece)
            except UnicodeDecodeError as error:
                bad, piece = error, error.object[: error.start].decode("utf-8")
        self._passed += self._at
        self._text, self._at = self._text[self._at :] + piece, 0
        self._advance()
        if bad:
            self._at = len(self._text)
            self._fail("This is not UTF-8: send the text as UTF-8.")

    def finish(self):
        """No more text will come -> the value."""
        try:
            self._decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            self._fail("The text ends inside a character: it was probably cut off.", cut_off=True)
        self._ended = True
        self._advance()
        return self.value

    def _advance(self):
        if self._error:
            raise self._error
        next(self._machine, None)

    def _offset(self):
        return self._passed + self._at

    def _fail(self, problem, offset=None, cut_off=False):
        offset = self._offset() if offset is None else offset
        self._error = JSONError(problem, offset, self._line, offset - self._line_start + 1, cut_off)
        raise self._error

    def _expected(self, what):
        char = self._text[self._at : self._at + 1]
        seen = f", not {char!r}" if char else ""
        self._fail(f"Here should be {what}{seen}. {HINTS.get(char, '')}".strip(), cut_off=not char)

    # Each of these runs until it needs text that has not come, then yields. _ended: no more will.

    def _peek(self):
        """The next character, not yet taken, or "" at the end."""
        while self._at == len(self._text) and not self._ended:
            yield
        return self._text[self._at : self._at + 1]

    def _run(self, pattern):
        """All that matches a pattern of single characters, over as many pieces as it takes."""
        found = []
        while (yield from self._peek()):
            end = pattern.match(self._text, self._at).end()
            found.append(self._text[self._at : end])
            self._at = end
            if end < len(self._text):
                break
        return "".join(found)

    def _token(self):
        """The next character that is no space, not yet taken. Only spaces hold line ends, so only they
        count."""
        while (
            char := self._text[self._at : self._at + 1] or (yield from self._peek())
        ) and char in " \n\r\t":
            end = SPACE.match(self._text, self._at).end()
            lines = self._text.count("\n", self._at, end)
            if lines:
                self._line += lines
                self._line_start = self._passed + self._text.rindex("\n", self._at, end) + 1
            self._at = end
        return char

    def _read(self):
        stack, keys = [], []  # the open arrays and objects, and the key each object is at
        while True:
            # A value begins here.
            char = yield from self._token()
            if char in ("{", "["):
                if len(stack) == self.max_depth:
                    self._fail(f"Nested more than {self.max_depth} deep: make it flatter.")
                self._at += 1
                stack.append({} if char == "{" else [])
                keys.append(None)
                if (yield from self._token()) not in ("}", "]"):
                    if char == "{":
                        keys[-1] = yield from self._key(stack[-1])
                    continue
                value = None
            else:
                value = yield from self._scalar(char)
                if not stack:
                    break
                self._put(stack, keys, value)
            # A value has ended, or a bracket may close: on to where the next value begins.
            while stack:
                char = yield from self._token()
                closing = "}" if isinstance(stack[-1], dict) else "]"
                if char == closing:
                    self._at += 1
                    value, _ = stack.pop(), keys.pop()
                    if stack:
                        self._put(stack, keys, value)
                elif char == ",":
                    self._at += 1
                    if (yield from self._token()) in ("}", "]"):
                        self._fail("Take out the comma before this bracket.")
                    if closing == "}":
                        keys[-1] = yield from self._key(stack[-1])
                    break
                else:
                    self._expected(f"a comma or {closing}")
            if not stack:
                break
        self.value = value
        self.done = True
        if self.only and (yield from self._token()):
            self._fail("The value is complete: nothing may follow it.")

    def _put(self, stack, keys, value):
        if isinstance(stack[-1], dict):
            stack[-1][keys[-1]] = value
        else:
            stack[-1].append(value)

    def _key(self, found):
        char = yield from self._token()
        if char != '"':
            self._expected("a key in double quotes")
        before = self._offset()
        key = yield from self._string()
        if key in found:
            self._fail(f"The key {key[:80]!r} stands here twice: keep one.", before)
        if (yield from self._token()) != ":":
            self._expected("a colon after the key")
        self._at += 1
        return key

    def _scalar(self, char):
        if char == '"':
            return (yield from self._string())
        if char == "-" or char.isdigit() and char.isascii():
            return (yield from self._number())
        if char.isalpha() and char.isascii():
            start, word = self._offset(), (yield from self._run(LETTERS))
            if word in WORDS:
                return WORDS[word]
            cut = not self._text[self._at :] and any(right.startswith(word) for right in WORDS)
            fix = FIXES.get(word.lower(), "put text in double quotes")
            self._fail(f"{word[:40]!r} is no JSON value: {fix}.", start, cut)
        return self._expected("a value")

    def _number(self):
        start, text = self._offset(), (yield from self._run(NUMERIC))
        match = NUMBER.match(text)
        if not match or match.end() < len(text):
            left = text[match.end() :] if match else text
            cut = self._at == len(self._text) and left.lower() in ("-", ".", "e", "e-", "e+")
            fix = (
                "take the zeros at its front out" if left[:1].isdigit() else "write it as in -12, 0.5 or 1e-3"
            )
            self._fail(f"{text[:40]!r} is no JSON number: {fix}.", start + len(text) - len(left), cut)
        if not match.group(2) and not match.group(3):
            if len(match.group(1)) > MAX_DIGITS:
                self._fail(f"An integer may have {MAX_DIGITS} digits: write a longer one as a string.", start)
            return int(text)
        value = float(text)
        if value in (float("inf"), float("-inf")):
            self._fail(f"{text[:40]} is too large for a float: the largest is about 1.8e308.", start)
        return value

    def _string(self):
        self._at += 1
        found = []
        while True:
            found.append((yield from self._run(PLAIN)))
            char = yield from self._peek()
            if char == '"':
                self._at += 1
                return "".join(found)
            if char == "\\":
                found.append((yield from self._escape()))
            elif not char:
                self._fail("The string is not closed: it was probably cut off.", cut_off=True)
            elif char < " ":
                written = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(char, f"\\u{ord(char):04x}")
                self._fail(f"A control character stands in a string: write {written}.")
            else:
                self._fail("Half of a surrogate pair stands in a string: write the whole character.")

    def _escape(self):
        """The character that a backslash and what follows it stand for."""
        start, code = self._offset(), (yield from self._code())
        if not isinstance(code, int):
            return code
        if 0xD800 <= code < 0xDC00:
            low = (yield from self._code()) if (yield from self._peek()) == "\\" else None
            if not isinstance(low, int) or not 0xDC00 <= low < 0xE000:
                self._fail(
                    "The first half of a surrogate pair stands alone: write both halves.",
                    start,
                    cut_off=low is None and self._at == len(self._text),
                )
            return chr(0x10000 + ((code - 0xD800) << 10) + low - 0xDC00)
        if 0xDC00 <= code < 0xE000:
            self._fail("The second half of a surrogate pair stands alone: write both halves.", start)
        return chr(code)

    def _code(self):
        """One escape: the character itself, or the number behind \\u."""
        while not ESCAPE_ENDS.match(self._text, self._at) and not self._ended:
            yield
        escape = ESCAPE.match(self._text, self._at)
        if escape:
            self._at = escape.end()
            return int(escape[1], 16) if escape[1] else ESCAPES[escape[2]]
        if not ESCAPE_ENDS.match(self._text, self._at):
            self._fail("The string is not closed: it was probably cut off.", cut_off=True)
        return self._fail(
            'After a backslash comes one of " \\ / b f n r t or u and four hex digits: '
            "write \\\\ for a backslash itself."
        )
