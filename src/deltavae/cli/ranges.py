"""Types of options: numbers with a range, told in words where a value is out of it."""

import math
from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import Any


class OutOfRangeError(ArgumentTypeError, ValueError):
    """A value is not as an option requires.

    The first base speaks to argparse, for flags, the other to jsonargparse, for files.
    """


def whole(least: int, most: int | None = None, *, optional: bool = False) -> Callable[[Any], Any]:
    """Return a reader of whole numbers in least..most.

    Args:
        least: The least number permitted.
        most: The greatest; None: there is no such.
        optional: Whether null is permitted too.

    Returns:
        A function from text, or a YAML value, to the number; its OutOfRangeError says what is
        permitted.
    """
    told = f"at least {least}" if most is None else f"in {least}..{most}"
    return _reader(
        int,
        "a whole number",
        told,
        lambda v: least <= v <= (v if most is None else most),
        optional,
    )


def positive(*, optional: bool = False) -> Callable[[Any], Any]:
    """Return a reader of finite numbers above 0; see `whole`."""
    return _reader(float, "a number", "above 0", lambda v: 0 < v < math.inf, optional)


def not_negative(below: float = math.inf) -> Callable[[Any], Any]:
    """Return a reader of numbers in [0, below); see `whole`."""
    told = "at least 0" if below == math.inf else f"in [0, {below:g})"
    return _reader(float, "a number", told, lambda v: 0 <= v < below, False)


def _reader(
    kind: type[int] | type[float],
    noun: str,
    told: str,
    permitted: Callable[[Any], bool],
    optional: bool,
) -> Callable[[Any], Any]:
    def read(value: Any) -> int | float | None:
        if optional and value in (None, "null"):
            return None
        try:
            number = None if isinstance(value, bool) else kind(value)
        except (TypeError, ValueError, OverflowError):
            number = None
        if number is None or (isinstance(value, float) and number != value and value == value):
            raise OutOfRangeError(f"must be {noun} {told}, got {value}")
        if not permitted(number):
            raise OutOfRangeError(f"must be {told}, got {value}")
        return number

    return read
