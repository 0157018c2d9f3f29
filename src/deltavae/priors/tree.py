"""A tree of latents, coarse to fine: given its parent, a node depends on its descendants only.

Nodes are numbered level by level: the parent of node i ≥ 1 is (i − 1)//b, the children of i are
b i + 1 .. b i + b as far as they are below n, K_i of them. With z_0 ~ N(0, 1) and

    z_i = ρ z_parent(i) + √(1 − ρ²) e_i                                                    (1)

every marginal is N(0, 1). Column i of the whitening holds 1/√S_i and, per child, −ρ/√(1 − ρ²), so

    S_0 = 1,  S_i = 1 − ρ²,   f_0 = K_0 ρ²/(1 − ρ²),  f_i = K_i ρ².                         (2)

At b = 1 the tree is the paper's AR(1) with α = ρ. Any n is allowed; a full tree of depth D has
1 + b + … + b^D nodes.

Chou, Willsky & Benveniste, Multiscale recursive estimation, data fusion, and regularization, IEEE
Transactions on Automatic Control 39(3), 1994, https://doi.org/10.1109/9.280746
"""

import math
from typing import final

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from deltavae.priors.base import GaussianPrior
from deltavae.priors.solve import solve_knob
from deltavae.rates import ALPHA_MAX


@final
class Tree(GaussianPrior):
    """Gaussian Markov tree with unit variance, its nodes level by level.

    Args:
        n: Nodes, at least 1.
        correlation: Correlation ρ of parent and child, in (−1, 1).
        branching: Children b per node, at least 1.

    Attributes:
        correlation: ρ.
        branching: b.

    Raises:
        ValueError: If an argument leaves its range.
    """

    correlation: float
    branching: int

    def __init__(self, n: int, correlation: float, branching: int = 2) -> None:
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        if not abs(correlation) < 1:
            raise ValueError(f"correlation must lie in (-1, 1), got {correlation}")
        if branching < 1:
            raise ValueError(f"branching must be at least 1, got {branching}")
        self.correlation, self.branching = float(correlation), branching
        left = (1 - self.correlation) * (1 + self.correlation)
        self._scale = math.sqrt(left)
        children = (n - 1 - branching * np.arange(n)).clip(0, branching)
        variance, feedback = np.full(n, left), children * self.correlation**2
        variance[0] = 1
        feedback[0] /= left
        super().__init__(variance, feedback)  # (2)

    @classmethod
    def from_rate(cls, delta: float, n: int, branching: int = 2) -> "Tree":
        """Build the tree whose committed rate is ``delta``, by its correlation.

        Args:
            delta: δ in nats, above 0.
            n: Nodes, at least 2.
            branching: As in the constructor.

        Returns:
            The tree, ρ positive and at most 1 − 1e-6.
        """

        def prior_of(scale: float) -> "Tree":
            return cls(n, math.tanh(scale), branching)

        bounds = (1e-9, math.atanh(ALPHA_MAX))
        return prior_of(solve_knob(delta, prior_of, bounds, "correlation <= 1 - 1e-6"))

    @staticmethod
    def nodes(branching: int, depth: int) -> int:
        """Count the nodes of a full tree, its root at depth 0."""
        return sum(branching**level for level in range(depth + 1))

    def _whiten(self, x: Float64[Tensor, "*shape n"]) -> Float64[Tensor, "*shape n"]:
        parents = self._to_children(x, self.n - 1)
        rest = (x[..., 1:] - self.correlation * parents) / self._scale  # (1)
        return torch.cat([x[..., :1], rest], dim=-1)

    def _colour(self, noise: Float64[Tensor, "*shape n"]) -> Float64[Tensor, "*shape n"]:
        levels, start = [noise[..., :1]], 1
        while start < self.n:  # level by level
            size = min(self.branching * levels[-1].shape[-1], self.n - start)
            parents = self._to_children(levels[-1], size)
            own = self._scale * noise[..., start : start + size]
            levels.append(self.correlation * parents + own)  # (1)
            start += size
        return torch.cat(levels, dim=-1)

    def _to_children(
        self, parents: Float64[Tensor, "*shape k"], count: int
    ) -> Float64[Tensor, "*shape children"]:
        """Give each of the first ``count`` children its parent's value."""
        used = parents[..., : -(-count // self.branching), None]
        return used.expand(*used.shape[:-1], self.branching).flatten(-2)[..., :count]
