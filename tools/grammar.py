"""Which bytes may come next, so that the text becomes JSON that is valid under a schema.

    grammar = Grammar({"type": "integer", "minimum": 10})
    state = grammar.start                      a set of threads: every way to read the text so far
    state = grammar.step(state, ord("1"))      another state; an empty one where the byte may not stand
    grammar.distance(state)                    1: bytes of the shortest way to an end

The language is canonical: what json.dumps(value, ensure_ascii=False, separators=(",", ":")) writes, declared
properties first and in their order. One spelling per value keeps the automaton small and leaves a model no
endless whitespace to write.

A thread is (head, frames): where it stands inside a scalar, a key or between two items, and a linked list of
the containers around it. Threads are immutable, so states can be compared and remembered."""

from itertools import islice
from math import inf
from typing import NamedTuple

from tools.alternatives import ANY, Array, Object, Text, Words, key_bytes, short_names, string_costs
from tools.dialect import UnsupportedSchema
from tools.json_reader import MAX_DEPTH, parse
from tools.numbers import Bounds, tail
from tools.shapes import Shapes

QUOTE, COMMA, MOST_MEMORY = ord('"'), ord(","), 1_000_000


class Literal(NamedTuple):
    """Bytes that must come now, and the head behind them (None: the value is complete)."""

    rest: bytes
    then: object = None


class Number(NamedTuple):
    text: str
    bounds: Bounds


class String(NamedTuple):
    """Behind the opening quote: the state of the pattern's byte table, and the characters done."""

    shape: Text
    state: int = 0
    count: int = 0


class Key(NamedTuple):
    """Inside a key that is not declared: its bytes so far, and the state of the byte table of any string."""

    frame: object
    text: bytes = b""
    state: int = 0


class Value(NamedTuple):
    """A value begins here, with room for so many containers inside one another; `frame` is the container
    around it, as it will be behind that value (None: none)."""

    node: frozenset
    frame: object
    room: int


class InArray(NamedTuple):
    """Behind `done` items."""

    shape: Array
    done: int
    room: int


class InObject(NamedTuple):
    """Behind `done` properties: declared names from `at` on may come, `used` are the others there."""

    shape: Object
    at: int
    done: int
    used: frozenset
    room: int


END = ("end", None)  # the thread behind the whole value


