"""Why the posterior collapses: a closed form, and what happens while a model trains.

The linear VAE has an optimum in closed form, probabilistic PCA: direction i of the data, with
eigenvalue λ_i of their covariance, has at fixed observation noise σ² the rate

    ½ ln(λ_i/σ²)  where λ_i > σ²,  and 0 where λ_i ≤ σ²,

so that a direction collapses because the likelihood has no use for it, not because of the bound
(`linear_vae` has the derivation). It is trained here by gradient from random starts, on a made-up
spectrum and on the digits.

Of the trainings of `rate-distortion` the rate, the lower bound on I(x;z) and the active units are
followed on held-out images.

Lucas, Tucker, Grosse & Norouzi, Don't Blame the ELBO!, NeurIPS 2019,
https://arxiv.org/abs/1911.02469
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from deltavae.data import load_data
from deltavae.figures import curves
from deltavae.studies.base import Budget, Cell, Findings, Result, Study
from deltavae.studies.linear_vae import analytic_rates, train_linear_vae
from deltavae.studies.methods import Method
from deltavae.studies.rate_distortion import method_cell, methods
from deltavae.studies.settings import SEEDS, TARGETS
from deltavae.studies.tables import Table
from deltavae.units import nats_to_bits

STARTS: Mapping[Budget, int] = {"smoke": 1, "cpu": 5, "paper": 5}
LATENTS = 16  # of the linear VAE
CLEARLY = 0.9  # of σ²: below it a direction must be at zero
FOLLOWED = {
    "val_rate_bits": "rate, bits",
    "val_mutual_information_bits": "I(x;z) ≥, bits",
    "val_active_units": "active units",
}


class Collapse(Study):
    """The linear VAE against its closed form, and the course of trainings."""

    name = "collapse"
    title = "Why the posterior collapses"
    description = (
        "A direction of the data is used by a linear VAE exactly where its variance exceeds the "
        "observation noise. Below, rate, information and active units while the methods of "
        "rate-distortion train, on held-out images."
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
        table, points, analytic = _linear(STARTS[budget])
        figures = {
            "linear-vae": curves(
                {"rate of a direction, bits": {"½ log₂(λ/σ²), or 0": [analytic]}},
                "λ/σ²",
                points=points,
                log=True,
            )
        }
        courses = {title: _courses(results, name) for name, title in FOLLOWED.items()}
        if any(courses.values()):
            figures["training"] = curves(courses, "step")
        return Findings(tables={"linear-vae": table}, figures=figures)


def _followed(budget: Budget) -> list[Method]:
    middle = TARGETS[budget][len(TARGETS[budget]) // 2]
    chosen: dict[str, Method] = {}
    for method in methods(budget):
        if method.options.get("latents") == "none":
            continue
        if method.unit != "bits" or method.target == middle:
            chosen[method.name] = method  # of a β-VAE the largest weight
    return list(chosen.values())


def spectra() -> dict[str, Float64[Tensor, "p p"]]:
    """Return the covariances that linear VAEs are trained on, by name."""
    eigenvalues = torch.logspace(1.0, -2.0, 24, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    turn, _ = torch.linalg.qr(torch.randn(24, 24, generator=generator, dtype=torch.float64))
    digits = load_data("digits")
    pixels = torch.from_numpy(digits.train.images).flatten(1).double() / (digits.levels - 1)
    return {"made up": turn * eigenvalues @ turn.T, "digits": torch.cov(pixels.T)}


Curve = tuple[list[float], list[float]]


def _linear(starts: int) -> tuple[Table, dict[str, Curve], Curve]:
    rows, points, most = [], {}, 1.0
    for name, covariance in spectra().items():
        eigenvalues = torch.linalg.eigvalsh(covariance).flip(0)[:LATENTS]
        for kept in (2, 5, 10):  # σ² between two eigenvalues
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
        courses.setdefault(str(result.cell.labels["method"]), []).append((x, y))
    return courses
