"""Plots of the studies: curves and ellipses are the formulae's."""

import math

import numpy as np
import pytest
from matplotlib.patches import Ellipse

from deltavae import figures


def outline(ellipse: Ellipse) -> np.ndarray:
    """Points of an ellipse, (m, 2)."""
    angle = np.linspace(0.0, 2.0 * np.pi, 50)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return ellipse.get_patch_transform().transform(circle)


def test_rate_against_alpha_is_the_closed_form_in_nats_and_bits():
    figure = figures.committed_rate_and_ellipses((2, 8, 16), (0.5,))
    nats, bits = figure.axes[0], figure.axes[-1]
    assert [line.get_label() for line in nats.lines] == ["n = 2", "n = 8", "n = 16"]
    for n, line in zip((2, 8, 16), nats.lines, strict=True):
        alpha, delta = line.get_xydata()[1:].T
        expected = 0.5 * ((n - 2) * np.log(1 + alpha**2) - np.log(1 - alpha**2))
        np.testing.assert_allclose(delta, expected, rtol=1e-9)
    assert (nats.get_ylabel(), bits.get_ylabel()) == ("δ, nats", "δ, bits")
    ratio = np.array(nats.get_ylim()) / np.array(bits.get_ylim())
    np.testing.assert_allclose(ratio, math.log(2.0))


@pytest.mark.parametrize("alpha", [0.5, 0.8, 0.95, 0.99, -0.7])
def test_ellipses_are_one_standard_deviation_of_prior_and_minimiser(alpha):
    panel = figures.committed_rate_and_ellipses((2,), (alpha,)).axes[1]
    shown = {patch.get_label(): patch for patch in panel.patches}
    assert list(shown) == ["prior", "nearest posterior"]
    prior, posterior = (outline(patch) for patch in shown.values())
    covariance = np.array([[1.0, alpha], [alpha, 1.0]])
    distance = np.einsum("mi,ij,mj->m", prior, np.linalg.inv(covariance), prior)
    np.testing.assert_allclose(distance, 1.0, rtol=1e-9)
    # The posterior's precision is the diagonal of the prior's: the condition of the minimum.
    radius = np.linalg.norm(posterior, axis=1)
    np.testing.assert_allclose(radius**2, 1.0 / np.linalg.inv(covariance)[0, 0], rtol=1e-9)


def test_titles_tell_the_rate():
    figure = figures.committed_rate_and_ellipses((2,), (0.8, 0.95))
    titles = [axes.get_title() for axes in figure.axes[1:3]]
    assert titles == ["α = 0.8\nδ = 0.511 nats", "α = 0.95\nδ = 1.164 nats"]
