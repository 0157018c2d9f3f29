"""Plots of one or several runs: bits for rates and distortion, steps for time.

Heat maps use cividis, whose lightness grows evenly.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deltavae.figures.style import COLOURS, plain, style
from deltavae.rates import committed_terms
from deltavae.units import nats_to_bits

_CURVES = (
    ("distortion_bits", "distortion"),
    ("rate_bits", "rate (dashed: δ)"),
    ("aux_rate_bits", "rate under the auxiliary prior"),
)
_RATES = (
    ("committed_rate_bits", "committed rate δ"),
    ("rate_bits", "rate"),
    ("aux_rate_bits", "rate under the auxiliary prior ≥ I(x;z)"),
    ("mutual_information_bits", "lower bound on I(x;z)"),
)


def training_curves(logs: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Plot distortion, rate and auxiliary rate of training against the step.

    Where a log has figures of held-out images (`val_...`, of the averaged weights), they are rings
    in the colour of the run.

    Args:
        logs: For each run, by name, the entries of its log (`training.read_log`); a quantity that
            no run has gets no panel. At least one entry must hold distortion_bits.

    Returns:
        One panel per quantity, in bits per example; δ is a dashed line in the run's colour. The
        distortion of a run's first tenth, many times what follows, may lie outside its panel.

    Raises:
        ValueError: If no entry of any log holds distortion_bits.
    """
    panels = [
        (key, title)
        for key, title in _CURVES
        if any(key in entry for log in logs.values() for entry in log)
    ]
    if "distortion_bits" not in dict(panels):
        raise ValueError("logs must hold at least one entry with distortion_bits")
    figure = Figure(figsize=(4.0 * len(panels), 3.2), layout="constrained")
    for axes, (key, title) in zip(np.ravel(figure.subplots(1, len(panels))), panels, strict=True):
        if any(f"val_{key}" in entry for log in logs.values() for entry in log):
            title += "\n(rings: held-out images)"
        for i, (name, log) in enumerate(logs.items()):
            entries = [entry for entry in log if key in entry]
            if not entries:
                continue
            colour = COLOURS[i % len(COLOURS)]
            steps = [entry["step"] for entry in entries]
            marker = "o" if len(entries) < 2 else None
            values = [entry[key] for entry in entries]
            axes.plot(steps, values, color=colour, marker=marker, linewidth=1.4, label=plain(name))
            held_out = [
                (entry["step"], entry[f"val_{key}"]) for entry in log if f"val_{key}" in entry
            ]
            if held_out:
                axes.plot(*zip(*held_out, strict=True), "o", fillstyle="none", color=colour)
            if key == "rate_bits" and entries[-1].get("committed_rate_bits"):
                axes.axhline(entries[-1]["committed_rate_bits"], color=colour, linestyle="--")
        if key == "distortion_bits":
            _settle(axes, logs.values(), key)
        style(axes, title, "optimiser step", "bits per example")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _settle(axes: Axes, logs: Iterable[Sequence[Mapping[str, float]]], key: str) -> None:
    # Limit an axis to what a quantity does once the first tenth of each run is over.
    values = [
        entry[name]
        for log in logs
        for entry in log
        for name in (key, f"val_{key}")
        if entry["step"] >= 0.1 * log[-1]["step"] and math.isfinite(entry.get(name, math.nan))
    ]
    if values:
        low, high = min(values), max(values)
        margin = 0.05 * (high - low) or 1.0
        axes.set_ylim(low - margin, high + margin)


