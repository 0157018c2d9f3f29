"""Arguments of a pair in a few words, for people: one number, the ends of a ladder, a class."""

from collections.abc import Sequence
from typing import Any

_LISTED = 3  # numbers of a list that are told one by one


def told(value: Any) -> str:
    """Tell a plain argument.

    >>> told([0.5, 0.5, 0.5]), told([0.25, 0.5, 0.75, 1.0]), told([0.9, -0.5])
    ('0.5 (3×)', '0.25 to 1 (4)', '0.9, -0.5')

    Args:
        value: As ``Latents.config`` returns it.

    Returns:
        The words; empty for False and None.
    """
    match value:
        case None | False:
            return ""
        case True:
            return "on"
        case float() | int():
            return f"{value:.6g}"
        case {"class_path": str(path), **rest}:
            arguments: Any = rest.get("init_args") or {}
            options = ", ".join(f"{name} {told(own)}" for name, own in arguments.items())
            return path.rpartition(".")[2] + (f" ({options})" if options else "")
        case [] | [[*_], *_]:
            return f"of {len(value)} entries"
        case list() | tuple():
            return _told_numbers(value)
    return str(value)


def _told_numbers(values: Sequence[float | int]) -> str:
    if len(set(values)) == 1:
        return told(values[0]) + (f" ({len(values)}×)" if len(values) > 1 else "")
    if len(values) <= _LISTED:
        return ", ".join(map(told, values))
    return f"{told(min(values))} to {told(max(values))} ({len(values)})"
