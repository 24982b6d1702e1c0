"""registry: whatever a tool does, a result comes back, in the order of the calls, in time."""

import dataclasses
import enum
import threading
from decimal import Decimal

import pytest

from tools.grammar import Grammar
from tools.protocol import Call, compact, render_call
from tools.registry import Guard, Registry, Result, tool
from tools.schema import UnsupportedSchema
from tools.validation import validate

PAIR = threading.Barrier(2)


class Size(enum.Enum):
    SMALL = "small"


@dataclasses.dataclass
class Order:
    size: Size
    count: int = 1


@tool
def echo(value: int) -> int:
    """Give it back."""
    return value


@tool(timeout=0.1)
def stuck() -> None:
    threading.Event().wait(30)


@tool
def paired(value: int) -> int:
    """Comes back only when two of it run at the same time."""
    PAIR.wait(20)
    return value


@tool
def breaks(how: str) -> None:
    raise {"value": ValueError("bad value"), "empty": RuntimeError(), "exit": SystemExit(3)}[how]


@tool
def long() -> str:
    return "x" * 10_000


@tool
def no_json() -> float:
    return float("nan")


@tool(name="order.make")
def make(order: Order, note: str = "") -> Order:
    assert isinstance(order, Order) and isinstance(order.size, Size)
    return order


ALL = Registry([echo, stuck, paired, breaks, long, no_json, make])


@pytest.mark.parametrize(
    "call, kind, words, retryable",
    [
        (Call("ehco", {}), "unknown_tool", "use echo, stuck, paired", True),
        (Call("echo", {}), "invalid_arguments", '"value" is missing', True),
        (Call("echo", {"value": "x", "y": 1}), "invalid_arguments", "/value: must be an integer", True),
        (Call("breaks", {"how": "value"}), "ValueError", "bad value", True),
        (Call("breaks", {"how": "empty"}), "RuntimeError", "RuntimeError", False),
        (Call("breaks", {"how": "exit"}), "SystemExit", "3", False),
        (Call("stuck", {}), "timeout", "in time", True),
        (Call("long", {}), "too_long", "10002 characters", True),
        (Call("no_json", {}), "ValueError", "", True),
    ],
)
def test_every_failure_is_a_result(call, kind, words, retryable):
    (result,) = ALL.execute([call])
    assert not result.ok and result.value["type"] == kind and words in result.value["message"]
    assert result.value["retryable"] is retryable and set(result.value) == {"type", "message", "retryable"}


def test_results_come_in_the_order_of_the_calls_and_side_by_side():
    calls = [
        Call("paired", {"value": 1}),
        Call("echo", {"value": 2}),
        Call("stuck", {}),
        Call("paired", {"value": 3}),
    ]
    found = ALL.execute(calls, ids=["a", "a", "c", "d"])
    assert [(r.id, r.name, r.ok) for r in found] == [
        ("a", "paired", True),
        ("a", "echo", True),
        ("c", "stuck", False),
        ("d", "paired", True),
    ]
    assert [r.value for r in found if r.ok] == [1, 2, 3]


def test_arguments_are_mended_and_built_as_the_hints_say():
    (result,) = ALL.execute([Call("order.make", {"note": "n", "order": {"count": "2", "size": "small"}})])
    assert result == Result("call_1", "order.make", True, {"size": "small", "count": 2})


def test_a_tool_stays_the_function_it_was():
    assert echo(3) == 3 and echo.tool.definition["description"] == "Give it back."
    with pytest.raises(UnsupportedSchema):
        tool(lambda x: x)
    with pytest.raises(ValueError, match="another name"):
        Registry([echo, echo])


def test_the_schema_of_a_call_admits_calls_that_run():
    def tree(value: "dict[str, list[int]]"):
        return value

    registry = Registry([echo, make, tree])
    grammar, schema = Grammar(registry.schema()), registry.schema()
    for call in (
        Call("echo", {"value": 1}),
        Call("order.make", {"order": {"size": "small"}}),
        Call("tree", {"value": {}}),  # a grammar writes no key that is not declared
    ):
        value = {"name": call.name, "arguments": call.arguments}
        assert validate(value, schema) == [] and grammar.accepts(compact(value).encode())
        assert ALL.execute([call])[0].ok or call.name == "tree"
    for call in (Call("echo", {"value": "1"}), Call("other", {}), Call("echo", {"value": 1, "b": 2})):
        value = {"name": call.name, "arguments": call.arguments}
        assert validate(value, schema) and not grammar.accepts(compact(value).encode())


def test_decimals_come_back_exact():
    @tool
    def give(text: str) -> Decimal:
        return Decimal(text)

    registry = Registry([give])
    for text, value in (("0.5", 0.5), ("84.0", 84), ("0.1000000000000000055", "0.1000000000000000055")):
        (result,) = registry.execute([Call("give", {"text": text})])
        assert result.value == value and type(result.value) is type(value)


def test_the_guard_counts_the_same_call_whatever_the_order_of_its_keys():
    guard = Guard(2)
    one, same, other = (Call("f", a) for a in ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1, "b": 3}))
    assert [guard.stops(c) for c in (one, same, other, one, other, other)] == [
        False,
        False,
        False,
        True,
        False,
        True,
    ]
    assert render_call(one) != render_call(same)
