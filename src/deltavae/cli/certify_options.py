"""The options of `certify`: a pair with its own options, and the search."""

from typing import Any

from deltavae.cli.fit_options import DERIVED
from deltavae.cli.options import MAX_SEED, add_config, add_trust
from deltavae.cli.ranges import positive, whole
from deltavae.latents import Latents


def _pair(latents: Latents) -> None:
    """Pair: its own options follow as --latents.nu 2.5; --latents.help Matern lists them.

    Args:
        latents: Pair of posterior and prior, the PAIR of the usage: a class of deltavae.latents,
            or with --trust one of your own, as my_module.MyPair.
    """


def add_certify(parser: Any) -> None:
    """Add the options of `certify`."""
    skip: set[str | int] = {f"latents.init_args.{name}" for name in DERIVED["latents"]}
    parser.add_function_arguments(_pair, skip=skip, as_group=True)
    parser.add_argument(
        "--n",
        type=whole(1),
        required=True,
        metavar="N",
        help="latent steps: rows of an image, tiles of a Grid (height · width), nodes of a Tree",
    )
    parser.add_argument(
        "--d",
        type=whole(1),
        required=True,
        metavar="D",
        help="channels of each latent step; of Categorical the number of codes",
    )
    parser.add_argument(
        "--delta_bits",
        type=positive(optional=True),
        metavar="BITS",
        help="committed rate δ in bits per example that the pair is built for",
    )
    parser.add_argument(
        "--delta_nats", type=positive(optional=True), metavar="NATS", help="the same in nats"
    )
    parser.add_argument(
        "--starts",
        type=whole(1),
        default=16,
        metavar="K",
        help="random starts of the search for a lower rate",
    )
    parser.add_argument(
        "--seed", type=whole(0, MAX_SEED), default=0, metavar="N", help="seed of the starts"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print JSON: committed_rate_bits, numerical_minimum_bits, gap_relative, floor, proof "
        "and more",
    )
    add_trust(parser)
    add_config(parser)
