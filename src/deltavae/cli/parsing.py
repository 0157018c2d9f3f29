"""Words → options: every option is a flag and a key of a YAML file; a wrong one ends in one line.

jsonargparse parses and checks. Around it: flags are written with dashes, foreign classes are
refused before they are imported (`configuration_files`), errors are shortened (`explain`).
"""

import argparse
import re
from itertools import takewhile
from pathlib import Path
from textwrap import indent
from typing import Any, NoReturn

from jsonargparse import ArgumentParser, Namespace

from deltavae.cli import COMMANDS, options
from deltavae.cli.configuration_files import check, named_classes, values_of
from deltavae.cli.explain import PARTS, explain
from deltavae.studies import listing

_STUDIES = indent(listing(), "  ")

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
  deltavae sample runs/first --n 6 --complete-from a.png --rows 12 --out completed.png
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
  deltavae rate --n 32 --delta-bits 20
  deltavae rate --n 32 --d 8 --delta-bits 20
  deltavae rate --n 32 --d 8 --alpha 0.5:0.95 --json
  deltavae rate --n 32 --d 8 --alpha=-0.9
""",
    "certify": """\
pairs:
  AR1, LearnableAR1, ARp             processes with a memory of one step, or of p
  Matern, SquaredExponential         other Gaussian processes along the steps
  Grid, Tree, GaussianMarkov         rows × columns; coarse to fine; a precision of your own
  Independent, BoundedVariance       × N(0, I): μ and σ, or σ alone, kept away from it
  Spherical, Categorical, Quantised  directions, codes, vectors of levels
  MeanFieldPair                      × Laplace, Student-t, modes: a floor by branch and bound
  BatchNorm                          a floor of the mean over a batch only
  Standard, LearnedPrior             rivals that commit nothing: without a δ

δ is the least rate KL(q(z|x) ‖ p(z)) of any posterior of the pair. The search minimises a second
formula of the rate, from random starts, and knows nothing of δ: it ends at δ, or δ is wrong.

examples:
  deltavae certify AR1 --n 32 --d 8 --delta-bits 80
  deltavae certify Matern --latents.nu 2.5 --n 32 --d 8 --delta-bits 80
  deltavae certify Grid --latents.height 4 --latents.width 8 --n 32 --d 8 --delta-bits 80 --json
""",
    "study": f"""\
studies:
{_STUDIES}

A cell, one configuration with one seed, is a run folder in DIR/cells; what is there already is not
done again. After Ctrl-C the same command goes on. The page is DIR/NAME/README.md.

examples:
  deltavae study rate-vs-alpha --out runs/studies
  deltavae study all --budget cpu --out runs/studies --jobs 2
  deltavae study density --out runs/studies --cells 'cifar10-*-seed0' 'cifar10-*-seed1'
  deltavae study all --budget cpu --out runs/studies --tables-only
  deltavae study all --out /shared/studies --executor ray --address auto
""",
    "describe": """\
Nothing is trained and the images of a data set with a name are not read. CONFIG is a file for
fit --config or a run folder; without it the options of fit describe the model.

examples:
  deltavae describe configs/demo/delta-vae.yaml
  deltavae describe runs/first --json
  deltavae describe --data cifar10 --decoder PixelSNAIL --decoder.layers 30 --alpha 0.5:0.95
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
        Every option by its name, with underscores; for fit and describe also "given", the names
        of the options that shape the model and were chosen by the user.

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
    if command in ("fit", "describe", "certify"):
        from deltavae.cli import certify_options, describe_options, fit_options

        if command == "fit":
            fit_options.add_fit(parser)
            words = _with_resumed_config(words)
        elif command == "describe":
            describe_options.add_describe(parser)
            words = _with_named_config(words)
        else:
            certify_options.add_certify(parser)
            words = _with_named_pair(words)
        words = _files_first(_with_classes(words))
    else:
        getattr(options, f"add_{command.replace('-', '_')}")(parser)
    check(words, {action.dest.partition(".")[0] for action in parser._actions})
    defaults: dict[str, Any] = parser.get_defaults().as_dict()
    # A class that is named takes its own defaults, not those of the class that it replaces.
    parser.set_defaults(dict.fromkeys(named_classes(words).intersection(defaults)))
    parsed: dict[str, Any] = parser.parse_args(words).as_dict()
    parsed.pop("config", None)
    for name, value in parsed.items():
        if value is None and defaults[name] is not None:
            raise ValueError(f"--{name.replace('_', '-')}: must not be null")
    if command in ("fit", "describe"):
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
        "describe": "[CONFIG]",
        "certify": "PAIR --n N --d D (--delta-bits BITS | --delta-nats NATS)",
        "study": "NAME --out DIR",
        "rate": "--n N (--delta-bits BITS | --delta-nats NATS | --alpha A|LO:HI)",
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


def _with_classes(words: list[str]) -> list[str]:
    # "--encoder X" as "--encoder=CLASS", a short name in full, ahead of the class's own options.
    from deltavae.configuration import ENCODERS  # heavy, and needed by fit only

    result: list[str] = []
    flags = {f"--{part}": part for part in PARTS}
    for word, before in zip(words, ["", *words], strict=False):
        flag, equals, name = word.partition("=")
        if before in flags and not word.startswith("--"):
            flag, equals, name = before, "=", word
            result.pop()
        if flag not in flags or not equals:
            result.append(word)
            continue
        part = flags[flag]
        own = (i for i, other in enumerate(result) if other.startswith(f"--{part}."))
        short = ENCODERS if part == "encoder" else {}
        result.insert(next(own, len(result)), f"--{part}={short.get(name, name)}")
    return result


def _files_first(words: list[str]) -> list[str]:
    # Files of options ahead of the flags, which win over them: a file may name the class of a
    # part, and a flag an option of that class.
    files = [f"--config={name}" for name in values_of(words, "--config")]
    pairs = zip(words, ["", *words], strict=False)
    return files + [
        word
        for word, before in pairs
        if before != "--config" and word != "--config" and not word.startswith("--config=")
    ]


def _with_resumed_config(words: list[str]) -> list[str]:
    # --resume takes every option from the run's own configuration; flags on the line win.
    folder = next(values_of(words, "--run_dir"), None)
    if "--resume" not in words or folder is None:
        return words
    config = Path(folder) / "config.yaml"
    if not config.is_file():
        raise ValueError(f"{folder}: no config.yaml to resume from: leave --resume out to begin")
    return [f"--config={config}", *words]


def _with_named_pair(words: list[str]) -> list[str]:
    # The pair comes first, as any part of a model that has options of its own.
    flags = list(takewhile(lambda word: word in ("--json", "--trust"), words))
    named = words[len(flags) : len(flags) + 1]
    if not named or named[0].startswith("-"):
        return words
    return [f"--latents={named[0]}", *flags, *words[len(flags) + 1 :]]


def _with_named_config(words: list[str]) -> list[str]:
    # The configuration, or the run folder that holds it, comes first; flags on the line win.
    flags = list(takewhile(lambda word: word in ("--json", "--trust"), words))
    named = words[len(flags) : len(flags) + 1]
    if not named or named[0].startswith("-"):
        return words
    path = Path(named[0])
    config = path / "config.yaml" if path.is_dir() else path
    if not config.is_file():
        missing = "no config.yaml in this folder" if path.is_dir() else "no such file or folder"
        raise ValueError(f"CONFIG: {path}: {missing}")
    return [f"--config={config}", *flags, *words[len(flags) + 1 :]]
