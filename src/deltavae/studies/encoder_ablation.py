"""Anti-causal against non-causal encoder (the paper's Table 6).

Four columns: a small, a medium and a large pair of nets at a low committed rate, the medium one at
a high rate too. Low and high are the paper's per dimension of x: 79.4 and 666.6 bits of 3,072
dimensions. Both encoders of a column share decoder, seed and batches, so that their difference is
taken seed by seed; below 0 the anti-causal encoder is better.

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, Table 6,
https://arxiv.org/abs/1901.03416
Deviations: sizes, depths and data of the budget "cpu" are this project's, and so are, there, the
mean by innovations and few channels of equal α; "paper" trains what
configs/paper has: plain units, the paper's ladders. The non-causal encoder of the budget "cpu"
reaches the whole image through a global mean, the anti-causal one all rows from t on through a
summary (`deltavae.encoders.image`): neither sees less for want of depth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deltavae.figures import intervals
from deltavae.studies.base import Budget, Cell, Findings, Result, Study, by_labels
from deltavae.studies.methods import delta_vae
from deltavae.studies.recipes import RECIPES
from deltavae.studies.settings import DATA, SEEDS, cell, nets, non_causal, training
from deltavae.studies.statistics import Interval, mean
from deltavae.studies.summaries import (
    ABOUT_COST,
    BOUNDS,
    COST,
    by_seed,
    cost,
    difference,
    metric,
)
from deltavae.studies.tables import Table

ENCODERS = ("anti-causal", "non-causal")
RATES = {"elbo_bpd": "rate_bits", "aux_elbo_bpd": "aux_rate_bits"}  # of the bounds shown


@dataclass(frozen=True)
class Column:
    """One column of the table.

    Attributes:
        name: Its title.
        options: Model and, where they are its own, lengths: options of `fit`, with the
            anti-causal encoder.
    """

    name: str
    options: Mapping[str, Any]


def _sized(
    budget: Budget,
    name: str,
    bits: float,
    decoder: Mapping[str, Any],
    encoder: Mapping[str, Any],
) -> Column:
    # The budget's nets in other sizes.
    shared = nets(budget)
    parts = {
        part: {**shared[part], "init_args": {**shared[part]["init_args"], **sizes}}
        for part, sizes in (("decoder", decoder), ("encoder", encoder))
    }
    parts["encoder"]["init_args"]["summary"] = True
    method = delta_vae(budget, DATA[budget][0], bits)
    return Column(name, {**shared, **parts, **method.options})


_SMALL = {"channels": 16, "layers": 2}, {"channels": 12, "layers": 1}
_MEDIUM = {"channels": 24, "layers": 4}, {"channels": 16, "layers": 2}
_LARGE = {"channels": 32, "layers": 6}, {"channels": 24, "layers": 4}

COLUMNS: Mapping[Budget, tuple[Column, ...]] = {
    "smoke": (_sized("smoke", "tiny, low", 5.0, {"channels": 8, "layers": 2}, {"channels": 4}),),
    "cpu": (
        _sized("cpu", "small, low", 5.0, *_SMALL),
        _sized("cpu", "medium, low", 5.0, *_MEDIUM),
        _sized("cpu", "medium, high", 42.5, *_MEDIUM),
        _sized("cpu", "large, low", 5.0, *_LARGE),
    ),
    "paper": (
        Column("l6 h128 a0, low", RECIPES["l6-h128-a0-low"]),
        Column("l8 h128 a2, low", RECIPES["l8-h128-a2-low"]),
        Column("l8 h128 a2, high", RECIPES["l8-h128-a2-high"]),
        Column(
            "encoder l20 h128, decoder l30 h256, a6, low",
            RECIPES["enc-l20-h128-dec-l30-h256-a6-low"],
        ),
    ),
}


class EncoderAblation(Study):
    """Anti-causal against non-causal encoder."""

    name = "encoder-ablation"
    title = "Anti-causal against non-causal encoder"
    description = (
        "With the anti-causal encoder z_t is made from the rows from t on, all of them, and a "
        "pixel in row r sees z_1..z_r; with the non-causal one every z_t is made from the whole "
        "image and every pixel sees all of them. Bits/dim of test images, the rate in bits/dim in "
        "parentheses. "
        "Both share the learning rate. In the budget cpu the posterior's mean is given by "
        "innovations (the decoder reads z/σ*), with few channels of equal α; in the budget paper "
        "it is the paper's, in plain units, with its ladders."
    )

    def cells(self, budget: Budget) -> list[Cell]:
        """Return one cell per column, encoder and seed; see `Study`."""
        return [
            _cell(budget, column, encoder, seed)
            for seed in range(SEEDS[budget])
            for column in COLUMNS[budget]
            for encoder in ENCODERS
        ]

    def findings(self, results: Sequence[Result], budget: Budget) -> Findings:
        """Draw the table and the differences; see `Study`."""
        differences = {BOUNDS[bound]: _differences(results, bound, budget) for bound in RATES}
        rows = [
            [label, column, found, found.low, found.high, found.count]
            for label, columns in differences.items()
            for column, found in columns.items()
        ]
        columns = ["bound", "nets and rate", "anti-causal − non-causal", "from", "to", "seeds"]
        caption = (
            "Bits/dim, means over paired seeds ± standard error, with the 95 % interval of the "
            "mean; below 0 the anti-causal encoder is better."
        )
        digits = dict.fromkeys(columns[2:5], 4) | {"seeds": 0}
        figures = {}
        if rows:
            label = "anti-causal − non-causal, bits/dim (95 % interval)"
            figures["differences"] = intervals(differences, xlabel=label)
        return Findings(
            tables={
                "bounds": _bounds(results, budget),
                "differences": Table(columns, rows, caption, digits),
                "trainings": _trainings(results),
            },
            figures=figures,
        )


def _cell(budget: Budget, column: Column, encoder: str, seed: int) -> Cell:
    data = DATA[budget][0]
    anti_causal = column.options["encoder"]
    chosen = anti_causal if encoder == "anti-causal" else non_causal(anti_causal)
    return cell(
        f"{data}-{column.name}-{encoder}",
        {"column": column.name, "encoder": encoder, "data": data},
        seed,
        training(budget, data),
        column.options,
        {"encoder": chosen},
    )


def _bounds(results: Sequence[Result], budget: Budget) -> Table:
    groups = by_labels(results, "encoder", "column")
    titles = [column.name for column in COLUMNS[budget]]
    rows = []
    for encoder in reversed(ENCODERS):
        for bound, rate in RATES.items():
            row: list[Any] = [f"{encoder}, {BOUNDS[bound]}"]
            row += [_with_rate(groups.get((encoder, title), []), bound, rate) for title in titles]
            rows.append(row)
    return Table(
        ["bits/dim (rate)", *titles],
        rows,
        "Mean over seeds ± standard error; in parentheses the rate, or the rate under the "
        "auxiliary prior, in bits/dim.",
    )


def _with_rate(results: Sequence[Result], bound: str, rate: str) -> str | None:
    figure = metric(results, bound)
    if figure is None:
        return None
    bits = mean([result.metrics[rate] / result.metrics["dims"] for result in results])
    error = f" ± {figure.error:.3f}" if figure.count > 1 else ""
    return f"{figure.value:.3f}{error} ({bits.value:.3f})"


def _differences(results: Sequence[Result], bound: str, budget: Budget) -> dict[str, Interval]:
    groups = by_labels(results, "column", "encoder")
    differences = {}
    for column in COLUMNS[budget]:
        ours, theirs = (
            by_seed(groups.get((column.name, encoder), []), bound) for encoder in ENCODERS
        )
        found = difference(ours, theirs)
        if found is not None:
            differences[column.name] = found
    return differences


def _trainings(results: Sequence[Result]) -> Table:
    rows = [
        [column, encoder, len(found), *cost(found)]
        for (column, encoder), found in by_labels(results, "column", "encoder").items()
    ]
    columns = ["nets and rate", "encoder", "seeds", *COST]
    caption = f"What the trainings cost, the time as a mean over seeds. {ABOUT_COST}"
    return Table(columns, rows, caption, {"training, min": 1})
