"""A grid of latents whose prior is the product of one along rows' order and one along columns.

Covariance Σ = Σ_r ⊗ Σ_c over n_r rows × n_c columns in raster order: var and correlation multiply.
So do precision, whitening and variances, factor by factor,

    W = W_r ⊗ W_c,   S = S_r ⊗ S_c,   1 + f = (1 + f_r) ⊗ (1 + f_c),                       (1)

and the logarithms add up to δ = n_c δ_r + n_r δ_c. Whitening goes along each row, then down each
column; where both priors are causal in time, the grid is causal in raster order.

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, section 3.1,
https://arxiv.org/abs/1901.03416
Deviations: the paper has one step per row of an image; the grid is derived here.
"""

import math
from functools import cached_property
from typing import final

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from deltavae.priors.autoregressive import Autoregressive
from deltavae.priors.base import GaussianPrior
from deltavae.priors.solve import solve_knob
from deltavae.rates import ALPHA_MAX


@final
class Grid(GaussianPrior):
    """Separable prior over rows × columns, flattened in raster order.

    Args:
        down: Prior from row to row; its steps are the rows.
        across: Prior within a row; its steps are the columns.

    Attributes:
        down: As given.
        across: As given.
    """

    down: GaussianPrior
    across: GaussianPrior

    def __init__(self, down: GaussianPrior, across: GaussianPrior) -> None:
        self.down, self.across = down, across
        variances = [prior.innovation_variance.numpy() for prior in (down, across)]
        f_r, f_c = (np.expm1(2 * prior.committed_terms.numpy()) for prior in (down, across))
        super().__init__(
            np.kron(*variances), (f_r[:, None] + f_c + f_r[:, None] * f_c).ravel()
        )  # (1)

    @classmethod
    def from_rate(cls, delta: float, rows: int, columns: int) -> "Grid":
        """Build AR(1) × AR(1), α the same both ways, whose committed rate is ``delta``.

        Args:
            delta: δ in nats, above 0.
            rows: Rows of the grid, at least 1.
            columns: Columns of the grid, at least 1; rows or columns at least 2.

        Returns:
            The grid, α at most 1 − 1e-6.
        """

        def prior_of(scale: float) -> "Grid":
            alpha = [math.tanh(scale)]
            return cls(Autoregressive(rows, alpha), Autoregressive(columns, alpha))

        bounds = (1e-9, math.atanh(ALPHA_MAX))
        return prior_of(solve_knob(delta, prior_of, bounds, "down = across <= 1 - 1e-6"))

    @cached_property
    def marginal_variance(self) -> Float64[Tensor, " n"]:
        """Variance of every step: the product of the two priors' own."""
        return torch.kron(self.down.marginal_variance, self.across.marginal_variance)

    def _whiten(self, x: Float64[Tensor, "*shape n"]) -> Float64[Tensor, "*shape n"]:
        rows = self.across.whiten(x.reshape(*x.shape[:-1], self.down.n, self.across.n))
        return self.down.whiten(rows.mT).mT.flatten(-2)

    def _colour(self, noise: Float64[Tensor, "*shape n"]) -> Float64[Tensor, "*shape n"]:
        columns = noise.reshape(*noise.shape[:-1], self.down.n, self.across.n).mT
        return self.across.colour(self.down.colour(columns).mT).flatten(-2)
