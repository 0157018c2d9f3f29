"""Mean-field Gaussian posterior × a Gaussian Markov tree: latents from coarse to fine.

A full tree of branching b and depth D, n = 1 + b + … + b^D nodes, each standing for an interval of
the event: the root for all of it, the children of a node for the b equal parts of its own. With
correlation ρ of parent and child every marginal is N(0, 1) (`deltavae.priors.tree`); a node with K
children commits ½ ln(1 + K ρ²), the root ½ ln(1 + K ρ²/(1 − ρ²)), a leaf nothing:

    δ = ½ Σ_k [(n − 1 − b^D) ln(1 + b ρ_k²) + ln(1 + b ρ_k²/(1 − ρ_k²))],   D ≥ 1.           (1)

Nodes come in pre-order, a node before its children and left before right, so that their intervals
start one after another and no node comes before one that it depends on.

Chou, Willsky & Benveniste, Multiscale recursive estimation, data fusion, and regularization, IEEE
Transactions on Automatic Control 39(3), 1994, https://doi.org/10.1109/9.280746
Deviations: (1) is derived here; there are n − b^D nodes with children, the root among them.
"""

from collections.abc import Sequence
from typing import Any, final

import numpy as np
from jaxtyping import Float64

from deltavae import priors
from deltavae.latents.gaussian import (
    MOST_STEPS,
    GaussianPair,
    per_channel,
    priors_of,
    solved_prior,
)

_BRANCHING, _DEPTH = 2, 2


@final
class Tree(GaussianPair):
    """Mean-field Gaussian posterior × full tree; `deltavae.priors.Tree` is the prior by levels.

    Args:
        correlation: Correlation ρ of parent and child in each channel, in (−1, 1); a number for
            one channel.
        branching: Children b per node, at least 1.
        depth: Depth D of the leaves, the root's being 0; at least 0: a root alone commits nothing.
        minimiser_units: Whether the mean is given in units of σ* and the decoder reads z/σ*.

    Attributes:
        correlation: ρ of each channel.
        branching: b.
        depth: D.

    An argument that leaves its range is a ValueError of `steps` or of `deltavae.priors`.
    """

    correlation: tuple[float, ...]
    branching: int
    depth: int

    def __init__(
        self,
        correlation: float | Sequence[float],
        branching: int = _BRANCHING,
        depth: int = _DEPTH,
        minimiser_units: bool = False,
    ) -> None:
        n = self.steps(0, branching=branching, depth=depth)  # checks them
        correlations, order = per_channel(correlation), _pre_order(branching, depth)
        made = priors_of(
            correlations, lambda rho: priors.Permuted(priors.Tree(n, rho, branching), order)
        )
        super().__init__(made, minimiser_units)
        self.correlation, self.branching, self.depth = correlations, branching, depth

    @classmethod
    def from_rate(
        cls,
        delta: float,
        n: int,
        d: int,
        branching: int = _BRANCHING,
        depth: int = _DEPTH,
        minimiser_units: bool = False,
    ) -> "Tree":
        """Build the pair whose committed rate is ``delta``, by its correlation.

        Args:
            delta: δ in nats per example, above 0.
            n: Latent steps, 1 + b + … + b^depth (`steps`), at least 2.
            d: Latent channels, at least 1; they share δ equally.
            branching: As in the constructor.
            depth: As in the constructor.
            minimiser_units: As in the constructor.

        Returns:
            The pair, ρ positive and at most 1 − 1e-6.

        Raises:
            ValueError: If n is not the number of nodes, or an argument leaves its range.
        """
        nodes = cls.steps(n, branching=branching, depth=depth)
        if n != nodes:
            raise ValueError(
                f"n must be the nodes of a tree of branching={branching} and depth={depth}, "
                f"{nodes}, got {n}"
            )
        prior = solved_prior(delta, d, lambda rate: priors.Tree.from_rate(rate, n, branching))
        return cls([prior.correlation] * d, branching, depth, minimiser_units)

    @classmethod
    def steps(cls, rows: int, /, **options: Any) -> int:
        """Count the latent steps: the nodes of the tree, whatever the size of the event.

        Args:
            rows: Extent of the event along its first axis.
            **options: Those of ``from_rate``.

        Returns:
            n.

        Raises:
            ValueError: If branching is below 1 or depth below 0, or there are more than 2²⁰ nodes.
        """
        branching, depth = options.get("branching", _BRANCHING), options.get("depth", _DEPTH)
        if branching < 1:
            raise ValueError(f"branching must be at least 1, got {branching}")
        if depth < 0:
            raise ValueError(f"depth must be at least 0, got {depth}")
        # Of two children each, a level more is twice the nodes: no need to count far.
        deepest = MOST_STEPS if branching == 1 else MOST_STEPS.bit_length()
        if depth > deepest or priors.Tree.nodes(branching, depth) > MOST_STEPS:
            raise ValueError(
                f"depth={depth} at branching={branching}: a tree must have at most {MOST_STEPS} "
                "nodes"
            )
        return priors.Tree.nodes(branching, depth)

    def config(self) -> dict[str, Any]:
        """Return plain arguments that rebuild the pair exactly."""
        return {
            "correlation": list(self.correlation),
            "branching": self.branching,
            "depth": self.depth,
            "minimiser_units": self.minimiser_units,
        }

    def extents(self) -> Float64[np.ndarray, "n 1 2"]:
        """Return the interval of each node along the first axis, as fractions of it."""
        by_level = [
            np.arange(self.branching**level + 1) / self.branching**level
            for level in range(self.depth + 1)
        ]
        intervals = np.concatenate(
            [np.stack([edges[:-1], edges[1:]], axis=1) for edges in by_level]
        )
        return intervals[_pre_order(self.branching, self.depth), None]


def _pre_order(branching: int, depth: int) -> list[int]:
    """Nodes as `deltavae.priors.Tree` numbers them, level by level, in pre-order."""
    inner = priors.Tree.nodes(branching, depth) - branching**depth
    order, waiting = list[int](), [0]
    while waiting:
        node = waiting.pop()
        order.append(node)
        if node < inner:
            children = range(branching * node + 1, branching * node + branching + 1)
            waiting.extend(reversed(children))
    return order
