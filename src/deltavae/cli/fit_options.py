"""The options of `fit`: data, committed rate, model, training, what follows it."""

from inspect import isabstract, signature
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ActionYesNo

from deltavae import latents as pairs
from deltavae.cli.device_options import add_device
from deltavae.cli.options import (
    MAX_SEED,
    add_config,
    add_data,
    add_measuring,
    add_trust,
)
from deltavae.cli.ranges import not_negative, positive, whole
from deltavae.configuration import ENCODERS
from deltavae.decoders import Decoder
from deltavae.encoders import Encoder
from deltavae.latents import Latents
from deltavae.likelihoods import Likelihood
from deltavae.objectives import Objective

BASES: dict[str, type] = {
    "decoder": Decoder,
    "latents": Latents,
    "encoder": Encoder,
    "likelihood": Likelihood,
    "objective": Objective,
}

# What shapes the model: config.yaml keeps the model in full in their place.
MODEL_OPTIONS = (
    "decoder",
    "latents",
    "encoder",
    "likelihood",
    "delta_bits",
    "latent_channels",
    "alpha",
    "aux_hidden",
)


def _solved() -> tuple[str, ...]:
    # Arguments of the pairs that the data give or `from_rate` finds.
    names = {"n", "d", "delta"}
    for name in pairs.__all__:
        pair = getattr(pairs, name)
        if isinstance(pair, type) and issubclass(pair, Latents) and not isabstract(pair):
            names |= set(signature(pair).parameters) - set(signature(pair.from_rate).parameters)
    return tuple(sorted(names))


# What the parts get from the data and from each other, not from the user.
DERIVED = {
    "latents": _solved(),
    "encoder": ("image_shape", "levels", "params_per_step", "boxes"),
    "decoder": ("image_shape", "likelihood", "latent_shape", "boxes"),
    "likelihood": ("channels", "levels"),
}


def _components(
    decoder: Decoder,
    latents: Literal["none", "zero"] | Latents = "none",
    encoder: Literal["anti-causal", "non-causal"] | Encoder = "anti-causal",
    likelihood: Likelihood | None = None,
    objective: Objective | None = None,
) -> None:
    """Model: a class each, whose own options follow as --decoder.channels 64.

    Args:
        decoder: Autoregressive decoder p(x|z): GatedPixelCNN, or PixelSNAIL, which attends to all
            earlier pixels.
        latents: Pair of posterior and prior; none: the decoder alone; zero: the decoder with its
            attention to z = 0 for every x, the rival of the same layers.
            Gaussian × line of steps: AR1 (the paper's choice), LearnableAR1 (its α is learned
            above a floor), ARp, Matern, SquaredExponential.
            Gaussian × tiles, nested rows, a precision of your own: Grid, Tree, GaussianMarkov.
            Gaussian × N(0, I): Independent (constrained), BoundedVariance (σ ≤ σ_max).
            Gaussian × another density: MeanFieldPair (separated modes, Student-t, Laplace).
            Directions: Spherical. Codes: Categorical (bounded entropy), Quantised (levels).
            Rivals: Standard (the ordinary VAE: no floor), LearnedPrior (an LSTM trained with the
            model: no floor), BatchNorm (a floor on the mean over a training batch only).
        encoder: anti-causal (z_t is made from the rows from t on, or from the first pixel of its
            tile on), non-causal (every z_t from the whole image), either on PixelSNAIL's
            blueprint (AntiCausalPixelSNAIL, NonCausalPixelSNAIL), or a class.
        likelihood: Distribution of a pixel: Bernoulli, Categorical or DiscretisedLogisticMixture.
            Without it Bernoulli for 2 levels, Categorical up to 32, else the mixture.
        objective: What is minimised: ELBO (the plain bound), Beta, LinearAnnealing,
            CyclicalAnnealing, FreeBitsPerExample, FreeBitsPerChannel, or ControlVAE (steers the
            rate to a target).
    """


