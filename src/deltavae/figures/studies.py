"""Plots of the studies, with the axes of the paper's figures."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from deltavae.figures.style import COLOURS, style
from deltavae.rates import committed_rate, minimiser
from deltavae.units import nats_to_bits


def committed_rate_and_ellipses(steps: Sequence[int], alphas: Sequence[float]) -> Figure:
    """Plot δ of one channel against α, and for n = 2 the prior beside the nearest posterior.

    Args:
        steps: Latent steps n, a curve each.
        alphas: Values of α in (−1, 1), a pair of ellipses each.

    Returns:
        δ in nats on the left axis, in bits on the right; then the ellipses of one standard
        deviation.
    """
    count = len(alphas)
    figure = Figure(figsize=(4.6 + 2.0 * count, 3.2), layout="constrained")
    curves, *panels = figure.subplots(1, 1 + count, width_ratios=[4.6 / 2.0] + [1.0] * count)
    _rate_curves(curves, steps)
    for axes, alpha in zip(panels, alphas, strict=True):
        _ellipses(axes, alpha)
    panels[0].set_ylabel("z₂")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower right", ncols=2, frameon=False)
    return figure


def _rate_curves(axes: Axes, steps: Sequence[int]) -> None:
    grid = np.linspace(0.0, 0.99, 300)
    for n, colour in zip(steps, COLOURS, strict=False):
        nats = [committed_rate(float(alpha), n) for alpha in grid]
        axes.plot(grid, nats, color=colour, linewidth=1.4, label=f"n = {n}")
    axes.legend(frameon=False, loc="upper left")
    style(axes, "committed rate of one channel", "α", "δ, nats")
    low, high = axes.get_ylim()
    bits = axes.twinx()
    bits.set(ylim=(nats_to_bits(low), nats_to_bits(high)), ylabel="δ, bits")
    bits.spines["top"].set_visible(False)


def _ellipses(axes: Axes, alpha: float) -> None:
    prior = torch.tensor([[1.0, alpha], [alpha, 1.0]], dtype=torch.float64)
    posterior = torch.diag(minimiser(alpha, 2)[:, 0].square())
    shown = (("prior", prior, COLOURS[0]), ("nearest posterior", posterior, COLOURS[1]))
    for name, covariance, colour in shown:
        axes.add_patch(_ellipse(covariance, name, colour))
    axes.set(xlim=(-1.3, 1.3), ylim=(-1.3, 1.3), aspect="equal", xticks=(-1, 0, 1))
    axes.set_yticks((-1, 0, 1))
    style(axes, f"α = {alpha:g}\nδ = {committed_rate(alpha, 2):.3f} nats", "z₁", "")


def _ellipse(covariance: Float[torch.Tensor, "2 2"], name: str, colour: str) -> Ellipse:
    # The points zᵀ Σ⁻¹ z = 1: half-axes √λ_i along the eigenvectors of Σ.
    variances, directions = torch.linalg.eigh(covariance)
    width, height = (2.0 * variances.sqrt()).tolist()
    angle = float(torch.rad2deg(torch.atan2(directions[1, 0], directions[0, 0])))
    return Ellipse(
        (0.0, 0.0),
        width,
        height,
        angle=angle,
        fill=False,
        edgecolor=colour,
        linewidth=1.4,
        label=name,
    )
