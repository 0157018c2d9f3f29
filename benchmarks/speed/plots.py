"""The plots of the benchmarks."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from deltavae.figures import COLOURS
from speed.drawing import AXES, growth_lines
from speed.measured import Measured, Row
from speed.targets import TARGETS
from speed.timing import slope

MOST_EQUAL = 8.0  # beyond this ratio of largest to smallest, bars are drawn on a logarithmic axis


def bars(measured: Measured, rows: list[Row]) -> Figure:
    """Draw every table as horizontal bars; whiskers are quartiles, lines what was asked for.

    Args:
        measured: What was measured.
        rows: Its rows.

    Returns:
        One panel per table.
    """
    sections = list(dict.fromkeys(row.section for row in rows))
    parts = [[row for row in rows if row.section == section] for section in sections]
    heights = [1.2 + 0.26 * len(part) for part in parts]
    figure = Figure(figsize=(9.0, sum(heights)), layout="constrained")
    panels = figure.subplots(len(parts), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, section, part, colour in zip(panels, sections, parts, COLOURS, strict=False):
        _bars(axes, section, part, colour)
    return figure


def _bars(axes: Axes, title: str, rows: list[Row], colour: str) -> None:
    scale = 100.0 if rows[0].unit == "%" else 1.0
    values = [scale * row.figure.value for row in rows]
    below = [scale * (row.figure.value - row.figure.low) for row in rows]
    above = [scale * (row.figure.high - row.figure.value) for row in rows]
    axes.barh(range(len(rows)), values, xerr=[below, above], color=colour, height=0.7)
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.invert_yaxis()
    wide = max(values) > MOST_EQUAL * min(values)
    if wide:
        axes.set_xscale("log")
        axes.set_xlim(left=min(values) / 1.5)
    for i, row in enumerate(rows):
        aims = [] if row.target is None else [TARGETS[row.target].target, TARGETS[row.target].goal]
        for aim, line in zip(aims, ("--", "-"), strict=False):
            if aim is not None:
                axes.plot([scale * aim] * 2, [i - 0.45, i + 0.45], "k", linestyle=line, lw=1.5)
    unit = "%" if rows[0].unit == "%" else "times" if rows[0].unit else ""
    _style(axes, title, unit, "")


def growth(measured: Measured, rows: list[Row]) -> Figure:
    """Draw time against side, width and depth, both axes logarithmic, with the fitted exponents.

    Args:
        measured: What was measured.
        rows: Its rows.

    Returns:
        A row of panels for the training step and one for sampling.
    """
    panels = growth_lines(measured)
    figure = Figure(figsize=(11.0, 7.2), layout="constrained")
    grid = figure.subplots(2, len(AXES)).ravel()
    for axes, (what, axis, lines) in zip(grid, panels, strict=True):
        for i, (name, points) in enumerate(lines.items()):
            _power(axes, list(points), list(points.values()), name, i)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_major_locator(LogLocator(10, subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        title = "training step" if what == "step" else "sampling"
        _style(axes, title, AXES[axis], "time, relative")
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _power(axes: Axes, sizes: list[int], times: list[float], name: str, i: int) -> None:
    # One line, with the fitted exponent at its end.
    colour, style = COLOURS[i // 2], "--" if i % 2 else "-"
    axes.plot(
        sizes, times, style, color=colour, marker="o", markersize=3, linewidth=1.4, label=name
    )
    axes.annotate(
        f"{slope(sizes, times):.2f}",
        (sizes[-1], times[-1]),
        xytext=(5, 3 if i % 2 else -9),
        textcoords="offset points",
        color=colour,
        fontsize="small",
        annotation_clip=False,
    )


def _style(axes: Axes, title: str, xlabel: str, ylabel: str) -> None:
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.title.set_fontsize("medium")
    axes.spines[["top", "right"]].set_visible(False)
