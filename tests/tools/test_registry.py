"""registry: whatever a tool does, each call gets a result, in the order of the calls and in time.

A tool may raise, exit, hang or return something that JSON cannot express. If it has side effects, its calls
must neither overlap nor be repeated."""

import asyncio
import collections
import dataclasses
import datetime
import enum
import functools
import itertools
import threading
import time
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.grammar import Grammar
from tools.protocol import Call, compact
from tools.registry import Registry, Result, Tool, tool
from tools.schema import UnsupportedSchema
from tools.validation import validate

PAIR = threading.Barrier(2)
Spot = collections.namedtuple("Spot", "x size")


class Size(enum.Enum):
    SMALL = "small"


@dataclasses.dataclass
class Order:
    size: Size
    count: int = 1


@tool
def echo(value: int) -> int:
    """Return the value."""
    return value


@tool(timeout=0.1)
def stuck() -> None:
    threading.Event().wait(30)


@tool(repeatable=True)
def paired(value: int) -> int:
    """Returns only when two of these calls run at the same time."""
    PAIR.wait(20)
    return value


@tool
def breaks(how: str) -> None:
    errors = {"value": ValueError("bad value"), "empty": RuntimeError(), "exit": SystemExit(3)}
    errors |= {"lost": ConnectionResetError("cut")}
    raise errors[how]


@tool
def long() -> str:
    return "x" * 10_000


@tool
def nan() -> float:
    return float("nan")


@tool(name="order.make")
def make(order: Order, note: str = "") -> Order:
    assert isinstance(order, Order) and isinstance(order.size, Size)
    return order


ALL = Registry([echo, stuck, paired, breaks, long, nan, make])


@pytest.mark.parametrize(
    "call, kind, words, retryable",
    [
        (Call("ehco", {}), "unknown_tool", "use echo, stuck, paired", True),
        (Call("echo", {}), "invalid_arguments", '"value" is missing', True),
        (Call("echo", {"value": "x", "y": 1}), "invalid_arguments", "/value: must be of type integer", True),
        (Call("breaks", {"how": "value"}), "error", "ValueError: bad value", False),
        (Call("breaks", {"how": "empty"}), "error", "RuntimeError", False),
        (Call("breaks", {"how": "exit"}), "error", "SystemExit: 3", False),
        (Call("breaks", {"how": "lost"}), "error", "ConnectionResetError: cut", False),
        (Call("stuck", {}), "timeout", "still be running, and another call could repeat its effect", False),
        (Call("long", {}), "too_long", "10002 or more characters", False),
        (Call("nan", {}), "error", "JSON", False),
    ],
)
def test_every_failure_is_a_result(call, kind, words, retryable):
    (result,) = ALL.execute([call])
    assert not result.ok and result.value["type"] == kind and words in result.value["message"]
    assert result.value["retryable"] is retryable and set(result.value) == {"type", "message", "retryable"}


def test_results_keep_the_order_of_calls_that_run_in_parallel():
    calls = [
        Call("paired", {"value": 1}, "a"),
        Call("paired", {"value": 3}, "a"),
        Call("echo", {"value": 2}),
        Call("stuck", {}, "d"),
    ]
    results = ALL.execute(calls)
    assert [(r.id, r.name, r.ok) for r in results] == [
        ("a", "paired", True),
        ("a", "paired", True),
        ("call_3", "echo", True),
        ("d", "stuck", False),
    ]
    assert [r.value for r in results if r.ok] == [1, 3, 2]


def test_arguments_are_coerced_and_built_as_the_hints_say():
    (result,) = ALL.execute([Call("order.make", {"note": "n", "order": {"count": "2", "size": "small"}})])
    assert result == Result("call_1", "order.make", True, {"size": "small", "count": 2})


def test_a_tool_can_be_called_like_its_function():
    assert echo(3) == 3 and echo.definition["description"] == "Return the value."
    with pytest.raises(UnsupportedSchema):
        tool(lambda x: x)
    with pytest.raises(ValueError, match="another name"):
        Registry([echo, echo])


