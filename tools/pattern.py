"""Regular expressions as automata, for the schema keyword `pattern`.

A backtracking matcher can take exponential time on a string that a model wrote; an automaton reads each
character once. And only an automaton can say which characters may still come, which the grammar needs.

    Pattern("^[a-z]+$").matches("oslo")         ->  True       characters: the validator
    Pattern("^[a-z]+$").bytes()                 ->  the same, byte by byte in a JSON string: the grammar

The dialect is the regular part of ECMA-262: no lookaround, no backreferences, no word boundaries. As JSON
Schema says, a pattern may match anywhere in the string unless ^ and $ tie it down. Text is code points, not
UTF-16 units. Construction: Thompson (1968) for the nondeterministic automaton, subsets of its states for
the deterministic one."""

from bisect import bisect_right

from tools.dialect import UnsupportedSchema

LAST = 0x10FFFF
MAX_STATES = 2000
EVERY = ((0, LAST),)
DIGIT, WORD = ((48, 57),), ((48, 57), (65, 90), (95, 95), (97, 122))
SPACE = (
    (9, 13),
    (32, 32),
    (160, 160),
    (0x1680, 0x1680),
    (0x2000, 0x200A),
    (0x2028, 0x2029),
    (0x202F, 0x202F),
    (0x205F, 0x205F),
    (0x3000, 0x3000),
    (0xFEFF, 0xFEFF),
)
CONTROL = {"n": 10, "t": 9, "r": 13, "f": 12, "v": 11, "0": 0}
BEGIN, END = "^", "$"


def invert(ranges):
    found, start = [], 0
    for low, high in sorted(ranges):
        if low > start:
            found.append((start, low - 1))
        start = max(start, high + 1)
    return (*found, *([(start, LAST)] if start <= LAST else []))


CLASSES = {"d": DIGIT, "w": WORD, "s": SPACE, "D": invert(DIGIT), "W": invert(WORD), "S": invert(SPACE)}
DOT = invert(((10, 10), (13, 13), (0x2028, 0x2029)))


class Syntax:
    """A recursive-descent parser: the text of a pattern -> a tree of ("chars", ranges), ("cat", parts),
    ("or", parts), ("repeat", part, low, high or None), ("tie", BEGIN or END)."""

    def __init__(self, text):
        self.text, self.at = text, 0

    def fail(self, what):
        raise UnsupportedSchema(f"pattern {self.text!r}: {what} (character {self.at})")

    def take(self, literal):
        if self.text.startswith(literal, self.at):
            self.at += len(literal)
            return True
        return False

    def next(self):
        if self.at == len(self.text):
            self.fail("it ends too early")
        self.at += 1
        return self.text[self.at - 1]

    def parse(self):
        tree = self.choice()
        if self.at < len(self.text):
            self.fail("a ) without its (")
        return tree

    def choice(self, depth=0):
        if depth > 50:
            self.fail("its groups are too deep")
        parts = [self.sequence(depth)]
        while self.take("|"):
            parts.append(self.sequence(depth))
        return ("or", parts)

    def sequence(self, depth):
        parts = []
        while self.at < len(self.text) and self.text[self.at] not in "|)":
            part = self.atom(depth)
            low, high = self.times()
            if (low, high) != (1, 1):
                if part[0] == "tie":
                    self.fail("^ and $ cannot be repeated")
                part = ("repeat", part, low, high)
            parts.append(part)
        return ("cat", parts)

    def times(self):
        low, high = 1, 1
        if self.take("*"):
            low, high = 0, None
        elif self.take("+"):
            low, high = 1, None
        elif self.take("?"):
            low, high = 0, 1
        elif self.take("{"):
            first, comma, second = self.text[self.at : self.text.find("}", self.at)].partition(",")
            if "}" not in self.text[self.at :] or not first.isdecimal() or second and not second.isdecimal():
                self.fail("a { that is no count: write \\{ for the character")
            self.at = self.text.index("}", self.at) + 1
            low = int(first)
            high = low if not comma else int(second) if second else None
            if high is not None and high < low or low > 1000 or (high or 0) > 1000:
                self.fail("a count that is out of order or above 1000")
        else:
            return 1, 1
        self.take("?")  # lazy or greedy: the same language
        if self.text[self.at : self.at + 1] in tuple("*+?{"):
            self.fail("two counts in a row")
        return low, high

    def atom(self, depth):
        char = self.next()
        if char == "(":
            if not self.take("?:") and self.text[self.at : self.at + 1] == "?":
                self.fail("lookaround and named groups are not regular: write it without")
            tree = self.choice(depth + 1)
            if not self.take(")"):
                self.fail("a ( without its )")
            return tree
        if char in (BEGIN, END):
            return ("tie", char)
        if char in "*+?{":
            self.fail(f"nothing before {char} to repeat")
        if char in "]}":
            self.fail(f"a {char} alone: write \\{char} for the character")
        return (
            "chars",
            DOT
            if char == "."
            else self.set()
            if char == "["
            else self.escape()
            if char == "\\"
            else ((ord(char), ord(char)),),
        )

    def escape(self):
        char = self.next()
        if char in CLASSES:
            return CLASSES[char]
        code = CONTROL.get(char)
        if char in "xu":
            digits = self.text[self.at : self.at + (2 if char == "x" else 4)]
            if len(digits) != (2 if char == "x" else 4) or any(
                c not in "0123456789abcdefABCDEF" for c in digits
            ):
                self.fail(f"hex digits belong behind \\{char}")
            self.at += len(digits)
            code = int(digits, 16)
        elif code is None:
            if char.isalnum():
                self.fail(f"\\{char} is not regular or not known: write it without")
            code = ord(char)
        return ((code, code),)

    def set(self):
        ranges, negated = [], self.take("^")
        while not self.take("]"):
            part = self.member()
            if self.text[self.at : self.at + 1] == "-" and self.text[self.at + 1 : self.at + 2] not in (
                "]",
                "",
            ):
                self.at += 1
                end = self.member()
                if len(part) > 1 or len(end) > 1 or part[0][0] != part[0][1] or end[0][0] < part[0][0]:
                    self.fail("a range that is out of order")
                part = ((part[0][0], end[0][1]),)
            ranges += part
        return invert(ranges) if negated else tuple(ranges)

    def member(self):
        char = self.next()
        if char != "\\":
            return ((ord(char), ord(char)),)
        return ((8, 8),) if self.take("b") else self.escape()


