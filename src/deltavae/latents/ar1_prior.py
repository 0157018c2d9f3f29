"""Independent stationary AR(1) processes, one per channel, as a torch distribution.

Per channel z_1 ~ N(0, 1), z_t | z_{t-1} ~ N(α z_{t-1}, 1 − α²), |α| < 1, so that every marginal is
N(0, 1). The innovations are standard normal,

    e_1 = z_1,   e_t = (z_t − α z_{t-1}) / √(1 − α²),                                      (1)

and zᵀΛz = Σ_t e_t². From a mean-field normal q, channel by channel,

    KL(q ‖ p) = ½ [σ_1² + μ_1² − 1 − ln σ_1²] + Σ_{t≥2} ½ [
        (σ_t² + α²σ_{t-1}² + (μ_t − αμ_{t-1})²)/(1 − α²) − 1 − ln σ_t² + ln(1 − α²)],       (2)

the textbook form, registered with ``torch.distributions.kl_divergence``.

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, section 3.1,
https://arxiv.org/abs/1901.03416
"""

from collections.abc import Sequence
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, Normal, constraints, register_kl
from torch.distributions import Independent as Reinterpreted

from deltavae.latents.white import WhitenedNormal


class _OpenUnitInterval(constraints.Constraint):
    """(−1, 1): torch's own interval is closed."""

    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        return (value.abs() < 1).all(-1)


def _run(alpha: Tensor, u: Tensor) -> Tensor:
    # s_t = α s_{t−1} + u_t by odd–even reduction (`priors.recurrence`), differentiable in α: every
    # second step obeys the same recurrence with α², in a logarithmic number of calls.
    even, odd = u[..., 0::2, :], u[..., 1::2, :]
    pairs, rest = odd.shape[-2], even.shape[-2] - 1
    if pairs == 0:
        return u
    s_odd = _run(alpha.square(), alpha * even[..., :pairs, :] + odd)
    s_even = torch.cat([even[..., :1, :], alpha * s_odd[..., :rest, :] + even[..., 1:, :]], dim=-2)
    both = torch.stack([s_even[..., :pairs, :], s_odd], dim=-2).flatten(-3, -2)
    return torch.cat([both, s_even[..., pairs:, :]], dim=-2)


@final
class AR1Prior(WhitenedNormal):
    """d independent stationary AR(1) processes of n steps, as a torch distribution.

    Event shape (n, d); the batch shape is that of alpha without its last axis.

    Args:
        n: Steps, at least 1.
        alpha: α per channel, in (−1, 1), shape (*batch, d).
        validate_args: As in torch.distributions.

    Attributes:
        arg_constraints: What alpha must satisfy.

    Raises:
        ValueError: If n is below 1 or, where arguments are validated, alpha leaves (−1, 1).
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {"alpha": _OpenUnitInterval()}

    def __init__(
        self, n: int, alpha: Float[Tensor, "*batch d"], validate_args: bool | None = None
    ) -> None:
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        self.alpha = alpha
        super().__init__(alpha.shape[:-1], torch.Size((n, alpha.shape[-1])), validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "AR1Prior":
        """Return the same distribution with a larger batch shape."""
        wide = self._get_checked_instance(AR1Prior, _instance)  # type: ignore[no-untyped-call]
        wide.alpha = self.alpha.expand((*batch_shape, self.event_shape[1]))
        super(AR1Prior, wide).__init__(
            torch.Size(batch_shape), self.event_shape, validate_args=False
        )
        wide._validate_args = self._validate_args
        return wide  # type: ignore[no-any-return]

    @property
    def variance(self) -> Tensor:
        """Variance of every step and channel: 1."""
        return self.alpha.new_ones(self._extended_shape())

    def _innovation_scale(self) -> Tensor:
        # √(1 − α²) in float64 whatever the type of alpha: in float32 it loses its digits near 1.
        alpha = self.alpha.double()
        return ((1 - alpha) * (1 + alpha)).sqrt()

    def whiten(self, z: Float[Tensor, "*shape n d"]) -> Float[Tensor, "*shape n d"]:
        """Return the innovations e of z, eq. (1); see `WhitenedNormal.whiten`."""
        alpha = self.alpha.to(z.dtype).unsqueeze(-2)
        scale = self._innovation_scale().to(z.dtype).unsqueeze(-2)
        first, rest = z[..., :1, :], z[..., 1:, :] - alpha * z[..., :-1, :]
        return torch.cat([first, rest / scale], dim=-2)  # (1)

    def colour(self, noise: Float[Tensor, "*shape n d"]) -> Float[Tensor, "*shape n d"]:
        """Return the z whose innovations are ``noise``; see `WhitenedNormal.colour`."""
        alpha = self.alpha.to(noise.dtype).unsqueeze(-2)
        scale = self._innovation_scale().to(noise.dtype).unsqueeze(-2)
        return _run(alpha, torch.cat([noise[..., :1, :], scale * noise[..., 1:, :]], dim=-2))

    def _log_det(self) -> Tensor:
        return -(self.event_shape[0] - 1) * self._innovation_scale().log().sum(-1)

    def _like(self) -> dict[str, Any]:
        return {"dtype": self.alpha.dtype, "device": self.alpha.device}


def _kl_mean_field_ar1(q: Distribution, p: AR1Prior) -> Tensor:
    """KL of the mean-field normal from the AR(1) prior, eq. (2), in float64."""
    if not (isinstance(q, Reinterpreted) and isinstance(q.base_dist, Normal)):
        raise NotImplementedError(f"no closed-form KL between {q} and {p}")
    if q.event_shape != p.event_shape:
        raise ValueError(f"event shapes must agree, got {q.event_shape} and {p.event_shape}")
    mu, variance = q.base_dist.loc.double(), q.base_dist.scale.double().square()
    alpha = p.alpha.double().unsqueeze(-2)
    innovation = (1 - alpha) * (1 + alpha)
    first = variance[..., 0, :] + mu[..., 0, :].square() - 1 - variance[..., 0, :].log()
    mismatch = (
        variance[..., 1:, :]
        + alpha.square() * variance[..., :-1, :]
        + (mu[..., 1:, :] - alpha * mu[..., :-1, :]).square()
    )
    rest = mismatch / innovation - 1 - variance[..., 1:, :].log() + innovation.log()
    return 0.5 * (first.sum(-1) + rest.sum(dim=(-2, -1)))  # (2)


register_kl(Reinterpreted, AR1Prior)(_kl_mean_field_ar1)  # type: ignore[no-untyped-call]
