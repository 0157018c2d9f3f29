"""Why the posterior collapses: a closed form, and what happens while a model trains.

The linear VAE has an optimum in closed form, probabilistic PCA: direction i of the data, with
eigenvalue λ_i of their covariance, has at fixed observation noise σ² the rate

    ½ ln(λ_i/σ²)  where λ_i > σ²,  and 0 where λ_i ≤ σ²,

so that a direction collapses because the likelihood has no use for it, not because of the bound
(`linear_vae` has the derivation). It is trained here by gradient from random starts, on a made-up
spectrum and on the digits.

With an AR(1) prior over the latents the same model commits a rate δ, and using no latent is stable
only up to a threshold λ_1/σ² below 1: between the threshold and 1 a committed rate keeps
directions that collapse under N(0, I). Shown on the made-up spectrum, on both sides.

Of the trainings of `rate-distortion` the rate, the lower bound on I(x;z) and the active units are
followed on held-out images.

Lucas, Tucker, Grosse & Norouzi, Don't Blame the ELBO!, NeurIPS 2019,
https://arxiv.org/abs/1911.02469
"""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from deltavae.configuration import WITHOUT_LATENTS
from deltavae.data import load_data
from deltavae.figures import curves
from deltavae.rates import gaussian_committed_rate
from deltavae.studies.base import Budget, Cell, Findings, Result, Study
from deltavae.studies.linear_vae import analytic_rates, collapse_threshold, train_linear_vae
from deltavae.studies.methods import ABOUT_RATE, ABOUT_UNITS, Method
from deltavae.studies.rate_distortion import method_cell, methods
from deltavae.studies.settings import SEEDS, TARGETS
from deltavae.studies.summaries import ABOUT_ACTIVE_UNITS, NAMES, asked
from deltavae.studies.tables import Table
from deltavae.units import nats_to_bits

STARTS: Mapping[Budget, int] = {"smoke": 1, "cpu": 5, "paper": 5}
KEPT: Mapping[Budget, tuple[int, ...]] = {  # directions with λ_i > σ²
    "smoke": (5,),
    "cpu": (2, 5, 10),
    "paper": (2, 5, 10),
}
ALPHAS: Mapping[Budget, tuple[float, ...]] = {  # of the prior over the linear VAE's latents
    "smoke": (0.8,),
    "cpu": (0.0, 0.5, 0.8, 0.95),
    "paper": (0.0, 0.5, 0.8, 0.95),
}
LATENTS = 16  # of the linear VAE
CLEARLY = 0.9  # of σ²: below it a direction must be at zero
FOLLOWED = {
    f"val_{name}": NAMES[name] for name in ("rate_bits", "mutual_information_bits", "active_units")
}
VAL_EXAMPLES = 1000  # held-out images that `fit` measures unless told otherwise


class Collapse(Study):
    """The linear VAE against its closed form, and the course of trainings."""

    name = "collapse"
    title = "Why the posterior collapses"
    description = (
        "A direction of the data is used by a linear VAE exactly where its variance exceeds the "
        "observation noise. Below, rate, information and active units while the methods of "
        f"rate-distortion train, on held-out images. {ABOUT_UNITS} {ABOUT_RATE}"
    )

    def cells(self, budget: Budget) -> list[Cell]:
        """Return cells of rate-distortion: every method at one target; see `Study`."""
        return [
            method_cell(budget, method, seed)
            for seed in range(SEEDS[budget])
            for method in _followed(budget)
        ]

    def findings(self, results: Sequence[Result], budget: Budget) -> Findings:
        """Train the linear VAEs and draw the curves; see `Study`."""
        table, points, analytic = _linear(STARTS[budget], KEPT[budget])
        figures = {
            "linear-vae": curves(
                {"rate of a direction, bits": {"½ log₂(λ/σ²), or 0": [analytic]}},
                "λ/σ²",
                points=points,
                log=True,
            )
        }
        courses = {title: _courses(results, name) for name, title in FOLLOWED.items()}
        text = ""
        if any(courses.values()):
            most = _cap(results)
            information = NAMES["mutual_information_bits"]
            figures["training"] = curves(
                courses, "step", caps=None if most is None else {information: most}
            )
            text = _about_courses(results)
        tables = {"linear-vae": table, "committed-rate": _committed(ALPHAS[budget])}
        return Findings(tables=tables, figures=figures, text=text)


