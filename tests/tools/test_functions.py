"""functions: type hints and docstrings become a schema, and valid JSON becomes the function's arguments.

A hint that a schema cannot express must be refused, because a schema that says less than the hint would admit
calls that fail."""

import dataclasses
import enum
import functools
import typing
from typing import Annotated, Any, Literal, Optional, TypedDict, Union

import late_hints
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.functions import read_function, schema_of
from tools.schema import UnsupportedSchema
from tools.validation import validate


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.5
    tags: list[str] = dataclasses.field(default_factory=list)


class Options(TypedDict, total=False):
    deep: bool


NOT_JSON = object()


HINTS = [
    # hint, its schema, a JSON value, the argument that the function gets
    (str, {"type": "string"}, "a", "a"),
    (int, {"type": "integer"}, 1, 1),
    (float, {"type": "number"}, 0.5, 0.5),
    (bool, {"type": "boolean"}, True, True),
    (None, {"type": "null"}, None, None),
    (Any, {}, [1], [1]),
    (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}, "b", "b"),
    (Literal[1, None, Level.LOW], {"enum": [1, None, 1]}, 1, 1),
    (Colour, {"type": "string", "enum": ["red", "blue"]}, "red", Colour.RED),
    (Level, {"enum": [1]}, 1, Level.LOW),
    (Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}, None, None),
    (Union[str, int], {"anyOf": [{"type": "string"}, {"type": "integer"}]}, 3, 3),
    (
        list[int] | None,
        {"anyOf": [{"type": "array", "items": {"type": "integer"}}, {"type": "null"}]},
        [1],
        [1],
    ),
    (list, {"type": "array"}, [1, "a"], [1, "a"]),
    (
        list[Colour],
        {"type": "array", "items": {"type": "string", "enum": ["red", "blue"]}},
        ["red"],
        [Colour.RED],
    ),
    (
        tuple[int, str],
        {
            "type": "array",
            "prefixItems": [{"type": "integer"}, {"type": "string"}],
            "minItems": 2,
            "maxItems": 2,
        },
        [1, "a"],
        (1, "a"),
    ),
    (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}, [1, 2, 3], (1, 2, 3)),
    (tuple[()], {"type": "array", "minItems": 0, "maxItems": 0}, [], ()),
    (tuple, {"type": "array"}, [1], (1,)),
    (dict, {"type": "object"}, {"a": 1}, {"a": 1}),
    (dict[str, Level], {"type": "object", "additionalProperties": {"enum": [1]}}, {"a": 1}, {"a": Level.LOW}),
    (
        Point,
        {
            "type": "object",
            "properties": {
                "x": {"type": "number"},
                "y": {"type": "number", "default": 0.5},
                "tags": {"type": "array", "items": {"type": "string"}},
            },
            "required": ["x"],
            "additionalProperties": False,
        },
        {"x": 1},
        Point(1),
    ),
    (
        Options,
        {"type": "object", "properties": {"deep": {"type": "boolean"}}, "additionalProperties": False},
        {"deep": True},
        {"deep": True},
    ),
    (Colour | Point, None, {"x": 2, "y": 3}, Point(2, 3)),
    (
        Annotated[int, {"minimum": 1}, "how many"],
        {"type": "integer", "minimum": 1, "description": "how many"},
        1,
        1,
    ),
]


def arguments_of(function, values):
    schema, build = read_function(function)
    return build(values)


def function_with(hint, *default):
    def function(value):
        return value

    function.__annotations__ = {"value": hint}
    function.__defaults__ = default or None
    return function


@pytest.mark.parametrize("hint, expected_schema, json, expected", HINTS, ids=lambda v: str(v)[:40])
def test_a_hint_becomes_a_schema_and_json_becomes_the_argument(hint, expected_schema, json, expected):
    function = function_with(hint)
    schema = schema_of(function)
    assert expected_schema is None or schema["properties"]["value"] == expected_schema
    assert schema["required"] == ["value"] and schema["additionalProperties"] is False
    assert validate({"value": json}, schema) == []
    argument = arguments_of(function, {"value": json})["value"]
    assert argument == expected and type(argument) is type(expected)


REFUSED = [
    bytes,
    object,
    complex,
    type,
    set[int],
    dict[int, str],
    Literal[b"x"],
    list[bytes],
    Optional[bytes],
    "Missing",
    Annotated[int, object()],
    Annotated[int, {"contains": 1}],
    Annotated[int, {"minimum": "a"}],
    tuple[bytes, ...],
]


