"""The trainings of configs/paper for Table 6, as options of `fit`: a test compares them.

Published are layers, hidden units, attention layers, channels and the ladder of α's; the rest is
this project's choice, none of it tuned. The files say which is which.

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, Table 6,
https://arxiv.org/abs/1901.03416
"""

from collections.abc import Mapping
from typing import Any

Options = dict[str, Any]

_MODEL = (
    "latent_channels",
    "alpha",
    "latents",
    "decoder",
    "encoder",
    "likelihood",
    "aux_hidden",
)
_SHORT = {
    "batch_size": 64,
    "learning_rate": 1e-3,
    "warmup_steps": 1000,
    "ema_decay": 0.9995,
    "epochs": 200,
}
_LONG = {
    "batch_size": 128,
    "learning_rate": 4e-4,
    "warmup_steps": 5000,
    "ema_decay": 0.9999,
    "epochs": 400,
    "checkpoint_minutes": 10,
}


def _recipe(
    channels: int, alpha: str, decoder: Options, encoder: Options, length: Options
) -> Options:
    return {
        "data": "cifar10",
        "augment": "flip",
        "latent_channels": channels,
        "alpha": alpha,
        "latents": {
            "class_path": "deltavae.latents.AR1",
            "init_args": {"minimiser_units": False, "innovations": False},
        },
        "decoder": {
            "class_path": "deltavae.decoders.PixelSNAIL",
            "init_args": {"kernel_size": 2, "attend_every": 4, **decoder},
        },
        "encoder": {
            "class_path": "deltavae.encoders.AntiCausalPixelSNAIL",
            "init_args": {"kernel_size": 2, **encoder},
        },
        "likelihood": {
            "class_path": "deltavae.likelihoods.DiscretisedLogisticMixture",
            "init_args": {"mixtures": 10},
        },
        "aux_hidden": 256,
        "precision": "bf16-mixed",
        "prior_steps": 20_000,
        **length,
    }


def _sizes(layers: int, channels: int, attention_layers: int, **more: Any) -> Options:
    sizes = {"layers": layers, "channels": channels, "attention_layers": attention_layers}
    return {**sizes, "heads": channels // 32, **more}


_L6, _L8 = _sizes(6, 128, 0, dropout=0.1), _sizes(8, 128, 2, dropout=0.1)
_LARGE = {"dropout": 0.5, "checkpointing": True}

RECIPES: Mapping[str, Options] = {  # by the names of the files
    "l6-h128-a0-low": _recipe(8, "0.5:0.95", _L6, _L6, _SHORT),
    "l8-h128-a2-low": _recipe(8, "0.5:0.95", _L8, _L8, _SHORT),
    "l8-h128-a2-high": _recipe(64, "0.5:0.99", _L8, _L8, _SHORT),
    "enc-l20-h128-dec-l30-h256-a6-low": _recipe(
        8, "0.5:0.95", _sizes(30, 256, 6, **_LARGE), _sizes(20, 128, 6, **_LARGE), _LONG
    ),
}


def model_of(name: str) -> Options:
    """Return the part of a recipe that shapes the model.

    Args:
        name: One of RECIPES.

    Returns:
        Options of `fit`.
    """
    return {option: value for option, value in RECIPES[name].items() if option in _MODEL}


def training_of(name: str) -> Options:
    """Return the part of a recipe that says on what, and how long, to train.

    Args:
        name: One of RECIPES.

    Returns:
        Options of `fit`.
    """
    return {option: value for option, value in RECIPES[name].items() if option not in _MODEL}
