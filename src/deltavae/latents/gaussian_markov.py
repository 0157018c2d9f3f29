"""Mean-field Gaussian posterior × a Gaussian prior of your own, given by its precision Λ.

    δ = ½ [Σ_i ln Λ_ii − ln det Λ],   at μ = 0, σ_i² = 1/Λ_ii,                             (1)

by a banded Cholesky factor of Λ (`deltavae.priors.sparse`), never by a dense one: O(n b²) once and
O(n b) per use, b the half width of the band in a good order of the steps. Any graph will do that
says which steps know of each other: Λ_ij ≠ 0 is an edge.

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, section 3.1,
https://arxiv.org/abs/1901.03416; Rue & Held, Gaussian Markov Random Fields, 2005, section 2.3,
https://doi.org/10.1201/9780203492024
Deviations: the paper has AR(1) only; (1) is derived here.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias, final

import numpy as np
from jaxtyping import Float
from scipy.sparse import coo_array, sparray, spmatrix
from torch import Tensor

from deltavae.latents.gaussian import GaussianPair, solved_prior
from deltavae.priors import SparseGaussian

Precision: TypeAlias = (
    Sequence[Sequence[float | int]]
    | sparray
    | spmatrix
    | Float[np.ndarray, "n n"]
    | Float[Tensor, "n n"]
)


@final
class GaussianMarkov(GaussianPair):
    """Mean-field Gaussian posterior × Gaussian prior of a given precision, the same per channel.

    Args:
        precision: Λ, symmetric and positive definite: a scipy.sparse matrix; a small dense array
            or tensor, (n, n); or a list of its entries on and below the diagonal as (row, column,
            value), each place once.
        d: Latent channels, at least 1.
        minimiser_units: Whether the mean is given in units of σ* and the decoder reads z/σ*.

    Raises:
        ValueError: If d is below 1, or precision is not as stated.
    """

    def __init__(self, precision: Precision, d: int = 1, minimiser_units: bool = False) -> None:
        if d < 1:
            raise ValueError(f"d must be at least 1, got {d}")
        super().__init__([SparseGaussian(_sparse(precision))] * d, minimiser_units)

    @classmethod
    def from_rate(
        cls,
        delta: float,
        n: int,
        d: int,
        precision: Precision = (),
        minimiser_units: bool = False,
    ) -> "GaussianMarkov":
        """Weaken the couplings of a precision until the committed rate is ``delta``.

        Args:
            delta: δ in nats per example, above 0, at most d times that of the given precision.
            n: Latent steps, those of the precision.
            d: Latent channels, at least 1; they share δ equally.
            precision: Λ as in the constructor, to be given; the pair gets D + s (Λ − D) with
                0 < s ≤ 1, D the diagonal of Λ.
            minimiser_units: As in the constructor.

        Returns:
            The pair.

        Raises:
            ValueError: If n is not that of the precision, or no coupling commits delta.
        """
        given = _sparse(precision)
        own = cls.steps(n, precision=given)
        if n != own:
            raise ValueError(f"n must be that of the precision, {own}, got {n}")
        prior = solved_prior(delta, d, lambda rate: SparseGaussian.from_rate(rate, given))
        return cls(prior.entries, d, minimiser_units)

    @classmethod
    def steps(cls, rows: int, /, **options: Any) -> int:
        """Count the latent steps: those of the precision, whatever the size of the event.

        Args:
            rows: Extent of the event along its first axis.
            **options: Those of ``from_rate``.

        Returns:
            n.
        """
        given = _sparse(options.get("precision", ()))
        if isinstance(given, Sequence):
            return 1 + int(max((row for row, *_ in given), default=-1))
        matrix: Any = given  # the stubs have no shape for every sparse matrix
        return int(matrix.shape[0])

    def config(self) -> dict[str, Any]:
        """Return plain arguments that rebuild the pair exactly: the entries of Λ."""
        (prior, *_) = self.priors
        assert isinstance(prior, SparseGaussian)
        return {
            "precision": prior.entries,
            "d": self.d,
            "minimiser_units": self.minimiser_units,
        }


def _sparse(precision: Precision) -> sparray | spmatrix | Sequence[Sequence[float | int]]:
    if isinstance(precision, Sequence) and not precision:
        raise ValueError("precision: missing: entries [[row, column, value], …]")
    if isinstance(precision, Tensor):
        return coo_array(precision.detach().cpu().double().numpy())
    return coo_array(precision) if isinstance(precision, np.ndarray) else precision