class Grammar:
    """The automaton of a schema. Raises UnsupportedSchema at once for what it cannot enforce, and for a
    schema that no value fits. `before` and `after` are bytes that must surround the value."""

    def __init__(self, schema, before=b"", after=b""):
        self.shapes = Shapes(schema)
        if self.shapes.cost(self.shapes.root, MAX_DEPTH) == inf:
            raise UnsupportedSchema("no value is valid under this schema")
        self._steps, self._distances, self._special = {}, {}, {}
        bottom = (Literal(after), None) if after else None
        self.start = self._closed([(Literal(before, Value(self.shapes.root, None, MAX_DEPTH)), bottom)])

    def accepts(self, data):
        """Whether bytes are one valid value in canonical form."""
        state = self.start
        for byte in data:
            state = self.step(state, byte)
        return self.complete(state)

    def step(self, state, byte):
        """The state behind one more byte; the empty one where it may not come."""
        key = state, byte
        after = self._steps.get(key)
        if after is None:
            after = self._closed(after for thread in state for after in self._move(thread, byte))
            if not any(isinstance(head, Number) for head, _ in after):  # of which there is no end
                if len(self._steps) > MOST_MEMORY:
                    self._steps.clear()
                self._steps[key] = after
        return after

    def complete(self, state):
        return any(self._ended(thread) for thread in state)

    def distance(self, state):
        """Bytes from here to the nearest end; infinite in the empty state."""
        return min(map(self.far, state), default=inf)

    def behind(self, frames):
        """The state behind a value that is complete inside these frames."""
        return self._closed([self._behind(frames)])

    def _closed(self, threads):
        """Threads with every Value replaced by what may begin there, those without a way to an end left
        out."""
        found, todo = set(), list(threads)
        while todo:
            head, frames = todo.pop()
            if isinstance(head, Literal) and not head.rest:
                todo.append((head.then, frames) if head.then else self._behind(frames))
            elif isinstance(head, Value):
                frames = (head.frame, frames) if head.frame else frames
                todo += [(self._begin(shape, head.room - 1), frames) for shape in self._alternatives(head)]
            elif (head, frames) not in found and self.far((head, frames)) < inf:
                found.add((head, frames))
        return frozenset(found)

    def _alternatives(self, value):
        for shape in self.shapes.expand(value.node):
            if self.shapes.price(shape, value.room) == inf:
                continue
            if isinstance(shape, Words):
                yield from (Words(frozenset([value])) for value in shape.values)
            elif isinstance(shape, Text) and shape.words is not None:
                yield from shape.words
            else:
                yield shape

    def _begin(self, shape, room):
        if isinstance(shape, Words):
            (value,) = shape.values
            return Literal({None: b"null", True: b"true", False: b"false"}[value])
        if isinstance(shape, str):
            return Literal(key_bytes(shape))
        if isinstance(shape, Bounds):
            return Number("", shape)
        if isinstance(shape, Text):
            return Literal(b'"', String(shape))
        if isinstance(shape, Array):
            return Literal(b"[", InArray(shape, 0, room))
        return Literal(b"{", InObject(shape, 0, 0, frozenset(), room))

    def _behind(self, frames):
        """The thread behind a value that is complete."""
        return frames if frames else END

    def _ended(self, thread):
        head, frames = thread
        return thread == END or (
            not frames and isinstance(head, Number) and tail(head.text, head.bounds) == 0
        )

    def _move(self, thread, byte):
        """One thread and one byte -> threads."""
        head, frames = thread
        if isinstance(head, Literal):
            return [(Literal(head.rest[1:], head.then), frames)] if head.rest[0] == byte else []
        if isinstance(head, Number):
            longer = (
                (Number(head.text + chr(byte), head.bounds), frames) if byte in b"-+.eE0123456789" else None
            )
            if longer or tail(head.text, head.bounds) != 0:
                return [longer] if longer else []
            return [after for behind in self.behind(frames) for after in self._move(behind, byte)]
        if isinstance(head, String):
            if byte == QUOTE and string_costs(head.shape).get((head.state, head.count)) == 1:
                return [self._behind(frames)]
            move = (head.shape.pattern or ANY).bytes()[head.state].get(byte)
            most = head.shape.low if head.shape.high == inf else inf
            return [(String(head.shape, move[0], min(head.count + move[1], most)), frames)] if move else []
        if isinstance(head, Key):
            return self._move_key(head, frames, byte)
        if isinstance(head, InArray):
            return self._move_array(head, frames, byte)
        return self._move_object(head, frames, byte) if isinstance(head, InObject) else []

    def _move_array(self, head, frames, byte):
        shape, done, room = head
        if byte == ord("]"):
            return [self._behind(frames)] if done >= shape.low else []
        if done and byte != COMMA or done >= shape.high:
            return []
        most = max(shape.low, len(shape.prefix), 1) if shape.high == inf else inf
        item = (Value(self.shapes.item(shape, done), InArray(shape, min(done + 1, most), room), room), frames)
        if done:
            return [item]
        return [after for thread in self._closed([item]) for after in self._move(thread, byte)]

    def _move_object(self, head, frames, byte):
        shape, at, done, used, room = head
        if byte == ord("}"):
            missing = any(required for _, _, required in shape.names[at:]) or shape.needed - used
            return [self._behind(frames)] if not missing and done >= shape.low else []
        if done and byte != COMMA or done >= shape.high:
            return []
        most = max(shape.low, 1) if shape.high == inf else inf
        keys = []
        for i, (name, node, required) in enumerate(shape.names[at:], at):
            behind = InObject(shape, i + 1, min(done + 1, most), used, room)
            keys.append((Literal(key_bytes(name) + b":", Value(node, behind, room)), frames))
            if required:
                break
        else:
            behind = InObject(shape, len(shape.names), min(done + 1, most), used, room)
            keys.append((Literal(b'"', Key(behind)), frames))
        if done:
            return keys
        return [after for key in keys for after in self._move(key, byte)]

    def _move_key(self, head, frames, byte):
        frame = head.frame
        if byte != QUOTE or head.state:  # a quote behind a backslash is a character
            move = ANY.bytes()[head.state].get(byte)
            return [(Key(frame, head.text + bytes([byte]), move[0]), frames)] if move else []
        if not self._free(frame, head.text):
            return []
        behind = frame._replace(used=frame.used | {name_of(head.text)})
        return [(Literal(b":", Value(frame.shape.rest, behind, frame.room)), frames)]

    def _free(self, frame, text):
        name = name_of(text)
        return name not in frame.used and all(name != declared for declared, _, _ in frame.shape.names)

    def special(self, frame):
        """-> (the names that matter to a key there, as bytes: declared, used, needed, or wanted for the
        shortest end; a name that begins none of them; bytes from behind that or any other such name to the
        end of the container)."""
        if frame not in self._special:
            taken = frame.used | frame.shape.needed | {name for name, _, _ in frame.shape.names}
            wanted = islice(short_names(taken), max(0, frame.shape.low - frame.done + 1))
            names = [key_bytes(name)[1:-1] for name in taken.union(wanted)]
            plain = "?" * (1 + max(map(len, names), default=0))
            self._special[frame] = names, plain.encode(), self._behind_key(frame, plain)
        return self._special[frame]

    def _behind_key(self, frame, name):
        behind = frame._replace(used=frame.used | {name})
        return 1 + self.shapes.cost(frame.shape.rest, frame.room) + self._head_far(behind)

    def far(self, thread):
        """Bytes from a thread to its end, memory first."""
        found = self._distances.get(thread)
        if found is None:
            head, frames = thread
            inner = 0 if thread == END else self._head_far(head)
            found = inner + (self.far(frames) if frames and inner < inf else 0)
            if not isinstance(head, Number):
                if len(self._distances) > MOST_MEMORY:
                    self._distances.clear()
                self._distances[thread] = found
        return found

    def _head_far(self, head):
        if isinstance(head, Literal):
            return len(head.rest) + (self._head_far(head.then) if head.then else 0)
        if isinstance(head, Value):
            return self.shapes.cost(head.node, head.room) + (self._head_far(head.frame) if head.frame else 0)
        if isinstance(head, Number):
            more = tail(head.text, head.bounds)
            return inf if more is None else more
        if isinstance(head, String):
            return string_costs(head.shape).get((head.state, head.count), inf)
        if isinstance(head, InArray):
            return self.shapes.rest_of_array(*head)
        if isinstance(head, InObject):
            return self.shapes.rest_of_object(*head)
        return self._key_far(head)

    def _key_far(self, head):
        """A key can still become a name that is needed, or any that is free."""
        frame, (names, _, behind) = head.frame, self.special(head.frame)
        if not any(name.startswith(head.text) for name in names):
            return string_costs(Text())[head.state, 0] + behind
        written, ways = b'"' + head.text, []
        for name in frame.shape.needed - frame.used:
            if key_bytes(name).startswith(written):
                ways.append((len(key_bytes(name)) - len(written), name))
        spelled = next(
            text
            for length in range(8)
            for end in endings(head.state, length)
            if self._free(frame, text := head.text + end)
        )
        ways.append((len(spelled) - len(head.text) + 1, name_of(spelled)))
        return min(more + self._behind_key(frame, name) for more, name in ways)


def endings(state, length):
    """Byte strings of a length that lead from inside a key to between two characters."""
    if not length:
        yield from [b""] * (state == 0)
        return
    for byte, (after, _) in ANY.bytes()[state].items():
        if string_costs(Text())[after, 0] <= length:
            yield from (bytes([byte]) + rest for rest in endings(after, length - 1))


def name_of(text):
    """The name that canonical bytes inside quotes spell."""
    return parse(b'"' + text + b'"')
