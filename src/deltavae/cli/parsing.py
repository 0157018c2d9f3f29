"""Options: every one is a flag and a key of a YAML file; a wrong one ends in one line.

jsonargparse parses and checks; here its parsers are filled, flags may be written with dashes, and its
errors are shortened to the option, the value, and what is permitted or nearest.
"""

import argparse
import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NoReturn

from jsonargparse import ArgumentParser
from jsonargparse._actions import ActionConfigFile  # the public name is not exported to mypy

from deltavae.cli import COMMANDS
from deltavae.configuration import ENCODERS
from deltavae.decoders import Decoder
from deltavae.encoders import Encoder
from deltavae.latents import Latents
from deltavae.likelihoods import Likelihood
from deltavae.objectives import Objective

# What the model gets from the data and from the other parts, not from the user.
_DERIVED = {
    "latents": ("n", "d", "alpha", "delta"),
    "encoder": ("image_shape", "levels", "params_per_step"),
    "decoder": ("image_shape", "likelihood", "latent_shape"),
    "likelihood": ("channels", "levels"),
}


class CommandError(Exception):
    """A command failed for no fault of its input: exit status 1."""


def nearest(word: str, words: Iterable[str]) -> str:
    """Return a suggestion to add to an error, or nothing."""
    found = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f": did you mean {found[0]}?" if found else ""


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
        raise ValueError(self._shorten(message)) from ex

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

    def _shorten(self, message: str) -> str:
        unknown = re.match(r"[Uu]nrecognized arguments: (\S+)", message)
        if unknown:
            flags = [flag for action in self._actions for flag in action.option_strings]
            flag = unknown[1].split("=")[0].replace("_", "-")
            return f"unknown option {flag}{nearest(flag, [f.replace('_', '-') for f in flags])}"
        key = re.search(r'[Pp]arser key "([^"]+)"', message)
        name = key[1] if key else ""
        option = f"--{name.replace('_', '-')}: " if key else ""
        refused = re.search(r"Option '([^']+)' is not accepted", message)
        if refused:
            return f"{option}no option {refused[1]}"
        got = re.search(r"Given value: (.*)|Got value: (.*)", message)
        value = next((text for text in got.groups() if text), "") if got else ""
        classes = _class_names(name)
        if value and classes:
            return f"{option}got {value}, permitted: {', '.join(classes)}{nearest(value, classes)}"
        lines = [line.strip(" -") for line in message.splitlines()]
        expected = [line for line in lines if line.startswith("Expected")]
        told = " or ".join(expected) or " ".join(lines[1:] if key and lines[1:] else lines)
        for kind, word in _KINDS.items():
            told = told.replace(kind, word)
        told = re.sub(r"\.? Got value: .*", "", told.replace(" or Expected", " or"))
        if told.startswith("no option"):
            told += f" (--{name}.help CLASS lists the options)"
        return f"{option}{told}" + (f", got {value}" if value else "")


_KINDS = {
    "a <class 'float'>": "a number",
    "a <class 'int'>": "a whole number",
    "a <class 'NoneType'>": "null",
    "a typing.Literal": "one of ",
}


def _class_names(part: str) -> list[str]:
    bases: dict[str, type] = {
        "latents": Latents,
        "encoder": Encoder,
        "decoder": Decoder,
        "likelihood": Likelihood,
        "objective": Objective,
    }
    if part not in bases:
        return []
    known: list[type] = type.__subclasses__(bases[part])
    short = {"latents": ["none"], "encoder": list(ENCODERS)}
    return short.get(part, []) + [cls.__name__ for cls in known]


