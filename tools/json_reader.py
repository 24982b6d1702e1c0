"""A strict JSON parser (RFC 8259), by recursive descent.

    parse('{"city": "Oslo"}')             ->  {'city': 'Oslo'}
    read('{"city": "Oslo"} and more')     ->  ({'city': 'Oslo'}, 16)

A model's output is not trusted, so the constructs on which parsers often disagree are refused: duplicate
keys, NaN, 1e400, lone surrogates, comments, trailing commas. Every error gives its position and, if possible,
what to write instead."""

import re

MAX_DEPTH = 64
MAX_DIGITS = 4300  # the limit of Python's int(), whose time is quadratic

SPACE = re.compile(r"[ \t\n\r]*")
PLAIN = re.compile(r'[^"\\\x00-\x1f\ud800-\udfff]*')  # characters that need no escape
NUMERIC = re.compile(r"[-+.0-9eE]*")
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
LETTERS = re.compile(r"[A-Za-z]*")
HEX, HIGH, LOW = "[0-9a-fA-F]", "[dD][89abAB]", "[dD][c-fC-F]"
ESCAPE = re.compile(rf'\\(?:(["\\/bfnrt])|u({HIGH}{HEX}{{2}})\\u({LOW}{HEX}{{2}})|u({HEX}{{4}}))')
BEGUN_ESCAPE = re.compile(rf"(\\(u{HEX}{{0,3}})?)?\Z")
ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
CONTROLS = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
WORDS = {"true": True, "false": False, "null": None}
FIXES = {word: f"write {word}" for word in WORDS} | dict.fromkeys(("none", "undefined"), "write null")
FIXES |= dict.fromkeys(("nan", "infinity", "inf"), "use a number or null")
HINTS = {
    "'": 'Strings and keys need double quotes (").',
    "/": "JSON has no comments: remove this one.",
    "#": "JSON has no comments: remove this one.",
    "\ufeff": "Remove the byte-order mark.",
    "+": "Write a positive number without its plus sign.",
    ".": "Write a digit before the point: 0.5.",
    "`": "Remove the code fence: write only the JSON itself.",
}
BEGUN_NUMBERS = {"-", ".", "e", "E", "e-", "e+", "E-", "E+"}  # endings of a number that was cut off
CUT_OFF = "the text ends here; it was probably cut off"


class JSONError(ValueError):
    """Text that is not JSON. `offset` counts characters from 0, `line` and `column` from 1; `problem` is the
    message without the position. `cut_off`: whether more text could have made it valid."""

    def __init__(self, problem, text, offset, cut_off=False):
        self.problem, self.offset, self.cut_off = problem, offset, cut_off
        self.line, self.column = text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)
        super().__init__(f"{problem} (line {self.line}, column {self.column}, character {offset})")


def parse(text):
    """The value of a whole JSON text (str or UTF-8 bytes): a dict, list, str, int, float, bool or None.

    Integers are exact; numbers with a point or an exponent are floats. Takes time linear in the length of the
    text. Raises JSONError, also for a value that is nested more than MAX_DEPTH levels deep."""
    if not isinstance(text, str):
        try:
            text = text.decode()
        except UnicodeDecodeError as error:
            before, cut_off = error.object[: error.start].decode(), error.reason == "unexpected end of data"
            raise JSONError("This is not UTF-8.", before, len(before), cut_off) from None
    value, end = read(text)
    end = SPACE.match(text, end).end()
    if end < len(text):
        raise JSONError("The value is complete: nothing may follow it.", text, end)
    return value


def read(text):
    """Parses the value at the start of `text` -> (value, index of its end). Raises JSONError."""
    reader = Reader(text)
    return reader.value(0), reader.at


