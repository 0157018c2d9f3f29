"""Words → options: every option is a flag and a key of a YAML file; a wrong one ends in one line.

jsonargparse parses and checks. Around it: flags are written with dashes, foreign classes are
refused before they are imported (`configuration_files`), errors are shortened (`explain`).
"""

import argparse
import re
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from deltavae.cli import COMMANDS, options
from deltavae.cli.configuration_files import check, values_of
from deltavae.cli.explain import explain

_EPILOGS = {
    "fit": """\
examples:
  deltavae fit --data digits --run-dir runs/first --delta-bits 10 --max-minutes 2
  deltavae fit --data digits --run-dir runs/ladder --alpha 0.5:0.95 --decoder.channels 48
  deltavae fit --data digits --run-dir runs/without --latents none
  deltavae fit --config my.yaml --run-dir runs/again --seed 1
  deltavae fit --run-dir runs/first --resume

--print_config shows every option as YAML; a run's config.yaml is such a file.
--decoder.help GatedPixelCNN lists a class's own options, --decoder.NAME sets one.
Ctrl-C ends the training after the step at hand, with a checkpoint for --resume.
""",
    "fit-prior": """\
The model stays as it is. Then measure again: deltavae evaluate RUN

example:
  deltavae fit-prior runs/first --hidden 128 --steps 5000
""",
    "evaluate": """\
The figures, in bits per example or (_bpd) bits per dimension, go into RUN/metrics.json.

examples:
  deltavae evaluate runs/first --importance-samples 100
  deltavae evaluate runs/first --split train --json > train.json
""",
    "sample": """\
examples:
  deltavae sample runs/first --n 64 --out samples.png
  deltavae sample runs/first --n 8 --fixed-latent 4 --out what-z-says.png
  deltavae sample runs/first --n 1000 --prior model --temperature 0.9 --out samples.npz
""",
    "encode": """\
examples:
  deltavae encode runs/first --data digits --split test --out z.npz
  deltavae encode runs/photos --data my/folder --out z.npz
""",
    "report": """\
example:
  deltavae report runs/first runs/without --out comparison.html
""",
    "rate": """\
δ is the least rate KL(q(z|x) ‖ p(z)) that a mean-field Gaussian posterior can have under an
AR(1) prior. Give δ to get α, or α to get δ.

examples:
  deltavae rate --n 32 --d 8 --delta-bits 20
  deltavae rate --n 32 --d 8 --alpha 0.5:0.95 --json
  deltavae rate --n 32 --d 8 --alpha=-0.9
""",
}


class _Help(argparse.RawDescriptionHelpFormatter):
    """Says "required" and the default, where there is one to speak of."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        if isinstance(default, Namespace | dict):
            default = str(default["class_path"]).rpartition(".")[2]
        if action.required and action.option_strings and default is None:
            return f"required: {text}"
        if "--print_config" in action.option_strings:
            return "print every option as YAML, as the command would take it, and do nothing else"
        silent = default is None or default is False or default == argparse.SUPPRESS
        return text if silent or not action.option_strings else f"{text} (default: {default})"


class Parser(ArgumentParser):
    """A parser whose flags are written with dashes and whose errors are one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the error instead of printing the usage.

        Args:
            message: jsonargparse's message.
            ex: Its cause.

        Raises:
            ValueError: Always.
        """
        raise ValueError(explain(message, self)) from ex

    def format_help(self, formatter: argparse.HelpFormatter | None = None) -> str:
        """Return the help with dashes in the flags.

        Args:
            formatter: Not used: the parser's own.

        Returns:
            The text.
        """
        dashed = re.sub(
            r"--[a-z][a-z_.]*", lambda m: m[0].replace("_", "-"), super().format_help()
        )
        return dashed.replace("--print-config", "--print_config")


def parse(command: str, words: list[str]) -> dict[str, Any]:
    """Parse a command's words.

    Args:
        command: One of `COMMANDS`.
        words: What follows it.

    Returns:
        Every option by its name, with underscores; for fit also "given", the names of the options
        that shape the model and were chosen by the user.

    Raises:
        ValueError: If a word, or a file of options, is wrong.
    """
    parser = Parser(
        prog=f"deltavae {command}",
        usage=_usage(command),
        description=f"{COMMANDS[command].summary.capitalize()}.",
        epilog=_EPILOGS[command],
        formatter_class=_Help,
        allow_abbrev=False,
    )
    words = _normalised(words)
    if command == "fit":
        from deltavae.cli import fit_options

        fit_options.add_fit(parser)
        words = _with_encoder_class(_with_resumed_config(words))
    else:
        getattr(options, f"add_{command.replace('-', '_')}")(parser)
    check(words, {action.dest.partition(".")[0] for action in parser._actions})
    parsed: dict[str, Any] = parser.parse_args(words).as_dict()
    parsed.pop("config", None)
    defaults: dict[str, Any] = parser.get_defaults().as_dict()
    for name, value in parsed.items():
        if value is None and defaults[name] is not None:
            raise ValueError(f"--{name.replace('_', '-')}: must not be null")
    if command == "fit":
        parsed["given"] = [
            name
            for name in fit_options.MODEL_OPTIONS
            if parsed[name] != defaults[name] or _names(words, name)
        ]
    return parsed


def _usage(command: str) -> str:
    needed = {
        "fit": "--data DATA --run-dir DIR",
        "encode": "RUN --data DATA --out FILE",
        "sample": "RUN --out FILE",
        "report": "RUN [RUN ...] --out FILE",
        "rate": "--n N --d D (--delta-bits BITS | --delta-nats NATS | --alpha A|LO:HI)",
    }
    return f"deltavae {command} {needed.get(command, 'RUN')} [OPTIONS]"


def _normalised(words: list[str]) -> list[str]:
    # Underscores in the flags; a value that begins with a minus, as in --alpha -0.9:0, joined on.
    result: list[str] = []
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            result.append(f"--{name.replace('-', '_')}{equals}{value}")
        elif re.match(r"-[\d.]", word) and result and re.fullmatch(r"--[\w.]+", result[-1]):
            result[-1] += f"={word}"
        else:
            result.append(word)
    return result


def _names(words: list[str], option: str) -> bool:
    return any(re.match(rf"--{option}(=|\.|$)", word) for word in words)


def _with_encoder_class(words: list[str]) -> list[str]:
    # The encoders' short names as classes, so that --encoder.NAME can follow.
    from deltavae.configuration import ENCODERS  # heavy, and needed by fit only

    result: list[str] = []
    for word in words:
        if result and result[-1] == "--encoder":
            result[-1] = f"--encoder={ENCODERS.get(word, word)}"
        elif word.startswith("--encoder="):
            name = word.partition("=")[2]
            result.append(f"--encoder={ENCODERS.get(name, name)}")
        else:
            result.append(word)
    return result


def _with_resumed_config(words: list[str]) -> list[str]:
    # --resume takes every option from the run's own configuration; flags on the line win.
    folder = next(values_of(words, "--run_dir"), None)
    if "--resume" not in words or folder is None:
        return words
    config = Path(folder) / "config.yaml"
    if not config.is_file():
        raise ValueError(f"{folder}: no config.yaml to resume from: leave --resume out to begin")
    return [f"--config={config}", *words]
