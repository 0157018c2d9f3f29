"""Density estimation: the δ-VAE and the same decoder without latents (the paper's Table 1).

For each decoder and data set: the bound under the AR(1) prior, the bound under the auxiliary prior
and its importance-weighted form, and the exact figure of the decoder with z = 0: its attention to
the latents is there too. Differences are taken seed by seed: paired trainings share the order of
the data.

The paper's figures stand in a table of their own: other nets, other sizes, other budgets.

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, Table 1,
https://arxiv.org/abs/1901.03416
"""

from collections.abc import Mapping, Sequence

from deltavae.figures import intervals
from deltavae.studies.base import Budget, Cell, Findings, Result, Study, by_labels
from deltavae.studies.methods import (
    ABOUT_RATE,
    ABOUT_UNITS,
    DELTA_VAE,
    delta_vae,
    without_latents,
)
from deltavae.studies.settings import DATA, SEEDS, cell, training, with_decoder
from deltavae.studies.statistics import Interval
from deltavae.studies.summaries import (
    ABOUT_COST,
    ABOUT_INFORMATION,
    BOUNDS,
    COST,
    NAMES,
    by_seed,
    cost,
    difference,
    information,
    metric,
)
from deltavae.studies.tables import Table

RATES: Mapping[Budget, Mapping[str, float]] = {  # bits; 0.026 bits/dim but for smoke
    "smoke": {"digits": 5.0},
    "cpu": {"fashion_mnist": 5.0, "cifar10": 20.0},
    "paper": {"cifar10": 79.447},
}
DECODERS = ("GatedPixelCNN", "PixelSNAIL")
PAPER = (
    ("ConvDraw", "≤ 3.85", None),
    ("DenseNet VLAE", "≤ 2.95", None),
    ("δ-VAE, PixelSNAIL, AR(1) prior", "≤ 2.85 (0.02)", "≤ 3.78 (0.08)"),
    ("δ-VAE, PixelSNAIL, auxiliary prior", "≤ 2.83 (0.01)", "≤ 3.77 (0.07)"),
    ("Gated PixelCNN", "3.03", "3.83"),
    ("PixelCNN++", "2.92", None),
    ("ImageTransformer", "2.90", "3.77"),
    ("PixelSNAIL", "2.85", "3.80"),
    ("the same decoder, no latents", "2.83", "3.77"),
)


class Density(Study):
    """The δ-VAE against the same decoder without latents."""

    name = "density"
    title = "Density estimation"
    description = (
        "Bits/dim of test images, lower is better: bounds for the δ-VAE, the exact figure for the "
        "same decoder without latents, whose attention to them reads z = 0. The same seeds and "
        "number of steps; the δ-VAE has its encoder besides, and takes longer per step. "
        f"{ABOUT_UNITS} "
        f"{ABOUT_RATE}"
    )

    def cells(self, budget: Budget) -> list[Cell]:
        """Return one cell per data set, decoder, model and seed; see `Study`."""
        return [
            _cell(budget, data, decoder, latents, seed)
            for seed in range(SEEDS[budget])
            for data in DATA[budget]
            for decoder in DECODERS
            for latents in (True, False)
        ]

    def findings(self, results: Sequence[Result], budget: Budget) -> Findings:
        """Draw the tables; see `Study`."""
        differences = {
            f"{data}, {decoder}": _differences(results, data, decoder)
            for data in DATA[budget]
            for decoder in DECODERS
        }
        return Findings(
            tables={"measured": _measured(results), "printed-by-the-paper": _paper()},
            figures={
                "differences": intervals(
                    {title: panel for title, panel in differences.items() if panel},
                    xlabel="δ-VAE's bound − that of z = 0, bits/dim (95 % interval)",
                )
            }
            if any(differences.values())
            else {},
        )


def _cell(budget: Budget, data: str, decoder: str, latents: bool, seed: int) -> Cell:
    method = delta_vae(budget, data, RATES[budget][data]) if latents else without_latents()
    labels = {"data": data, "decoder": decoder, "method": method.name}
    return cell(
        f"{data}-{decoder.lower()}-{method.label}",
        labels,
        seed,
        training(budget, data),
        with_decoder(budget, decoder),
        method.options,
    )


def _measured(results: Sequence[Result]) -> Table:
    rows = []
    for (data, decoder, method), found in by_labels(results, "data", "decoder", "method").items():
        figures = [metric(found, name) for name in (*BOUNDS, "rate_bits", "aux_rate_bits")]
        rows.append(
            [data, decoder, method, len(found), *figures, information(found), *cost(found)]
        )
    rates = [NAMES[n] for n in ("rate_bits", "aux_rate_bits", "mutual_information_bits")]
    return Table(
        ["data", "decoder", "model", "seeds", *BOUNDS.values(), *rates, *COST],
        rows,
        "Measured by this project: bits/dim, mean over seeds ± standard error over seeds. The "
        "decoder with z = 0 has no prior: its first figure is exact. "
        f"{ABOUT_INFORMATION} {ABOUT_COST}",
        dict.fromkeys(rates, 1) | {"training, min": 1},
    )


def _differences(results: Sequence[Result], data: str, decoder: str) -> dict[str, Interval]:
    groups = by_labels(results, "data", "decoder", "method")
    ours, alone = (
        groups.get((data, decoder, method), []) for method in (DELTA_VAE, without_latents().name)
    )
    exact = by_seed(alone, "elbo_bpd")
    found = {label: difference(by_seed(ours, bound), exact) for bound, label in BOUNDS.items()}
    return {label: interval for label, interval in found.items() if interval is not None}


def _paper() -> Table:
    return Table(
        ["model", "CIFAR-10 test", "ImageNet 32×32 validation"],
        PAPER,
        "Printed by the paper, bits/dim, the rate in parentheses. Nothing here was measured by "
        "this project.",
    )
