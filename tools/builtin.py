"""A few tools for any model: a calculator, dates, and transcripts of recordings.

The calculator walks the syntax tree of an expression, because eval would run any code that a model writes.
Even an innocent 9**9**9 would take an hour, so the size of a power is estimated before it is computed.
Numbers are fractions: in floating-point or decimal arithmetic, 7/41*41 is not 7."""

import ast
import math
import operator
import re
from datetime import date, datetime, timedelta, timezone
from decimal import Context, Decimal, InvalidOperation, Overflow, Underflow
from fractions import Fraction
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from tools.registry import tool

MOST_DIGITS, MOST_CHARACTERS = 1000, 1000
LARGEST = 10**MOST_DIGITS
SIZE = {"Emax": MOST_DIGITS, "Emin": -MOST_DIGITS, "traps": [InvalidOperation, Overflow, Underflow]}
RESULT, WORKING = Context(prec=28, **SIZE), Context(prec=50, **SIZE)
FOREIGN = re.compile(r"[^0-9eE.+*/%() -]")
HINTS = {"^": ": write ** for a power", ",": ": write numbers without commas"}
SPELLINGS = str.maketrans("×·÷−", "**/-")


@tool(repeatable=True)
def calculator(expression: Annotated[str, {"maxLength": MOST_CHARACTERS}]) -> int | Decimal:
    """Compute an expression of numbers, + - * / // % ** and parentheses.

    Args:
        expression: such as (3 + 4) * 12 / 5
    """
    # The model reads the docstring; this comment is for programmers. A fraction is exact while its value and
    # its denominator are below 10**1000. Roots, larger fractions and all results computed from them are
    # of the class Rounded. A final result that is not an exact whole number is rounded to 28 digits. Raises
    # ValueError for whatever cannot be computed.
    text = " ".join(expression.translate(SPELLINGS).split())
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"the expression is longer than {MOST_CHARACTERS} characters: compute it in parts")
    if wrong := FOREIGN.search(text):
        raise ValueError(f"{wrong[0]!r} is not allowed in an expression{HINTS.get(wrong[0], '')}")
    try:
        return int_or_decimal(value_of(ast.parse(text, mode="eval").body, text))
    except SyntaxError as error:
        reason = re.split("[.;]", error.msg)[0]  # without advice meant for programmers
        problem = f"{text[:80]!r} is not an expression ({reason}): write it like (3 + 4) * 12 / 5"
        raise ValueError(problem) from None
    except (RecursionError, MemoryError):
        raise ValueError("the expression is nested too deeply: compute it in parts") from None
    except ZeroDivisionError:
        raise ValueError("division by zero") from None
    except (InvalidOperation, Overflow, Underflow):
        problem = f"a number would have more than {MOST_DIGITS} digits or {MOST_DIGITS} zeros after the point"
        raise ValueError(problem) from None


class Rounded(Fraction):
    """A number that was rounded to 50 digits, or was computed from a rounded number."""


def value_of(node, text):
    """A syntax tree, and the text that it was parsed from -> Fraction"""
    match node:
        case ast.BinOp() if type(node.op) in OPERATIONS:
            return apply(OPERATIONS[type(node.op)], value_of(node.left, text), value_of(node.right, text))
        case ast.UnaryOp() if type(node.op) in OPERATIONS:
            return apply(OPERATIONS[type(node.op)], Fraction(0), value_of(node.operand, text))
    part = text[node.col_offset : node.end_col_offset]
    if not isinstance(node, ast.Constant) or node.value is ...:
        hint = ": write * before a parenthesis" if isinstance(node, ast.Call) else ""
        raise ValueError(f"{part[:80]!r} is not allowed in an expression{hint}")
    number = Decimal(part)
    if number and abs(number.adjusted()) > MOST_DIGITS:  # as a fraction, 1e999999999 would fill the memory
        raise Overflow
    return Fraction(number)


