"""Can a latent-variable model beat the decoder that it contains? The paper's open question.

Three arms per data set and depth of the decoder, trained for the same time:

    δ-VAE         the decoder with latents, encoder and auxiliary prior
    same decoder  that decoder alone; fewer weights, more steps
    same weights  the decoder alone, widened until it has the δ-VAE's number of weights, all of
                  its parts counted, within 2 %

Same time: the number of steps is the δ-VAE's times the ratio of the times of one step, measured
in one run of one thread (`SECONDS`; benchmarks/step_times.py): a busy machine then slows a
training but does not shorten it. Same tuning: for every arm the learning rate is the best of the
same grid by the bound on held-out images, on a seed of its own. Same seed: same order of images.

What is compared: the δ-VAE's auxiliary bound, and its importance-weighted form, against the exact
figure of the decoder alone, seed by seed, Student's 95 % interval. Power: how many seeds a paired
t-test needs to see WIN bits/dim with probability 0.8, from the differences' standard deviation.

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, Table 1 (level, not better),
https://arxiv.org/abs/1901.03416
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from deltavae.aux_prior import AuxiliaryPrior
from deltavae.data import data_layout
from deltavae.figures import intervals
from deltavae.likelihoods import default_likelihood
from deltavae.run_folder import instantiate
from deltavae.studies.base import Budget, Cell, Findings, Result, Study, by_labels
from deltavae.studies.methods import ABOUT_UNITS, delta_vae, without_latents
from deltavae.studies.settings import CHANNELS, cell, component, training
from deltavae.studies.statistics import Interval, mean, seeds_needed
from deltavae.studies.summaries import (
    ABOUT_COST,
    ABOUT_INFORMATION,
    COST,
    cost,
    information,
    metric,
    spread,
)
from deltavae.studies.tables import Table

OURS, SAME_DECODER, SAME_WEIGHTS = "δ-VAE", "same decoder", "same weights"
ARMS = (OURS, SAME_DECODER, SAME_WEIGHTS)
WIN = 0.02  # bits/dim
LEVEL = 0.02  # largest relative difference in the number of weights
TUNING_SEED = 1000
RATE: Mapping[str, float] = {"digits": 5.0, "fashion_mnist": 10.0, "cifar10": 20.0}  # δ, bits
BOUNDS = {"aux_elbo_bpd": "auxiliary bound", "aux_iwae_bpd": "importance-weighted auxiliary bound"}


@dataclass(frozen=True)
class Plan:
    """Sizes and length at a budget.

    Attributes:
        channels: Width of the decoder.
        encoder: Sizes of the encoder.
        aux_hidden: Sizes of the auxiliary prior to choose from, so that the weights can be level.
        seeds: For every data set and depth of the decoder the number of seeds; the first depth of
            a data set is the one that is tuned.
        grid: Learning rates to choose from.
        minutes: Training time of every arm.
    """

    channels: int
    encoder: Mapping[str, int]
    aux_hidden: Sequence[int]
    seeds: Mapping[str, Mapping[int, int]]
    grid: Sequence[float]
    minutes: float


PLANS: Mapping[Budget, Plan] = {
    "smoke": Plan(
        8, {"channels": 4, "layers": 1}, range(4, 17), {"digits": {2: 1}}, (4e-3,), 0.01
    ),
    "cpu": Plan(
        24,
        {"channels": 12, "layers": 1},
        range(24, 65, 4),
        {"fashion_mnist": {2: 5, 1: 3, 4: 3}, "cifar10": {2: 5}},
        (2e-3, 4e-3, 8e-3),
        7.0,
    ),
    "paper": Plan(
        128,
        {"channels": 64, "layers": 6},
        range(128, 257, 16),
        {"cifar10": {12: 5}},
        (2e-4, 4e-4, 8e-4),
        10_000.0,
    ),
}

# Seconds of a step of every arm, by data set and depth: benchmarks/step_times.py, one thread.
SECONDS: Mapping[tuple[str, int], Mapping[str, float]] = {
    ("digits", 2): {OURS: 0.03, SAME_DECODER: 0.01, SAME_WEIGHTS: 0.015},
    ("fashion_mnist", 1): {OURS: 0.0532, SAME_DECODER: 0.0225, SAME_WEIGHTS: 0.0374},
    ("fashion_mnist", 2): {OURS: 0.0685, SAME_DECODER: 0.0366, SAME_WEIGHTS: 0.0456},
    ("fashion_mnist", 4): {OURS: 0.0986, SAME_DECODER: 0.0644, SAME_WEIGHTS: 0.0801},
    ("cifar10", 2): {OURS: 0.0981, SAME_DECODER: 0.0600, SAME_WEIGHTS: 0.0724},
    ("cifar10", 12): {OURS: 1.4, SAME_DECODER: 1.0, SAME_WEIGHTS: 1.2},  # assumed: no GPU here
}

# The best of the grid on held-out images (table "tuning").
TUNED: Mapping[tuple[str, str], float] = {}


class LatentsAgainstDecoder(Study):
    """The δ-VAE against the decoder that it contains, at equal time."""

    name = "latents-against-decoder"
    title = "Can latents beat their own decoder?"
    description = (
        "Three arms, the same training time each: the δ-VAE, its decoder alone, and a wider "
        "decoder alone with as many weights as all parts of the δ-VAE together. Bits/dim of test "
        f"images; a difference below 0 means that the latents win. {ABOUT_UNITS} The learning "
        "rate is tuned for every arm by itself."
    )

    def cells(self, budget: Budget) -> list[Cell]:
        """Return the cells of the tuning, then those of the comparison; see `Study`."""
        plan = PLANS[budget]
        cells = []
        for data, depths in plan.seeds.items():
            tuned = next(iter(depths))
            cells += [
                _cell(budget, data, tuned, arm, TUNING_SEED, rate)
                for rate in plan.grid
                for arm in ARMS
                if len(plan.grid) > 1
            ]
        for data, depths in plan.seeds.items():
            cells += [
                _cell(budget, data, depth, arm, seed, _learning_rate(plan, data, arm))
                for depth, seeds in depths.items()
                for seed in range(seeds)
                for arm in ARMS
            ]
        return cells

    def findings(self, results: Sequence[Result], budget: Budget) -> Findings:
        """Draw the comparison; see `Study`."""
        main = [r for r in results if r.cell.labels["seed"] != TUNING_SEED]
        tuning = [r for r in results if r.cell.labels["seed"] == TUNING_SEED]
        differences = _differences(main)
        panels: dict[str, dict[str, Interval]] = {}
        for (data, depth, arm, bound), values in differences.items():
            if len(values) > 0:
                title = f"{data}: {BOUNDS[bound]} − exact figure of"
                panels.setdefault(title, {})[f"{arm}, {depth} layers"] = mean(values)
        label = f"bits/dim, 95 % interval; below 0 the latents win (goal: −{WIN})"
        tables = {"arms": _arms(main), "differences": _comparison(differences)}
        if tuning:
            tables["tuning"] = _tuning(tuning, PLANS[budget])
        figures = {"differences": intervals(panels, xlabel=label)} if panels else {}
        return Findings(tables=tables, figures=figures)


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
    shape, d = layout.shape, CHANNELS[budget]
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
        return weights(decoder(width), **known, latent_shape=None)

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
    method = delta_vae(budget, RATE[data]) if arm == OURS else without_latents()
    steps = 60.0 * PLANS[budget].minutes / SECONDS[data, depth][arm]
    per_epoch = _train_images(data, shared.get("holdout", 0)) // shared["batch_size"]
    nets = parts(budget, data, depth)[arm]
    return {**shared, **method.options, **nets, "epochs": round(steps) / per_epoch}


def _train_images(data: str, holdout: int) -> int:
    return data_layout(data, holdout=holdout).training_images


def _learning_rate(plan: Plan, data: str, arm: str) -> float:
    return TUNED.get((data, arm), plan.grid[len(plan.grid) // 2])


def _cell(budget: Budget, data: str, depth: int, arm: str, seed: int, rate: float) -> Cell:
    name = f"{data}-{depth}-layers-{arm}-lr{rate:g}".replace("δ", "delta").replace("VAE", "vae")
    labels = {"data": data, "depth": depth, "arm": arm, "learning_rate": rate}
    return cell(name, labels, seed, options(budget, data, depth, arm), {"learning_rate": rate})


Key = tuple[str, int, str, str]


def _pairs(results: Sequence[Result]) -> Iterator[tuple[Key, Result, Result]]:
    groups = by_labels(results, "data", "depth", "seed", "arm")
    for (data, depth, seed, arm), found in groups.items():
        ours = groups.get((data, depth, seed, OURS))
        if arm == OURS or ours is None:
            continue
        for bound in BOUNDS:
            yield (data, depth, arm, bound), ours[0], found[0]


def _differences(results: Sequence[Result]) -> dict[Key, list[float]]:
    differences: dict[Key, list[float]] = {}
    for key, ours, theirs in _pairs(results):
        bound = ours.metrics[key[3]]
        if bound is not None:
            differences.setdefault(key, []).append(bound - theirs.metrics["elbo_bpd"])
    return differences


def _arms(results: Sequence[Result]) -> Table:
    rows = []
    for (data, depth, arm), found in by_labels(results, "data", "depth", "arm").items():
        figures = [metric(found, name) for name in ("elbo_bpd", *BOUNDS)]
        row = [data, depth, arm, *cost(found), found[0].origin["steps"], len(found)]
        rows.append([*row, *figures, information(found)])
    columns = ["data", "layers", "arm", *COST, "steps", "seeds"]
    bounds = ["ELBO or exact", "auxiliary bound", "importance-weighted", "I(x;z) ≥, bits"]
    return Table(
        [*columns, *bounds],
        rows,
        "Bits/dim of test images, mean over seeds ± standard error over seeds. The figure of a "
        f"decoder alone is exact. {ABOUT_INFORMATION} {ABOUT_COST}",
        {"training, min": 1, "I(x;z) ≥, bits": 1},
    )


def _comparison(differences: Mapping[Key, Sequence[float]]) -> Table:
    rows = []
    for (data, depth, arm, bound), values in differences.items():
        found = mean(values)
        sd = spread(found)
        needed = seeds_needed(sd, WIN) if sd else None
        row = [data, depth, arm, BOUNDS[bound], found, found.low, found.high]
        rows.append([*row, found.count, needed, _verdict(found)])
    columns = ["data", "layers", "against", "bound", "difference", "from", "to", "seeds"]
    return Table(
        [*columns, f"seeds for {WIN}", "verdict"],
        rows,
        "The δ-VAE's bound less the exact figure, bits/dim, mean over paired seeds ± standard "
        f"error, 95 % interval. Seeds for {WIN}: pairs that a t-test needs to see a difference of "
        f"{WIN} bits/dim with probability 0.8, from the standard deviation of these differences.",
        dict.fromkeys(("difference", "from", "to"), 4),
    )


def _verdict(difference: Interval) -> str:
    if difference.count < 2 or not difference.excludes_zero:
        return "open"
    if difference.value > 0:
        return "the decoder wins"
    return "the latents win" if difference.value <= -WIN else f"the latents win by less than {WIN}"


def _tuning(results: Sequence[Result], plan: Plan) -> Table:
    rows = []
    for (data, depth, arm), found in by_labels(results, "data", "depth", "arm").items():
        bounds = {result.cell.labels["learning_rate"]: _held_out(result) for result in found}
        measured = {rate: bound for rate, bound in bounds.items() if bound is not None}
        best = f"{min(measured, key=measured.__getitem__):g}" if measured else None
        used = _learning_rate(plan, data, arm)
        shown = [bounds.get(rate) for rate in plan.grid]
        rows.append([data, depth, arm, *shown, best, f"{used:g}"])
    columns = [f"{rate:g}" for rate in plan.grid]
    return Table(
        ["data", "layers", "arm", *columns, "best", "used"],
        rows,
        "Learning rates: bound on held-out images at the last step, bits/dim (the δ-VAE's under "
        f"its auxiliary prior, as it is then), seed {TUNING_SEED}.",
        dict.fromkeys(columns, 4),
    )


def _held_out(result: Result) -> float | None:
    # The last measurement of the averaged weights on held-out images; None where there is none.
    def last(name: str) -> float | None:
        values = [value for value in result.log.get(name, ()) if value is not None]
        return float(values[-1]) if values else None

    distortion, aux_rate = last("val_distortion_bits"), last("val_aux_rate_bits")
    with_latents = result.cell.labels["arm"] == OURS
    if distortion is None or (with_latents and aux_rate is None):
        return None
    return (distortion + (aux_rate or 0.0)) / float(result.metrics["dims"])
