"""Every pair of posterior and prior at the same committed rate: which spends it best?

The same nets, data, batches and steps; about as many latent numbers where a pair leaves the choice
(n d near 42 at 14×14 pixels, where AR(1) commits δ with α ≤ 0.8). δ is low enough for the
estimate of I(x;z) to tell pairs apart below its cap. A pair differs from the next in what its
floor makes dear:

    Gaussian processes   AR(1), AR(2), Matérn, squared exponential, grid, tree: fast means are
                         dear, slow ones cheap; the smoother the process, the more so
    bounded spread       constrained independent, bounded variance: every dimension by itself
    other shapes         a prior of two modes: the sign of every mean says one bit at most
    no excess at all     directions (spherical), codes (quantised): a constant rate, any message
    bounded entropy      categorical codes

Compared with AR(1) seed by seed: the auxiliary bound on held-out images; the test images stand
beside, and choose nothing.

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, section 5 (other pairs are its
future work), https://arxiv.org/abs/1901.03416
"""

from collections.abc import Mapping, Sequence
from typing import Any

from deltavae.figures import scatter_with_errors
from deltavae.studies.base import Budget, Cell, Findings, Result, Study, by_labels
from deltavae.studies.methods import ABOUT_RATE, channels_for, without_latents
from deltavae.studies.settings import DATA, SEEDS, cell, component, nets, training
from deltavae.studies.statistics import Interval
from deltavae.studies.summaries import (
    ABOUT_COST,
    ABOUT_INFORMATION,
    COST,
    NAMES,
    by_seed,
    cap,
    cost,
    difference,
    information,
    mean_or_none,
    metric,
    verdicts,
)
from deltavae.studies.tables import Table

RATE: Mapping[Budget, float] = {"smoke": 8.0, "cpu": 14.0, "paper": 96.0}  # whole bits per row
TILES: Mapping[Budget, int] = {"smoke": 4, "cpu": 7, "paper": 8}  # along each side; tree's parts
REFERENCE = "AR(1)"
ALONE = without_latents().name
SAVED, PER_BIT = "saved, bits", "saved per aux bit"
LEAST_RATE = 1.0  # bits: below it a quotient says nothing


class Pairs(Study):
    """All pairs at one committed rate."""

    name = "pairs"
    title = "Pairs of posterior and prior at one rate"
    description = (
        "Every pair commits the same rate with the same nets, data and steps. Differences are to "
        "AR(1), over paired seeds. I(x;z) is a lower bound, aux rate an upper one. Gaussian "
        "processes have their mean and the decoder's z in units of σ*; by innovations, as AR1 by "
        f"default, the mean is given otherwise. {ABOUT_RATE}"
    )

    def cells(self, budget: Budget) -> list[Cell]:
        """Return one cell per pair and seed, and the decoder with z = 0; see `Study`."""
        data = DATA[budget][0]
        return [
            cell(
                f"{data}-{RATE[budget]:g}bits-{name}",
                {"data": data, "pair": name, "bits": RATE[budget]},
                seed,
                training(budget, data),
                nets(budget),
                options,
            )
            for seed in range(SEEDS[budget])
            for name, options in pairs(budget).items()
        ]

    def findings(self, results: Sequence[Result], budget: Budget) -> Findings:
        """Draw the table and the figure; see `Study`."""
        groups = {name: found for (name,), found in by_labels(results, "pair").items()}
        split = "val" if results and all(result.val for result in results) else "test"
        judged = {name: _difference(groups, name, split) for name in groups}
        said = {name: metric(found, "mutual_information_bits") for name, found in groups.items()}
        points = {
            name: ([said[name] or _NOTHING], [judged[name] or _NOTHING])
            for name in groups
            if judged[name] is not None or name == REFERENCE
        }
        figures = {}
        if points:
            figures["pairs"] = scatter_with_errors(
                points,
                xlabels=[NAMES["mutual_information_bits"]],
                ylabel="auxiliary bound − that of AR(1), bits/dim",
                caps=[cap(results)],
            )
        return Findings({"pairs": _table(groups, judged, split)}, figures)


