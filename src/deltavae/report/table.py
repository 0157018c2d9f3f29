"""The table of metrics: a row per metric, a column per run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deltavae.report.summary import Ranking, Result

MISSING = "–"


@dataclass(frozen=True)
class Metric:
    """How a metric is shown.

    Attributes:
        key: Its name in metrics.json.
        label: What the table calls it.
        digits: Digits after the point.
        explanation: What it is, in a sentence.
    """

    key: str
    label: str
    digits: int
    explanation: str


METRICS = (
    Metric("elbo_bpd", "ELBO, bits/dim", 4,
           "Distortion plus rate: an upper bound on −log p(x); exact without latents."),
    Metric("aux_elbo_bpd", "ELBO under the auxiliary prior, bits/dim", 4,
           "Distortion plus aux_rate: a bound as well, which has no floor δ."),
    Metric("iwae_bpd", "importance-weighted bound, bits/dim", 4,
           "With the model's prior: on average no higher than the ELBO."),
    Metric("aux_iwae_bpd", "importance-weighted bound, auxiliary prior, bits/dim", 4,
           "The same with the auxiliary prior."),
    Metric("iwae_samples", "importance samples", 0, "Draws of z per example for these bounds."),
    Metric("distortion_bits", "distortion, bits", 2,
           "−log p(x|z) per example, at a draw of z from the posterior."),
    Metric("committed_rate_bits", "committed rate δ, bits", 3,
           "The least rate that posterior family and prior allow."),
    Metric("current_committed_rate_bits", "the floor of the prior that was learned, bits", 3,
           "Where α is learned: δ(α) at the end, at least δ; a rate there says nothing more."),
    Metric("pair", "pair of posterior and prior", 0, "What solves for δ, and its other options."),
    Metric("floor", "what has a floor", 0,
           "example: no example's rate falls below δ. mean: only the mean over a training batch "
           "is kept up, so that δ is 0."),
    Metric("mean_rate_floor_bits", "floor of the batch's mean in training, bits", 3,
           "The mean of the rate over a training batch stays above it while the raw means vary; "
           "not a floor of any example, nor of this evaluation."),
    Metric("rate_bits", "rate, bits", 3,
           "KL of the posterior from the prior per example: never below δ. A rate is not yet "
           "information."),
    Metric("aux_rate_bits", "rate under the auxiliary prior, bits", 3,
           "KL of the posterior from the auxiliary prior: an upper bound on I(x;z)."),
    Metric("mutual_information_bits", "information I(x;z), lower bound, bits", 3,
           "What z tells about the example at the least."),
    Metric("mutual_information_cap_bits", "its cap, bits", 3,
           "The estimate cannot exceed log₂ of the number of examples."),
    Metric("aggregate_kl_bits", "rate less information, bits", 3,
           "At the least bound on I(x;z): an upper bound on KL(q(z) ‖ p), how far the posteriors, "
           "taken together, are from the prior."),
    Metric("active_units", "active units", 0,
           "Steps and channels whose mean varies over the data, against the variance σ*² of the "
           "posterior at the floor."),
    Metric("latent_units", "latent units", 0, "Steps times channels."),
    Metric("probe_accuracy", "accuracy of a linear probe on μ", 3,
           "Share of test examples whose label a linear classifier reads off μ, without the "
           "posterior's noise: it can be high where z carries nothing."),
    Metric("probe_draw_accuracy", "accuracy of a linear probe on draws of z", 3,
           "The same with draws z ~ q(z|x) in the place of μ: noise and all, as the decoder "
           "reads them; at chance where z carries nothing."),
    Metric("knn_accuracy", "accuracy of nearest neighbours on μ", 3,
           "Share of test examples whose label is that of most of the 10 nearest training "
           "examples; again without the posterior's noise."),
    Metric("baseline_accuracy", "the same probe on raw pixels", 3,
           "What the latents have to be compared with."),
    Metric("examples", "examples", 0, "Examples of the split."),
    Metric("dims", "dimensions of an example", 0, "The divisor of bits/dim."),
    Metric("params", "parameters", 0, "Without the auxiliary prior's."),
    Metric("aux_params", "parameters of the auxiliary prior", 0, "Fitted apart."),
    Metric("binarisation", "binarisation", 0, "How pixels of two levels were made."),
    Metric("train_seconds", "training time, s", 0, "Wall time of the training."),
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One number of the table.

    Attributes:
        text: The number with its standard error.
        best: Whether it is the bound of the run that is ahead.
    """

    text: str
    best: bool = False


@dataclass(frozen=True)
class Row:
    """One metric of all runs.

    Attributes:
        label: What the table calls it.
        explanation: What it is; empty where the table does not know it.
        cells: One per run.
    """

    label: str
    explanation: str
    cells: tuple[Cell, ...]


def table(results: Sequence[Result], ranking: Ranking) -> list[Row]:
    """Lay out the metrics.

    Args:
        results: The runs, one column each.
        ranking: Their order: the bound of a winner is marked, otherwise nothing.

    Returns:
        The rows of METRICS that some run has, then what else is found in the metrics.
    """
    found = {
        key
        for result in results
        for key, value in result.metrics.items()
        if isinstance(value, int | float | str) and key != "split"
    }
    known = [metric for metric in METRICS if metric.key in found]
    told = {name for metric in METRICS for name in (metric.key, f"{metric.key}_se")}
    others = [Metric(key, key, 4, "") for key in sorted(found - told) if not key.endswith("_se")]
    return [
        Row(
            metric.label,
            metric.explanation,
            tuple(
                Cell(
                    _text(result.metrics, metric),
                    best=result is ranking.winner
                    and result.bound is not None
                    and result.bound.key == metric.key,
                )
                for result in results
            ),
        )
        for metric in known + others
    ]


def _text(metrics: Any, metric: Metric) -> str:
    value, se = metrics.get(metric.key), metrics.get(f"{metric.key}_se")
    if value is None:
        return MISSING
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    digits = 0 if isinstance(value, int) else metric.digits
    text = f"{value:,.{digits}f}"
    return text if se is None else f"{text} ± {se:,.{digits}f}"
