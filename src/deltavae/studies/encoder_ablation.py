"""Anti-causal against non-causal encoder (the paper's Table 6).

Four columns: a small, a medium and a large pair of nets at a low committed rate, the medium one at
a high rate too. Low and high are the paper's per dimension of x: 79.4 and 666.6 bits of 3,072
dimensions. Both encoders of a column share decoder, seed and batches, so that their difference is
taken seed by seed; below 0 the anti-causal encoder is better.

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, Table 6,
https://arxiv.org/abs/1901.03416
Deviations: sizes, depths and data of the budget "cpu" are this project's; the non-causal encoder
reaches the whole image through a global mean (`deltavae.encoders.image`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deltavae.figures import intervals
from deltavae.studies.base import Budget, Cell, Findings, Result, Study, by_labels
from deltavae.studies.methods import delta_vae
from deltavae.studies.settings import DATA, SEEDS, cell, component, nets, training
from deltavae.studies.statistics import Interval, mean, paired_difference
from deltavae.studies.tables import Table

ENCODERS = ("anti-causal", "non-causal")
BOUNDS = {"elbo_bpd": "AR(1) prior", "aux_elbo_bpd": "auxiliary prior"}


@dataclass(frozen=True)
class Column:
    """One column of the table.

    Attributes:
        name: Its title.
        bits: Committed rate δ.
        channels: Latent channels d.
        decoder: Sizes of the decoder.
        encoder: Sizes of the encoder.
    """

    name: str
    bits: float
    channels: int
    decoder: Mapping[str, Any]
    encoder: Mapping[str, Any]


_SMALL = {"channels": 16, "layers": 2}, {"channels": 12, "layers": 1}
_MEDIUM = {"channels": 24, "layers": 4}, {"channels": 16, "layers": 2}
_LARGE = {"channels": 32, "layers": 6}, {"channels": 24, "layers": 4}
_H128 = {"channels": 128, "heads": 4, "dropout": 0.5, "checkpointing": True}

COLUMNS: Mapping[Budget, tuple[Column, ...]] = {
    "smoke": (Column("tiny, low", 5.0, 2, {"channels": 8, "layers": 2}, {"channels": 4}),),
    "cpu": (
        Column("small, low", 5.0, 4, *_SMALL),
        Column("medium, low", 5.0, 4, *_MEDIUM),
        Column("medium, high", 42.5, 16, *_MEDIUM),
        Column("large, low", 5.0, 4, *_LARGE),
    ),
    "paper": (
        Column("l6 h128 a0, low", 79.447, 8, *(2 * ({"layers": 6, **_H128},))),
        Column(
            "l8 h128 a2, low", 79.447, 8, *(2 * ({"layers": 8, "attention_layers": 2, **_H128},))
        ),
        Column(
            "l8 h128 a2, high",
            666.629,
            64,
            *(2 * ({"layers": 8, "attention_layers": 2, **_H128},)),
        ),
        Column(
            "encoder l20 h128, decoder l30 h256, a6, low",
            79.447,
            8,
            {**_H128, "layers": 30, "channels": 256, "attention_layers": 6, "heads": 8},
            {**_H128, "layers": 20, "attention_layers": 6},
        ),
    ),
}


class EncoderAblation(Study):
    """Anti-causal against non-causal encoder."""

    name = "encoder-ablation"
    title = "Anti-causal against non-causal encoder"
    description = (
        "With the anti-causal encoder z_t is made from the rows from t on, and a pixel in row r "
        "sees z_1..z_r; with the non-causal one every z_t is made from the whole image and every "
        "pixel sees all of them. Bits/dim of test images, the rate in bits/dim in parentheses."
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
        differences = {
            label: _differences(results, bound, budget) for bound, label in BOUNDS.items()
        }
        rows = [
            [label, column, difference, difference.low, difference.high, difference.count]
            for label, columns in differences.items()
            for column, difference in columns.items()
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
            },
            figures=figures,
        )


def _cell(budget: Budget, column: Column, encoder: str, seed: int) -> Cell:
    data = DATA[budget][0]
    shared = nets(budget, causal=encoder == "anti-causal")
    sizes = {
        part: component(
            shared[part]["class_path"].removeprefix("deltavae."),
            **(shared[part]["init_args"] | getattr(column, part)),
        )
        for part in ("decoder", "encoder")
    }
    return cell(
        f"{data}-{column.name}-{encoder}",
        {"column": column.name, "encoder": encoder, "data": data},
        seed,
        training(budget, data),
        shared,
        sizes,
        delta_vae(column.bits, column.channels).options,
    )


def _bounds(results: Sequence[Result], budget: Budget) -> Table:
    groups = by_labels(results, "encoder", "column")
    titles = [column.name for column in COLUMNS[budget]]
    rates = {"elbo_bpd": "rate_bits", "aux_elbo_bpd": "aux_rate_bits"}
    rows = []
    for encoder in reversed(ENCODERS):
        for bound, label in BOUNDS.items():
            row: list[Any] = [f"{encoder}, {label}"]
            for title in titles:
                found = groups.get((encoder, title), [])
                row.append(_with_rate(found, bound, rates[bound]) if found else None)
            rows.append(row)
    return Table(
        ["bits/dim (rate)", *titles],
        rows,
        "Mean over seeds ± standard error; in parentheses the rate, or the rate under the "
        "auxiliary prior, in bits/dim.",
    )


def _with_rate(results: Sequence[Result], bound: str, rate: str) -> str:
    figure = mean([result.metrics[bound] for result in results])
    bits = mean([result.metrics[rate] / result.metrics["dims"] for result in results])
    error = f" ± {figure.error:.3f}" if figure.count > 1 else ""
    return f"{figure.value:.3f}{error} ({bits.value:.3f})"


def _differences(results: Sequence[Result], bound: str, budget: Budget) -> dict[str, Interval]:
    groups = by_labels(results, "column", "encoder", "seed")
    differences = {}
    for title in (column.name for column in COLUMNS[budget]):
        pairs = [
            [groups[title, encoder, seed][0].metrics[bound] for encoder in ENCODERS]
            for seed in range(SEEDS[budget])
            if all((title, encoder, seed) in groups for encoder in ENCODERS)
        ]
        if pairs:
            ours, theirs = zip(*pairs, strict=True)
            differences[title] = paired_difference(ours, theirs)
    return differences