def apply(operation, a, b):
    """One operation on fractions. A result with too many digits is rounded, so that no operation is slow."""
    is_rounded = isinstance(a, Rounded) or isinstance(b, Rounded)
    if is_rounded and operation in (operator.floordiv, operator.mod):
        raise ValueError("// and % need exact numbers, not roots or fractions of more than 1,000 digits")
    number = operation(a, b)
    is_rounded = is_rounded or isinstance(number, Rounded)
    if abs(number) >= LARGEST or number.denominator >= LARGEST:
        return Rounded(rounded(number, WORKING))
    return Rounded(number) if is_rounded else Fraction(number)


def rounded(number, context):
    return context.divide(Decimal(number.numerator), Decimal(number.denominator))


def int_or_decimal(number):
    is_whole = number.denominator == 1 and not isinstance(number, Rounded)
    return int(number) if is_whole else rounded(number, RESULT).normalize(RESULT)


def power(a, b):
    """a**b: exact if b is whole and the result is not too long, else Rounded, to 50 digits."""
    if a == 0 and b < 0:
        raise ZeroDivisionError
    size = max(abs(a.numerator), a.denominator)
    if b.denominator == 1 and (size == 1 or abs(b) <= MOST_DIGITS / math.log10(size)):
        return a ** int(b)
    if a < 0 and b.denominator > 1:
        raise ValueError("a negative number cannot be raised to a fractional power")
    # b multiplies the rounding error of a. If b is at most 10**20, 28 of the 50 digits are still correct.
    if abs(b) > 10**20:
        raise ValueError("an exponent may be at most 10**20")
    return Rounded(WORKING.power(rounded(a, WORKING), rounded(b, WORKING)))


OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Pow: power}
OPERATIONS |= {ast.Div: operator.truediv, ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod}
OPERATIONS |= {ast.UAdd: operator.add, ast.USub: operator.sub}  # unary: applied to 0 and a number


@tool(repeatable=True)
def now(zone: str = "UTC") -> str:
    """The date and time now, as ISO 8601 with the day of the week.

    Args:
        zone: a time zone such as Europe/Oslo
    """
    try:
        place = timezone.utc if zone == "UTC" else ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"there is no time zone {zone!r}: write one such as Europe/Oslo") from None
    return datetime.now(place).strftime("%A %Y-%m-%dT%H:%M:%S%z")


@tool(repeatable=True)
def add_days(day: str, days: Annotated[int, {"minimum": -1_000_000, "maximum": 1_000_000}] = 0) -> dict:
    """The date some days later (or earlier), with its day of the week.

    Args:
        day: a date such as 2026-11-24
        days: how many days later; negative for earlier
    """
    try:
        later = date.fromisoformat(day) + timedelta(days)
    except ValueError:
        raise ValueError(f"{day!r} is not a date: write one such as 2026-11-24") from None
    return {"date": later.isoformat(), "weekday": later.strftime("%A")}


MOST_TEXT = 2500  # characters of a transcript in one result
ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@tool(timeout=600)
def transcribe(source: str, start: Annotated[int, {"minimum": 0}] = 0) -> dict:
    """What is said in a recording, and by whom. A long transcript comes in parts.

    Args:
        source: a path or URL, or the id of an existing transcript
        start: how many characters to skip
    """
    from audio import Client  # imported here, because all other tools need only the standard library

    client = Client()
    job = source if ID.fullmatch(source) else client.submit(source, speakers=True).id
    # The client must time out before the tool does (after 600 s), because the client's error names the
    # id of the transcript.
    transcript = client.wait(job, timeout=580)
    text, end = transcript.labelled(), start + MOST_TEXT
    part = {"id": job, "seconds": transcript.seconds, "text": text[start:end]}
    return part if end >= len(text) else {**part, "continue_with": {"source": job, "start": end}}


# transcribe reads files and costs money, so it must be added explicitly: Registry([*TOOLS, transcribe]).
TOOLS = [calculator, now, add_days]
