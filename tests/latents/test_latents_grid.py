"""A grid of latents: its tiles, its rate from the two factors, and a single row or column."""

import numpy as np
import pytest

from deltavae.latents.grid import Grid
from deltavae.rates import committed_rate, minimiser


def test_rate_adds_up_from_the_factors():
    grid = Grid([0.9, -0.3], [0.5, 0.7], height=3, width=5)
    down, across = committed_rate([0.9, -0.3], 3), committed_rate([0.5, 0.7], 5)
    assert grid.committed_rate == pytest.approx(5 * down + 3 * across, rel=1e-14)


def test_a_single_column_is_the_line():
    column, row = Grid(0.8, 0.5, height=6, width=1), Grid(0.5, 0.8, height=1, width=6)
    for grid in (column, row):
        assert grid.committed_rate == pytest.approx(committed_rate(0.8, 6), rel=1e-14)
        np.testing.assert_allclose(grid.sigma_star, minimiser(0.8, 6), rtol=1e-14)


def test_tiles_cover_the_image_once_in_raster_order():
    grid = Grid(0.5, 0.5, height=2, width=3)
    tiles = grid.extents()
    assert tiles.shape == (6, 2, 2)
    np.testing.assert_allclose((tiles[..., 1] - tiles[..., 0]).prod(axis=1), 1 / 6)
    np.testing.assert_allclose(tiles[4], [[1 / 2, 1], [1 / 3, 2 / 3]])
    points = np.random.default_rng(0).random((200, 2))
    inside = (tiles[:, :, 0] <= points[:, None]) & (points[:, None] < tiles[:, :, 1])
    assert (inside.all(axis=2).sum(axis=1) == 1).all()
    corners = tiles[..., 0].tolist()
    assert corners == sorted(corners)


def test_steps_are_those_of_the_grid():
    assert Grid.steps(28) == Grid(0.5, 0.5).n == 16
    assert Grid.steps(28, height=7, width=5) == 35
    assert Grid.steps(28, height=7, minimiser_units=True) == 28
    square = Grid.from_rate(3.0, 16, 2)
    assert square.down == square.across
