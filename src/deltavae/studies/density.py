"""Density estimation: the δ-VAE and the same decoder without latents (the paper's Table 1).

For each decoder and data set: the bound under the AR(1) prior, the bound under the auxiliary prior
and its importance-weighted form, and the exact figure of the decoder alone. Differences are taken
seed by seed: paired trainings share the order of the data.

The paper's figures stand in a table of their own: other nets, other sizes, other budgets.

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, Table 1,
https://arxiv.org/abs/1901.03416
"""

from collections.abc import Mapping, Sequence
from typing import Any

from deltavae.figures import intervals
from deltavae.studies.base import Budget, Cell, Findings, Result, Study, by_labels
from deltavae.studies.methods import delta_vae, without_latents
from deltavae.studies.settings import CHANNELS, DATA, SEEDS, cell, component, nets, training
from deltavae.studies.statistics import Interval, mean, paired_difference
from deltavae.studies.tables import Table

RATES: Mapping[Budget, Mapping[str, float]] = {  # committed rates in bits: 0.026 bits/dim
    "smoke": {"digits": 5.0},
    "cpu": {"fashion_mnist": 5.0, "cifar10": 20.0},
    "paper": {"cifar10": 79.447},
}
DECODERS = ("GatedPixelCNN", "PixelSNAIL")
BOUNDS = {
    "elbo_bpd": "AR(1) prior",
    "aux_elbo_bpd": "auxiliary prior",
    "aux_iwae_bpd": "auxiliary prior, importance-weighted",
}
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
        "decoder alone. The same decoder, seeds and number of steps; the δ-VAE has its encoder "
        "and its attention to the latents besides, and takes longer per step."
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
                    xlabel="δ-VAE's bound − decoder alone, bits/dim (95 % interval)",
                )
            }
            if any(differences.values())
            else {},
        )


def decoder_options(budget: Budget, kind: str) -> dict[str, Any]:
    """Return the nets with one of the two decoders, of about the same number of weights.

    Args:
        budget: The budget.
        kind: One of DECODERS.

    Returns:
        Options of `fit`.
    """
    shared = nets(budget)
    if budget == "paper":
        if kind == "GatedPixelCNN":
            sizes = {"channels": 128, "layers": 15, "kernel_size": 5, "checkpointing": True}
            shared["decoder"] = component("decoders.GatedPixelCNN", **sizes)
        return shared
    if kind == "PixelSNAIL":
        small = budget == "smoke"
        sizes = {"channels": 8 if small else 24, "layers": 2 if small else 3}
        shared["decoder"] = component(
            "decoders.PixelSNAIL", **sizes, attention_layers=1, attend_every=2
        )
    return shared


def _cell(budget: Budget, data: str, decoder: str, latents: bool, seed: int) -> Cell:
    method = delta_vae(RATES[budget][data], CHANNELS[budget]) if latents else without_latents()
    labels = {"data": data, "decoder": decoder, "method": method.name}
    return cell(
        f"{data}-{decoder.lower()}-{method.label}",
        labels,
        seed,
        training(budget, data),
        decoder_options(budget, decoder),
        method.options,
    )


def _measured(results: Sequence[Result]) -> Table:
    rows = []
    for (data, decoder, method), found in by_labels(results, "data", "decoder", "method").items():
        figures = []
        for name in (*BOUNDS, "rate_bits", "aux_rate_bits", "mutual_information_bits"):
            values = [result.metrics[name] for result in found]
            figures.append(None if None in values else mean(values))
        seconds = mean([result.origin["train_seconds"] for result in found]).value
        rows.append([data, decoder, method, len(found), *figures, seconds / 60.0])
    rates = ["rate, bits", "aux rate, bits", "I(x;z) ≥, bits"]
    return Table(
        ["data", "decoder", "model", "seeds", *BOUNDS.values(), *rates, "training, min"],
        rows,
        "Measured by this project: bits/dim, mean over seeds ± standard error over seeds. The "
        "decoder alone has no prior: its first figure is exact.",
        dict.fromkeys(rates, 1) | {"training, min": 1},
    )


def _differences(results: Sequence[Result], data: str, decoder: str) -> dict[str, Interval]:
    groups = by_labels(results, "data", "decoder", "method", "seed")
    differences = {}
    alone, ours = without_latents().name, delta_vae(1.0, 1).name
    seeds = sorted(
        seed
        for group, found, method, seed in groups
        if (group, found, method) == (data, decoder, ours)
        and (data, decoder, alone, seed) in groups
    )
    if not seeds:
        return {}
    exact = [groups[data, decoder, alone, seed][0].metrics["elbo_bpd"] for seed in seeds]
    for bound, label in BOUNDS.items():
        values = [groups[data, decoder, ours, seed][0].metrics[bound] for seed in seeds]
        if None not in values:
            differences[label] = paired_difference(values, exact)
    return differences


def _paper() -> Table:
    return Table(
        ["model", "CIFAR-10 test", "ImageNet 32×32 validation"],
        PAPER,
        "Printed by the paper, bits/dim, the rate in parentheses. Nothing here was measured by "
        "this project.",
    )