def test_the_schema_of_calls_admits_only_valid_calls():
    def tree(value: "dict[str, list[int]]"):
        return value

    registry = Registry([echo, make, tree])
    grammar, schema = Grammar(registry.schema()), registry.schema()
    for call in (
        Call("echo", {"value": 1}),
        Call("order.make", {"order": {"size": "small"}}),
        Call("tree", {"value": {}}),  # empty, because the grammar admits no undeclared keys
    ):
        value = {"name": call.name, "arguments": call.arguments}
        assert validate(value, schema) == [] and grammar.accepts(compact(value).encode())
        assert registry.execute([call])[0].ok
    for call in (Call("echo", {"value": "1"}), Call("other", {}), Call("echo", {"value": 1, "b": 2})):
        value = {"name": call.name, "arguments": call.arguments}
        assert validate(value, schema) and not grammar.accepts(compact(value).encode())


def test_decimals_come_back_with_their_exact_values():
    @tool
    def give(text: str) -> Decimal:
        return Decimal(text)

    registry = Registry([give])
    for text, value in (("0.5", 0.5), ("84.0", 84), ("0.1000000000000000055", "0.1000000000000000055")):
        (result,) = registry.execute([Call("give", {"text": text})])
        assert result.value == value and type(result.value) is type(value)


def outcome(function, **arguments):
    """Calls a function as a tool -> (whether the result is ok, its value)."""
    registry = Registry([function], timeout=20)
    (name,) = registry.tools
    (result,) = registry.execute([Call(name, arguments)])
    return result.ok, result.value


# ---- the function that is registered is the one that runs


