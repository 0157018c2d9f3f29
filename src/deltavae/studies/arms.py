"""The arms of `latents_against_decoder`: nets of level weights, steps of level time, tuning.

Same weights: of the sizes of the auxiliary prior and the widths of the decoder alone those whose
totals are nearest. The same decoder: its attention to the latents included, which read z = 0 where
there are none. Same time: the number of steps is the budget's minutes over the time of one
step, for all arms of a data set and depth in one run of one thread (`SECONDS`;
benchmarks/step_times.py), so that a busy machine slows a training but does not shorten it; what
fitting the auxiliary prior afterwards takes (`FIT_SECONDS`) is the δ-VAE's time too. Same tuning:
for every arm the best learning rate of the same grid by the bound on held-out images, on a seed of
its own (`TUNED`); a comparison that is not declared takes over the rates of its data set's first.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import nn

from deltavae.aux_prior import AuxiliaryPrior
from deltavae.data import data_layout
from deltavae.likelihoods import default_likelihood
from deltavae.run_folder import instantiate
from deltavae.studies.base import Budget
from deltavae.studies.methods import channels_for, delta_vae
from deltavae.studies.settings import component, training

OURS, SAME_DECODER, SAME_WEIGHTS = "δ-VAE", "same decoder", "same weights"
ARMS = (OURS, SAME_DECODER, SAME_WEIGHTS)
LEVEL = 0.02  # largest relative difference in the number of weights
RATE: Mapping[str, float] = {"digits": 5.0, "fashion_mnist": 10.0, "cifar10": 10.0}  # δ, bits


@dataclass(frozen=True)
class Comparison:
    """The arms at one data set and one depth of the decoder.

    Attributes:
        data: The data set.
        depth: Layers of the decoder.
        seeds: Seeds of the comparison.
        pilots: Seeds of the pilots, none of them in `seeds`.
        bound: The δ-VAE's bound that was declared beforehand to give the answer; None: none was,
            and the comparison takes over the learning rates of its data set's first.
        samples: Draws of the importance-weighted bounds; None: as in all studies.
    """

    data: str
    depth: int
    seeds: range
    pilots: range = range(0)
    bound: Literal["aux_elbo_bpd", "aux_iwae_bpd"] | None = None
    samples: int | None = None


@dataclass(frozen=True)
class Plan:
    """Sizes and length at a budget.

    Attributes:
        channels: Width of the decoder.
        encoder: Sizes of the encoder.
        aux_hidden: Sizes of the auxiliary prior to choose from, so that the weights can be level.
        comparisons: What is compared; a data set's first is declared.
        grid: Learning rates to choose from.
        minutes: Training time of every arm.
    """

    channels: int
    encoder: Mapping[str, int]
    aux_hidden: Sequence[int]
    comparisons: Sequence[Comparison]
    grid: Sequence[float]
    minutes: float


PLANS: Mapping[Budget, Plan] = {
    "smoke": Plan(
        8,
        {"channels": 4, "layers": 1},
        range(4, 17),
        (Comparison("digits", 2, range(1), bound="aux_elbo_bpd"),),
        (4e-3,),
        0.01,
    ),
    "cpu": Plan(
        24,
        {"channels": 12, "layers": 1},
        range(24, 65, 4),
        (
            Comparison("fashion_mnist", 2, range(6), range(1001, 1004), "aux_elbo_bpd"),
            Comparison("fashion_mnist", 1, range(3, 9), range(3), "aux_iwae_bpd", 64),
            Comparison("cifar10", 2, range(6), range(1001, 1004), "aux_elbo_bpd"),
            Comparison("cifar10", 1, range(3)),
        ),
        (4e-3, 8e-3, 1.6e-2, 3.2e-2),
        5.0,
    ),
    "paper": Plan(
        128,
        {"channels": 64, "layers": 6},
        range(128, 257, 16),
        (Comparison("cifar10", 12, range(5), range(1001, 1004), "aux_elbo_bpd"),),
        (2e-4, 4e-4, 8e-4),
        10_000.0,
    ),
}

# Seconds of a step of every arm, by data set and depth: benchmarks/step_times.py, one thread.
SECONDS: Mapping[tuple[str, int], Mapping[str, float]] = {
    ("digits", 2): {OURS: 0.03, SAME_DECODER: 0.01, SAME_WEIGHTS: 0.015},
    ("fashion_mnist", 1): {OURS: 0.0435, SAME_DECODER: 0.0276, SAME_WEIGHTS: 0.038},
    ("fashion_mnist", 2): {OURS: 0.0545, SAME_DECODER: 0.0386, SAME_WEIGHTS: 0.0469},
    ("cifar10", 1): {OURS: 0.0648, SAME_DECODER: 0.0448, SAME_WEIGHTS: 0.0657},
    ("cifar10", 2): {OURS: 0.074, SAME_DECODER: 0.0554, SAME_WEIGHTS: 0.0625},
    ("cifar10", 12): {OURS: 1.4, SAME_DECODER: 1.0, SAME_WEIGHTS: 1.2},  # assumed: no GPU here
}

# Seconds of a step of fitting the auxiliary prior after the training, by data set: likewise.
FIT_SECONDS: Mapping[str, float] = {"digits": 0.004, "fashion_mnist": 0.0046, "cifar10": 0.0048}

# The best of a budget's grid on held-out images, by arm (table "tuning").
TUNED: Mapping[tuple[Budget, str, int], Mapping[str, float]] = {
    ("cpu", "fashion_mnist", 2): dict.fromkeys(ARMS, 8e-3),
    ("cpu", "fashion_mnist", 1): dict.fromkeys(ARMS, 8e-3),  # that of 2 layers; not yet tuned
    ("cpu", "cifar10", 2): dict.fromkeys(ARMS, 1.6e-2),
    ("cpu", "cifar10", 1): dict.fromkeys(ARMS, 1.6e-2),  # taken over
}


@cache
def parts(budget: Budget, data: str, depth: int) -> dict[str, dict[str, Any]]:
    """Return the nets of every arm, as options of `fit`.

    Args:
        budget: The budget.
        data: A data set of its plan.
        depth: Layers of the decoder.

    Returns:
        By arm decoder and, for the δ-VAE, encoder and aux_hidden.
    """
    plan = PLANS[budget]
    layout = data_layout(data, size=training(budget, data).get("size"))
    shape, d = layout.shape, channels_for(budget, data, RATE[data])
    likelihood = default_likelihood(shape[0], layout.levels)
    n = shape[1]

    def decoder(width: int) -> dict[str, Any]:
        sizes = {"layers": depth, "kernel_size": 3, "heads": 1, "attend_every": depth}
        return component("decoders.GatedPixelCNN", channels=width, **sizes)

    def weights(spec: Mapping[str, Any], **known: Any) -> int:
        with torch.device("meta"):
            built = instantiate({**spec, "init_args": {**spec["init_args"], **known}})
        assert isinstance(built, nn.Module)
        return sum(p.numel() for p in built.parameters())

    known = {"image_shape": shape, "likelihood": likelihood}
    encoder = component("encoders.AntiCausalEncoder", **plan.encoder)
    own = weights(decoder(plan.channels), **known, latent_shape=(n, d))
    own += weights(encoder, image_shape=shape, levels=layout.levels, params_per_step=2 * d)

    @cache
    def alone(width: int) -> int:
        return weights(decoder(width), **known, latent_shape=(n, d))

    widths = range(plan.channels, 3 * plan.channels)
    gap, hidden, width = min(
        (abs(alone(width) / total - 1), hidden, width)
        for hidden in plan.aux_hidden
        for total in [own + _prior(n, d, hidden)]
        for place in [bisect_left(widths, total, key=alone)]  # wider is heavier
        for width in widths[max(0, place - 1) : place + 1]
    )
    assert gap <= LEVEL, f"{data}, {depth} layers: weights differ by {gap:.1%}"
    return {
        OURS: {"decoder": decoder(plan.channels), "encoder": encoder, "aux_hidden": hidden},
        SAME_DECODER: {"decoder": decoder(plan.channels)},
        SAME_WEIGHTS: {"decoder": decoder(width)},
    }


def _prior(n: int, d: int, hidden: int) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in AuxiliaryPrior(n, d, hidden).parameters())


def options(budget: Budget, data: str, depth: int, arm: str) -> dict[str, Any]:
    """Return the options of `fit` of an arm, but for seed and learning rate.

    Args:
        budget: The budget.
        data: A data set of its plan.
        depth: Layers of the decoder.
        arm: One of ARMS.

    Returns:
        The options.
    """
    shared = training(budget, data)
    latents = delta_vae(budget, data, RATE[data]).options
    if arm != OURS:
        latents = {"latents": "zero", "latent_channels": latents["latent_channels"]}
    seconds = 60.0 * PLANS[budget].minutes
    if arm == OURS:
        seconds -= shared["prior_steps"] * FIT_SECONDS[data]
    steps = max(1.0, seconds / SECONDS[data, depth][arm])
    per_epoch = _train_images(data, shared.get("holdout", 0)) // shared["batch_size"]
    nets = parts(budget, data, depth)[arm]
    return {**shared, **latents, **nets, "epochs": round(steps) / per_epoch}


def _train_images(data: str, holdout: int) -> int:
    return data_layout(data, holdout=holdout).training_images


def learning_rate(budget: Budget, data: str, depth: int, arm: str) -> float:
    """Return the learning rate of an arm: the tuned one, else the middle of the grid.

    Args:
        budget: The budget.
        data: A data set of its plan.
        depth: Layers of the decoder.
        arm: One of ARMS.

    Returns:
        The peak learning rate.
    """
    grid = PLANS[budget].grid
    return TUNED.get((budget, data, depth), {}).get(arm, grid[len(grid) // 2])
