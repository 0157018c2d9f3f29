"""Plots and pictures: what is drawn is what was given, pixel by pixel and point by point."""

import io
import math
import xml.etree.ElementTree as ET

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from PIL import Image

from deltavae import figures
from deltavae.rates import committed_rate
from deltavae.units import nats_to_bits

RANDOM = np.random.default_rng(0)


def log(delta: float | None = None, *, latents: bool = True) -> list[dict[str, float]]:
    entries = []
    for step in (50.0, 100.0, 150.0):
        entry = {"step": step, "distortion_bits": 9000.0 / step}
        if latents:
            entry |= {"rate_bits": (delta or 0.0) + 100.0 / step, "aux_rate_bits": 50.0 / step}
            entry |= {"committed_rate_bits": delta or 0.0}
        entries.append(entry)
    return entries


def test_training_curves_draw_the_log():
    figure = figures.training_curves({"δ-VAE": log(10.0), "none": log(latents=False)})
    distortion, rate, aux_rate = figure.axes
    assert [line.get_label() for line in distortion.lines] == ["δ-VAE", "none"]
    assert [line.get_label() for line in aux_rate.lines] == ["δ-VAE"]
    np.testing.assert_allclose(distortion.lines[1].get_xydata(), [[50, 180], [100, 90], [150, 60]])
    curve, floor = rate.lines
    np.testing.assert_allclose(curve.get_ydata(), [12, 11, 10 + 2 / 3])
    assert floor.get_linestyle() == "--"
    np.testing.assert_allclose(floor.get_ydata(), 10.0)
    assert floor.get_color() == curve.get_color() == distortion.lines[0].get_color()
    for axes in figure.axes:
        assert axes.get_xlabel() == "optimiser step"
        assert axes.get_ylabel() == "bits per example"


def test_training_curves_show_held_out_images_where_they_were_measured():
    entries = log(10.0)
    entries[1] |= {"val_distortion_bits": 95.0, "val_rate_bits": 11.5, "val_elbo_bpd": 3.0}
    figure = figures.training_curves({"a": entries, "none": log(latents=False)})
    distortion, rate, aux_rate = figure.axes
    curve, rings, _ = distortion.lines
    np.testing.assert_allclose(rings.get_xydata(), [[100, 95]])
    assert (rings.get_marker(), rings.get_linestyle()) == ("o", "None")
    assert rings.get_color() == curve.get_color()
    np.testing.assert_allclose(rate.lines[1].get_xydata(), [[100, 11.5]])
    assert len(aux_rate.lines) == 1  # nothing was measured
    assert ["held-out" in axes.get_title() for axes in figure.axes] == [True, True, False]
    legend = figure.legends[0].get_texts()
    assert [text.get_text() for text in legend] == ["a", "none"]


def test_training_curves_show_the_distortion_once_it_has_settled():
    values = [9000.0, 300.0, 200.0, 210.0, math.nan]
    entries = [{"step": 10.0 * i + 1.0, "distortion_bits": v} for i, v in enumerate(values)]
    low, high = figures.training_curves({"a": entries}).axes[0].get_ylim()
    assert 190 < low < 200
    assert 300 < high < 310


def test_training_curves_of_runs_without_a_rate():
    assert len(figures.training_curves({"none": log(latents=False)}).axes) == 1
    # δ = 0 is no floor worth a line; a run without a log leaves the others' colours alone.
    figure = figures.training_curves({"lost": [], "vae": log(0.0)})
    assert len(figure.axes[1].lines) == 1
    assert figure.axes[0].lines[0].get_color() == figures.COLOURS[1]
    with pytest.raises(ValueError, match="distortion_bits"):
        figures.training_curves({"lost": []})


def test_rate_heatmap_draws_the_rates():
    committed = RANDOM.uniform(0.0, 1.0, (5, 3))
    rate = committed + RANDOM.uniform(0.0, 2.0, (5, 3))
    figure = figures.rate_heatmap(rate, committed, "a run")
    whole, excess, sums = figure.axes[:3]
    np.testing.assert_array_equal(whole.images[0].get_array(), rate.T)
    np.testing.assert_array_equal(excess.images[0].get_array(), (rate - committed).T)
    # Steps and channels count from one, each cell centred on its number, channel 1 on top.
    assert whole.images[0].get_extent() == [0.5, 5.5, 3.5, 0.5]
    assert whole.images[0].get_clim() == (0.0, rate.max())
    floor, above = sums.containers
    np.testing.assert_allclose([bar.get_height() for bar in floor], committed.sum(1))
    tops = [bar.get_y() + bar.get_height() for bar in above]
    np.testing.assert_allclose(tops, rate.sum(1))


