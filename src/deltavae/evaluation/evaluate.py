"""The metrics of one model on one split of a data set, in bits.

    neg_elbo = distortion + rate,   rate ≥ δ for each example,
    E rate = I(x;z) + KL(q(z) ‖ p),   I(x;z) ≤ E aux_rate.

`_bits` are per example, `_bpd` per dimension of x. elbo_bpd and its kin are upper bounds of
−log₂ p(x) per dimension; without latents elbo_bpd is exact, and every entry that speaks of latents
is null. mutual_information_bits is a lower bound that cannot exceed its cap, log₂ examples;
aggregate_kl_bits, rate less information, an upper bound of KL(q(z) ‖ p). floor says whose the
floor is: of each "example", δ, or of the "mean" over a training batch, mean_rate_floor_bits, where
no example has one, in evaluation neither (`latents.batch_norm`). Where the prior learns above a
floor, current_committed_rate_bits is that of the prior it has become. Beside every mean m of N
figures, one per example, stands its standard error m_se = s/√N, where s² has N − 1 degrees of
freedom (null at N = 1).

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019,
https://arxiv.org/abs/1901.03416, for the bounds; for the rest `bounds`, `information`, `probe`.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor, nn

from deltavae.data import Dataset, Split
from deltavae.evaluation.bounds import ImportanceBounds, draw_terms, importance_bounds
from deltavae.evaluation.encodings import draw_latents, encode_images
from deltavae.evaluation.information import active_units, mutual_information
from deltavae.evaluation.probe import (
    NEIGHBOURS,
    PROBE_EXAMPLES,
    linear_probe,
    nearest_neighbours,
)
from deltavae.latents import AR1, Latents, LearnableAR1, Posterior
from deltavae.model import DeltaVAE
from deltavae.rates import fewest_channels
from deltavae.terms import Terms
from deltavae.units import nats_to_bits, nats_to_bpd

Metrics: TypeAlias = dict[str, Any]  # name → number, text, null or list of these: ready for JSON

# The verdict (`warnings`), in bits; two standard errors are granted to every estimate.
FLOOR_MARGIN = 0.05  # the rate sits on its floor: rate − δ below this share of δ
NEAR_ZERO = (0.1, 1.0)  # I is near zero: below the same share of δ, within these bounds
SATURATION = 0.5  # the estimate of I has met its cap: closer than this

_ACCURACIES = tuple(
    f"{name}_accuracy{suffix}"
    for name in ("probe", "probe_draw", "knn", "baseline")
    for suffix in ("", "_se")
)


def evaluate(
    model: DeltaVAE,
    data: Dataset,
    *,
    split: Literal["train", "val", "test"] = "test",
    importance_samples: int = 0,
    seed: int = 0,
    batch_size: int = 256,
    probe: bool = True,
    limit: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> Metrics:
    """Evaluate a model.

    An argument out of its range, or data that do not fit the model, is a ValueError.

    Args:
        model: The model; its mode and weights are left as they are.
        data: The data set, of the model's event shape and levels.
        split: Split to evaluate; "val" where the data set holds images out.
        importance_samples: Draws K per example of the importance-weighted bounds; 0: none.
        seed: Seed of every draw; the figures are a function of it, and not of the batch size.
        batch_size: Examples per forward pass, at least 1.
        probe: Whether to fit the probes, where the data set has labels.
        limit: Examples at most, the first ones of the split; None for all.
        progress: Called with a line of text at every stage.

    Returns:
        The metrics, the same names for every model.
    """
    source = _source(data, split)
    _check(model, data, importance_samples, limit)
    say = progress if progress is not None else lambda _: None
    part = source if limit is None else source.part(0, min(limit, len(source)))
    generator = torch.Generator().manual_seed(seed)
    say(f"encoding {len(part):,} examples")
    q = None if model.latents is None else encode_images(model, part.images, batch_size)
    say("distortion and rate")
    terms = draw_terms(model, part.images, q, generator=generator, batch_size=batch_size)
    information, weighted, samples = None, None, 0
    if q is not None:
        say("information")
        information = mutual_information(q, generator)
        samples = importance_samples
    if q is not None and samples:
        weighted = importance_bounds(
            model,
            part.images,
            q,
            samples,
            generator=generator,
            batch_size=batch_size,
            progress=lambda k: say(f"importance weighting, draw {k} of {samples}"),
        )
    metrics = {"split": split, "examples": len(part), **_facts(model, data)}
    metrics |= _means(terms, information, weighted, data.dims) | {"iwae_samples": samples}
    metrics |= _latent_facts(model, q, terms)
    metrics |= dict.fromkeys(_ACCURACIES)
    if probe:
        say("linear probe and nearest neighbours")
        metrics |= _accuracies(model, data, part, q, batch_size, seed)
    return metrics | {"warnings": warnings(metrics, model.latents)}


def warnings(metrics: Metrics, latents: Latents | None = None) -> list[str]:
    """Say in words what the metrics must not be read without.

    Args:
        metrics: What `evaluate` returns.
        latents: The pair, for advice that suits it; None: advice that suits every pair.

    Returns:
        One text per warning; none for a model without latents.
    """
    if metrics["mutual_information_bits"] is None:
        return []
    return [*_below_mean_floor(metrics), *_verdict(metrics, latents)]


def _below_mean_floor(metrics: Metrics) -> list[str]:
    floor, rate = metrics.get("mean_rate_floor_bits"), metrics["rate_bits"]
    if floor is None or rate >= floor - 2.0 * (metrics["rate_bits_se"] or 0.0):
        return []
    return [
        f"the rate, {rate:.2f} bits, lies below the floor of {floor:.2f} bits, which holds in "
        "training only, for the mean over a batch, while the raw means vary by much more than ε"
    ]


def _verdict(metrics: Metrics, latents: Latents | None) -> list[str]:
    which, delta = _present_floor(metrics)
    rate = metrics["rate_bits"]
    information = metrics["mutual_information_bits"]
    cap = metrics["mutual_information_cap_bits"]
    slack = 2.0 * (metrics["mutual_information_bits_se"] or 0.0)
    rate_slack = 2.0 * (metrics["rate_bits_se"] or 0.0)
    near_zero = min(max(FLOOR_MARGIN * delta, NEAR_ZERO[0]), NEAR_ZERO[1])
    if information > cap - SATURATION:
        return [
            f"the estimate of I(x;z), {information:.2f} bits, is saturated: it cannot exceed "
            f"{cap:.2f} bits with {metrics['examples']:,} examples, and the truth may be far above"
        ]
    if information >= near_zero + slack:
        return []
    if delta > 0 and rate - delta < FLOOR_MARGIN * delta + rate_slack:
        return [
            f"the rate is committed, the information is not: the rate is {rate:.2f} bits, "
            f"{which} {delta:.2f} bits, but I(x;z) only about {information:.2f} bits; try "
            f"{_advice(latents)}"
        ]
    if delta == 0 and rate < near_zero + rate_slack:
        return [
            f"the posterior has collapsed: the rate is {rate:.2f} bits, so z says nothing about x"
        ]
    return []


def _present_floor(metrics: Metrics) -> tuple[str, float]:
    # Where no example has a floor, that of the batch's mean; where the prior learns, its present.
    if metrics.get("floor") == "mean":
        return "its floor in training", metrics["mean_rate_floor_bits"]
    current: float | None = metrics.get("current_committed_rate_bits")
    if current is not None:
        return "the floor of the prior that it learned", current
    return "its floor", metrics["committed_rate_bits"]


def _advice(latents: Latents | None) -> str:
    others = ["a longer training"]
    if latents is None or not latents.constant_rate:
        others.append("another δ")
    if isinstance(latents, AR1 | LearnableAR1) and latents.d > fewest_channels(
        latents.committed_rate, latents.n
    ):
        others.append("fewer channels")
    if getattr(latents, "minimiser_units", True) is False:
        others.append("minimiser_units")
    if isinstance(latents, AR1 | LearnableAR1) and not latents.innovations:
        others.append("innovations")
    return f"{', '.join(others)}, or a weaker decoder"


def _source(data: Dataset, split: str) -> Split:
    splits = {"train": data.train, "val": data.val, "test": data.test}
    there = [name for name, part in splits.items() if part is not None]
    source = splits.get(split)
    if source is None:
        hint = ": no images were held out of training (holdout)" if split == "val" else ""
        raise ValueError(f"split must be one of {', '.join(there)}, got {split}{hint}")
    return source


def _check(model: DeltaVAE, data: Dataset, importance_samples: int, limit: int | None) -> None:
    if importance_samples < 0:
        raise ValueError(f"importance_samples must be at least 0, got {importance_samples}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    if data.shape != model.decoder.event_shape:
        raise ValueError(
            f"data must have shape {model.decoder.event_shape} for this model, got {data.shape}"
        )
    if data.levels != model.decoder.likelihood.levels:
        raise ValueError(
            f"data must have {model.decoder.likelihood.levels} levels for this model, "
            f"got {data.levels}"
        )


def _facts(model: DeltaVAE, data: Dataset) -> Metrics:
    aux_params = 0 if model.aux_prior is None else _trainable(model.aux_prior)
    binarisation = None
    if data.levels == 2:
        notes = [note for note in data.notes if note.startswith("binarised")]
        binarisation = notes[-1] if notes else "none: the source has 2 levels"
    return {
        "dims": data.dims,
        "params": _trainable(model) - aux_params,
        "aux_params": aux_params,
        "binarisation": binarisation,
    }


def _trainable(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def _means(
    terms: Terms,
    information: Float64[Tensor, " m"] | None,
    weighted: ImportanceBounds | None,
    dims: int,
) -> Metrics:
    latent = terms.rate_terms is not None
    nats = {
        "distortion_bits": terms.distortion,
        "rate_bits": terms.rate if latent else None,
        "aux_rate_bits": terms.aux_rate,
        "elbo_bpd": terms.neg_elbo,
        "aux_elbo_bpd": terms.aux_neg_elbo,
        "iwae_bpd": None if weighted is None else weighted.model,
        "aux_iwae_bpd": None if weighted is None else weighted.aux,
        "mutual_information_bits": information,
        "aggregate_kl_bits": None if information is None else terms.rate - information,
    }
    metrics: Metrics = {}
    for name, values in nats.items():
        mean, error = (None, None) if values is None else _mean_and_error(values)
        for key, figure in ((name, mean), (f"{name}_se", error)):
            if figure is not None:
                figure = nats_to_bpd(figure, dims) if "_bpd" in name else nats_to_bits(figure)
            metrics[key] = figure
    return metrics


def _mean_and_error(values: Float64[Tensor, " m"]) -> tuple[float, float | None]:
    # Taken from the smallest value on: the mean of rates is not below δ by a rounding.
    least = values.min()
    mean = float(least + (values - least).mean())
    return mean, float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else None


def _latent_facts(model: DeltaVAE, q: Posterior | None, terms: Terms) -> Metrics:
    latents = model.latents
    if latents is None or q is None or terms.rate_terms is None:
        floors = ("committed_rate_bits", "current_committed_rate_bits", "mean_rate_floor_bits")
        names = ("pair", "floor", "rate_terms_bits", "mutual_information_cap_bits")
        return dict.fromkeys((*floors, *names, "active_units", "latent_units"))
    on_mean, current = latents.floor == "mean", latents.current_committed_rate
    return {
        "pair": f"{type(latents).__name__} {latents.summary}".rstrip(),
        "committed_rate_bits": nats_to_bits(latents.committed_rate),
        "current_committed_rate_bits": None if current is None else nats_to_bits(current),
        "floor": latents.floor,
        "mean_rate_floor_bits": nats_to_bits(latents.mean_rate_floor) if on_mean else None,
        "mutual_information_cap_bits": nats_to_bits(math.log(len(q.mu))),
        "rate_terms_bits": nats_to_bits(terms.rate_terms.mean(0)).tolist(),
        "active_units": active_units(q.mu, latents.sigma_star.cpu()),
        "latent_units": latents.n * latents.d,
    }


def _accuracies(
    model: DeltaVAE, data: Dataset, part: Split, q: Posterior | None, batch_size: int, seed: int
) -> Metrics:
    right: dict[str, Float64[np.ndarray, " m"]] = {}
    images = data.train.images[:PROBE_EXAMPLES]
    labels = None if data.train.labels is None else data.train.labels[:PROBE_EXAMPLES]
    if labels is not None and part.labels is not None and len(np.unique(labels)) > 1:
        right["baseline_accuracy"] = linear_probe(images, labels, part.images, part.labels)
        if q is not None:
            fitted = encode_images(model, images, batch_size)
            train, test = fitted.mu.numpy(), q.mu.numpy()
            right["probe_accuracy"] = linear_probe(train, labels, test, part.labels)
            k = min(NEIGHBOURS, len(train))
            right["knn_accuracy"] = nearest_neighbours(train, labels, test, part.labels, k)
            # A generator of its own: the figure does not depend on what was drawn before.
            generator = torch.Generator().manual_seed(seed)
            train, test = (draw_latents(p, generator).numpy() for p in (fitted, q))
            right["probe_draw_accuracy"] = linear_probe(train, labels, test, part.labels)
    metrics: Metrics = dict.fromkeys(_ACCURACIES)
    for name, values in right.items():
        metrics[name], metrics[f"{name}_se"] = _mean_and_error(torch.from_numpy(values))
    return metrics