class Pattern:
    """The deterministic automaton of a pattern, over code points.

    rows[state] is a list of (last code point, next state) in order, covering all of them; state 0 is the
    start; `final` holds the states in which the string may end. ~p is everything p does not match, p & q
    what both do."""

    def __init__(self, text=None, rows=None, final=None):
        if text is not None:
            rows, final = determinise(Syntax(text).parse(), text)
        self.rows, self.final = rows, frozenset(final)
        self._table = None

    def matches(self, text):
        state = 0
        for char in text:
            row = self.rows[state]
            state = row[bisect_right(row, (ord(char) - 1, len(self.rows)))][1]
        return state in self.final

    def __invert__(self):
        return Pattern(rows=self.rows, final=set(range(len(self.rows))) - self.final)

    def __and__(self, other):
        def step(pair):
            a, b, i, j = self.rows[pair[0]], other.rows[pair[1]], 0, 0
            while i < len(a) and j < len(b):
                yield min(a[i][0], b[j][0]), (a[i][1], b[j][1])
                i, j = i + (a[i][0] <= b[j][0]), j + (b[j][0] <= a[i][0])

        rows, pairs = explore((0, 0), step, "two patterns together")
        return Pattern(
            rows=rows, final={i for i, (p, q) in enumerate(pairs) if p in self.final and q in other.final}
        )

    def bytes(self):
        """The automaton over the bytes of the canonical JSON string: a list of {byte: (next state,
        characters done)}.

        States up to len(rows) are the ones between characters; the others stand inside a character's bytes.
        """
        if self._table is None:
            self._table = byte_table(self.rows)
        return self._table


def explore(start, step, what):
    """Every state that can be reached, numbered. step(state) yields (last code point, next state)."""
    order, rows, i = {start: 0}, [], 0
    states = [start]
    while i < len(states):
        row = []
        for last, target in step(states[i]):
            if target not in order:
                order[target] = len(states)
                states.append(target)
                if len(states) > MAX_STATES:
                    raise UnsupportedSchema(
                        f"pattern {what!r} needs more than {MAX_STATES} states: make it simpler"
                    )
            if row and row[-1][1] == order[target]:
                row.pop()
            row.append((last, order[target]))
        rows.append(row)
        i += 1
    return rows, states


