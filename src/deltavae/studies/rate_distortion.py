"""Rate against distortion for the δ-VAE and its rivals (the paper's figure).

All methods have the same nets, data, batches and steps. A method with a target is trained at every
target of the budget, a β-VAE at every weight, each with every seed. With targets T in bits,

    rate/T                 how far from what was asked for the training ends up; the δ-VAE's ≥ 1
    distortion at aux_rate how much of x is still to be said once z has said aux_rate, the honest
                           abscissa: what a floor spends on nothing, the auxiliary prior wins back

Methods are compared at equal aux_rate, seed by seed, at the δ-VAE's points and at its rivals'
(`equal_rate`).

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, section 4 and its figure of
rate and distortion, https://arxiv.org/abs/1901.03416
"""

from collections.abc import Mapping, Sequence
from typing import Any

from deltavae.evaluation import evaluate
from deltavae.figures import scatter_with_errors
from deltavae.run_folder import RunFolder
from deltavae.studies.base import Budget, Cell, Findings, Result, Study, by_labels
from deltavae.studies.equal_rate import abscissa, at_our_points, at_their_points, line_of
from deltavae.studies.measuring import data_of
from deltavae.studies.methods import (
    ABOUT_RATE,
    ABOUT_UNITS,
    Method,
    delta_vae,
    rivals,
    without_latents,
)
from deltavae.studies.settings import DATA, SEEDS, TARGETS, cell, nets, training
from deltavae.studies.statistics import Interval
from deltavae.studies.summaries import (
    ABOUT_ACTIVE_UNITS,
    ABOUT_COST,
    ABOUT_INFORMATION,
    COST,
    NAMES,
    asked,
    cap,
    cost,
    information,
    mean_or_none,
    metric,
    spread,
)
from deltavae.studies.tables import Table

TRAIN_EXAMPLES = 5000
METRICS = (
    "rate_bits",
    "aux_rate_bits",
    "mutual_information_bits",
    "distortion_bits",
    "elbo_bpd",
    "aux_elbo_bpd",
)


class RateDistortion(Study):
    """The δ-VAE and its rivals in the plane of rate and distortion."""

    name = "rate-distortion"
    title = "Rate and distortion: the δ-VAE and its rivals"
    description = (
        "Every method trains the same nets on the same batches for the same number of steps. "
        "Rates, distortion and information are in bits per image, means over seeds ± standard "
        f"errors; one image set serves all. {ABOUT_UNITS} {ABOUT_RATE} A learned "
        "prior's abscissa in place of aux rate is the lesser of rate and aux rate: both bound "
        "I(x;z) from above."
    )

    def cells(self, budget: Budget) -> list[Cell]:
        """Return one cell per method, target and seed; see `Study`."""
        return [
            method_cell(budget, method, seed)
            for seed in range(SEEDS[budget])
            for method in methods(budget)
        ]

    def analyse(self, run: RunFolder, cell: Cell, budget: Budget) -> dict[str, Any]:
        """Measure the training images too; see `Study`."""
        model, data = run.load_model(), data_of(run)
        found = evaluate(model, data, split="train", limit=TRAIN_EXAMPLES, probe=False)
        return {"train": {name: found[name] for name in METRICS}}

    def findings(self, results: Sequence[Result], budget: Budget) -> Findings:
        """Draw the figure and the comparisons; see `Study`."""
        points = by_labels(results, "method", "target", "unit")
        return Findings(
            tables={
                "points": _points(points),
                "targets": _targets(points),
                "at-equal-aux-rate": at_our_points(results),
                "at-the-rivals-points": at_their_points(results),
                "trainings": _trainings(results),
            },
            figures={
                "rate-distortion": scatter_with_errors(
                    _lines(points, "rate_bits"),
                    _lines(points, "aux_rate_bits"),
                    xlabels=("rate, bits", "rate under the auxiliary prior, bits"),
                    ylabel="distortion, bits (test)",
                ),
                "train-and-test": scatter_with_errors(
                    _lines(points, "aux_rate_bits", "train"),
                    _lines(points, "aux_rate_bits"),
                    xlabels=("aux rate, bits (training images)", "aux rate, bits (test images)"),
                    ylabel="distortion, bits",
                ),
            },
        )


def methods(budget: Budget) -> list[Method]:
    """Return all methods of a budget, the δ-VAE first."""
    data = DATA[budget][0]
    ours = [delta_vae(budget, data, bits) for bits in TARGETS[budget]]
    return [*ours, without_latents(), *rivals(budget)]


def method_cell(budget: Budget, method: Method, seed: int) -> Cell:
    """Return the cell of a method and a seed, on the budget's first data set."""
    data = DATA[budget][0]
    labels = {"method": method.name, "target": method.target, "unit": method.unit, "data": data}
    options = training(budget, data), nets(budget), method.options
    return cell(f"{data}-{method.label}", labels, seed, *options)