def rate_heatmap(
    rate: Float[np.ndarray, "n terms"],
    committed: Float[np.ndarray, "n terms"],
    name: str = "",
    by_channel: bool = True,
) -> Figure:
    """Plot the rate of every latent step and channel, and δ's share in it.

    Args:
        rate: Rate per step and channel in bits, averaged over examples; a single column for the
            rate per step, of a family that ties its channels.
        committed: δ's share of it in bits (`Latents.committed_terms`).
        name: Name of the run, for the title.
        by_channel: Whether the columns are channels.

    Returns:
        Heat maps of the rate and of what lies above δ; beside them the steps' sums, stacked.
    """
    n, d = rate.shape
    excess = rate - committed
    figure = Figure(figsize=(12.0, 3.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for axes, values, title in ((left, rate, "rate"), (middle, excess, "rate above δ's share")):
        image = axes.imshow(
            values.T,
            cmap="cividis",
            aspect="auto",
            interpolation="nearest",
            extent=(0.5, n + 0.5, d + 0.5, 0.5),
            vmin=0.0,
            vmax=max(float(values.max()), 1e-6),
        )
        figure.colorbar(image, ax=axes, label="bits")
        style(axes, title, "latent step t", "channel k" if by_channel else "all channels")
        if by_channel:
            axes.yaxis.get_major_locator().set_params(integer=True)
        else:
            axes.set_yticks([])
    steps = np.arange(1, n + 1)
    floor, above = committed.sum(1), excess.sum(1)
    right.bar(steps, floor, color="#9a9a9a", label="δ's share")
    right.bar(steps, above, bottom=floor, color=COLOURS[0], label="above it")
    right.margins(y=0.3)  # room for the legend
    right.legend(frameon=False, ncols=2, loc="upper right")
    style(right, "sum over channels" if by_channel else "rate", "latent step t", "bits")
    for axes in (left, middle, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
    if name:
        figure.suptitle(plain(name))
    return figure


def committed_rate_curve(
    points: Mapping[str, tuple[int, Sequence[float]]], steps: Sequence[int] = (2, 8, 16)
) -> Figure:
    """Plot what one channel commits against its α (Razavi et al. 2019, the figure of δ against α).

    Args:
        points: For each run, by name, its latent steps n and the α of its channels.
        steps: Latent steps n for which a curve is drawn beside those of the runs.

    Returns:
        One curve per n; each α of a run is a point on the curve of its n.
    """
    alphas = [alpha for _, ladder in points.values() for alpha in ladder]
    low, high = min([0.0, *alphas]), max([0.99, *alphas])
    grid = torch.linspace(low, high, 300, dtype=torch.float64)
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for n in sorted({*steps, *(n for n, _ in points.values())}):
        curve = _channel_bits(grid, n)
        axes.plot(grid.numpy(), curve, color="#8a8a8a", linewidth=1.2)
        axes.annotate(
            f"n = {n}",
            (float(grid[-1]), float(curve[-1])),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            annotation_clip=False,
        )
    for i, (name, (n, ladder)) in enumerate(points.items()):
        x = torch.as_tensor(ladder, dtype=torch.float64)
        colour = COLOURS[i % len(COLOURS)]
        label = f"{plain(name)} (n = {n}, d = {len(ladder)})"
        axes.scatter(x.numpy(), _channel_bits(x, n), color=colour, zorder=3, label=label)
    if points:
        axes.legend(frameon=False, loc="upper left")
    style(axes, "committed rate of one channel", "α", "δ per channel, bits per example")
    return figure


def rates_bar(metrics: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Plot δ, the rate and the two bounds on the information side by side, run by run.

    Args:
        metrics: For each run, by name, its metrics; what is missing or None gets no bar.

    Returns:
        Horizontal bars in bits per example; error bars of two standard errors.
    """
    figure = Figure(figsize=(8.0, 0.9 + 0.9 * len(metrics)), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(_RATES)
    shades = ("#9a9a9a", *COLOURS)
    for j, (key, label) in enumerate(_RATES):
        present = [(i, m) for i, m in enumerate(metrics.values()) if m.get(key) is not None]
        axes.barh(
            [i + (j - (len(_RATES) - 1) / 2) * height for i, _ in present],
            [m[key] for _, m in present],
            height,
            xerr=[2 * (m.get(f"{key}_se") or 0.0) for _, m in present],
            error_kw={"elinewidth": 1.0},
            color=shades[j],
            label=label,
        )
    axes.set_yticks(range(len(metrics)), [plain(name) for name in metrics])
    axes.invert_yaxis()
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    style(axes, "", "bits per example", "")
    return figure


def _channel_bits(alpha: Float[torch.Tensor, " d"], n: int) -> Float[np.ndarray, " d"]:
    # δ of each channel by itself: the committed terms summed over the steps.
    bits: Float[np.ndarray, " d"] = nats_to_bits(committed_terms(alpha, n).sum(0)).numpy()
    return bits
