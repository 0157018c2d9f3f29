"""Plots that compare methods: points with errors, differences with intervals."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from deltavae.figures.style import COLOURS, plain, style

_MARKERS = "os^vDPX*<>"


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
    *panels: Mapping[str, Line], xlabels: Sequence[str], ylabel: str
) -> Figure:
    """Plot lines of points with standard errors in both coordinates, one panel beside another.

    Args:
        *panels: For every panel its lines by name: abscissae and ordinates.
        xlabels: Names of the panels' abscissae.
        ylabel: Name of the ordinate, the same in all panels.

    Returns:
        The panels on one scale of the ordinate; a name has the same colour and marker in all.
    """
    figure = Figure(figsize=(1.0 + 4.4 * len(panels), 4.6), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    names = list(dict.fromkeys(name for panel in panels for name in panel))
    for panel, ax, xlabel in zip(panels, axes, xlabels, strict=True):
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
                linestyle="-" if i < len(COLOURS) else "--",
                linewidth=1.0,
                markersize=5.0,
                capsize=2.0,
                label=plain(name),
            )
        style(ax, "", xlabel, ylabel if ax is axes[0] else "")
    handles = {
        label: handle
        for ax in axes
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    return figure


def intervals(panels: Mapping[str, Mapping[str, Estimate]], *, xlabel: str) -> Figure:
    """Plot estimates as points with their intervals, a line at zero, one panel above another.

    Args:
        panels: By title, and then by name, the estimates.
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


def _intervals(axes: Axes, title: str, panel: Mapping[str, Estimate], xlabel: str) -> None:
    for i, estimate in enumerate(panel.values()):
        reach = [_known(estimate.value - estimate.low)], [_known(estimate.high - estimate.value)]
        axes.errorbar([estimate.value], [i], xerr=reach, color=COLOURS[0], marker="o", capsize=3)
    axes.axvline(0.0, color="k", linewidth=0.8)
    axes.set_yticks(range(len(panel)), [plain(name) for name in panel])
    axes.set_ylim(len(panel) - 0.5, -0.5)
    style(axes, title, xlabel, "")


def _known(error: float) -> float:
    return error if error == error else 0.0  # NaN: of one value alone
