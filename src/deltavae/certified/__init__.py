"""Certified floors: priors on the real line that no Gaussian posterior can equal."""

from deltavae.certified.base import ScalarPrior
from deltavae.certified.minimum import Certificate, certified_minimum, numerical_minimum
from deltavae.certified.priors import GaussianMixture, GivenPrior, Laplace, Logistic, StudentT
from deltavae.certified.product import ProductPrior
from deltavae.certified.quadrature import Rule, divergence, rule
from deltavae.certified.quantiles import from_noise, spread, tabulate_quantiles

__all__ = [
    "Certificate",
    "GaussianMixture",
    "GivenPrior",
    "Laplace",
    "Logistic",
    "ProductPrior",
    "Rule",
    "ScalarPrior",
    "StudentT",
    "certified_minimum",
    "divergence",
    "from_noise",
    "numerical_minimum",
    "rule",
    "spread",
    "tabulate_quantiles",
]