@pytest.mark.parametrize("hint", REFUSED, ids=str)
def test_a_hint_that_a_schema_cannot_express_is_refused(hint):
    with pytest.raises(UnsupportedSchema, match="value|Missing"):
        schema_of(function_with(hint))


def test_a_signature_that_a_schema_cannot_describe_is_refused():
    def no_hint(a): ...
    def positional(a: int, /): ...
    def stars(*a: int): ...
    def keywords(**more: bytes): ...

    for function, word in (
        (no_hint, "type hint"),
        (positional, "by name"),
        (stars, "by name"),
        (keywords, "'more' of keywords: arguments are passed by name"),
        (3, "signature"),
    ):
        with pytest.raises(UnsupportedSchema, match=word):
            schema_of(function)


def test_a_parameter_with_a_default_is_optional_and_its_default_becomes_json():
    def function(a: int, b: Colour = Colour.BLUE, *, c: tuple[int, ...] = (1, 2), d: Any = NOT_JSON): ...

    schema = schema_of(function)
    assert schema["required"] == ["a"]
    assert [schema["properties"][name].get("default") for name in "abcd"] == [None, "blue", [1, 2], None]
    assert arguments_of(function, {"a": 1, "b": "red"}) == {"a": 1, "b": Colour.RED}
    colours = schema_of(function_with(list[Colour], [Colour.RED]))["properties"]["value"]
    assert colours["default"] == ["red"]


def test_a_default_that_its_hint_does_not_allow_is_left_out_of_the_schema():
    for hint, default in ((int, "auto"), (Annotated[int, {"minimum": 1}], 0), (list[str], "ab"), (bool, 1)):
        assert "default" not in schema_of(function_with(hint, default))["properties"]["value"]


def test_malformed_keywords_are_refused_whatever_the_default():
    for keywords in (
        {"minimum": "a"},
        {"pattern": 3},
        {"enum": 1},
        {"anyOf": [3]},
        {"pattern": "("},
        {"$ref": "#/x"},
        {"$ref": 1},
        {"required": 1},
        {"properties": 3},
    ):
        for default in (1, "a", {"a": 1}):
            with pytest.raises(UnsupportedSchema, match="value"):
                schema_of(function_with(Annotated[Any, keywords], default))


def test_true_and_one_are_different_choices():
    for hint in (Literal[1, True], Literal[False, 0]):
        for value in typing.get_args(hint):
            assert arguments_of(function_with(hint), {"value": value})["value"] is value


def test_methods_partials_and_decorated_functions_have_a_schema():
    class Shop:
        def buy(self, what: str, count: int = 1): ...

        def __call__(self, what: str): ...

    @functools.wraps(late_hints.optional)
    def wrapper(*args, **kwargs): ...

    assert list(schema_of(Shop().buy)["properties"]) == ["what", "count"]
    assert list(schema_of(Shop())["properties"]) == ["what"]
    assert schema_of(wrapper) == schema_of(late_hints.optional)
    bound = functools.partial(Shop().buy, count=3)
    assert list(schema_of(bound)["properties"]) == ["what"]


def test_a_callable_object_is_described_by_the_docstring_of_its_class():
    class Stock:
        """How many are in stock.

        Args:
            sku: the product number
        """

        def __call__(self, sku: str) -> int: ...

    def undocumented(a: int): ...

    assert schema_of(Stock())["description"] == "How many are in stock."
    assert schema_of(Stock())["properties"]["sku"]["description"] == "the product number"
    assert "description" not in schema_of(functools.partial(undocumented))


@pytest.mark.skipif(not hasattr(typing, "NotRequired"), reason="needs Python 3.11")
def test_a_key_of_a_typed_dict_may_be_marked_as_required_or_as_not_required():
    class Address(TypedDict):
        street: str
        floor: typing.NotRequired[int]

    class PartialAddress(TypedDict, total=False):
        street: typing.Required[str]
        floor: int

    for hint in (Address, PartialAddress):
        schema = schema_of(function_with(hint))["properties"]["value"]
        assert schema["required"] == ["street"]
        assert schema["properties"] == {"street": {"type": "string"}, "floor": {"type": "integer"}}


