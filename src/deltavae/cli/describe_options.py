"""The options of `describe`: those of `fit`, so that it takes the same files."""

from argparse import SUPPRESS
from typing import Any

from deltavae.cli.fit_options import MODEL_OPTIONS, add_fit

# What the description depends on; every other option of fit is taken and has no effect.
_SHOWN = {
    *("help", "json", "trust", "config", "print_config"),
    *("data", "data_dir", "size", "grey", "levels", "holdout"),
    *("epochs", "batch_size", "precision", "ema_decay"),
    *MODEL_OPTIONS,
}


def add_describe(parser: Any) -> None:
    """Add the options of `describe`."""
    parser.add_argument(
        "--json", action="store_true", help="print JSON, and nothing else, to stdout"
    )
    add_fit(parser)
    for action in parser._actions:
        if action.dest in ("run_dir", "data"):  # the model of a run folder needs neither
            action.required = False
        if action.dest.partition(".")[0] not in _SHOWN:
            action.help = SUPPRESS
