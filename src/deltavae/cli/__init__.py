"""The command line: the only package that parses arguments or prints.

Exit status: 0 done; 1 a failure; 2 wrong use or bad input, in one line; 130 after Ctrl-C, with a
checkpoint to go on from. Heavy modules are imported by the command that needs them.
"""

import sys
from collections.abc import Sequence

COMMANDS = {
    "fit": "train a model and its auxiliary prior, evaluate it, write the report",
    "fit-prior": "fit the auxiliary prior of a run again",
    "evaluate": "measure a run on a split of its data",
    "sample": "draw images into a picture",
    "encode": "write the posteriors of images",
    "report": "one HTML page of one or several runs side by side",
    "rate": "committed rate, prior coefficients and minimiser",
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

  deltavae COMMAND --help   the command's options
  deltavae --version        the version
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: The words after the program's name; None: those of this process.

    Returns:
        The exit status.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        rows = (f"  {name:<10} {summary}" for name, summary in COMMANDS.items())
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


def _run(command: str, words: list[str]) -> int:
    from deltavae.cli.parsing import nearest

    if command not in COMMANDS:
        return _fail(f"unknown command {command}{nearest(command, COMMANDS)}", 2)
    from deltavae.cli import commands, parsing

    try:
        options = parsing.parse(command, words)
        function = getattr(commands, command.replace("-", "_"))
        return int(function(options))
    except (ValueError, OSError) as error:
        return _fail(str(error), 2)
    except parsing.CommandError as error:
        return _fail(str(error), 1)


def _fail(message: str, status: int) -> int:
    print(f"deltavae: {' '.join(message.split())}", file=sys.stderr)
    return status