def pairs(budget: Budget) -> dict[str, Mapping[str, Any]]:
    """Return the options of `fit` of every pair, by name; the decoder with z = 0 comes last.

    Args:
        budget: The budget.

    Returns:
        Options of `fit`.
    """
    d, tiles = channels_for(budget, DATA[budget][0], RATE[budget]), TILES[budget]

    def committed(name: str, channels: int = d, /, **options: Any) -> dict[str, Any]:
        latents = component(f"latents.{name}", **options)
        return {"latents": latents, "delta_bits": RATE[budget], "latent_channels": channels}

    units = {"minimiser_units": True}
    direct = {**units, "innovations": False}
    mixture = component("certified.GaussianMixture")
    rows_bits = round(RATE[budget] / {"smoke": 8, "cpu": 14, "paper": 32}[budget])
    return {
        REFERENCE: committed("AR1", **direct),
        "AR(1), innovations": committed("AR1", **units, innovations=True),
        "AR(1), ladder": {**committed("AR1", **direct), "alpha": "0.3:0.95"},
        "AR(1), learned α": committed("LearnableAR1", **direct),
        "AR(2)": committed("ARp", partials=[0.7, 0.4], **units),
        "Matérn 3/2": committed("Matern", nu=1.5, **units),
        "Matérn 5/2": committed("Matern", nu=2.5, **units),
        "squared exponential": committed("SquaredExponential", **units),
        "grid": committed("Grid", 1, height=tiles, width=tiles, **units),
        "tree": committed("Tree", 2 * d - 1, branching=tiles, depth=1, **units),
        "constrained independent": committed("Independent"),
        "bounded variance": committed("BoundedVariance"),
        "two modes": committed("MeanFieldPair", prior=mixture),
        "spherical": committed("Spherical"),
        "categorical": committed("Categorical", 2 ** (rows_bits + 1)),
        "quantised": committed("Quantised", rows_bits),
        "batch-normalised μ": committed("BatchNorm"),
        ALONE: without_latents().options,
    }


_NOTHING = Interval(0.0, 0.0, 0.0, 0.0, 1)


def _bounds(results: Sequence[Result], name: str, split: str) -> dict[int, float]:
    return by_seed(results, "elbo_bpd" if name == ALONE else "aux_elbo_bpd", split)


def _difference(groups: Mapping[str, Sequence[Result]], name: str, split: str) -> Interval | None:
    if name == REFERENCE or REFERENCE not in groups:
        return None
    reference = _bounds(groups[REFERENCE], REFERENCE, split)
    return difference(_bounds(groups[name], name, split), reference)


def _table(
    groups: Mapping[str, Sequence[Result]],
    judged: Mapping[str, Interval | None],
    split: str,
) -> Table:
    rows = []
    told = verdicts(list(judged.values()), "better", "worse")
    for (name, found), verdict in zip(groups.items(), told, strict=True):
        rates = [metric(found, figure) for figure in ("rate_bits", "aux_rate_bits")]
        said, committed = information(found), metric(found, "committed_rate_bits")
        share = None
        if isinstance(said, Interval) and committed is not None and committed.value > 0:
            share = said.value / committed.value
        row = [name, len(found), committed, *rates, said, share]
        saved = _saved(groups, name)
        row += [metric(found, "distortion_bits"), saved, _per_bit(saved, rates[1])]
        row.append(metric(found, "probe_accuracy"))
        row += [mean_or_none(_bounds(found, name, "test").values()), judged[name]]
        rows.append([*row, verdict.p, verdict.text, _milliseconds(found), *cost(found)])
    figures = ("rate_bits", "aux_rate_bits", "mutual_information_bits")
    bits = ["δ, bits", *(NAMES[figure] for figure in figures)]
    judge = "held-out" if split == "val" else "test"
    columns = ["pair", "seeds", *bits, "I/δ ≥", NAMES["distortion_bits"], SAVED, PER_BIT]
    return Table(
        [
            *columns,
            "probe on μ",
            "auxiliary bound",
            "− AR(1)",
            "p (Holm)",
            "verdict",
            "ms per step",
            *COST,
        ],
        rows,
        "Test images, mean over seeds ± standard error over seeds; − AR(1): difference of the "
        f"auxiliary bounds on {judge} images, bits/dim, seed by seed, with two-sided t-tests, "
        "p < 0.05 after Holm's correction over the table. The decoder with z = 0 has no prior: "
        f"its figure is exact. {SAVED}: its distortion less the pair's, seed by seed; {PER_BIT}: "
        f"that over the aux rate, from {LEAST_RATE:g} bit on; below 1 bits say less about x than "
        "they take. δ is 0 where no example by itself has a floor. ms per step: "
        "training time over steps, on whatever the machine did beside. "
        f"{ABOUT_INFORMATION} {ABOUT_COST}",
        dict.fromkeys((*bits, "I/δ ≥"), 2)
        | dict.fromkeys(("− AR(1)", "p (Holm)"), 4)
        | {NAMES["distortion_bits"]: 1, SAVED: 1, PER_BIT: 2}
        | {"ms per step": 0, "training, min": 1},
    )


def _saved(groups: Mapping[str, Sequence[Result]], name: str) -> Interval | None:
    # Distortion of the decoder with z = 0 less a pair's.
    if name == ALONE:
        return None
    alone, own = (by_seed(groups.get(each, []), "distortion_bits") for each in (ALONE, name))
    return difference(alone, own)


def _per_bit(saved: Interval | None, rate: Interval | None) -> float | None:
    if saved is None or rate is None or rate.value < LEAST_RATE:
        return None
    return saved.value / rate.value


def _milliseconds(results: Sequence[Result]) -> float | None:
    times = [
        1e3 * result.origin["train_seconds"] / result.origin["steps"]
        for result in results
        if result.origin.get("train_seconds") and result.origin.get("steps")
    ]
    return sum(times) / len(times) if times else None
