"""Gaussian Markov prior on any graph: a sparse precision, by banded Cholesky.

The steps are taken in an order in which Λ has a narrow band: the given one, or the reverse
Cuthill–McKee order where that is narrower. With b the half width and J the reversal of the order,

    J Λ J = L Lᵀ,   W = J Lᵀ J,   Λ = Wᵀ W,   W_ti = 0 unless t − b ≤ i ≤ t,               (1)

which makes a banded prior (`banded`): everything is read from W. O(n b²) once, O(n b) to apply. In
the given order the whitening is causal. Marginal variances come from running W⁻¹ on covariances,

    z_t = Σ_k φ_k z_{t−k} + √S_t e_t,   var(z_t) = S_t + φᵀ cov(z_{t−1..t−b}) φ.            (2)

The coupling s of ``from_rate``, Λ(s) = D + s (Λ − D) with D the diagonal, goes from independence
at 0 to the given Λ at 1, positive definite all along; δ(s) = −½ ln det D^{−½}Λ(s)D^{−½} is convex
and at s = 0 it is 0 with slope 0, so it grows.

Rue & Held, Gaussian Markov Random Fields, 2005, sections 2.3 and 2.4,
https://doi.org/10.1201/9780203492024
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, TypeAlias, final

import numpy as np
import torch
from jaxtyping import Float64, Int64
from numpy.linalg import LinAlgError
from scipy.linalg import cholesky_banded
from scipy.sparse import csr_matrix, find, sparray, spmatrix
from scipy.sparse.csgraph import reverse_cuthill_mckee
from torch import Tensor

from deltavae.priors.banded import BandedPrior
from deltavae.priors.base import GaussianPrior
from deltavae.priors.permuted import Permuted
from deltavae.priors.solve import solve_knob

Precision: TypeAlias = (
    sparray | spmatrix | Float64[np.ndarray, "m 3"] | Sequence[Sequence[float | int]]
)

_ASYMMETRY = 1e-9  # relative to the largest entry; what is below it is averaged away


@final
class SparseGaussian(GaussianPrior):
    """Gaussian prior with a given sparse precision.

    Args:
        precision: Λ, symmetric and positive definite: a scipy.sparse matrix, or a list or array of
            its entries on and below the diagonal as (row, column, value), each place once.

    Attributes:
        bandwidth: Half width b of the band in the order chosen.

    A precision that is empty, not square, not finite, not symmetric or not positive definite is a
    ValueError; so is a list with an entry above the diagonal or at a place taken.
    """

    bandwidth: int

    def __init__(self, precision: Precision) -> None:
        self._entries = _entries(precision)
        n = 1 + int(self._entries[:, 0].max())
        order, self.bandwidth = _narrow_order(self._entries, n)
        prior = _Factored(_whitening_bands(self._entries, order, self.bandwidth))
        in_order = bool((np.diff(order) == 1).all())
        self._ordered = prior if in_order else Permuted(prior, np.argsort(order))
        feedback = np.expm1(2 * self._ordered.committed_terms.numpy())
        super().__init__(self._ordered.innovation_variance.numpy(), feedback)

    @classmethod
    def from_rate(cls, delta: float, precision: Precision) -> "SparseGaussian":
        """Weaken the couplings of a precision until its committed rate is ``delta``.

        Args:
            delta: δ in nats, above 0, at most that of the given precision.
            precision: As in the constructor.

        Returns:
            The prior with precision D + s (Λ − D), 0 < s ≤ 1, D the diagonal of Λ.
        """
        entries = _entries(precision)
        off_diagonal = entries[:, 0] != entries[:, 1]

        def prior_of(coupling: float) -> "SparseGaussian":
            weaker = entries.copy()
            weaker[off_diagonal, 2] *= coupling
            return cls(weaker)

        return prior_of(solve_knob(delta, prior_of, (1e-6, 1.0), "a coupling in [1e-6, 1]"))

    @property
    def entries(self) -> list[list[float | int]]:
        """Entries of Λ on and below its diagonal, as the constructor takes them."""
        return [[int(row), int(column), value] for row, column, value in self._entries.tolist()]

    @cached_property
    def marginal_variance(self) -> Float64[Tensor, " n"]:
        """Variance of every step: the diagonal of Λ⁻¹, in O(n b²)."""
        return self._ordered.marginal_variance

    def _whiten(self, x: Float64[Tensor, "*shape n"]) -> Float64[Tensor, "*shape n"]:
        return self._ordered.whiten(x)

    def _colour(self, noise: Float64[Tensor, "*shape n"]) -> Float64[Tensor, "*shape n"]:
        return self._ordered.colour(noise)


@final
class _Factored(BandedPrior):
    """The steps in the order of the narrow band; their variances are not 1."""

    @cached_property
    def marginal_variance(self) -> Float64[Tensor, " n"]:
        """Variance of every step, by (2)."""
        bands = self._bands.on(torch.device("cpu")).numpy()
        predictors, b = -bands[1:] / bands[0], len(bands) - 1
        recent, variance = np.zeros((b + 1, b + 1)), bands[0] ** -2  # recent: newest step first
        for t, phi in enumerate(predictors.T):
            cross = recent[:b, :b] @ phi
            variance[t] += phi @ cross  # (2)
            recent[1:, 1:] = recent[:b, :b].copy()
            recent[0, 0], recent[0, 1:], recent[1:, 0] = variance[t], cross, cross
        return torch.from_numpy(variance)


def _entries(precision: Precision) -> Float64[np.ndarray, "m 3"]:
    """Check Λ as far as possible before factoring, and list its lower half row by row."""
    matrix: Any = precision  # the stubs have no type for every sparse matrix
    sparse = isinstance(precision, sparray | spmatrix)
    entries = np.stack(find(matrix), axis=1) if sparse else np.array(matrix).reshape(-1, 3)
    entries = _by_row(entries.astype(np.float64))
    if not np.isfinite(entries).all():
        raise ValueError("precision must be finite, got an infinite or NaN entry")
    if sparse:
        if matrix.shape[0] != matrix.shape[1]:
            raise ValueError(f"precision must be square, got shape {matrix.shape}")
        n, entries = matrix.shape[0], _lower_half(entries)
    else:
        n = 1 + int(entries[:, 0].max(initial=-1))
        repeated = (np.diff(entries[:, :2], axis=0) == 0).all(axis=1).any()
        if repeated or not (entries[:, 0] >= entries[:, 1]).all():
            raise ValueError("precision must list each place on or below the diagonal once")
        if not (entries[:, :2] == np.maximum(entries[:, :2].round(), 0)).all():
            raise ValueError("precision must list rows and columns as whole numbers from 0 on")
    diagonal = entries[entries[:, 0] == entries[:, 1]]
    if n == 0 or not np.array_equal(diagonal[:, 0], np.arange(n)) or diagonal[:, 2].min() <= 0:
        raise ValueError("precision must have a positive entry at every place of its diagonal")
    return entries


def _lower_half(entries: Float64[np.ndarray, "both 3"]) -> Float64[np.ndarray, "m 3"]:
    """Check that Λ is symmetric, and average what rounding leaves."""
    lower = _by_row(entries[entries[:, 0] >= entries[:, 1]])
    mirrored = _by_row(entries[entries[:, 0] <= entries[:, 1]][:, [1, 0, 2]])
    tolerance = _ASYMMETRY * np.abs(entries[:, 2]).max(initial=0)
    if not (
        np.array_equal(lower[:, :2], mirrored[:, :2])
        and np.allclose(lower[:, 2], mirrored[:, 2], rtol=0, atol=tolerance)
    ):
        raise ValueError("precision must be symmetric")
    lower[:, 2] = (lower[:, 2] + mirrored[:, 2]) / 2
    return lower


def _by_row(entries: Float64[np.ndarray, "m 3"]) -> Float64[np.ndarray, "m 3"]:
    return entries[np.lexsort((entries[:, 1], entries[:, 0]))]


def _narrow_order(
    entries: Float64[np.ndarray, "m 3"], n: int
) -> tuple[Int64[np.ndarray, " n"], int]:
    """Return the better of two orders of the steps, and the half width of the band in it."""
    rows, columns = entries[:, :2].T.astype(np.int64)
    both = np.concatenate([rows, columns]), np.concatenate([columns, rows])
    graph = csr_matrix((np.ones(len(both[0])), both), shape=(n, n))
    given = np.arange(n, dtype=np.int64)
    found = reverse_cuthill_mckee(graph, symmetric_mode=True).astype(np.int64)
    places = (given, np.argsort(found))
    widths = [int(np.abs(place[rows] - place[columns]).max()) for place in places]
    return (found, widths[1]) if widths[1] < widths[0] else (given, widths[0])


def _whitening_bands(
    entries: Float64[np.ndarray, "m 3"], order: Int64[np.ndarray, " n"], bandwidth: int
) -> Float64[np.ndarray, "b_plus_1 n"]:
    """Return W of (1), band by band."""
    n, places = len(order), entries[:, :2].astype(np.int64)
    reversed_places = n - 1 - np.argsort(order)[places]  # in J Λ J
    column, row = np.sort(reversed_places, axis=1).T
    bands = np.zeros((bandwidth + 1, n))
    bands[row - column, column] = entries[:, 2]
    try:
        factor = cholesky_banded(bands, lower=True)
    except LinAlgError as error:
        raise ValueError(f"precision must be positive definite: {error}") from error
    for k in range(1, bandwidth + 1):
        factor[k, n - k :] = 0
    return factor[:, ::-1]