Points = Mapping[tuple[Any, ...], Sequence[Result]]


def _points(points: Points) -> Table:
    rows = []
    for (method, target, unit), results in points.items():
        figures = [
            information(results) if name == "mutual_information_bits" else metric(results, name)
            for name in (*METRICS, "active_units")
        ]
        rows.append([method, asked(target, unit), len(results), *figures, *cost(results)])
    columns = ["method", "asked for", "seeds", *(NAMES[n] for n in (*METRICS, "active_units"))]
    return Table(
        [*columns, *COST],
        rows,
        "Test images, mean over seeds ± standard error over seeds. Without latents the ELBO is "
        f"exact. {ABOUT_INFORMATION} {ABOUT_ACTIVE_UNITS} {ABOUT_COST}",
        {name: 1 for name in columns if name.endswith("bits")}
        | {"active units": 1, "training, min": 1},
    )


def _targets(points: Points) -> Table:
    rows = []
    for (method, target, unit), results in points.items():
        rate = metric(results, "rate_bits")
        if rate is None:
            continue
        rates = [float(result.metrics["rate_bits"]) for result in results]
        holds_for, floor = _floor(results[0])
        missed = None
        if unit == "bits" and floor is None:
            missed = mean_or_none(abs(each / target - 1) for each in rates)
        above = None if floor is None else min(rates) - floor
        row = [method, asked(target, unit), len(rates), rate.value, missed, spread(rate)]
        rows.append([*row, min(rates), max(rates), holds_for, above])
    columns = ["method", "asked for", "seeds", "mean rate, bits", "mean |rate/T − 1|"]
    spreads = ["sd over seeds, bits", "least, bits", "most, bits"]
    return Table(
        [*columns, *spreads, "floor holds for", "least rate − floor, bits"],
        rows,
        "The rate on test images where training ended. |rate/T − 1| is given where the target T "
        "is an aim: ControlVAE, and free bits, whose T is an aim and in the objective a floor "
        "too, which nothing enforces. A committed rate is a floor and no aim: it may be exceeded, "
        "never missed. The floor of batch-normalised μ holds on the mean over a training batch.",
        dict.fromkeys((columns[3], *spreads), 2) | {"least rate − floor, bits": 4},
    )


def _floor(result: Result) -> tuple[str | None, float | None]:
    # For what the pair itself guarantees a rate, and which, in bits.
    if result.metrics.get("mean_rate_floor_bits") is not None:
        return "the mean", result.metrics["mean_rate_floor_bits"]
    committed = result.metrics["committed_rate_bits"]
    return ("each image", committed) if committed else (None, None)


def _trainings(results: Sequence[Result]) -> Table:
    rows = []
    for result in results:
        labels, metrics = result.cell.labels, result.metrics
        rate, aux = metrics["rate_bits"], metrics["aux_rate_bits"]
        said = metrics["mutual_information_bits"]
        delta = metrics["committed_rate_bits"] or None
        won = None if delta is None or aux is None else (rate - aux) / delta
        apart = None if aux is None or said is None else aux - said
        which = [labels["method"], asked(labels["target"], labels["unit"]), labels["seed"]]
        figures = [rate, delta, aux, won, information([result]), apart, cap([result])]
        rows.append([*which, *figures, *cost([result])])
    columns = ["method", "asked for", "seed", "rate, bits", "δ, bits", "aux rate, bits"]
    more = ["(rate − aux rate)/δ", "I(x;z) ≥, bits", "aux rate − I, bits", "cap of I, bits"]
    return Table(
        [*columns, *more, *COST],
        rows,
        "Every training, test images. (rate − aux rate)/δ: the share of the committed rate that "
        "the auxiliary prior wins back. aux rate − I: how far the upper and the lower bound on "
        f"I(x;z) lie apart. {ABOUT_INFORMATION} {ABOUT_COST}",
        dict.fromkeys((*columns[3:], *more[1:]), 2) | {"training, min": 1},
    )


Line = tuple[list[Interval], list[Interval]]


def _lines(points: Points, name: str, split: str = "test") -> dict[str, Line]:
    # The VAE lies on the line of the β-VAE; the decoder with z = 0 is a point at rate 0.
    lines: dict[str, Line] = {}
    for (method, _, _), results in points.items():
        x = mean_or_none(abscissa(result, split, name) for result in results)
        y = metric(results, "distortion_bits", split)
        if y is None or x is None:
            continue
        line = lines.setdefault(line_of(method), ([], []))
        line[0].append(x)
        line[1].append(y)
    return lines
