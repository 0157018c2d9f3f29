"""The command line: the only package that parses arguments or prints.

Exit status: 0 done; 1 a failure; 2 wrong use or bad input, in one line; 130 after Ctrl-C, with a
checkpoint to go on from. Heavy modules are imported by the command that needs them.
"""

import importlib
import os
import re
import sys
from collections.abc import Sequence
from typing import NamedTuple


class Command(NamedTuple):
    """Where a command lives, and what it does in a few words."""

    module: str
    summary: str


COMMANDS = {
    "fit": Command("fit", "train a model and its auxiliary prior, evaluate it, write the report"),
    "fit-prior": Command("fit", "fit the auxiliary prior of a run anew"),
    "evaluate": Command("use", "measure a run on a split of its data"),
    "sample": Command("use", "draw images"),
    "encode": Command("use", "write the posteriors of images"),
    "report": Command("use", "write one page of one or several runs, side by side"),
    "rate": Command(
        "rate", "show the committed rate of a prior, or the prior of a committed rate"
    ),
    "certify": Command(
        "certify", "prove the committed rate of a pair, and search for a rate below it"
    ),
    "study": Command("study", "make a table or figure of the paper, cell by cell"),
    "describe": Command("describe", "tell what a model costs and sees, before it is trained"),
}

USAGE = """\
usage: deltavae COMMAND [OPTIONS]

Latent-variable models with strong autoregressive decoders whose posterior cannot collapse:
you set the number of bits that the posterior keeps away from the prior, the model keeps to it.

commands:
{commands}

begin with:
  deltavae fit --data digits --run-dir runs/first --delta-bits 10 --max-minutes 2
  deltavae sample runs/first --n 16 --out samples.png
  deltavae rate --n 32 --d 8 --delta-bits 80
  deltavae certify Matern --n 32 --d 8 --delta-bits 80

  deltavae COMMAND --help   the command's options
  deltavae --version        the version
"""


class CommandError(Exception):
    """A command failed for no fault of its input: exit status 1."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: The words after the program's name; None: those of this process.

    Returns:
        The exit status.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        rows = (f"  {name:<10} {command.summary}" for name, command in COMMANDS.items())
        print(USAGE.format(commands="\n".join(rows)), end="")
        return 0
    if words[0] == "--version":
        from deltavae import __version__

        print(f"deltavae {__version__}")
        return 0
    try:
        return _run(words[0], words[1:])
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:  # the reader of a pipe, head for example, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(command: str, words: list[str]) -> int:
    from deltavae.cli import parsing
    from deltavae.cli.explain import nearest

    if command not in COMMANDS:
        near = nearest(command, COMMANDS) or f": there are {', '.join(COMMANDS)}"
        return _fail(f"unknown command {command}{near}", 2)
    options: dict[str, object] = {}
    try:
        options = parsing.parse(command, words)
        module = importlib.import_module(f"deltavae.cli.{COMMANDS[command].module}")
        status: int = getattr(module, command.replace("-", "_"))(options)
        return status
    except SystemExit as done:  # --help and --print_config have printed what was asked for
        return int(done.code or 0)
    except BrokenPipeError:
        raise
    except OSError as error:
        return _fail(_told(error), 2)
    except ValueError as error:
        return _fail(_with_flags(str(error), options), 2)
    except CommandError as error:
        return _fail(str(error), 1)


def _told(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}" if error.filename else str(error)


def _with_flags(message: str, options: dict[str, object]) -> str:
    # "delta_bits must be …" of a Python function, in the words of the command line.
    for name in options:
        follows = r"(?=[ =:,])" if "_" in name else r"(?= must | applies )"
        flag = f"--{name.replace('_', '-')}"
        message = re.sub(rf"(?<![\w/.-]){name}{follows}", flag, message)
    return message


def _fail(message: str, status: int) -> int:
    print(f"deltavae: {' '.join(message.split())}", file=sys.stderr)
    return status