def determinise(tree, what):
    edges, free = [], []  # edges[n]: [(ranges, target)];  free[n]: [(None or tie, target)]

    def state():
        edges.append([])
        free.append([])
        if len(edges) > 20 * MAX_STATES:
            raise UnsupportedSchema(f"pattern {what!r} is too large: make its counts smaller")
        return len(edges) - 1

    def build(tree, start):
        """Adds the states of a tree behind `start` -> the state behind them."""
        kind, part = tree[0], tree[1]
        if kind == "cat":
            for piece in part:
                start = build(piece, start)
            return start
        if kind == "repeat":
            low, high = tree[2], tree[3]
            for _ in range(low):
                start = build(part, start)
            end = state()
            free[start].append((None, end))
            if high is None:
                free[build(part, end)].append((None, end))
            for _ in range((high or low) - low):
                start = build(part, start)
                free[start].append((None, end))
            return end
        end = state()
        if kind == "chars":
            edges[start].append((part, end))
        elif kind == "tie":
            free[start].append((part, end))
        else:
            for piece in part:
                begin = state()
                free[start].append((None, begin))
                free[build(piece, begin)].append((None, end))
        return end

    before, start = state(), state()  # `before` loops over whatever stands in front of the match
    accept = build(tree, start)
    edges[before].append((EVERY, before))
    free[before].append((None, start))
    edges[accept].append((EVERY, accept))

    def closure(states, *ties):
        found, todo = set(states), list(states)
        while todo:
            for tie, target in free[todo.pop()]:
                if (tie is None or tie in ties) and target not in found:
                    found.add(target)
                    todo.append(target)
        return frozenset(found)

    def step(states):
        moves = [
            (low, high, target) for s in states[0] for ranges, target in edges[s] for low, high in ranges
        ]
        cuts = sorted({low - 1 for low, _, _ in moves if low} | {high for _, high, _ in moves} | {LAST})
        low = 0
        for last in cuts:
            yield last, (closure({t for a, b, t in moves if a <= low and last <= b}), False)
            low = last + 1

    # The start alone may pass ^, so it is a state of its own even where the same set comes back later.
    rows, sets = explore((closure({before}, BEGIN), True), step, what)
    return rows, {
        i
        for i, (states, first) in enumerate(sets)
        if accept in closure(states, END, *([BEGIN] if first else []))
    }


SHORT = {8: b"\\b", 9: b"\\t", 10: b"\\n", 12: b"\\f", 13: b"\\r", 34: b'\\"', 92: b"\\\\"}


def spellings(low, high):
    """The code points low..high as they stand in a canonical JSON string: lists of byte ranges, one per
    byte."""
    while low <= high:
        if low < 32 or low in SHORT:
            yield [(b, b) for b in SHORT.get(low, b"\\u%04x" % low)]
            low += 1
            continue
        if 0xD800 <= low <= 0xDFFF:
            low = 0xE000
            continue
        stop = next(last for last in (33, 91, 127, 0x7FF, 0xD7FF, 0xFFFF, LAST) if low <= last)
        end = min(high, stop)
        # Byte ranges multiply, so every byte but the first that differs must run from 80 to BF.
        for bits in (6, 12, 18):
            block = (1 << bits) - 1
            if low >= 128 and low | block < end | block:
                end = (
                    low | block if low & block else (end | block) - (0 if end & block == block else block + 1)
                )
        first, last = chr(low).encode(), chr(end).encode()
        yield list(zip(first, last))
        low = end + 1


def byte_table(rows):
    table, inner = [{} for _ in rows], {}

    def fill(row, moves):
        """moves: [(byte ranges, next state)]. Ranges that share a first byte go on in one state together."""
        cuts = sorted({r[0][0] for r, _ in moves} | {r[0][1] + 1 for r, _ in moves})
        for low, after in zip(cuts, cuts[1:]):
            here = [(r, t) for r, t in moves if r[0][0] <= low <= r[0][1]]
            if not here:
                continue
            if len(here[0][0]) == 1:
                move = (here[0][1], 1)
            else:
                rest = tuple((tuple(r[1:]), t) for r, t in here)
                if rest not in inner:
                    inner[rest] = len(table)
                    table.append({})
                    fill(table[inner[rest]], rest)
                move = (inner[rest], 0)
            row.update(dict.fromkeys(range(low, after), move))

    for state, row in enumerate(rows):
        low, moves = 0, []
        for last, target in row:
            moves += [(ranges, target) for ranges in spellings(low, last)]
            low = last + 1
        fill(table[state], moves)
    return table
