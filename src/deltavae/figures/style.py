"""What all plots have in common: colours, axes, names.

Line colours are those of Okabe & Ito, Color Universal Design,
https://jfly.uni-koeln.de/color/, told apart with every kind of colour vision.
"""

from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def plain(name: str) -> str:
    """Return a name as a plot can show it."""
    # matplotlib reads $…$ as mathematics and leaves names that begin with _ out of legends.
    text = name.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def style(axes: Axes, title: str, xlabel: str, ylabel: str) -> None:
    """Name a plot and its axes."""
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.title.set_fontsize("medium")
    axes.spines[["top", "right"]].set_visible(False)