def _followed(budget: Budget) -> list[Method]:
    # One target in bits; of the β-VAEs a small weight and a large one.
    middle = TARGETS[budget][len(TARGETS[budget]) // 2]
    latent = [m for m in methods(budget) if m.options["latents"] not in WITHOUT_LATENTS]
    weights = [m.target for m in latent if m.unit == "β" and m.target is not None]
    kept: Mapping[str, set[float | None]] = {
        "": {None},
        "bits": {middle},
        "β": {min(weights), max(weights)},
    }
    return [method for method in latent if method.target in kept[method.unit]]


def spectra() -> dict[str, Float64[Tensor, "p p"]]:
    """Return the covariances that linear VAEs are trained on, by name."""
    eigenvalues = torch.logspace(1.0, -2.0, 24, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    turn, _ = torch.linalg.qr(torch.randn(24, 24, generator=generator, dtype=torch.float64))
    digits = load_data("digits")
    pixels = torch.from_numpy(digits.train.images).flatten(1).double() / (digits.levels - 1)
    return {"made up": turn * eigenvalues @ turn.T, "digits": torch.cov(pixels.T)}


Curve = tuple[list[float], list[float]]


def _linear(starts: int, directions: Sequence[int]) -> tuple[Table, dict[str, Curve], Curve]:
    rows, points, most = [], {}, 1.0
    for name, covariance in spectra().items():
        eigenvalues = torch.linalg.eigvalsh(covariance).flip(0)[:LATENTS]
        for kept in directions:  # σ² between two eigenvalues
            noise = float((eigenvalues[kept - 1] * eigenvalues[kept]).sqrt())
            analytic = analytic_rates(eigenvalues, noise)
            learned = torch.stack(
                [
                    train_linear_vae(
                        covariance, noise, LATENTS, torch.Generator().manual_seed(seed)
                    ).rates
                    for seed in range(starts)
                ]
            )
            error = float((learned - analytic).abs().max() / analytic[0])
            below = learned[:, eigenvalues < CLEARLY * noise]
            left = nats_to_bits(float(below.max())) if below.numel() else 0.0
            largest = nats_to_bits(float(analytic[0]))
            rows.append([name, noise, starts, kept, largest, error, left])
            ratio = (eigenvalues / noise).tolist()
            points[f"{name}, {kept} directions"] = (ratio, nats_to_bits(learned.mean(0)).tolist())
            most = max(most, ratio[0])
    columns = ["data", "σ²", "starts", "λ_i > σ²", "largest rate, bits"]
    columns += ["largest error / largest rate", "most at λ_i < 0.9 σ², bits"]
    table = Table(
        columns,
        rows,
        "Linear VAEs of 16 latents, trained by Adam and L-BFGS from random starts in float64: the "
        "largest distance of a learned rate from the closed form, over directions and starts.",
        {"σ²": 5, "starts": 0, "λ_i > σ²": 0, columns[5]: 7, columns[6]: 7},
    )
    grid = torch.logspace(-2.0, float(torch.tensor(most).log10()), 200, dtype=torch.float64)
    return table, points, (grid.tolist(), nats_to_bits(analytic_rates(grid, 1.0)).tolist())


def _committed(alphas: Sequence[float]) -> Table:
    covariance = spectra()["made up"]
    largest = float(torch.linalg.eigvalsh(covariance)[-1])
    lag = (torch.arange(LATENTS)[:, None] - torch.arange(LATENTS)).abs().double()
    rows = []
    for alpha in alphas:
        precision = torch.linalg.inv(alpha**lag)
        delta, threshold = gaussian_committed_rate(precision), collapse_threshold(precision)
        for ratio in (0.7 * threshold, 0.9):
            model = train_linear_vae(
                covariance,
                largest / ratio,
                LATENTS,
                torch.Generator().manual_seed(0),
                precision=precision,
                steps=500,
            )
            nats = (delta, model.rate - delta, model.information, model.gap)
            committed, *figures = (nats_to_bits(value) for value in nats)
            rows.append([alpha, committed, threshold, ratio, *figures])
    columns = ["α", "δ, bits", "threshold of λ_1/σ²", "λ_1/σ²", "rate − δ, bits", "I(x;z), bits"]
    return Table(
        [*columns, "−ELBO above the optimum, bits"],
        rows,
        f"Linear VAEs of {LATENTS} latents with an AR(1) prior, on the made-up spectrum scaled to "
        "λ_1 < σ²: under N(0, I), α = 0, every direction collapses. Below its threshold a "
        "committed rate says nothing either, and the whole of δ is lost; between the threshold "
        "and 1 it keeps directions in use. Optimum: the likelihood of probabilistic PCA; I(x;z) "
        "in closed form for normally distributed x.",
        {"α": 2, "threshold of λ_1/σ²": 4, "λ_1/σ²": 4},
    )


def _cap(results: Sequence[Result]) -> float | None:
    # Of the estimates of I(x;z) on the held-out images, in bits.
    options = [result.cell.options for result in results]
    images = [
        min(given["holdout"], given.get("val_examples", VAL_EXAMPLES))
        for given in options
        if given.get("holdout")
    ]
    return nats_to_bits(math.log(min(images))) if images else None


def _about_courses(results: Sequence[Result]) -> str:
    seeds = len({result.cell.labels["seed"] for result in results})
    told = "one curve" if seeds == 1 else f"one curve of one colour for each of {seeds} seeds"
    return (
        f"The figure *training*: held-out images, the averaged weights, {told}; dotted, the cap "
        f"of the estimate of I(x;z), log₂ of the number of images. {ABOUT_ACTIVE_UNITS}"
    )


def _courses(results: Sequence[Result], column: str) -> dict[str, list[Curve]]:
    courses: dict[str, list[Curve]] = {}
    for result in results:
        values = result.log.get(column)
        if values is None:
            continue
        known = [
            (float(step), float(value))
            for step, value in zip(result.log["step"], values, strict=True)
            if step is not None and value is not None
        ]
        x, y = [step for step, _ in known], [value for _, value in known]
        labels = result.cell.labels
        target = asked(labels["target"], labels["unit"])
        name = labels["method"] if target is None else f"{labels['method']}, {target}"
        courses.setdefault(name, []).append((x, y))
    return courses