def test_annotations_that_are_strings_give_the_same_schema_as_types():
    for function, hint in ((late_hints.optional, Optional[int]), (late_hints.listed, list[Point])):
        schema = schema_of(function)["properties"]["value"]
        assert schema == schema_of(function_with(hint))["properties"]["value"]
    options = schema_of(late_hints.typed)["properties"]["value"]
    assert options["required"] == ["must"] and list(options["properties"]) == ["must", "may"]
    with pytest.raises(UnsupportedSchema, match="Missing"):
        schema_of(late_hints.missing)


def test_a_class_that_contains_itself_is_refused():
    with pytest.raises(UnsupportedSchema, match="tree: a class that contains itself"):
        schema_of(late_hints.tree)


WORDS = st.lists(st.sampled_from("where to sleep how many nights, if any (or none)".split()), min_size=1)
TEXT = WORDS.map(" ".join)


@given(TEXT, TEXT, TEXT, TEXT, st.booleans())
def test_three_styles_of_docstring_give_the_same_descriptions(about, first, more, second, returns):
    def function(city: str, nights: int): ...

    google = (
        f"{about}.\n\n    Args:\n        city (str): {first}\n            {more}\n        nights: {second}\n"
    )
    numpy = (
        f"{about}.\n\n    Parameters\n    ----------\n    city : str\n        {first}\n        {more}\n"
        f"    nights : int, optional\n        {second}\n"
    )
    sphinx = (
        f"{about}.\n\n    :param str city: {first}\n        {more}\n    :param nights: {second}\n"
        "    :type nights: int\n"
    )
    if returns:
        google += "\n    Returns:\n        city: not a parameter\n"
        numpy += "\n    Returns\n    -------\n    nights\n        not a parameter\n"
        sphinx += "    :returns: not a parameter\n        at all\n"
    for text in (google, numpy, sphinx):
        function.__doc__ = text
        schema = schema_of(function)
        assert schema["description"] == about + "."
        assert schema["properties"]["city"]["description"] == f"{first} {more}"
        assert schema["properties"]["nights"]["description"] == second


def test_colons_outside_a_section_of_parameters_describe_no_parameter():
    def function(a: int):
        """Look: a thing.

        It says: nothing.
            a: not a parameter
        """

    assert "description" not in schema_of(function)["properties"]["a"]
    assert schema_of(function)["description"].startswith("Look: a thing.\n\nIt says: nothing.")


def test_parameters_in_a_bulleted_list_or_with_a_type_on_two_lines_are_described():
    def function(city: str, nights: int, note: str): ...

    texts = [
        """Book.

        Parameters
        ----------
        city : {"Oslo", "Bergen",
                "Bern"}
            where to sleep
        nights : int or
            None
            how many
        note : str
            for the host
        """,
        """Book.

        Args:
            city (Literal["Oslo", "Bergen"]): where to sleep
            nights: how many
            note: for the host
        """,
        """Book.

        Args:
            - city: where
              to sleep
            - nights (int): how many
            * `note`: for the host

        Raises:
            note: never
        """,
        """Book.

        Args:
        - city: where to sleep
        - nights: how many
        - note: for the host
        """,
    ]
    for text in texts:
        function.__doc__ = text
        schema = schema_of(function)
        described = {name: part.get("description") for name, part in schema["properties"].items()}
        assert described == {"city": "where to sleep", "nights": "how many", "note": "for the host"}
        assert schema["description"] == "Book."


@dataclasses.dataclass
class Node:
    label: str
    left: Point = None
    sizes: list[int] = None


def test_a_parameter_whose_default_is_none_may_be_null():
    def function(
        x: list[int] = None, y: Annotated[int, {"minimum": 1}] = None, z: Any = None, n: Node = None
    ):
        return x, y, z, n

    schema = schema_of(function)
    assert schema["properties"]["x"]["default"] is None and schema["properties"]["z"] == {"default": None}
    empty = {"x": None, "y": None, "z": None, "n": {"label": "a", "left": None, "sizes": None}}
    full = {"x": [1], "y": 2, "n": {"label": "a", "left": {"x": 1}, "sizes": [3]}}
    for value in (empty, full):
        assert validate(value, schema) == []
        assert function(**arguments_of(function, value))
    assert arguments_of(function, full)["n"] == Node("a", Point(1), [3])
    assert validate({"y": 0}, schema) != []


def test_a_mutable_default_is_not_shared_with_the_schema():
    shared = {"a": [1]}

    def function(x: dict = shared): ...

    schema = schema_of(function)
    shared["a"].append(2)
    assert schema["properties"]["x"]["default"] == {"a": [1]}
