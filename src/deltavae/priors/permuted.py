"""A prior whose steps are taken in another order: same process, same δ, other names.

Step t is step order_t of the given prior, e'_t = e_{order_t}: S, f and Λ_ii move along. Whitening
is causal in the new order too where every step comes after what it depended on in the old one.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import final

import numpy as np
from jaxtyping import Float64, Integer
from torch import Tensor

from deltavae.priors.base import Constant, GaussianPrior


@final
class Permuted(GaussianPrior):
    """Another prior with its steps in another order.

    Args:
        prior: The prior.
        order: Which of its steps comes t-th; each once.

    Attributes:
        prior: As given.

    Raises:
        ValueError: If order does not list every step of the prior once.
    """

    prior: GaussianPrior

    def __init__(
        self, prior: GaussianPrior, order: Sequence[int] | Integer[np.ndarray, " n"]
    ) -> None:
        chosen = np.asarray(order)
        if not np.array_equal(np.sort(chosen), np.arange(prior.n)):
            raise ValueError(f"order must list each of 0..{prior.n - 1} once, got {order}")
        self.prior = prior
        self._order, self._place = Constant(chosen), Constant(np.argsort(chosen))
        terms = prior.committed_terms.numpy()
        super().__init__(prior.innovation_variance.numpy()[chosen], np.expm1(2 * terms)[chosen])

    @cached_property
    def marginal_variance(self) -> Float64[Tensor, " n"]:
        """Variance of every step: that of the step it stands for."""
        variance = self.prior.marginal_variance
        return variance[self._order.on(variance.device)]

    def _whiten(self, x: Float64[Tensor, "*shape n"]) -> Float64[Tensor, "*shape n"]:
        return self.prior.whiten(x[..., self._place.on(x.device)])[..., self._order.on(x.device)]

    def _colour(self, noise: Float64[Tensor, "*shape n"]) -> Float64[Tensor, "*shape n"]:
        own = self.prior.colour(noise[..., self._place.on(noise.device)])
        return own[..., self._order.on(noise.device)]
