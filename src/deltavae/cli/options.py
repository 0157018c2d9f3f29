"""The options of every command but `fit`: name, type, meaning, unit, default.

Only jsonargparse is imported here: the help of a command answers at once.
"""

from pathlib import Path
from typing import Any, Literal

from jsonargparse._actions import ActionConfigFile  # the public name is not exported to mypy

from deltavae.cli.ranges import positive, whole

MAX_SEED = 2**63 - 1


def add_config(parser: Any) -> None:
    """Add the file of options."""
    parser.add_argument(
        "--config",
        action=ActionConfigFile,
        metavar="FILE",
        help="YAML file of options, named as the flags without the dashes in front "
        "(delta_bits: 10); the flags on the command line win over it",
    )


def add_trust(parser: Any) -> None:
    """Add the flag that lets foreign classes through."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help="let configurations name classes from outside deltavae: building one runs its code, "
        "so say this only of a configuration whose origin you trust",
    )


def add_data(group: Any, *, required: bool) -> None:
    """Add the data set and what is done to it."""
    group.add_argument(
        "--data",
        type=str,
        required=required,
        help="digits, fashion_mnist, cifar10, imagenet32; a folder of images; an .npy or .npz "
        "file of uint8 images; or hf:NAME for a data set of the package datasets",
    )
    add_data_dir(group)
    group.add_argument(
        "--size", type=whole(1, optional=True), metavar="PIXELS", help="resize to PIXELS × PIXELS"
    )
    group.add_argument(
        "--grey", action="store_true", help="turn colour to grey: one channel of three"
    )
    group.add_argument(
        "--levels",
        type=whole(2, 256, optional=True),
        metavar="L",
        help="reduce a pixel to L values, from 2 (black and white) to what the source has; fewer "
        "are faster to learn",
    )


def add_data_dir(group: Any) -> None:
    """Add the folder of data sets."""
    group.add_argument(
        "--data_dir",
        type=Path | None,
        metavar="DIR",
        help="where the data sets with a name lie, or are downloaded to; without it "
        "$DELTAVAE_DATA, else ~/.cache/deltavae",
    )


def add_measuring(group: Any) -> None:
    """Add how a run is measured."""
    group.add_argument(
        "--importance_samples",
        type=whole(0),
        default=8,
        metavar="K",
        help="draws of z per example for the importance-weighted bounds, which get tighter and "
        "slower with K; 0 leaves them out",
    )
    group.add_argument(
        "--limit",
        type=whole(1, optional=True),
        metavar="N",
        help="measure the first N examples of the split only",
    )


def _add_run(parser: Any) -> None:
    parser.add_argument("run", type=Path, help="run folder, as fit --run-dir made it")


def add_fit_prior(parser: Any) -> None:
    """Add the options of `fit-prior`."""
    _add_run(parser)
    parser.add_argument(
        "--hidden",
        type=whole(1, optional=True),
        metavar="UNITS",
        help="units of the prior's LSTM; without it as many as the run's prior has",
    )
    parser.add_argument(
        "--steps", type=whole(1), default=2000, metavar="N", help="optimiser steps"
    )
    parser.add_argument(
        "--examples",
        type=whole(1),
        default=20_000,
        metavar="N",
        help="training images to encode and fit to, the first N",
    )
    parser.add_argument(
        "--seed",
        type=whole(0, MAX_SEED),
        default=0,
        metavar="N",
        help="seed of weights, batches and noise",
    )
    add_trust(parser)
    add_config(parser)


def add_evaluate(parser: Any) -> None:
    """Add the options of `evaluate`."""
    _add_run(parser)
    parser.add_argument(
        "--split",
        type=Literal["train", "val", "test"],
        default="test",
        help="the images to measure on (val: those that fit --holdout has kept out of training); "
        "metrics.json keeps the figures of each",
    )
    add_measuring(parser)
    parser.add_argument(
        "--seed",
        type=whole(0, MAX_SEED),
        default=0,
        metavar="N",
        help="seed of the draws from the posterior",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print the metrics as JSON, and nothing else, to stdout",
    )
    add_trust(parser)
    add_config(parser)


def add_sample(parser: Any) -> None:
    """Add the options of `sample`."""
    _add_run(parser)
    parser.add_argument(
        "--n",
        type=whole(1),
        default=16,
        metavar="N",
        help="number of images; with --fixed-latent the number in each row, with --complete-from "
        "that of completions of each image",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="a picture (.png), or an array of the levels (.npz: images, levels)",
    )
    parser.add_argument(
        "--prior",
        type=Literal["aux", "model"],
        default="aux",
        help="where z comes from: aux, the auxiliary prior, fitted to what the encoder really "
        "says; model, the model's own prior, from which the posterior is kept away",
    )
    parser.add_argument(
        "--fixed_latent",
        type=whole(1, optional=True),
        metavar="M",
        help="draw M rows, each of N decodings of one z: what a row has in common is what z says",
    )
    _add_completion(parser)
    parser.add_argument(
        "--temperature",
        type=positive(),
        default=1.0,
        metavar="T",
        help="the decoder's logits are divided by T: below 1 likelier and less varied pixels",
    )
    parser.add_argument(
        "--batch_size",
        type=whole(1),
        default=64,
        metavar="N",
        help="images drawn at a time: more take more memory, and are faster to draw",
    )
    parser.add_argument(
        "--seed",
        type=whole(0, MAX_SEED),
        default=0,
        metavar="N",
        help="the same seed gives the same images",
    )
    add_trust(parser)
    add_config(parser)


def _add_completion(parser: Any) -> None:
    parser.add_argument(
        "--complete_from",
        type=Path | None,
        metavar="IMAGE",
        help="keep the top --rows of an image and draw what is below: a picture, turned into what "
        "the run was trained on, or an .npy or .npz file of uint8 images; a picture shows the "
        "image, what is kept, and N completions, an .npz file holds the completions alone",
    )
    parser.add_argument(
        "--rows",
        type=whole(0, optional=True),
        metavar="K",
        help="how many rows --complete-from keeps",
    )
    parser.add_argument(
        "--candidates",
        type=whole(1, optional=True),
        metavar="M",
        help="for --complete-from: z is chosen among M draws from the prior, 64 unless told, by "
        "how well each explains the rows kept; more are better and slower",
    )


def add_encode(parser: Any) -> None:
    """Add the options of `encode`."""
    _add_run(parser)
    parser.add_argument(
        "--data",
        type=str,
        required=True,
        help="images to encode, named as in fit: a data set, a folder, an .npz file; they are "
        "resized and turned to grey as in the run",
    )
    add_data_dir(parser)
    parser.add_argument(
        "--split",
        type=Literal["all", "train", "test"],
        default="all",
        help="all: every image in the order of the source, so that row i belongs to the i-th file "
        "of a sorted folder",
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help=".npz with what the posteriors are, (images, steps, channels): mu and sigma; of "
        "directions mu, of codes probabilities or codes; and labels if there are any",
    )
    add_trust(parser)
    add_config(parser)


def add_report(parser: Any) -> None:
    """Add the options of `report`."""
    parser.add_argument(
        "runs",
        type=Path,
        nargs="+",
        help="run folders: first the run that the page is about, then its rivals",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the page to write, .html"
    )
    parser.add_argument(
        "--seed", type=whole(0, MAX_SEED), default=0, metavar="N", help="seed of the samples shown"
    )
    add_trust(parser)
    add_config(parser)


def add_rate(parser: Any) -> None:
    """Add the options of `rate`."""
    parser.add_argument(
        "--n",
        type=whole(1),
        required=True,
        metavar="N",
        help="latent steps; a model of images has one per row",
    )
    parser.add_argument(
        "--d",
        type=whole(1, optional=True),
        metavar="D",
        help="channels of each latent step; by default as few as commit δ with α ≤ 0.8, or 8 with "
        "--alpha",
    )
    parser.add_argument(
        "--delta_bits",
        type=positive(optional=True),
        metavar="BITS",
        help="committed rate δ in bits per example: solve for α",
    )
    parser.add_argument(
        "--delta_nats", type=positive(optional=True), metavar="NATS", help="the same in nats"
    )
    parser.add_argument(
        "--alpha",
        type=str | None,
        metavar="A|LO:HI",
        help="autocorrelation of the prior from one step to the next, |α| < 1: the same in every "
        "channel, or a ladder from LO to HI; with a δ the ladder is scaled until it commits δ",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print JSON: committed_rate_bits, committed_rate_nats, alpha and the minimiser's σ",
    )
    add_config(parser)


def add_study(parser: Any) -> None:
    """Add the options of `study`."""
    parser.add_argument(
        "study",
        type=str | None,
        nargs="?",
        metavar="NAME",
        help="one of the studies below, or all; or with --trust a class of your own, as "
        "my_module.MyStudy",
    )
    parser.add_argument(
        "--budget",
        type=Literal["smoke", "cpu", "paper"],
        default="cpu",
        help="smoke: tiny cells that only show that all works; cpu: cells of minutes on one core; "
        "paper: the paper's own size, for GPUs",
    )
    parser.add_argument(
        "--out",
        type=Path | None,
        metavar="DIR",
        help="required: folder of all cells and pages; one for each budget",
    )
    _add_executor(parser)
    parser.add_argument(
        "--cells",
        type=str,
        nargs="+",
        default=["*"],
        metavar="PATTERN",
        help="run only the cells whose names match one of these, as '*-seed0'; quote the star",
    )
    parser.add_argument(
        "--tables_only",
        action="store_true",
        help="make the pages anew from the results in DIR, and train nothing",
    )
    add_trust(parser)
    add_config(parser)


def _add_executor(parser: Any) -> None:
    parser.add_argument(
        "--jobs",
        type=whole(1),
        default=1,
        metavar="N",
        help="cells trained side by side, each with one thread on a core of its own",
    )
    parser.add_argument(
        "--executor",
        type=Literal["local", "ray"],
        default="local",
        help="who trains the cells: this machine, or a Ray cluster whose machines share DIR",
    )
    parser.add_argument(
        "--address",
        type=str,
        default="auto",
        metavar="ADDRESS",
        help="of the Ray cluster; auto: the one that runs here; local: one of --jobs CPUs for the "
        "time of this command",
    )
