"""Plots that compare methods: points with errors, differences with intervals."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deltavae.figures.style import COLOURS, plain, style

_MARKERS = "os^vDPX*<>"
_STYLES = ("-", "--", ":")  # the same colours again
_CAP: dict[str, Any] = {"color": "k", "linestyle": ":", "linewidth": 0.8, "label": "cap"}


@runtime_checkable
class Estimate(Protocol):
    """A number with its standard error and an interval."""

    @property
    def value(self) -> float:
        """The number."""

    @property
    def error(self) -> float:
        """Its standard error; NaN where it is not known."""

    @property
    def low(self) -> float:
        """Lower end of its interval."""

    @property
    def high(self) -> float:
        """Upper end of its interval."""


Line = tuple[Sequence[Estimate], Sequence[Estimate]]


def scatter_with_errors(
    *panels: Mapping[str, Line],
    xlabels: Sequence[str],
    ylabel: str,
    caps: Sequence[float | None] = (),
) -> Figure:
    """Plot lines of points with standard errors in both coordinates, one panel beside another.

    Args:
        *panels: For every panel its lines by name: abscissae and ordinates.
        xlabels: Names of the panels' abscissae.
        ylabel: Name of the ordinate, the same in all panels.
        caps: For every panel the abscissa that no point can exceed, shown as a dotted line, or
            None; empty: no lines.

    Returns:
        The panels on one scale of the ordinate; a name has the same colour and marker in all.
    """
    figure = Figure(figsize=(1.0 + 4.4 * len(panels), 4.6), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    names = list(dict.fromkeys(name for panel in panels for name in panel))
    lines = caps or [None] * len(panels)
    for panel, ax, xlabel, cap in zip(panels, axes, xlabels, lines, strict=True):
        for name, (x, y) in panel.items():
            i = names.index(name)
            order = sorted(range(len(x)), key=lambda j: x[j].value)
            ax.errorbar(
                [x[j].value for j in order],
                [y[j].value for j in order],
                xerr=[_known(x[j].error) for j in order],
                yerr=[_known(y[j].error) for j in order],
                color=COLOURS[i % len(COLOURS)],
                marker=_MARKERS[i % len(_MARKERS)],
                linestyle=_STYLES[i // len(COLOURS) % len(_STYLES)],
                linewidth=1.0,
                markersize=5.0,
                capsize=2.0,
                label=plain(name),
            )
        if cap is not None:
            ax.axvline(cap, **_CAP)
        style(ax, "", xlabel, ylabel if ax is axes[0] else "")
    _legend(figure, axes)
    return figure


def intervals(panels: Mapping[str, Mapping[str, Estimate]], *, xlabel: str) -> Figure:
    """Plot estimates as points with their intervals, a line at zero, one panel above another.

    Args:
        panels: By title, and then by name, the estimates; one without a known error is a point
            without a bar, and named as of one seed.
        xlabel: Name of the abscissa.

    Returns:
        One panel per title, on one scale.
    """
    heights = [0.6 + 0.3 * len(panel) for panel in panels.values()]
    figure = Figure(figsize=(7.5, 0.6 + sum(heights)), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, sharex=True, height_ratios=heights)
    for (title, panel), ax in zip(panels.items(), axes[:, 0], strict=True):
        _intervals(ax, title, panel, xlabel if ax is axes[-1, 0] else "")
    return figure


Curve = tuple[Sequence[float], Sequence[float]]


def curves(
    panels: Mapping[str, Mapping[str, Sequence[Curve]]],
    xlabel: str,
    *,
    points: Mapping[str, Curve] | None = None,
    log: bool = False,
    caps: Mapping[str, float] | None = None,
) -> Figure:
    """Plot curves, several of one name in one colour, one panel beside another.

    Args:
        panels: By title, then by name, curves as abscissae and ordinates.
        xlabel: Name of the abscissa.
        points: By name points that are drawn as rings over the first panel's curves.
        log: Whether the abscissa is logarithmic.
        caps: By title of a panel the ordinate that no curve can exceed, shown as a dotted line.

    Returns:
        The panels; a name has the same colour in all.
    """
    figure = Figure(figsize=(1.0 + 3.8 * len(panels), 4.2), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    names = list(
        dict.fromkeys([*(n for panel in panels.values() for n in panel), *(points or {})])
    )
    for (title, panel), ax in zip(panels.items(), axes, strict=True):
        for name, of_name in panel.items():
            i = names.index(name)
            for j, (x, y) in enumerate(of_name):
                ax.plot(
                    x,
                    y,
                    color=COLOURS[i % len(COLOURS)],
                    linestyle=_STYLES[i // len(COLOURS) % len(_STYLES)],
                    linewidth=1.2,
                    label=plain(name) if j == 0 else None,
                )
        if log:
            ax.set_xscale("log")
        if caps and title in caps:
            ax.axhline(caps[title], **_CAP)
        style(ax, title, xlabel, "")
    for name, (x, y) in (points or {}).items():
        colour = COLOURS[names.index(name) % len(COLOURS)]
        axes[0].plot(x, y, "o", mfc="none", color=colour, markersize=4.0, label=plain(name))
    _legend(figure, axes)
    return figure


def matrices(
    panels: Mapping[str, Float64[np.ndarray, "n r"]], xlabel: str, ylabel: str, colour: str
) -> Figure:
    """Show matrices as heat maps, one beside another, on one scale from 0 to the largest entry.

    Args:
        panels: By title; rows from top to bottom. Entries below 0 are shown as 0.
        xlabel: What the columns are.
        ylabel: What the rows are.
        colour: What the colour means.

    Returns:
        The maps with one bar of colours.
    """
    figure = Figure(figsize=(1.5 + 3.0 * len(panels), 3.4), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    top = max(float(matrix.max()) for matrix in panels.values())
    for (title, matrix), ax in zip(panels.items(), axes, strict=True):
        image = ax.imshow(matrix, cmap="cividis", vmin=0.0, vmax=max(top, 1e-9))
        ax.set(title=plain(title), xlabel=xlabel, ylabel=ylabel if ax is axes[0] else "")
        ax.title.set_fontsize("medium")
    figure.colorbar(image, ax=list(axes), label=colour)
    return figure


def _intervals(axes: Axes, title: str, panel: Mapping[str, Estimate], xlabel: str) -> None:
    names = []
    for i, (name, estimate) in enumerate(panel.items()):
        known = not math.isnan(estimate.error)
        reach = [[estimate.value - estimate.low], [estimate.high - estimate.value]]
        axes.errorbar(
            [estimate.value],
            [i],
            xerr=reach if known else None,
            color=COLOURS[0],
            marker="o",
            markerfacecolor=COLOURS[0] if known else "none",
            capsize=3,
        )
        names.append(plain(name if known else f"{name} (one seed)"))
    axes.axvline(0.0, color="k", linewidth=0.8)
    axes.set_yticks(range(len(panel)), names)
    axes.set_ylim(len(panel) - 0.5, -0.5)
    style(axes, title, xlabel, "")


_ROWS = 10  # of a legend; a figure is widened for more names
_CHARACTERS_PER_INCH, _HANDLE = 11, 8  # of a legend; what a line's sample takes, in characters


def _legend(figure: Figure, axes: Iterable[Axes]) -> None:
    handles = {
        label: handle
        for ax in axes
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    names = sorted(handles, key=lambda label: label == _CAP["label"])  # the cap last
    widest = (max(map(len, names)) + _HANDLE) / _CHARACTERS_PER_INCH
    for_all = math.ceil(len(names) / _ROWS)
    figure.set_figwidth(max(figure.get_figwidth(), for_all * widest))
    columns = max(1, min(4, int(figure.get_figwidth() / widest)))
    figure.set_figheight(figure.get_figheight() + 0.2 * max(0, len(names) // columns - 2))
    figure.legend([handles[n] for n in names], names, loc="outside lower center", ncols=columns)


def _known(error: float) -> float:
    return 0.0 if math.isnan(error) else error  # of one value alone