@pytest.mark.parametrize("n", [2, 8, 16, 32])
def test_committed_rate_curve_is_the_committed_rate(n):
    figure = figures.committed_rate_curve({"run": (n, [-0.3, 0.5, 0.95])})
    axes = figure.axes[0]
    labels = [text.get_text() for text in axes.texts]
    assert labels == [f"n = {m}" for m in sorted({2, 8, 16, n})]
    curve = axes.lines[labels.index(f"n = {n}")]
    for alpha, bits in curve.get_xydata()[::37]:
        assert bits == pytest.approx(nats_to_bits(committed_rate(alpha, n)), rel=1e-12)
    (points,) = [c for c in axes.collections if isinstance(c, PathCollection)]
    expected = [(a, nats_to_bits(committed_rate(a, n))) for a in (-0.3, 0.5, 0.95)]
    np.testing.assert_allclose(points.get_offsets(), expected)
    assert curve.get_xdata()[0] == -0.3
    # The channels' shares add up to the committed rate of the ladder.
    total = nats_to_bits(committed_rate([-0.3, 0.5, 0.95], n))
    assert points.get_offsets()[:, 1].sum() == pytest.approx(total)


def test_committed_rate_curve_reaches_the_paper_s_figures():
    (n2, *_) = figures.committed_rate_curve({}).axes[0].lines
    nats = np.interp([0.5, 0.8, 0.95], n2.get_xdata(), n2.get_ydata()) / nats_to_bits(1.0)
    np.testing.assert_allclose(nats, [0.144, 0.511, 1.164], atol=1e-3)


def test_rates_bar_draws_what_there_is():
    metrics = {
        "delta": {"committed_rate_bits": 10.0, "rate_bits": 13.0, "rate_bits_se": 0.5},
        "vae": {"committed_rate_bits": 0.0, "rate_bits": 2.0, "aux_rate_bits": None},
    }
    axes = figures.rates_bar(metrics).axes[0]
    widths = {bars.get_label(): [bar.get_width() for bar in bars] for bars in axes.containers
              if bars.get_label() in ("committed rate δ", "rate")}  # fmt: skip
    assert widths == {"committed rate δ": [10.0, 0.0], "rate": [13.0, 2.0]}
    assert [label.get_text() for label in axes.get_yticklabels()] == ["delta", "vae"]
    (segment, *_) = [
        bars.errorbar.lines[2][0].get_segments()[0]
        for bars in axes.containers
        if bars.get_label() == "rate"
    ]
    np.testing.assert_allclose(segment[:, 0], [12.0, 14.0])  # two standard errors


def test_a_heatmap_of_steps_alone_names_no_channel():
    rate = np.array([[1.0], [2.0], [4.0]])
    figure = figures.rate_heatmap(rate, rate / 2, by_channel=False)
    left, middle, right = figure.axes[:3]
    assert [axes.get_ylabel() for axes in (left, middle)] == ["all channels"] * 2
    assert [list(axes.get_yticks()) for axes in (left, middle)] == [[], []]
    assert right.get_title() == "rate"
    assert left.images[0].get_array().tolist() == [[1.0, 2.0, 4.0]]


@pytest.mark.parametrize("channels", [1, 3])
def test_image_grid_holds_every_pixel(channels):
    images = RANDOM.integers(0, 17, (2, 3, channels, 4, 5), dtype=np.uint8)
    grid = np.asarray(figures.image_grid(images, 17, enlarge=3))
    assert grid.shape == (3 * (2 * 5 - 1), 3 * (3 * 6 - 1), 3)
    for r in range(2):
        for k in range(3):
            cell = grid[15 * r : 15 * r + 12, 18 * k : 18 * k + 15]
            for corner in range(3):  # nearest neighbour: every copy of a pixel is the pixel
                pixels = cell[corner::3, corner::3].transpose(2, 0, 1)
                expected = np.rint(images[r, k] / 16 * 255).astype(int)
                np.testing.assert_array_equal(pixels, np.broadcast_to(expected, pixels.shape))


