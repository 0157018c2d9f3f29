"""Priors as sample sites of Pyro models.

Pyro asks more of a distribution than torch does: to be called, masked, and scored. Its mixin adds
what is missing to any torch distribution; Pyro itself, the optional extra ``deltavae[pyro]``, is
needed when the function is called, not before.

Bingham et al., Pyro: Deep Universal Probabilistic Programming, JMLR 20(28), 2019,
https://jmlr.org/papers/v20/18-403.html
"""

import copy
from typing import TypeVar

from torch.distributions import Distribution

Site = TypeVar("Site", bound=Distribution)


def as_pyro(distribution: Site) -> Site:
    """Return a distribution that ``pyro.sample`` takes.

    Args:
        distribution: `AR1Prior`, `GaussianMarkovPrior`, or another torch distribution whose
            ``expand`` keeps its type.

    Returns:
        The same distribution, of a class that is Pyro's too. ``kl_divergence`` knows it as before.

    Raises:
        ValueError: If Pyro is not installed.
    """
    try:
        from pyro.distributions.torch_distribution import TorchDistributionMixin
    except ImportError as error:
        raise ValueError("sites of Pyro need pip install 'deltavae[pyro]'") from error
    kind = type(distribution)
    site = copy.copy(distribution)
    site.__class__ = type(kind.__name__, (kind, TorchDistributionMixin), {})
    return site