def confirm(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return f"confirmed {function(*args, **kwargs)}"

    return wrapper


def test_a_decorator_runs_whether_it_is_above_or_below_the_tool_decorator():
    @confirm
    @tool(name="over", timeout=3, repeatable=True)
    def above(value: int) -> int:
        """About."""
        return value

    @tool
    @confirm
    def below(value: int) -> int:
        return value

    assert outcome(above, value=1) == outcome(below, value=1) == (True, "confirmed 1")
    over = Registry([above]).tools["over"]
    assert (over.description, over.timeout, over.repeatable) == ("About.", 3, True)
    assert tool(over, timeout=9).timeout == 9 and tool(over).timeout == 3


def test_making_a_tool_does_not_change_the_function():
    def plain(value: int) -> int:
        return value

    before = dict(vars(plain))
    first, second = tool(plain), tool(plain, name="other")
    assert vars(plain) == before and (first.name, second.name) == ("plain", "other")
    assert isinstance(first, Tool) and first.function is plain


class Shop:
    """Sells things."""

    def __init__(self, name="shop"):
        self.name = name

    def buy(self, what: str, count: int = 1) -> str:
        """Buy it."""
        return f"{self.name}: {count} {what}"

    async def order(self, what: str) -> str:
        await asyncio.sleep(0)
        return f"{self.name}: {what}"

    __call__ = buy


def test_methods_partials_and_objects_can_be_tools():
    shop = Shop()
    for function, name in ((shop.buy, "buy"), (shop, "Shop"), (functools.partial(shop.buy, count=2), "buy")):
        buy = tool(function)
        assert (buy.name, buy.description) == (name, "Buy it.")
        count = 2 if isinstance(function, functools.partial) else 1
        assert outcome(buy, what="tea") == (True, f"shop: {count} tea")
    assert outcome(functools.partial(shop.order, what="tea")) == (True, "shop: tea")


def test_an_unbound_method_is_refused_with_advice_to_bind_it():
    with pytest.raises(UnsupportedSchema, match="a bound method, as in tool"):

        class Wrong:
            @tool
            def buy(self, what: str): ...


# ---- async tools, generators, and what a tool may return


def test_async_tools_run_to_completion_or_time_out():
    @tool
    async def plus(value: int) -> int:
        await asyncio.sleep(0)
        return value + 1

    @tool(timeout=0.05)
    async def slow() -> None:
        await asyncio.sleep(20)

    @tool
    async def fails() -> None:
        raise ValueError("no")

    assert outcome(plus, value=1) == (True, 2) and outcome(fails)[1]["message"] == "ValueError: no"
    start = time.monotonic()
    assert outcome(slow)[1]["type"] == "timeout" and time.monotonic() - start < 5
    assert outcome(Shop().order, what="tea") == (True, "shop: tea")


def test_generators_become_lists_and_endless_ones_are_too_long():
    def generator():
        yield from range(3)

    async def async_generator():
        for i in range(3):
            yield i

    async def coroutine():
        return async_generator()

    def endless():
        return {"all": itertools.count()}

    async def endless_async():
        while True:
            yield 0

    for function in (generator, async_generator, coroutine):
        assert outcome(function) == (True, [0, 1, 2])
    for function in (endless, endless_async):
        ok, value = outcome(function)
        assert not ok and value["type"] == "too_long"


@pytest.mark.parametrize(
    "value, expected",
    [
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
        ({"a": np.float32(0.5)}, {"a": 0.5}),
        (range(2), [0, 1]),
        ({1: 2}.values(), [2]),
        ({2: Size.SMALL}, {"2": "small"}),
        (itertools.islice(itertools.count(), 2), [0, 1]),
        (datetime.date(2026, 11, 28), "2026-11-28"),
        ("\udc80", "?"),
        ({datetime.date(2026, 11, 28): [{Size.SMALL: 1}]}, {"2026-11-28": [{"small": 1}]}),
        ({np.int64(3): 1, Decimal("0.5"): 2, (1, "a"): 3}, {"3": 1, "0.5": 2, '[1,"a"]': 3}),
        ({True: 1, None: 2, 2.5: 3}, {"true": 1, "null": 2, "2.5": 3}),
        ([Spot(1, Size.SMALL)], [{"x": 1, "size": "small"}]),
    ],
    ids=repr,
)
def test_values_of_types_that_json_lacks_are_converted(value, expected):
    assert outcome(lambda: value) == (True, expected)


@pytest.mark.parametrize(
    "value, words",
    [
        (b"abc", "base64"),
        ({1: "a", "1": "b"}, "the same key in JSON: 1, 1"),
        ({datetime.date(2026, 11, 28): 1, "2026-11-28": 2}, "the same key in JSON"),
        ({"\udc80": 1, "?": 2}, "The key '?' appears twice"),
        ({b"a": 1}, "base64"),
        (object(), "not a value that JSON can express"),
        ([Shop()], "not a value that JSON can express"),
        (len, "not a value that JSON can express"),
    ],
    ids=repr,
)
def test_a_value_that_json_cannot_express_is_an_error(value, words):
    ok, error = outcome(lambda: value)
    assert not ok and words in error["message"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-99, 99) | st.text("ab", max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_json_values_come_back_unchanged(value):
    assert outcome(lambda: value) == (True, value)


def test_an_exception_whose_str_fails_is_an_error_and_not_a_timeout():
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError

    def fails():
        raise Mute

    failure = outcome(fails)[1]
    assert failure["type"] == "error" and "Mute" in failure["message"] and failure["retryable"] is False


def test_an_error_message_may_contain_a_file_name_that_is_not_utf8():
    def fails():
        raise ValueError("caf\udce9")

    assert outcome(fails)[1]["message"] == "ValueError: caf?"


@pytest.mark.parametrize("error", [ValueError(), OSError(), KeyError()])
def test_a_failed_call_is_retryable_only_if_its_tool_is_repeatable(error):
    def plain_tool():
        raise error

    def generator():
        yield 1
        raise error

    async def async_generator():
        yield 1
        raise error

    for function in (plain_tool, generator, async_generator):
        for repeatable in (False, True):
            ok, failure = outcome(tool(function, repeatable=repeatable))
            assert not ok and failure["retryable"] is repeatable


def test_a_call_is_retryable_if_a_class_refuses_its_argument_because_the_tool_has_not_started():
    @dataclasses.dataclass
    class Amount:
        euros: int

        def __post_init__(self):
            if self.euros < 0:
                raise ValueError("an amount is at least 0")

    def pay(amount: Amount):
        raise AssertionError("the tool has started")

    (result,) = Registry([pay]).execute([Call("pay", {"amount": {"euros": -1}})])
    assert not result.ok and result.value["retryable"] and "at least 0" in result.value["message"]


def test_a_repeatable_tool_can_be_made_not_repeatable():
    once = tool(tool(make, repeatable=True), repeatable=False)
    assert not once.repeatable and tool(tool(make, repeatable=True), name="x").repeatable


def test_tables_keep_the_names_of_their_columns():
    class Table:
        def __iter__(self):
            return iter(["mm"])

        def __len__(self):
            return 1

        def __contains__(self, name):
            return name == "mm"

        def to_dict(self):
            return {"mm": {0: 3, 1: 5}}

    table = Table()
    assert outcome(lambda: table)[1] == {"mm": {"0": 3, "1": 5}}


# ---- tools with side effects


def test_calls_run_one_after_another_unless_their_tools_are_repeatable():
    log, both = [], threading.Barrier(2)

    @tool
    def act(value: int) -> None:
        log.append(f"begin {value}")
        time.sleep(0.01)
        log.append(f"end {value}")

    @tool(repeatable=True)
    def look(value: int) -> None:
        both.wait(20)
        log.append("look")

    calls = [Call("act", {"value": 1}), Call("act", {"value": 2})]
    calls += [Call("look", {"value": 1}), Call("look", {"value": 2}), Call("act", {"value": 3})]
    results = Registry([act, look]).execute(calls)
    assert all(result.ok for result in results)
    assert log == ["begin 1", "end 1", "begin 2", "end 2", "look", "look", "begin 3", "end 3"]


@pytest.mark.parametrize("repeatable", [False, True])
def test_only_a_repeatable_tool_may_be_retried_after_a_timeout_or_a_lost_connection(repeatable):
    @tool(timeout=0.02, repeatable=repeatable)
    def pay() -> None:
        threading.Event().wait(5)

    @tool(repeatable=repeatable)
    def ask() -> None:
        raise TimeoutError("no answer")

    @tool(repeatable=repeatable)
    def fetch() -> None:
        raise ConnectionResetError("lost")

    for function, words in ((pay, "may still be running"), (ask, "no answer"), (fetch, "lost")):
        value = outcome(function)[1]
        assert value["retryable"] is repeatable and words in value["message"]


def test_allow_is_called_before_each_call_with_the_arguments_that_the_tool_will_get():
    seen_by_allow, seen_by_tool = [], []

    def act(value: int) -> None:
        seen_by_tool.append(value)

    def allow(call):
        seen_by_allow.append(call.arguments)
        return call.arguments["value"] == 1 or ("too much" if call.arguments["value"] == 2 else False)

    calls = [Call("act", {"value": value}) for value in ("1", 2, 3, "x")]
    results = Registry([act]).execute(calls, allow)
    assert seen_by_tool == [1] and seen_by_allow == [{"value": 1}, {"value": 2}, {"value": 3}]
    assert [result.ok for result in results] == [True, False, False, False]
    assert results[1].value == {"type": "refused", "message": "too much", "retryable": False}
    assert results[2].value["type"] == "refused" and results[2].value["message"]


def test_hints_are_read_once_for_each_tool(monkeypatch):
    registry = Registry([make])
    monkeypatch.setattr("typing.get_type_hints", None)
    monkeypatch.setattr("tools.functions.check", None)
    monkeypatch.setattr("tools.validation.check", None)
    assert registry.execute([Call("order.make", {"order": {"size": "small"}})])[0].ok


def test_the_schema_of_a_tool_made_by_hand_is_checked():
    with pytest.raises(UnsupportedSchema, match="#/if"):
        Registry([Tool("f", "", {"type": "object", "if": {}}, make)])
