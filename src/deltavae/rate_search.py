"""The least rate of a pair by search: the half of a certificate that knows nothing of δ.

(L-)BFGS in float64 from K random starts, of a rate that shares nothing with the closed forms of
`rates`. The variables are a network's raw parameters, unless it is said here what they are:

    Gaussian priors       KL by the prior's own map W, Λ = Wᵀ W: Λ_tt and ln det Λ anew from what
                          W makes of unit vectors, as a matrix or, of many steps, in blocks
    codes (Categorical)   the family max q ≥ c of one step, n times: q_k = c + (1 − c) t²/(1 + t²),
                          the others as squares u² share the rest; raw logits have a kink there
    BatchNorm             the mean over batches, raw means standardised, where its floor holds
    MeanFieldPair         (μ, ln σ) of one dimension, n d times (`certified.numerical_minimum`)
    all others            the textbook KL (`Latents.direct_rate`); what a prior learns is searched
                          too, a constant rate is read at every start

Raw parameters are taken in units in which the rate is equally curved in all directions at 0:
without, strongly correlated steps need thousands of iterations.

Nocedal & Wright, Numerical Optimization, Springer 2006, section 7.2,
https://doi.org/10.1007/978-0-387-40065-5
"""

import copy
import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8
from scipy.optimize import minimize
from torch import Tensor
from torch.nn.functional import one_hot
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from deltavae.certified import numerical_minimum
from deltavae.latents import (
    BatchNorm,
    Categorical,
    CategoricalPosterior,
    GaussianPair,
    Latents,
    MeanFieldNormal,
    MeanFieldPair,
    Posterior,
    WhitenedPair,
)
from deltavae.priors import GaussianPrior

RateOf: TypeAlias = Callable[[Tensor], Tensor]  # (starts, *shape) → nats (starts,)

_BATCH = 4  # examples over which BatchNorm normalises
_DENSE_MAX = 512  # steps up to which a prior's map is made a matrix, and curvature is taken
_BLOCK = 64  # unit vectors to whiten at once, of more steps than that
_ENTRIES_MAX = 2**26  # of the maps of all different channels: a minute on one core
_NEAREST, _FURTHEST = 0.3, 3.0  # standard deviations of the starts, in units of the curvature


class NoSearchError(Exception):
    """There is no rate to search that shares nothing with δ: the message says why."""


def least_rate(latents: Latents, starts: int, seed: int) -> float:
    """Return the least rate that a search finds.

    Args:
        latents: The pair, which stays as it is.
        starts: Random starts.
        seed: Seed of the starts.

    Returns:
        Rate in nats per example; of `BatchNorm` the mean over a batch.

    Raises:
        NoSearchError: If there is no rate to search, or it would take too long.
    """
    if isinstance(latents, MeanFieldPair):
        value, _, _ = numerical_minimum(latents.density.log_prob, starts, seed)
        return latents.n * latents.d * value
    pair = copy.deepcopy(latents).cpu().double().train()
    generator = torch.Generator().manual_seed(seed)
    shape = (pair.n, pair.params_per_step)
    if pair.direct_rate(pair.posterior(torch.zeros(1, *shape, dtype=torch.float64))) is None:
        raise NoSearchError("the rate has no formula to search")
    if isinstance(pair, BatchNorm):
        return _search(pair, _batch_mean(pair), (_BATCH, *shape), starts, generator)
    if isinstance(pair, Categorical):
        return _search(pair, _codes(pair), (1, pair.d), starts, generator)
    rate = _by_whitening(pair) if isinstance(pair, GaussianPair) else _by_textbook(pair)
    return _search(pair, rate, shape, starts, generator)


def _by_textbook(pair: Latents) -> RateOf:
    return lambda raw: _direct(pair, pair.posterior(raw))


def _direct(pair: Latents, q: Posterior) -> Tensor:
    rate = pair.direct_rate(q)
    assert rate is not None
    return rate


def _by_whitening(pair: GaussianPair) -> RateOf:
    dense = pair.n <= _DENSE_MAX
    diagonal, log_det, energy = _from_matrices(pair) if dense else _from_blocks(pair)

    def rate(raw: Tensor) -> Tensor:
        q = pair.posterior(raw)
        assert isinstance(q, MeanFieldNormal)
        spread = (diagonal * q.sigma.square()).sum((1, 2))  # Σ Λ_tt σ_t²
        log_variance = 2 * q.sigma.log().sum((1, 2))
        return 0.5 * (spread + energy(q.mu) - pair.n * pair.d - log_variance - log_det)

    return rate


