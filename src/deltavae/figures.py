"""Every plot, one function each: numbers in, a matplotlib Figure or a Pillow image out.

The object interface of matplotlib is used throughout: no pyplot, no global state, no screen.
Units: bits for rates and distortion, steps for time. Line colours are those of Okabe & Ito, Color
Universal Design, https://jfly.uni-koeln.de/color/, told apart with every kind of colour vision;
heat maps use cividis, whose lightness grows evenly.

Pictures of events are not plots: `image_grid` gives exact pixels, enlarged by whole numbers.
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from deltavae.rates import committed_terms
from deltavae.run_folder import write_atomically
from deltavae.units import nats_to_bits

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

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
_GAP = 1  # pixels between two images, before enlargement
_GAP_LEVEL = 176
_TARGET = 40  # pixels that an enlarged image should have at least


def training_curves(logs: Mapping[str, Sequence[Mapping[str, float]]]) -> Figure:
    """Plot distortion, rate and auxiliary rate of training against the step.

    Where a log has figures of held-out images (`val_...`, of the averaged weights), they are rings
    in the colour of the run.

    Args:
        logs: For each run, by name, the entries of its log (`training.read_log`); a quantity that
            no run has gets no panel. At least one entry must hold distortion_bits.

    Returns:
        One panel per quantity, in bits per example; δ is a dashed line in the run's colour.

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
            axes.plot(
                steps, values, color=colour, marker=marker, linewidth=1.4, label=_plain(name)
            )
            held_out = [
                (entry["step"], entry[f"val_{key}"]) for entry in log if f"val_{key}" in entry
            ]
            if held_out:
                axes.plot(*zip(*held_out, strict=True), "o", fillstyle="none", color=colour)
            if key == "rate_bits" and entries[-1].get("committed_rate_bits"):
                axes.axhline(entries[-1]["committed_rate_bits"], color=colour, linestyle="--")
        _style(axes, title, "optimiser step", "bits per example")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def rate_heatmap(
    rate: Float[np.ndarray, "n d"], committed: Float[np.ndarray, "n d"], name: str = ""
) -> Figure:
    """Plot the rate of every latent step and channel, and δ's share in it.

    Args:
        rate: Rate per step and channel in bits, averaged over examples.
        committed: δ's share of it in bits (`Latents.committed_terms`).
        name: Name of the run, for the title.

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
        _style(axes, title, "latent step t", "channel k")
        axes.yaxis.get_major_locator().set_params(integer=True)
    steps = np.arange(1, n + 1)
    floor, above = committed.sum(1), excess.sum(1)
    right.bar(steps, floor, color="#9a9a9a", label="δ's share")
    right.bar(steps, above, bottom=floor, color=COLOURS[0], label="above it")
    right.margins(y=0.3)  # room for the legend
    right.legend(frameon=False, ncols=2, loc="upper right")
    _style(right, "sum over channels", "latent step t", "bits")
    for axes in (left, middle, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
    if name:
        figure.suptitle(_plain(name))
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
        label = f"{_plain(name)} (n = {n}, d = {len(ladder)})"
        axes.scatter(x.numpy(), _channel_bits(x, n), color=colour, zorder=3, label=label)
    if points:
        axes.legend(frameon=False, loc="upper left")
    _style(axes, "committed rate of one channel", "α", "δ per channel, bits per example")
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
    axes.set_yticks(range(len(metrics)), [_plain(name) for name in metrics])
    axes.invert_yaxis()
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    _style(axes, "", "bits per example", "")
    return figure


def image_grid(
    images: UInt8[np.ndarray, "rows columns c h w"], levels: int, *, enlarge: int | None = None
) -> Image.Image:
    """Lay images out in rows and columns, enlarged without smoothing.

    Args:
        images: Images of 1 or 3 channels, values in 0..levels−1; at least one.
        levels: Number of levels of a pixel, at least 2; the highest becomes white.
        enlarge: Whole factor of enlargement, at least 1; None: what makes small images visible.

    Returns:
        An RGB image with grey lines of one enlarged pixel between the images.

    Raises:
        ValueError: If images are empty or have other than 1 or 3 channels, a value is not below
            levels, or levels or enlarge are out of their range.
    """
    rows, columns, c, h, w = images.shape
    if images.size == 0 or c not in (1, 3):
        raise ValueError(f"images must be images of 1 or 3 channels, got shape {images.shape}")
    if levels < 2 or images.max() >= levels:
        raise ValueError(f"levels must be at least 2 and above {images.max()}, got {levels}")
    factor = max(1, math.ceil(_TARGET / max(h, w))) if enlarge is None else enlarge
    if factor < 1:
        raise ValueError(f"enlarge must be at least 1, got {enlarge}")
    scaled = np.rint(images * (255.0 / (levels - 1))).astype(np.uint8)
    canvas = np.full((rows, h + _GAP, columns, w + _GAP, 3), _GAP_LEVEL, np.uint8)
    canvas[:, :h, :, :w] = scaled.transpose(0, 3, 1, 4, 2)  # one channel is spread over three
    whole = canvas.reshape(rows * (h + _GAP), columns * (w + _GAP), 3)[:-_GAP, :-_GAP]
    return Image.fromarray(whole.repeat(factor, axis=0).repeat(factor, axis=1))


def wrap(images: UInt8[np.ndarray, "m c h w"], columns: int) -> UInt8[np.ndarray, "_r _k c h w"]:
    """Break a row of images into rows; places left over in the last row are black.

    Args:
        images: Images, at least one.
        columns: Images per row, at least 1.

    Returns:
        The images in rows and columns.

    Raises:
        ValueError: If there is no image or columns is below 1.
    """
    if len(images) == 0 or columns < 1:
        raise ValueError(f"images and columns must be at least 1, got {len(images)} and {columns}")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    padded = np.zeros((rows * columns, *images.shape[1:]), np.uint8)
    padded[: len(images)] = images
    return padded.reshape(rows, columns, *images.shape[1:])


def beside(*pictures: Image.Image) -> Image.Image:
    """Put images of one height side by side, a broad grey line between them.

    Args:
        *pictures: At least one image, all of the same height.

    Returns:
        The images in one.
    """
    gap = 10
    width = sum(picture.width + gap for picture in pictures) - gap
    whole = Image.new("RGB", (width, pictures[0].height), (_GAP_LEVEL,) * 3)
    left = 0
    for picture in pictures:
        whole.paste(picture, (left, 0))
        left += picture.width + gap
    return whole


def save_image_grid(
    images: UInt8[np.ndarray, "m c h w"], levels: int, path: Path, *, columns: int | None = None
) -> None:
    """Write a grid of images as PNG.

    Args:
        images: Images of 1 or 3 channels, at least one.
        levels: Number of levels of a pixel.
        path: Where to; must end in .png.
        columns: Images per row, at least 1; None: as many as make the grid nearly square.

    Raises:
        ValueError: If path has another ending, columns is below 1, or the images are not as
            `image_grid` requires.
    """
    if path.suffix.lower() != ".png":
        raise ValueError(f"path must end in .png, got {path}")
    grid = wrap(images, math.ceil(math.sqrt(len(images))) if columns is None else columns)
    data = to_png(image_grid(grid, levels))
    write_atomically(path, lambda temporary: temporary.write_bytes(data))


def to_svg(figure: Figure) -> str:
    """Render a figure as SVG, the same text for the same figure."""
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "deltavae", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def to_png(picture: Figure | Image.Image) -> bytes:
    """Render a figure (at 144 dots per inch) or an image as PNG."""
    buffer = io.BytesIO()
    if isinstance(picture, Figure):
        picture.savefig(buffer, format="png", dpi=144)
    else:
        picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def to_data_uri(picture: Figure | Image.Image) -> str:
    """Render a figure as SVG or an image as PNG, as a data: address that needs no other file."""
    if isinstance(picture, Figure):
        kind, data = "svg+xml", to_svg(picture).encode()
    else:
        kind, data = "png", to_png(picture)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _channel_bits(alpha: Float[torch.Tensor, " d"], n: int) -> Float[np.ndarray, " d"]:
    # δ of each channel by itself: the committed terms summed over the steps.
    bits: Float[np.ndarray, " d"] = nats_to_bits(committed_terms(alpha, n).sum(0)).numpy()
    return bits


def _plain(name: str) -> str:
    # matplotlib reads $…$ as mathematics and leaves names that begin with _ out of legends.
    text = name.replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def _style(axes: Axes, title: str, xlabel: str, ylabel: str) -> None:
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.title.set_fontsize("medium")
    axes.spines[["top", "right"]].set_visible(False)