def parse(command: str, words: list[str]) -> dict[str, Any]:
    """Parse a command's words.

    Args:
        command: One of `COMMANDS`.
        words: What follows it.

    Returns:
        Every option by its name, with underscores.

    Raises:
        ValueError: If a word is wrong.
    """
    parser = Parser(
        prog=f"deltavae {command}",
        description=f"{COMMANDS[command].capitalize()}.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    globals()[f"_add_{command.replace('-', '_')}"](parser)
    words = _with_encoder_class([_underscored(word) for word in words])
    if command == "fit":
        words = _with_resumed_config(words)
    parsed = parser.parse_args(words)
    options: dict[str, Any] = parsed.as_dict()
    options.pop("config", None)
    if command == "fit":
        trainer_defaults = parser.get_defaults().as_dict()["trainer"]
        options["trainer"] = {
            name: value
            for name, value in options["trainer"].items()
            if value != trainer_defaults[name]
        }
        options["given"] = _model_options_given(parser, options)
    return options


def _underscored(word: str) -> str:
    if not word.startswith("--"):
        return word
    name, equals, value = word[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"


def _with_encoder_class(words: list[str]) -> list[str]:
    # The encoders' short names as classes, so that --encoder.NAME can follow.
    named = [
        f"--encoder={ENCODERS[w]}" if f == "--encoder" and w in ENCODERS else w
        for f, w in zip(["", *words], words, strict=False)
    ]
    return [
        w
        for w, after in zip(named, [*named[1:], ""], strict=True)
        if not (w == "--encoder" and after.startswith("--encoder="))
    ]


def _value_of(words: list[str], flag: str) -> str | None:
    for i, word in enumerate(words):
        if word == flag and i + 1 < len(words):
            return words[i + 1]
        if word.startswith(f"{flag}="):
            return word.partition("=")[2]
    return None


def _with_resumed_config(words: list[str]) -> list[str]:
    # --resume takes every option from the run's own configuration; flags on the line win.
    folder = _value_of(words, "--run_dir")
    if "--resume" not in words or folder is None:
        return words
    config = Path(folder) / "config.yaml"
    if not config.is_file():
        raise ValueError(f"{folder}: no config.yaml to resume from: leave --resume out to begin")
    return [f"--config={config}", *words]


def _model_options_given(parser: Parser, options: dict[str, Any]) -> list[str]:
    defaults = parser.get_defaults().as_dict()
    names = (*_DERIVED, "delta_bits", "latent_channels", "alpha", "aux_hidden")
    return [name for name in names if options[name] != defaults[name]]


def _components(
    decoder: Decoder,
    latents: Literal["none"] | Latents = "none",
    encoder: Literal["anti-causal", "non-causal"] | Encoder = "anti-causal",
    likelihood: Likelihood | None = None,
    objective: Objective | None = None,
) -> None:
    """Model: classes and their own options.

    Args:
        decoder: Autoregressive decoder p(x|z); its options follow as --decoder.NAME.
        latents: Pair of posterior and prior: AR1 (mean-field Gaussian × AR(1), the paper's),
            Independent (constrained Gaussian × N(0, I)), Standard (the ordinary VAE, no floor),
            or none (the decoder alone).
        encoder: anti-causal (z_t sees rows ≥ t), non-causal (z_t sees the whole image), or a class.
        likelihood: Distribution of a pixel; null: Bernoulli for 2 levels, Categorical up to 32,
            else DiscretisedLogisticMixture.
        objective: Terms of the bound → loss: ELBO, Beta, LinearAnnealing, CyclicalAnnealing,
            FreeBitsPerExample, FreeBitsPerChannel.
    """


def _add_fit(parser: Parser) -> None:
    from lightning.pytorch import Trainer

    parser.add_argument(
        "--config", action=ActionConfigFile, help="YAML file of options; later flags win"
    )
    data = parser.add_argument_group("data")
    _add_data(data, required=True)
    data.add_argument("--run_dir", type=Path, required=True, help="folder of the run, made anew")
    data.add_argument(
        "--resume",
        action="store_true",
        help="go on exactly where the run stopped, with its options",
    )
    data.add_argument(
        "--trust",
        action="store_true",
        help="take classes from outside deltavae in a configuration",
    )
    rate = parser.add_argument_group("committed rate")
    rate.add_argument(
        "--delta_bits", type=float | None, help="committed rate δ in bits per example; null: 20"
    )
    rate.add_argument("--latent_channels", type=int, default=8, help="channels d of each latent")
    rate.add_argument(
        "--alpha", type=str | None, help="AR1: A or LO:HI, the prior's coefficients, instead of δ"
    )
    rate.add_argument("--aux_hidden", type=int, default=64, help="LSTM units, auxiliary prior")
    skip: set[str | int] = {
        f"{part}.init_args.{name}" for part, names in _DERIVED.items() for name in names
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
        "--model", type=dict | None, help="complete model of a config.yaml, instead of the above"
    )
    _add_training(parser.add_argument_group("training"))
    end = parser.add_argument_group("after training")
    end.add_argument("--prior_steps", type=int, default=2000, help="steps of the prior's last fit")
    _add_measuring(end)
    owned = {"callbacks", "logger", "plugins", "precision", "max_epochs", "max_steps", "max_time"}
    owned |= {
        "log_every_n_steps",
        "use_distributed_sampler",
        "gradient_clip_val",
        "default_root_dir",
    }
    owned |= {"gradient_clip_algorithm", "min_epochs", "min_steps", "enable_checkpointing"}
    parser.add_class_arguments(Trainer, "trainer", skip=owned)


def _add_training(group: Any) -> None:
    group.add_argument("--epochs", type=float, default=20.0, help="passes over the training set")
    group.add_argument("--batch_size", type=int, default=64, help="examples per step")
    group.add_argument("--learning_rate", type=float, default=2e-3, help="peak, AdamW")
    group.add_argument("--warmup_steps", type=int, default=100, help="linear rise to the peak")
    group.add_argument("--weight_decay", type=float, default=1e-4, help="decoupled")
    group.add_argument("--clip_norm", type=float, default=1.0, help="largest gradient norm")
    group.add_argument("--ema_decay", type=float, default=0.999, help="decay of weight average")
    group.add_argument(
        "--precision",
        type=Literal["32-true", "bf16-mixed", "16-mixed", "64-true"],
        default="32-true",
        help="likelihood and rate stay in float32",
    )
    group.add_argument("--max_minutes", type=float | None, help="end of the training's cosine")
    group.add_argument(
        "--checkpoint_minutes", type=float, default=2.0, help="time between two checkpoints"
    )
    group.add_argument("--log_every", type=int, default=50, help="steps between log entries")
    group.add_argument("--seed", type=int, default=0, help="weights, batches, noise")


def _add_data(group: Any, *, required: bool) -> None:
    group.add_argument(
        "--data",
        type=str,
        required=required,
        help="digits, fashion_mnist, cifar10, imagenet32, a folder of images, an .npy or .npz file "
        "of uint8 images, or hf:NAME",
    )
    group.add_argument("--data_dir", type=Path | None, help="folder of data sets ($DELTAVAE_DATA)")
    group.add_argument("--size", type=int | None, help="resize to SIZE × SIZE")
    group.add_argument("--grey", action="store_true", help="one channel instead of three")
    group.add_argument("--levels", type=int | None, help="reduce to so many levels; 2: binarised")


def _add_measuring(group: Any) -> None:
    group.add_argument(
        "--importance_samples",
        type=int,
        default=8,
        help="K of the importance-weighted bounds; 0: none",
    )
    group.add_argument("--limit", type=int | None, help="measure the first so many examples only")


def _add_run(parser: Parser) -> None:
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument(
        "--trust",
        action="store_true",
        help="take classes from outside deltavae in its configuration",
    )


def _add_fit_prior(parser: Parser) -> None:
    _add_run(parser)
    parser.add_argument("--hidden", type=int, default=64, help="LSTM units")
    parser.add_argument("--steps", type=int, default=2000, help="optimiser steps")
    parser.add_argument("--examples", type=int, default=20_000, help="training images at most")
    parser.add_argument("--seed", type=int, default=0, help="weights, batches and noise")


def _add_evaluate(parser: Parser) -> None:
    _add_run(parser)
    parser.add_argument("--split", type=Literal["train", "test"], default="test", help="examples")
    _add_measuring(parser)
    parser.add_argument("--seed", type=int, default=0, help="posterior noise")
    parser.add_argument("--json", action="store_true", help="print the metrics as JSON")


def _add_sample(parser: Parser) -> None:
    _add_run(parser)
    parser.add_argument("--n", type=int, default=16, help="images; with --fixed-latent per row")
    parser.add_argument("--out", type=Path, required=True, help=".png picture or .npz array")
    parser.add_argument(
        "--prior", type=Literal["aux", "model"], default="aux", help="where z comes from"
    )
    parser.add_argument(
        "--fixed_latent", type=int | None, help="so many rows, each N decodings of one z"
    )
    parser.add_argument("--temperature", type=float, default=1.0, help="scale of decoder's logits")
    parser.add_argument("--seed", type=int, default=0, help="z and pixels")


def _add_encode(parser: Parser) -> None:
    _add_run(parser)
    parser.add_argument("--data", type=str, required=True, help="as in fit")
    parser.add_argument("--data_dir", type=Path | None, help="folder of data sets")
    parser.add_argument(
        "--split", type=Literal["all", "train", "test"], default="all", help="all: in source order"
    )
    parser.add_argument("--out", type=Path, required=True, help=".npz with mu, sigma, labels")


def _add_report(parser: Parser) -> None:
    parser.add_argument("runs", type=Path, nargs="+", help="run folders; rivals after the run")
    parser.add_argument("--out", type=Path, required=True, help="the page, .html")
    parser.add_argument("--seed", type=int, default=0, help="samples")
    parser.add_argument(
        "--trust", action="store_true", help="take classes from outside deltavae in configurations"
    )


def _add_rate(parser: Parser) -> None:
    parser.add_argument("--n", type=int, required=True, help="latent steps")
    parser.add_argument("--d", type=int, required=True, help="latent channels")
    parser.add_argument(
        "--delta_bits", type=float | None, help="committed rate to solve for, bits"
    )
    parser.add_argument("--delta_nats", type=float | None, help="the same in nats")
    parser.add_argument(
        "--alpha", type=str | None, help="A or LO:HI; with a δ the ladder is scaled to hit it"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
