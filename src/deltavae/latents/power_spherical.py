"""The power spherical distribution on the unit sphere S^{d−1}, and the uniform one.

    p(z) = e^{−ln N(κ)} (1 + μᵀz)^κ,   ‖μ‖ = ‖z‖ = 1,   κ ≥ 0,                              (1)

a rival of von Mises–Fisher whose normaliser, entropy and draws are closed. With β = (d−1)/2 and
α = β + κ, the cosine t = μᵀz has (1 + t)/2 ~ Beta(α, β) and the rest of z has no direction, so

    ln N(κ) = (α + β) ln 2 + β ln π + ln Γ(α) − ln Γ(α + β),                               (2)
    KL(p ‖ uniform) = ln |S^{d−1}| − ln N(κ) + κ (ln 2 + ψ(α) − ψ(α + β)).                 (3)

A draw from normal noise g in R^d: its part r along μ is N(0, 1), the rest w is normal in the
tangent space, and ½‖w‖² ~ Gamma(β). So with a = F⁻¹(Φ(r)), F the distribution of Gamma(α),

    b = ½ ‖w‖²,   z = [(a − b) μ + √(2a) w] / (a + b),                                     (4)

smooth in μ at every z, with no axis that a reflection would have to single out.

De Cao & Aziz, The Power Spherical distribution, 2020, https://arxiv.org/abs/2006.04437
Deviations: (4) in the place of a Beta draw and a Householder reflection.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, final

import numpy as np
import torch
from jaxtyping import Float, Float64
from scipy.special import gammainccinv, gammaincinv, gammaln, ndtr
from torch import Tensor
from torch.distributions import Distribution, constraints, register_kl

from deltavae.priors.base import Constant


def log_area(d: int) -> float:
    """Compute ln |S^{d−1}|, the logarithm of the area of the unit sphere in R^d."""
    return math.log(2) + 0.5 * d * math.log(math.pi) - math.lgamma(0.5 * d)


def _rate(kappa: Float64[Tensor, "*shape"], d: int) -> Float64[Tensor, "*shape"]:
    beta = (d - 1) / 2
    alpha = beta + kappa
    gained = torch.digamma(alpha) - torch.digamma(alpha + beta)  # E ln((1 + t)/2)
    return log_area(d) - _log_constant(kappa, d) + kappa * gained  # (3)


def _log_constant(kappa: Float64[Tensor, "*shape"], d: int) -> Float64[Tensor, "*shape"]:
    # ln N(κ) − κ ln 2, which both have no part in what matters: of (2) and of ln(1 + μᵀz).
    beta = (d - 1) / 2
    alpha = beta + kappa
    return beta * math.log(4 * math.pi) + torch.lgamma(alpha) - torch.lgamma(alpha + beta)


def rate_of(kappa: float, d: int) -> float:
    """Compute KL(power spherical ‖ uniform), eq. (3).

    Args:
        kappa: Concentration κ, at least 0.
        d: Dimensions of the space, at least 2.

    Returns:
        Nats, growing with κ.
    """
    return float(_rate(torch.tensor(kappa, dtype=torch.float64), d))


def log_density(
    distance: Float[Tensor, "*shape"], kappa: float | Float[Tensor, "*kappa"], d: int
) -> Float[Tensor, "*shape"]:
    """Compute ln p(z) of (1) from ‖z − μ‖² = 2 − 2 μᵀz, which keeps its digits at large κ.

    Args:
        distance: ‖z − μ‖², in [0, 4] up to rounding.
        kappa: Concentration κ; broadcast against the distance.
        d: Dimensions of the space.

    Returns:
        Nats; at z = −μ, where p is 0, κ times the logarithm of a rounding stands for −∞.
    """
    exact = torch.as_tensor(kappa, dtype=torch.float64, device=distance.device)
    share = (0.25 * distance).clamp(0, 1 - torch.finfo(distance.dtype).eps)  # (1 − t)/2
    return kappa * torch.log1p(-share) - _log_constant(exact, d).to(distance.dtype)


@final
class GammaQuantile:
    """a(r) = F⁻¹(Φ(r)), F the distribution of Gamma(α): ln a as a cubic Hermite spline, to 3e-9.

    Args:
        shape: α, above 0.
    """

    _REACH, _KNOTS = 10.0, 4097

    def __init__(self, shape: float) -> None:
        r = np.linspace(-self._REACH, self._REACH, self._KNOTS)
        upper = r > 0  # the smaller tail, for its digits
        value = np.where(upper, gammainccinv(shape, ndtr(-r)), gammaincinv(shape, ndtr(r)))
        log_value = np.log(value)
        log_density = shape * log_value - value - gammaln(shape)  # of ln a
        slope = np.exp(-0.5 * (r**2 + math.log(2 * math.pi)) - log_density)
        self._table = Constant(np.stack([log_value, slope]))

    def __call__(self, r: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return a(r), differentiable.

        Args:
            r: Standard normal noise; beyond ±10 as at ±10.

        Returns:
            Gamma(α) variates in the type of r.
        """
        step = 2 * self._REACH / (self._KNOTS - 1)
        place = (r.double().clamp(-self._REACH, self._REACH) + self._REACH) / step
        left = place.detach().floor().clamp(max=self._KNOTS - 2).long()
        u = place - left
        value, slope = self._table.on(r.device).unbind()
        v0, v1, s0, s1 = value[left], value[left + 1], step * slope[left], step * slope[left + 1]
        bend, gap = s0 + s1 - 2 * (v1 - v0), 3 * (v1 - v0) - 2 * s0 - s1
        log_value: Tensor = v0 + u * (s0 + u * (gap + u * bend))
        return log_value.exp().to(r.dtype)


