"""Functions whose type hints are strings, for test_functions.py."""

from __future__ import annotations

import dataclasses
import typing
from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    from nowhere import Missing


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.5
    tags: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Tree:
    label: str
    children: list[Tree]


class Must(typing.TypedDict):
    must: str


class Options(Must, total=False):
    may: int


def optional(value: Optional[int]): ...
def listed(value: list[Point]): ...
def typed(value: Options): ...
def tree(value: Tree): ...
def missing(value: Missing): ...
