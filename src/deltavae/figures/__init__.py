"""Every plot, one function each: numbers in, a matplotlib Figure or a Pillow image out.

The object interface of matplotlib is used throughout: no pyplot, no global state, no screen.
"""

from deltavae.figures.comparisons import curves, intervals, matrices, scatter_with_errors
from deltavae.figures.pictures import beside, image_grid, save_image_grid, wrap
from deltavae.figures.render import to_data_uri, to_png, to_svg
from deltavae.figures.runs import committed_rate_curve, rate_heatmap, rates_bar, training_curves
from deltavae.figures.studies import committed_rate_and_ellipses
from deltavae.figures.style import COLOURS

__all__ = [
    "COLOURS",
    "beside",
    "committed_rate_and_ellipses",
    "committed_rate_curve",
    "curves",
    "image_grid",
    "intervals",
    "matrices",
    "rate_heatmap",
    "rates_bar",
    "save_image_grid",
    "scatter_with_errors",
    "to_data_uri",
    "to_png",
    "to_svg",
    "training_curves",
    "wrap",
]
