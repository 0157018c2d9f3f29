"""Gaussian priors over n latent steps, one family per file: whitening and δ in O(n)."""

from deltavae.priors.autoregressive import Autoregressive
from deltavae.priors.base import GaussianPrior
from deltavae.priors.grid import Grid
from deltavae.priors.matern import Matern
from deltavae.priors.permuted import Permuted
from deltavae.priors.solve import OutOfReachError, solve_knob
from deltavae.priors.sparse import SparseGaussian
from deltavae.priors.squared_exponential import SquaredExponential
from deltavae.priors.tree import Tree

__all__ = [
    "Autoregressive",
    "GaussianPrior",
    "Grid",
    "Matern",
    "OutOfReachError",
    "Permuted",
    "SparseGaussian",
    "SquaredExponential",
    "Tree",
    "solve_knob",
]
