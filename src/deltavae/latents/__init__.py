"""Pairs of posterior and prior, one per file: raw output → q(z|x), its rate, its floor δ.

A pair with a Gaussian prior bears the name of its prior: `latents.Matern` is the pair, of n steps
and d channels, and `priors.Matern` the prior of one channel in it. Import one of them by its
module where both are needed.
"""

from deltavae.latents.ar1 import AR1
from deltavae.latents.ar1_prior import AR1Prior
from deltavae.latents.autoregressive import ARp
from deltavae.latents.base import Latents
from deltavae.latents.batch_norm import BatchNorm
from deltavae.latents.bounded_variance import BoundedVariance
from deltavae.latents.categorical import Categorical, CategoricalPosterior, ConditionalCodes
from deltavae.latents.conditional import Conditional, ConditionalNormal
from deltavae.latents.gaussian import GaussianPair
from deltavae.latents.gaussian_markov import GaussianMarkov
from deltavae.latents.gaussian_prior import GaussianMarkovPrior
from deltavae.latents.grid import Grid
from deltavae.latents.independent import Independent
from deltavae.latents.learnable_ar1 import LearnableAR1
from deltavae.latents.learned_prior import LearnedPrior
from deltavae.latents.matern import Matern
from deltavae.latents.mean_field import MeanFieldPair
from deltavae.latents.posterior import MeanFieldNormal, Posterior
from deltavae.latents.power_spherical import PowerSpherical, SphericalUniform
from deltavae.latents.pyro_sites import as_pyro
from deltavae.latents.quantised import ConditionalLevels, Quantised, QuantisedPosterior
from deltavae.latents.spherical import ConditionalPowerSpherical, Spherical, SphericalPosterior
from deltavae.latents.squared_exponential import SquaredExponential
from deltavae.latents.standard import Standard
from deltavae.latents.standard_normal import StandardNormalPair
from deltavae.latents.tree import Tree
from deltavae.latents.whitened import WhitenedPair

__all__ = [
    "AR1",
    "AR1Prior",
    "ARp",
    "BatchNorm",
    "BoundedVariance",
    "Categorical",
    "CategoricalPosterior",
    "Conditional",
    "ConditionalCodes",
    "ConditionalLevels",
    "ConditionalNormal",
    "ConditionalPowerSpherical",
    "GaussianMarkov",
    "GaussianMarkovPrior",
    "GaussianPair",
    "Grid",
    "Independent",
    "Latents",
    "LearnableAR1",
    "LearnedPrior",
    "Matern",
    "MeanFieldNormal",
    "MeanFieldPair",
    "Posterior",
    "PowerSpherical",
    "Quantised",
    "QuantisedPosterior",
    "Spherical",
    "SphericalPosterior",
    "SphericalUniform",
    "SquaredExponential",
    "Standard",
    "StandardNormalPair",
    "Tree",
    "WhitenedPair",
    "as_pyro",
]