def add_fit(parser: Any) -> None:
    """Add the options of `fit`."""
    run = parser.add_argument_group("run")
    run.add_argument(
        "--run_dir", type=Path, required=True, metavar="DIR", help="folder to make for the run"
    )
    run.add_argument(
        "--resume",
        action="store_true",
        help="go on exactly where the run in DIR stopped, with its options; needs no other flag",
    )
    add_trust(run)
    add_config(parser)
    data = parser.add_argument_group("data")
    add_data(data, required=True)
    _add_holdout(data)
    _add_rate(parser.add_argument_group("committed rate"))
    _add_model(parser)
    _add_training(parser.add_argument_group("training"))
    _add_lagging(parser.add_argument_group("lagging inference (a rival; off)"))
    add_device(parser.add_argument_group("device (of Lightning's Trainer)"))
    end = parser.add_argument_group("after training")
    end.add_argument(
        "--prior_steps",
        type=whole(1),
        default=2000,
        metavar="N",
        help="steps of the auxiliary prior's last fit, to the finished encoder",
    )
    add_measuring(end)
    end.add_argument(
        "--report",
        action=ActionYesNo,
        default=True,
        help="write DIR/report.html with samples; --no_report saves their time, and `deltavae "
        "report DIR` writes it later",
    )


def _add_holdout(group: Any) -> None:
    group.add_argument(
        "--holdout",
        type=whole(0),
        default=0,
        metavar="K",
        help="keep the last K training images out of training: log.csv then has the averaged "
        "weights' figures on them (val_...), and evaluate takes --split val",
    )
    group.add_argument(
        "--val_every",
        type=whole(0, optional=True),
        metavar="N",
        help="steps between two measurements on the held-out images; without it 1000; 0: none",
    )
    group.add_argument(
        "--val_examples",
        type=whole(1),
        default=1000,
        metavar="N",
        help="held-out images that are measured each time at most, the first N",
    )
    group.add_argument(
        "--augment",
        type=Literal["flip"] | None,
        metavar="{flip}",
        help="flip: mirror every training image left to right with probability 1/2, anew in every "
        "epoch; evaluation never flips",
    )


def _add_rate(group: Any) -> None:
    group.add_argument(
        "--delta_bits",
        type=positive(optional=True),
        metavar="BITS",
        help="committed rate δ: the rate never falls below so many bits per example; if neither "
        "this nor --alpha is given, 20; `deltavae rate` shows the prior that commits it; with "
        "BatchNorm the floor holds for the mean over a training batch only",
    )
    group.add_argument(
        "--latent_channels",
        type=whole(1, optional=True),
        metavar="D",
        help="channels d of each latent step; there is one step per row of the image, or what "
        "--latents has in its place: tiles (Grid), nested rows (Tree). By default as few as "
        "commit δ with α ≤ 0.8 (AR1, LearnableAR1), where bits above δ are cheap; 8 with --alpha "
        "and for other pairs",
    )
    group.add_argument(
        "--alpha",
        type=str | None,
        metavar="A|LO:HI",
        help="AR1 and LearnableAR1 only: autocorrelation of the prior (LearnableAR1: the least), "
        "|α| < 1, in every channel or as a ladder from LO to HI, in the place of δ; with "
        "--delta-bits the ladder is scaled to commit δ",
    )
    group.add_argument(
        "--aux_hidden",
        type=whole(1),
        default=64,
        metavar="UNITS",
        help="units of the auxiliary prior's LSTM, which learns what the encoder really says",
    )


def _add_model(parser: Any) -> None:
    skip: set[str | int] = {
        f"{part}.init_args.{name}" for part, names in DERIVED.items() for name in names
    }
    parser.add_function_arguments(_components, skip=skip, as_group=True)
    parser.set_defaults(
        {
            "decoder": {"class_path": "deltavae.decoders.GatedPixelCNN"},
            "latents": {"class_path": "deltavae.latents.AR1"},
            "encoder": {"class_path": ENCODERS["anti-causal"]},
            "objective": {"class_path": "deltavae.objectives.ELBO"},
        }
    )
    parser.add_argument(
        "--model",
        type=dict | None,
        metavar="MAPPING",
        help="the complete model of a run's config.yaml: comes from there, not from a flag",
    )