class Reader:
    """Reads `text` from index `at`. `peek` moves `at` past white space; the parsing methods move it past what
    they read."""

    def __init__(self, text):
        self.text, self.at = text, 0

    def peek(self):
        """The next character that is not white space, or "" at the end."""
        self.at = SPACE.match(self.text, self.at).end()
        return self.text[self.at : self.at + 1]

    def fail(self, problem, at=None, cut_off=False):
        raise JSONError(problem, self.text, self.at if at is None else at, cut_off)

    def expected(self, what):
        char = self.text[self.at : self.at + 1]
        found = f"found {char!r}. {HINTS.get(char, '')}".rstrip() if char else f"but {CUT_OFF}."
        self.fail(f"Expected {what}, {found}", cut_off=not char)

    def value(self, depth):
        char = self.peek()
        if char in ("[", "{"):
            if depth == MAX_DEPTH:
                self.fail(f"Nested more than {MAX_DEPTH} levels deep: make the value flatter.")
            return self.array(depth + 1) if char == "[" else self.object(depth + 1)
        if char == '"':
            return self.string()
        if char == "-" or char.isdigit() and char.isascii():
            return self.number()
        return self.word() if char.isalpha() and char.isascii() else self.expected("a value")

    def array(self, depth):
        return [self.value(depth) for _ in self.items("]")]

    def object(self, depth):
        value = {}
        for _ in self.items("}"):
            if self.peek() != '"':
                self.expected("a key in double quotes")
            start, key = self.at, self.string()
            if key in value:
                self.fail(f"The key {key[:80]!r} appears twice: keep one.", start)
            if self.peek() != ":":
                self.expected("a colon after the key")
            self.at += 1
            value[key] = self.value(depth)
        return value

    def items(self, closing):
        """Yields before each item of an array or object. Reads the commas and brackets itself."""
        self.at += 1
        if self.peek() != closing:
            yield
            while self.peek() == ",":
                self.at += 1
                if self.peek() in ("]", "}"):
                    self.fail("Remove the comma before this bracket.")
                yield
            if self.peek() != closing:
                self.expected(f"a comma or {closing}")
        self.at += 1

    def word(self):
        start, word = self.at, LETTERS.match(self.text, self.at)[0]
        self.at += len(word)
        if word not in WORDS:
            cut_off = self.at == len(self.text) and any(right.startswith(word) for right in WORDS)
            fix = FIXES.get(word.lower(), "put text in double quotes")
            self.fail(f"{word[:40]!r} is not a JSON value: {fix}.", start, cut_off)
        return WORDS[word]

    def number(self):
        start, text = self.at, NUMERIC.match(self.text, self.at)[0]
        match = NUMBER.match(text)
        left = text[match.end() :] if match else text
        self.at += len(text) - len(left)
        if left:
            cut_off = left in BEGUN_NUMBERS and self.text.endswith(left, self.at)
            self.fail(f"{text[:40]!r} is not a JSON number: write it like -12 or 1.5e3.", cut_off=cut_off)
        if not match[2] and not match[3]:
            if len(match[1]) > MAX_DIGITS:
                self.fail(f"Write an integer of more than {MAX_DIGITS} digits as a string.", start)
            return int(text)
        value = float(text)
        if value in (float("inf"), float("-inf")):
            self.fail(f"{text[:40]} is too large for a float: the largest is about 1.8e308.", start)
        return value

    def string(self):
        self.at += 1
        pieces = []
        while True:
            pieces.append(PLAIN.match(self.text, self.at)[0])
            self.at += len(pieces[-1])
            char = self.text[self.at : self.at + 1]
            if char == '"':
                self.at += 1
                return "".join(pieces)
            if char == "\\":
                pieces.append(self.escape())
            elif not char:
                self.fail(f"The string lacks its closing quote: {CUT_OFF}.", cut_off=True)
            elif char < " ":
                written = CONTROLS.get(char, f"\\u{ord(char):04x}")
                self.fail(f"A control character in a string: write {written}.")
            else:
                self.fail("Half of a surrogate pair in a string: write the whole character.")

    def escape(self):
        """The character that an escape sequence stands for."""
        match = ESCAPE.match(self.text, self.at)
        if not match and BEGUN_ESCAPE.match(self.text, self.at):
            self.fail(f"The string lacks its closing quote: {CUT_OFF}.", cut_off=True)
        if not match:
            self.fail(r'A backslash must be followed by one of " \ / b f n r t, or by u and four hex digits.')
        char, high, low, code = match.groups()
        if code and "d800" <= code.lower() < "e000":
            cut_off = code.lower() < "dc00" and BEGUN_ESCAPE.match(self.text, match.end())
            self.fail("Half of a surrogate pair: write both halves.", cut_off=bool(cut_off))
        self.at = match.end()
        return ESCAPES[char] if char else bytes.fromhex(code or high + low).decode("utf-16-be")
