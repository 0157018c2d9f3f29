"""Files of options, checked before jsonargparse imports the classes that they name.

A class named in a configuration is code that runs when it is imported or built. Only classes of
deltavae are let through, unless the user says --trust on the command line: no file trusts itself.
"""

from collections.abc import Collection, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from deltavae.cli.explain import PARTS, nearest


def values_of(words: list[str], flag: str) -> Iterator[str]:
    """Yield every value that a flag is given, as "--flag value" or "--flag=value"."""
    for word, after in pairwise([*words, ""]):
        if word == flag and after:
            yield after
        elif word.startswith(f"{flag}="):
            yield word.partition("=")[2]


def check(words: list[str], known: Collection[str]) -> None:
    """Check the files that --config names, and the classes that flags name.

    Args:
        words: The command's words, flags with underscores.
        known: Names of the command's options.

    Raises:
        ValueError: If a file cannot be read, holds an unknown option or says that it is trusted,
            or a class is foreign and --trust is not said.
    """
    parts = set(known).intersection(PARTS)
    trust = "--trust" in words
    for name in values_of(words, "--config"):
        mapping = _read_yaml(Path(name))
        for key, value in mapping.items():
            top = str(key).partition(".")[0]
            if top not in known or top in ("config", "help"):
                raise ValueError(f'{name}: unknown option "{key}"{nearest(top, known)}')
            if top == "trust" and value is not False:
                raise ValueError(f"{name}: trust can be given as the flag --trust only")
            if top != "model":  # built by deltavae itself, which refuses foreign classes then
                _check_classes(value, f"{name}: {key}", top in parts, trust)
    for flag, value in pairwise([*words, ""]):
        name, equals, joined = flag.partition("=")
        top = name.removeprefix("--").partition(".")[0]
        if name.startswith("--") and top in parts:
            loaded = _scalar(joined if equals else value)
            _check_classes(loaded, name.replace("_", "-"), True, trust)


def named_classes(words: list[str]) -> set[str]:
    """Return the parts of the model whose class the flags or the files of options name.

    Args:
        words: The command's words, flags with underscores.

    Returns:
        Names of options that take a class.
    """
    named = {
        part
        for part in PARTS
        for flag in (f"--{part}", f"--{part}.class_path")
        if any(values_of(words, flag))
    }
    for name in values_of(words, "--config"):
        for key, value in _read_yaml(Path(name)).items():
            whole = isinstance(value, str) or (isinstance(value, dict) and "class_path" in value)
            if (key in PARTS and whole) or str(key).endswith(".class_path"):
                named.add(str(key).partition(".")[0])
    return named.intersection(PARTS)


def _read_yaml(path: Path) -> dict[Any, Any]:
    try:
        mapping = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"--config: {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"--config: {path} is not valid YAML: {error}") from error
    if not isinstance(mapping, dict):
        raise ValueError(f'--config: {path} must hold lines as "epochs: 20", got {mapping!r:.40}')
    return mapping


def _scalar(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _check_classes(value: Any, where: str, inside_part: bool, trust: bool) -> None:
    # Inside a part whatever looks like the path of a class may be imported as one.
    if isinstance(value, dict):
        for key, item in value.items():
            is_class = str(key).rpartition(".")[2] == "class_path"
            _check_classes(item, where, inside_part or is_class, trust)
    elif isinstance(value, list):
        for item in value:
            _check_classes(item, where, inside_part, trust)
    elif isinstance(value, str) and inside_part and not trust:
        path = value.split(".")
        if len(path) > 1 and all(part.isidentifier() for part in path) and path[0] != "deltavae":
            raise ValueError(
                f'{where}: class_path "{value}" is not a class of deltavae: building it runs '
                "foreign code; say --trust if you trust its source"
            )
