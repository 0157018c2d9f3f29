"""Boxes of pixels: from fractions of an image, their order, and means over them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from deltavae.nn import BoxMeans
from deltavae.nn.boxes import first_pixels, pixel_boxes, row_boxes


def equal_parts(n):
    edges = np.arange(n + 1) / n
    return np.stack([edges[:-1], edges[1:]], axis=1)


def test_one_part_per_row_is_the_rows():
    boxes = pixel_boxes(equal_parts(28)[:, None], 28, 9)
    assert boxes == row_boxes(28, 9)
    assert first_pixels(boxes, 28, 9) == tuple(range(0, 28 * 9, 9))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.integers(1, 5))
def test_equal_parts_tile_the_image(rows, columns, high, wide):
    down, across = equal_parts(rows), equal_parts(columns)
    extents = np.array([[r, c] for r in down for c in across])  # raster order
    boxes = pixel_boxes(extents, rows * high, columns * wide)
    covered = np.zeros((rows * high, columns * wide), dtype=int)
    for top, left, height, width in boxes:
        assert (height, width) == (high, wide)
        covered[top : top + height, left : left + width] += 1
    assert (covered == 1).all()
    first = first_pixels(boxes, rows * high, columns * wide)
    assert first[0] == 0
    assert list(first) == sorted(first)


def test_nested_intervals_are_nested_boxes():
    tree = np.array([[0, 1], [0, 1 / 2], [0, 1 / 4], [1 / 4, 1 / 2], [1 / 2, 1]])[:, None]
    boxes = pixel_boxes(tree, 8, 5)
    assert boxes == [[0, 0, 8, 5], [0, 0, 4, 5], [0, 0, 2, 5], [2, 0, 2, 5], [4, 0, 4, 5]]
    assert first_pixels(boxes, 8, 5) == (0, 0, 0, 10, 20)


def test_parts_that_cut_a_pixel_are_told_with_what_divides():
    with pytest.raises(
        ValueError, match=r"image's 28 rows are cut at 5.6; .*: 1, 2, 4, 7, 14, 28"
    ):
        pixel_boxes(equal_parts(5)[:, None], 28, 28)
    extents = np.array([[r, c] for r in equal_parts(4) for c in equal_parts(3)])
    with pytest.raises(ValueError, match=r"image's 28 columns are cut at 9.33333;"):
        pixel_boxes(extents, 28, 28)
    with pytest.raises(ValueError, match="1 or 2 axes, got 3"):
        pixel_boxes(np.zeros((2, 3, 2)), 28, 28)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([(0, 0, 4)], r"boxes\[0\] must be \(top, left, height, width\), got 3 numbers"),
        ([(0, 0, 2, 5), (2, 0, 3, 5)], r"boxes\[1\] must lie in an image of 4 rows"),
        ([(0, 1, 4, 5)], "must lie in"),
        ([(0, 0, 0, 5)], "must lie in"),
        ([(-1, 0, 2, 5)], "must lie in"),
        ([(0, 0, 4, 5), (1, 0, 1, 5), (0, 3, 1, 1)], r"got \(1, 0, 1, 5\) before \(0, 3, 1, 1\)"),
    ],
)
def test_wrong_boxes_are_told(boxes, message):
    with pytest.raises(ValueError, match=message):
        first_pixels(boxes, 4, 5)
    with pytest.raises(ValueError, match=message):
        BoxMeans(boxes, 4, 5)


BOXES = [  # overlapping, sharing intervals, of one pixel, twice the same, the whole image
    (0, 0, 6, 5),
    (0, 0, 2, 3),
    (0, 2, 2, 3),
    (1, 0, 1, 1),
    (1, 0, 1, 1),
    (2, 2, 4, 3),
    (3, 0, 2, 3),
    (5, 4, 1, 1),
]


def test_means_are_those_of_the_pixels_inside():
    torch.manual_seed(0)
    features = torch.randn(2, 3, 6, 5, dtype=torch.float64, requires_grad=True)
    means = BoxMeans(BOXES, 6, 5).double()(features)
    for t, (top, left, height, width) in enumerate(BOXES):
        inside = features[:, :, top : top + height, left : left + width]
        expected = F.elu(inside).mean((2, 3))
        torch.testing.assert_close(means[:, t], expected, rtol=0, atol=1e-14)
        by_means, direct = (
            torch.autograd.grad(out.square().sum(), features, retain_graph=True)[0]
            for out in (means[:, t], expected)
        )
        torch.testing.assert_close(by_means, direct, rtol=0, atol=1e-14)
        assert torch.equal(by_means != 0, direct != 0)  # outside exactly zero
    assert not list(BoxMeans(BOXES, 6, 5).state_dict())
