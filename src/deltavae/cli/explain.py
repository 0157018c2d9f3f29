"""jsonargparse's errors in one line: option, what is permitted, value, nearest name."""

import difflib
import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any

# Options whose value is a class of deltavae.
PARTS = ("decoder", "latents", "encoder", "likelihood", "objective")

# What a command takes ahead of its options.
_FIRST = {"describe": "CONFIG", "certify": "PAIR"}

# What an option without a default looks like.
_FORMS = {"--precision": ": entries [[row, column, value], …]"}

_KINDS = {
    "float": "a number",
    "int": "a whole number",
    "str": 'text (in a YAML file in quotes: "0.9")',
    "bool": "true or false",
    "dict": "a mapping",
}


def nearest(word: str, words: Iterable[str]) -> str:
    """Return a suggestion to add to an error, or nothing."""
    by_lower = {known.lower(): known for known in sorted(words)}
    found = difflib.get_close_matches(word.lower(), by_lower, n=1)
    return f": did you mean {by_lower[found[0]]}?" if found else ""


def explain(message: str, parser: Any) -> str:
    """Shorten a message of jsonargparse.

    The options of a class have a parser of their own, whose error, shortened here too, comes back
    as a part of the message of the parser above it.

    Args:
        message: Its text, of one or many lines.
        parser: The parser that failed.

    Returns:
        One line that names the option, the value and what is permitted.
    """
    unknown = re.match(r"[Uu]nrecognized arguments: ([^\s=]+)", message)
    if unknown and not unknown[1].startswith("--"):
        first = _FIRST.get(parser.prog.rpartition(" ")[2])
        hint = f": {first} comes first, ahead of the options" if first else ""
        return f"unexpected argument {unknown[1]}{hint}"
    refused = unknown or re.match(r"Option '([^']+)' is not accepted", message)
    if refused:
        flags = sorted({_dashed(flag) for flag in _flags(parser) if "help" not in flag})
        wrong = f"--{_dashed(refused[1].removeprefix('--'))}"
        there_are = f": there are {', '.join(flags) or 'none'}" if len(flags) < 10 else ""
        return f"{wrong}: no such option{nearest(wrong, flags) or there_are}"
    missing = re.search(r"the following arguments are required: (.*)", message)
    if missing:
        names = [_shown(name, parser) for name in missing[1].split(", ")]
        return f"missing: {', '.join(names)} (see {parser.prog} --help)"
    argument = re.match(r"(?:argument --|Parser key \"|--)([\w.]+)\S*?: *(.*)", message, re.DOTALL)
    if not argument:
        return " ".join(message.split())
    name = argument[1].removesuffix(".help")
    if name in PARTS:
        return _explain_part(argument[2], name, parser)
    return f"{_shown(name, parser)}: {_explain_value(argument[2])}"


def _flags(parser: Any) -> list[str]:
    return [flag for action in parser._actions for flag in action.option_strings if "--" in flag]


def _dashed(flag: str) -> str:
    return flag.replace("_", "-")


def _shown(name: str, parser: Any) -> str:
    if parser.prog.endswith(" certify") and name == "latents":
        return _FIRST["certify"]
    flags = [flag for a in parser._actions if a.dest == name for flag in a.option_strings]
    return _dashed(flags[0]) if flags else name.upper()


def _explain_value(message: str) -> str:
    value = re.search(r"G(?:iven|ot) value: (.*)", message)
    got = f", got {value[1]}" if value else ""
    choices = re.search(r"Literal\[([^\]]*)\]", message)
    if choices and value:
        words = [word.strip(" '\"") for word in choices[1].split(",")]
        return f"must be one of {', '.join(words)}{got}{nearest(value[1], words)}"
    if "Expected a <class 'collections.abc.Sequence'>" in message:
        nested = "Sequence[collections.abc.Sequence[" in message
        return f"must be a list such as {'[[1, 0, -0.5]]' if nested else '[0.7, 0.4]'}{got}"
    kind = re.search(r"Expected a <class '(\w+)'", message)
    if kind and kind[1] in _KINDS:
        return f"must be {_KINDS[kind[1]]}{got}"
    return " ".join(message.split())


def _explain_part(message: str, part: str, parser: Any) -> str:
    # The class's own option, as the class's own parser has it.
    own = re.search(r"^[\s-]*?--(\S+): (.*)$", message, re.MULTILINE)
    if own:
        flag, near = f"--{part}.{own[1]}", _explain_value(own[2]).replace("--", f"--{part}.")
        return f"{flag}: {near}"
    nested = re.search(r"NestedArg\(key='([^']+)'", message)
    if nested:
        return f"--{part}.{_dashed(nested[1])}: no such option of the class chosen"
    missing = re.search(r"missing: (--.*) \(see", message)
    if missing:
        form = _FORMS.get(missing[1], "")
        return f"missing: {missing[1].replace('--', f'--{part}.')}, which this class needs{form}"
    from deltavae.configuration import WITHOUT_LATENTS  # heavy

    shown = _shown(part, parser)
    names = _class_names(part)
    if not shown.startswith("--"):  # the argument PAIR of certify
        names = [name for name in names if name not in WITHOUT_LATENTS]
    value = re.search(r"Given value: (.*)|(?:path string|class_path|Import path):? (\S+)", message)
    word = (value[1] or value[2]).strip("':") if value else ""
    got = f", got {word}{nearest(word, names)}" if word else ""
    return f"{shown}: must be one of {', '.join(names)}{got}"


def _class_names(part: str) -> list[str]:
    from deltavae.cli.fit_options import BASES  # heavy, and needed by fit only
    from deltavae.configuration import ENCODERS, WITHOUT_LATENTS

    short = {"latents": list(WITHOUT_LATENTS), "encoder": list(ENCODERS)}.get(part, [])
    return [*short, *(cls.__name__ for cls in _complete(BASES[part]))]


def _complete(base: type) -> Iterator[type]:
    # The classes that can be built: abstract ones are passed through.
    below: list[type] = type.__subclasses__(base)
    for cls in below:
        if not inspect.isabstract(cls):
            yield cls
        yield from _complete(cls)
