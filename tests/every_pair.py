"""One small example of every pair of posterior and prior, for what holds for all of them."""

from collections.abc import Callable
from functools import partial

from scipy.sparse import diags_array

from deltavae.certified import GaussianMixture, Laplace
from deltavae.latents import (
    AR1,
    ARp,
    BatchNorm,
    BoundedVariance,
    Categorical,
    GaussianMarkov,
    Grid,
    Independent,
    Latents,
    LearnableAR1,
    Matern,
    MeanFieldPair,
    Quantised,
    Spherical,
    SquaredExponential,
    Standard,
    Tree,
)

SECOND_DIFFERENCE = diags_array(
    [1.0, -4.0, 6.3, -4.0, 1.0], offsets=[-2, -1, 0, 1, 2], shape=(6, 6)
)

EVERY_PAIR: dict[str, Callable[[], Latents]] = {
    "AR1": partial(AR1, 6, [0.5, 0.95], False, False),
    "AR1 in units of σ*": partial(AR1, 6, [0.5, -0.99], innovations=False),
    "AR1 by innovations": partial(AR1, 6, [0.5, -0.99]),
    "ARp": partial(ARp, 6, 2, (0.8, -0.5, 0.3)),
    "BatchNorm": partial(BatchNorm, 6, 2, 0.7),
    "BoundedVariance": partial(BoundedVariance, 6, 2, 0.4),
    "Categorical": partial(Categorical, 3, 5, 0.6),
    "GaussianMarkov": partial(GaussianMarkov, SECOND_DIFFERENCE, 2),
    "Grid": partial(Grid, [0.9, -0.3], [0.5, 0.7], 2, 3),
    "Independent": partial(Independent, 6, 2, 4.0),
    "LearnableAR1": partial(LearnableAR1, 6, [0.5, 0.9], False, False),
    "LearnableAR1 by innovations": partial(LearnableAR1, 6, [0.5, 0.9]),
    "Matern": partial(Matern, 6, [4.0, 2.0], 2.5),
    "MeanFieldPair": partial(MeanFieldPair, Laplace(), 6, 2),
    "MeanFieldPair of modes": partial(MeanFieldPair, GaussianMixture(2.2), 3, 1),
    "Quantised": partial(Quantised, 6, [5, 4, 2]),
    "Spherical": partial(Spherical, 6, 3, 7.0),
    "SquaredExponential": partial(SquaredExponential, 6, [3.0, 1.0], 1e-3),
    "Standard": partial(Standard, 6, 2),
    "Tree": partial(Tree, [0.8, -0.6], 2, 2),
}