def test_image_grid_spans_black_to_white():
    for levels in (2, 17, 256):
        image = np.array([[[[[0, levels - 1]]]]], dtype=np.uint8)
        grid = np.asarray(figures.image_grid(image, levels, enlarge=1))
        assert grid[0, 0].tolist() == [0, 0, 0]
        assert grid[0, 1].tolist() == [255, 255, 255]


def test_small_images_are_enlarged_and_large_ones_are_not():
    digit, photo = (np.zeros((1, 1, 1, side, side), np.uint8) for side in (8, 64))
    assert figures.image_grid(digit, 17).size == (40, 40)
    assert figures.image_grid(photo, 17).size == (64, 64)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((1, 1, 2, 4, 4), {"levels": 17}, "1 or 3 channels"),
        ((0, 1, 1, 4, 4), {"levels": 17}, "1 or 3 channels"),
        ((1, 1, 1, 4, 4), {"levels": 9}, "levels must be at least 2 and above 9"),
        ((1, 1, 1, 4, 4), {"levels": 17, "enlarge": 0}, "enlarge must be at least 1"),
    ],
)
def test_image_grid_refuses(shape, options, message):
    with pytest.raises(ValueError, match=message):
        figures.image_grid(np.full(shape, 9, np.uint8), **options)


def test_wrap_fills_rows_and_pads():
    images = np.arange(1, 8, dtype=np.uint8).reshape(7, 1, 1, 1)
    grid = figures.wrap(images, 3)
    assert grid[:, :, 0, 0, 0].tolist() == [[1, 2, 3], [4, 5, 6], [7, 0, 0]]
    assert figures.wrap(images[:2], 8).shape == (1, 2, 1, 1, 1)
    with pytest.raises(ValueError, match="at least 1, got 7 and 0"):
        figures.wrap(images, 0)


def test_beside_keeps_the_pictures():
    left, right = (Image.new("RGB", (w, 4), c) for w, c in ((3, "red"), (5, "blue")))
    whole = figures.beside(left, right)
    assert whole.height == 4
    assert whole.crop((0, 0, 3, 4)).getcolors() == [(12, (255, 0, 0))]
    assert whole.crop((whole.width - 5, 0, whole.width, 4)).getcolors() == [(20, (0, 0, 255))]


def test_saved_grid_is_the_grid(tmp_path):
    images = RANDOM.integers(0, 17, (5, 1, 8, 8), dtype=np.uint8)
    figures.save_image_grid(images, 17, tmp_path / "new" / "grid.png")
    with Image.open(tmp_path / "new" / "grid.png") as saved:
        expected = figures.image_grid(figures.wrap(images, 3), 17)
        np.testing.assert_array_equal(np.asarray(saved), np.asarray(expected))
    figures.save_image_grid(images, 17, tmp_path / "row.PNG", columns=5)
    with Image.open(tmp_path / "row.PNG") as saved:
        assert saved.size == (5 * 45 - 5, 40)
    with pytest.raises(ValueError, match=r"must end in \.png"):
        figures.save_image_grid(images, 17, tmp_path / "grid.jpg")


def test_names_are_not_mathematics_nor_hidden():
    names = ["$\\frac$", "_run"]
    figure = figures.training_curves({name: log(1.0) for name in names})
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["\\$\\frac\\$", " _run"]
    figures.to_svg(figure)
    figures.to_svg(figures.rates_bar({name: {"rate_bits": 1.0} for name in names}))
    figures.to_svg(figures.committed_rate_curve({name: (4, [0.5]) for name in names}))
    figures.to_svg(figures.rate_heatmap(np.ones((2, 1)), np.zeros((2, 1)), names[0]))


def test_svg_is_xml_and_always_the_same():
    first, second = (figures.to_svg(figures.training_curves({"a": log(3.0)})) for _ in range(2))
    assert first == second
    assert ET.fromstring(first).tag == "{http://www.w3.org/2000/svg}svg"


def test_png_of_a_figure_decodes():
    with Image.open(io.BytesIO(figures.to_png(figures.committed_rate_curve({})))) as image:
        image.load()
        assert image.size == (int(6.4 * 144), 4 * 144)


def test_data_uris_name_their_kind():
    assert figures.to_data_uri(Figure()).startswith("data:image/svg+xml;base64,")
    assert figures.to_data_uri(Image.new("RGB", (1, 1))).startswith("data:image/png;base64,")


def test_matplotlib_is_left_as_it_was():
    before = dict(mpl.rcParams)
    figures.to_data_uri(figures.training_curves({"a": log(3.0)}))
    assert dict(mpl.rcParams) == before