def from_noise(
    mu: Float[Tensor, "*shape d"],
    noise: Float[Tensor, "*shape d"],
    quantile: Callable[[Tensor], Tensor],
) -> Float[Tensor, "*shape d"]:
    """Turn normal noise into a draw, eq. (4), differentiable in μ.

    Args:
        mu: Directions μ, of length 1.
        noise: Standard normal noise.
        quantile: That of Gamma((d−1)/2 + κ).

    Returns:
        Points of the sphere.
    """
    r = (noise * mu).sum(-1, keepdim=True)
    w = noise - r * mu
    a, b = quantile(r), 0.5 * w.square().sum(-1, keepdim=True)
    return ((a - b) * mu + (2 * a).sqrt() * w) / (a + b)  # (4)


class _Sphere(constraints.Constraint):
    """Vectors of length 1."""

    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        close: Tensor = (value.norm(dim=-1) - 1).abs() < 1e-4
        return close


@final
class SphericalUniform(Distribution):
    """The uniform distribution on S^{d−1}.

    Args:
        d: Dimensions of the space, at least 2.
        validate_args: As in torch.distributions.

    Attributes:
        arg_constraints: None.
        support: Unit vectors.

    Raises:
        ValueError: If d is below 2.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = _Sphere()

    def __init__(self, d: int, validate_args: bool | None = None) -> None:
        if d < 2:
            raise ValueError(f"d must be at least 2, got {d}")
        super().__init__(torch.Size(), torch.Size((d,)), validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "SphericalUniform":
        """Return the same distribution with a larger batch shape."""
        wide = self._get_checked_instance(SphericalUniform, _instance)  # type: ignore[no-untyped-call]
        super(SphericalUniform, wide).__init__(
            torch.Size(batch_shape), self.event_shape, validate_args=False
        )
        wide._validate_args = self._validate_args
        return wide  # type: ignore[no-any-return]

    @property
    def mean(self) -> Tensor:
        """Mean of z: 0, inside the sphere."""
        return torch.zeros(self._extended_shape())

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw unit vectors of shape (*sample_shape, *batch_shape, d)."""
        shape = self._extended_shape(torch.Size(sample_shape))
        return torch.nn.functional.normalize(torch.randn(shape), dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return −ln |S^{d−1}| for every unit vector."""
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)  # type: ignore[no-untyped-call]
        return value.new_full(shape, -log_area(self.event_shape[0]))


@final
class PowerSpherical(Distribution):
    """The power spherical distribution (1).

    Args:
        loc: Direction μ, of length 1, (*batch, d), d at least 2.
        scale: Concentration κ, above 0, (*batch) or fewer axes.
        validate_args: As in torch.distributions.

    Attributes:
        arg_constraints: What loc and scale must satisfy.
        support: Unit vectors.
        has_rsample: Samples are differentiable in both.

    An argument that leaves its range is a ValueError of torch.distributions where it validates.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "loc": _Sphere(),
        "scale": constraints.positive,
    }
    support = _Sphere()
    has_rsample = True

    def __init__(
        self,
        loc: Float[Tensor, "*batch d"],
        scale: Float[Tensor, "*fewer"],
        validate_args: bool | None = None,
    ) -> None:
        self.loc, self.scale = loc, scale.expand(loc.shape[:-1])
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "PowerSpherical":
        """Return the same distribution with a larger batch shape."""
        wide = self._get_checked_instance(PowerSpherical, _instance)  # type: ignore[no-untyped-call]
        wide.loc = self.loc.expand(*batch_shape, *self.event_shape)
        wide.scale = self.scale.expand(*batch_shape)
        super(PowerSpherical, wide).__init__(
            torch.Size(batch_shape), self.event_shape, validate_args=False
        )
        wide._validate_args = self._validate_args
        return wide  # type: ignore[no-any-return]

    @property
    def _beta(self) -> float:
        return (self.event_shape[0] - 1) / 2

    @property
    def mean(self) -> Tensor:
        """Mean of z: μ κ/(κ + d − 1), inside the sphere."""
        return self.loc * (self.scale / (self.scale + 2 * self._beta)).unsqueeze(-1)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw z, differentiable in both parameters.

        Args:
            sample_shape: Shape of the sample.

        Returns:
            Unit vectors of shape (*sample_shape, *batch_shape, d).
        """
        shape = self._extended_shape(torch.Size(sample_shape))
        loc = self.loc.expand(shape)
        gamma = torch.distributions.Gamma(self._beta + self.scale, 1.0, validate_args=False)
        drawn: Tensor = gamma.expand(shape[:-1]).rsample()  # type: ignore[no-untyped-call]
        a = drawn.unsqueeze(-1)
        return from_noise(loc, torch.randn_like(loc), lambda _: a)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return ln p(z), eq. (1).

        Args:
            value: Unit vectors.

        Returns:
            Log-density in nats.
        """
        if self._validate_args:
            self._validate_sample(value)
        distance = (value - self.loc).square().sum(-1)
        return log_density(distance, self.scale, self.event_shape[0])

    def entropy(self) -> Tensor:
        """Return the entropy in nats: ln |S^{d−1}| less (3)."""
        d = self.event_shape[0]
        return log_area(d) - _rate(self.scale.double(), d).to(self.scale.dtype)


def _kl_power_spherical_uniform(q: PowerSpherical, p: SphericalUniform) -> Tensor:
    if q.event_shape != p.event_shape:
        raise ValueError(f"event shapes must agree, got {q.event_shape} and {p.event_shape}")
    return _rate(q.scale.double(), p.event_shape[0]).expand(q.batch_shape)


register_kl(PowerSpherical, SphericalUniform)(_kl_power_spherical_uniform)  # type: ignore[no-untyped-call]