def _from_matrices(pair: GaussianPair) -> tuple[Float64[Tensor, "n d"], float, RateOf]:
    """Return Λ_tt, ln det Λ and μ ↦ μᵀ Λ μ by the maps of all channels as matrices."""
    unit = torch.eye(pair.n, dtype=torch.float64)
    maps = torch.stack([prior.whiten(unit).T for prior in pair.priors])  # W of every channel
    log_det = 2 * float(torch.linalg.slogdet(maps).logabsdet.sum())  # of Λ = Wᵀ W

    def energy(mu: Tensor) -> Tensor:
        return torch.einsum("dij,bjd->bid", maps, mu).square().sum((1, 2))

    return maps.square().sum(1).T, log_det, energy


def _from_blocks(pair: GaussianPair) -> tuple[Float64[Tensor, "n d"], float, RateOf]:
    """Return the same of many steps, without a matrix."""
    different = dict.fromkeys(pair.priors)
    if len(different) * pair.n**2 > _ENTRIES_MAX:
        most = max(_DENSE_MAX, math.isqrt(_ENTRIES_MAX // len(different)))
        channels = f" with {len(different)} different channels" if len(different) > 1 else ""
        raise NoSearchError(
            f"it would take too long at n = {pair.n}{channels}; there is one up to n = {most}"
        )
    found = {prior: _diagonal_and_log_det(prior) for prior in different}
    diagonals, log_dets = zip(*(found[prior] for prior in pair.priors), strict=True)

    def energy(mu: Tensor) -> Tensor:
        return pair.prior.whiten(mu).square().sum((1, 2))

    return torch.stack(diagonals, dim=1), math.fsum(log_dets), energy


def _diagonal_and_log_det(prior: GaussianPrior) -> tuple[Float64[Tensor, " n"], float]:
    """Whiten unit vectors: columns of W, the squares of which sum to Λ_tt.

    Where W is triangular in some order of the steps, whichever, ln det Λ = 2 Σ_t ln |W_tt|. That
    it is so is seen from which entries are not 0, kept as bits.
    """
    n = prior.n
    diagonal, pivots = torch.empty(2, n, dtype=torch.float64)
    followers = np.empty((n, -(-n // 8)), dtype=np.uint8)
    waits_for = np.zeros(n, dtype=np.int64)
    for block in torch.split(torch.arange(n), _BLOCK):
        columns = prior.whiten(one_hot(block, n).double())  # one in each row
        diagonal[block] = columns.square().sum(1)
        pivots[block] = columns.gather(1, block[:, None])[:, 0]
        others = (columns != 0).scatter(1, block[:, None], False).numpy()
        followers[block] = np.packbits(others, axis=1)
        waits_for += others.sum(0)
    if not _can_be_ordered(followers, waits_for):
        raise NoSearchError(
            f"the map that makes the prior white is not triangular in any order of the steps, and "
            f"n = {n} is too large for its determinant; there is one up to n = {_DENSE_MAX}"
        )
    return diagonal, 2 * float(pivots.abs().log().sum())


def _can_be_ordered(
    followers: UInt8[np.ndarray, "n bytes"], waits_for: Int64[np.ndarray, " n"]
) -> bool:
    """Take steps, one by one, that wait for no other: whether that goes on until all are taken."""
    n, taken = len(waits_for), 0
    ready = np.flatnonzero(waits_for == 0).tolist()
    while ready:
        taken += 1
        freed = np.unpackbits(followers[ready.pop()], count=n)
        waits_for = waits_for - freed
        ready.extend(np.flatnonzero(freed * (waits_for == 0)).tolist())
    return taken == n


def _codes(pair: Categorical) -> RateOf:
    one = Categorical(1, pair.d, pair.confidence)  # all steps are alike

    def rate(raw: Tensor) -> Tensor:  # (starts, 1, d)
        square = raw.square()
        top = pair.confidence + (1 - pair.confidence) * square[..., :1] / (1 + square[..., :1])
        rest = (1 - top) * square[..., 1:] / square[..., 1:].sum(-1, keepdim=True)
        q = torch.cat([top, rest], dim=-1)
        return pair.n * one.direct_rate(CategoricalPosterior(q, torch.zeros_like(top), 1.0))

    return rate


def _batch_mean(pair: BatchNorm) -> RateOf:
    far = 1e6 * math.sqrt(pair.epsilon)  # variance of the raw means ≫ ε

    def mean(raw: Tensor) -> Tensor:
        m, scale = raw.chunk(2, dim=-1)
        spread = far * (m - m.mean(0)) / m.std(0, correction=0)
        return _direct(pair, pair.posterior(torch.cat([spread, scale], dim=-1))).mean()

    return lambda raw: torch.stack([mean(batch) for batch in raw])


def _search(
    pair: Latents,
    rate: RateOf,
    shape: tuple[int, ...],
    starts: int,
    generator: torch.Generator,
) -> float:
    """Minimise the rates of all starts at once; the pair's own parameters are common to them."""
    learned = list(pair.parameters())
    weights = torch.cat([part.detach().flatten() for part in learned] or [torch.empty(0)]).double()
    size = pair.mean_rate_floor or 1.0
    distances = torch.linspace(_NEAREST, _FURTHEST, starts, dtype=torch.float64)
    units = _equal_curvature(pair, rate, shape)

    def rates(vector: Float64[np.ndarray, " m"]) -> tuple[Tensor, Tensor]:
        point = torch.from_numpy(vector)
        vector_to_parameters(point[: len(weights)], learned)
        inner = point[len(weights) :].view(starts, *shape).requires_grad_()
        return rate(units(inner)) / size, inner

    def value_and_slope(
        vector: Float64[np.ndarray, " m"],
    ) -> tuple[float, Float64[np.ndarray, " m"]]:
        found, inner = rates(vector)
        if not found.requires_grad:  # a constant rate
            return float(found.sum()), np.zeros_like(vector)
        slopes = torch.autograd.grad(found.sum(), [*learned, inner])
        return float(found.detach().sum()), parameters_to_vector(slopes).numpy()

    noise = torch.randn(starts, *shape, generator=generator, dtype=torch.float64)
    first = distances.view(-1, *[1] * len(shape)) * noise
    end = minimize(
        value_and_slope,
        torch.cat([weights, first.flatten()]).numpy(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 1000, "maxfun": 2000, "ftol": 1e-12, "gtol": 1e-10, "maxcor": 20},
    )
    return size * float(rates(end.x)[0].detach().min())


def _equal_curvature(pair: Latents, rate: RateOf, shape: tuple[int, ...]) -> Callable[..., Tensor]:
    """Return the map from y to raw parameters under which the Hessian at 0 is the identity.

    Normals alone have it: two numbers per step and channel; channels do not know of each other.
    """
    n, d = pair.n, pair.d
    if shape == (n, 2 * d) and n > _DENSE_MAX and isinstance(pair, WhitenedPair):
        return _coloured(pair)
    if shape != (n, 2 * d) or n > _DENSE_MAX:
        return lambda y: y
    origin = torch.zeros(n, 2, d, dtype=torch.float64, requires_grad=True)
    value = rate(origin.view(1, n, 2 * d)).sum()
    if not value.requires_grad:
        return lambda y: y
    (slope,) = torch.autograd.grad(value, origin, create_graph=True)
    columns = [
        torch.autograd.grad(slope[t, j].sum(), origin, retain_graph=True)[0]
        for t in range(n)
        for j in range(2)
    ]
    hessian = torch.stack(columns).view(2 * n, 2 * n, d).permute(2, 0, 1)
    values, vectors = torch.linalg.eigh((hessian + hessian.mT) / 2)
    least = 1e-12 * values.abs().amax(1, keepdim=True)
    units = vectors / values.abs().maximum(least).sqrt()[:, None]

    def raw_of(y: Tensor) -> Tensor:
        by_channel = y.view(-1, 2 * n, d).permute(0, 2, 1)[..., None]  # (starts, d, 2n, 1)
        raw: Tensor = (units @ by_channel)[..., 0].mT.reshape(-1, n, 2 * d)
        return raw

    return raw_of


def _coloured(pair: WhitenedPair) -> Callable[..., Tensor]:
    """Return that map by W⁻¹: of μ, in the units in which the decoder reads it.

    Were W⁻¹ wrong, then the search would take longer, and that is all.
    """

    def raw_of(y: Tensor) -> Tensor:
        noise, scale = y.chunk(2, dim=-1)
        mean = noise if pair.innovations else pair.to_decoder(pair.prior.colour(noise))
        return torch.cat([mean, scale / math.sqrt(2)], dim=-1)

    return raw_of
