"""Data, nets and length of the studies' trainings: the same for all methods of a budget.

    smoke   8×8 digits, nets of a few thousand weights, seconds a cell: shows that it runs
    cpu     Fashion-MNIST at 14×14, CIFAR-10 at 16×16 (box averages), minutes of one core a cell
    paper   CIFAR-10 at 32×32, nets as in Table 6, days of a GPU a cell

Deviations: in the budget "cpu" other data and smaller nets than the paper's; in the budget "paper"
what configs/paper says of its own.

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, section 4 and its appendix,
https://arxiv.org/abs/1901.03416
"""

import re
from collections.abc import Mapping
from typing import Any

from deltavae.studies.base import Budget, Cell

Options = dict[str, Any]

SEEDS: Mapping[Budget, int] = {"smoke": 1, "cpu": 3, "paper": 3}
CHANNELS: Mapping[Budget, int] = {"smoke": 2, "cpu": 4, "paper": 8}  # latent channels d
ANNEALING: Mapping[Budget, int] = {"smoke": 10, "cpu": 1500, "paper": 30_000}  # steps
TARGETS: Mapping[Budget, tuple[float, ...]] = {  # bits per image
    "smoke": (10.0,),
    "cpu": (5.0, 10.0, 20.0, 40.0),
    "paper": (20.0, 40.0, 79.447, 160.0),
}
DATA: Mapping[Budget, tuple[str, ...]] = {
    "smoke": ("digits",),
    "cpu": ("fashion_mnist", "cifar10"),
    "paper": ("cifar10",),
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
    if budget == "smoke":
        return {
            "data": data,
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
        }
    if budget == "paper":
        return {
            "data": data,
            "augment": "flip",
            "batch_size": 128,
            "epochs": 400,
            "precision": "bf16-mixed",
            "compile": True,
            "learning_rate": 4e-4,
            "warmup_steps": 5000,
            "ema_decay": 0.9999,
            "prior_steps": 20_000,
            "importance_samples": 16,
        }
    return {
        "data": data,
        "size": 14 if data == "fashion_mnist" else 16,
        "holdout": 1000,
        "val_every": 250,
        "batch_size": 64,
        "epochs": 2.2,
        "learning_rate": 4e-3,
        "precision": "bf16-mixed",
        "prior_steps": 1000,
        "importance_samples": 4,
        "report": False,
    }


def nets(budget: Budget, *, layers: int | None = None, causal: bool = True) -> Options:
    """Return the decoder and the encoder that all methods share.

    Args:
        budget: The budget.
        layers: Depth of the decoder; None: the budget's own.
        causal: Whether the encoder is anti-causal.

    Returns:
        Options of `fit`.
    """
    if budget == "paper":
        encoder = "AntiCausalPixelSNAIL" if causal else "NonCausalPixelSNAIL"
        sizes = {"layers": 8 if layers is None else layers, "channels": 128, "heads": 4}
        sizes |= {"attention_layers": 2, "checkpointing": True}
        return {
            "decoder": component("decoders.PixelSNAIL", dropout=0.5, attend_every=4, **sizes),
            "encoder": component(f"encoders.{encoder}", dropout=0.5, **sizes),
        }
    small = budget == "smoke"
    depth = (2 if small else 4) if layers is None else layers
    encoder = "AntiCausalEncoder" if causal else "NonCausalEncoder"
    return {
        "decoder": component(
            "decoders.GatedPixelCNN",
            channels=8 if small else 24,
            layers=depth,
            kernel_size=3,
            heads=1,
            attend_every=4,
        ),
        "encoder": component(f"encoders.{encoder}", channels=4 if small else 16, layers=2),
        "aux_hidden": 8 if small else 64,
    }


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