def _add_training(group: Any) -> None:
    group.add_argument(
        "--epochs", type=positive(), default=20.0, metavar="N", help="passes over the training set"
    )
    group.add_argument(
        "--max_minutes",
        type=positive(optional=True),
        metavar="MINUTES",
        help="stop training after so long, even if epochs are left; the learning rate is down "
        "to 0 by then",
    )
    group.add_argument(
        "--batch_size", type=whole(1), default=64, metavar="N", help="examples per step"
    )
    _add_optimiser(group)
    group.add_argument(
        "--checkpoint_minutes",
        type=not_negative(),
        default=2.0,
        metavar="MINUTES",
        help="time between two checkpoints; 0: after every step",
    )
    group.add_argument(
        "--log_every",
        type=whole(1),
        default=50,
        metavar="N",
        help="steps between two rows of log.csv, where the loss is checked too",
    )
    group.add_argument(
        "--seed",
        type=whole(0, MAX_SEED),
        default=0,
        metavar="N",
        help="seed of weights, batches and noise",
    )


def _add_optimiser(group: Any) -> None:
    group.add_argument(
        "--learning_rate",
        type=positive(),
        default=2e-3,
        metavar="RATE",
        help="AdamW's step size at its peak; it rises linearly, then falls to 0 on a cosine",
    )
    group.add_argument(
        "--warmup_steps", type=whole(0), default=100, metavar="N", help="steps of the rise"
    )
    group.add_argument(
        "--weight_decay",
        type=not_negative(),
        default=1e-4,
        metavar="RATE",
        help="AdamW's decoupled weight decay, a share per unit of step size",
    )
    group.add_argument(
        "--clip_norm",
        type=positive(),
        default=1.0,
        metavar="NORM",
        help="gradients with a larger norm are scaled down to it",
    )
    group.add_argument(
        "--ema_decay",
        type=not_negative(below=1.0),
        default=0.999,
        metavar="SHARE",
        help="decay per step of the average of the weights that is kept in model.safetensors; "
        "0: the last weights",
    )
    group.add_argument(
        "--precision",
        type=Literal["32-true", "bf16-mixed", "16-mixed", "64-true"],
        default="32-true",
        help="number format of the networks; likelihood and rate are never below float32",
    )
    group.add_argument(
        "--compile",
        action=ActionYesNo,
        default=False,
        help="compile the training step with torch.compile: the first step takes from half a "
        "minute to some minutes, which count as training time, the others less; needs a C++ "
        "compiler; weights and checkpoints are the same kind",
    )


def _add_lagging(group: Any) -> None:
    group.add_argument(
        "--lagging.inner_steps",
        type=whole(0),
        default=0,
        metavar="K",
        help="to begin with, K steps move the encoder alone, then one moves decoder and prior, "
        "and so on until I(x;z) no longer rises; 0: every step moves everything",
    )
    group.add_argument(
        "--lagging.check_every",
        type=whole(1),
        default=100,
        metavar="N",
        help="steps of the decoder between two estimates of I(x;z), on held-out images where "
        "there are any",
    )
    group.add_argument(
        "--lagging.patience",
        type=whole(1),
        default=5,
        metavar="N",
        help="estimates not above the best before that end this phase",
    )
    group.add_argument(
        "--lagging.extra",
        action=ActionYesNo,
        default=False,
        help="add the encoder's steps to those of --epochs: the decoder gets its full number, and "
        "training takes longer; --no_lagging.extra: they are among them",
    )
    group.add_argument(
        "--lagging.examples",
        type=whole(1),
        default=1000,
        metavar="N",
        help="images of an estimate at most, the first N; it cannot exceed log N",
    )
