"""Power spherical posterior of fixed κ × uniform prior on the sphere: a constant rate.

Every step is a direction z_t on S^{d−1}. The network chooses where it points and has no say in how
sharply: the divergence from the uniform distribution depends on κ alone (`power_spherical`), so

    KL(q(z|x) ‖ p) = δ = n KL(PowerSpherical(·, κ) ‖ U(S^{d−1}))     for every x and every net.

Nothing lies above the floor and the bound has no rate to weigh: the encoder places its directions
for the decoder's sake alone. δ grows with κ from 0, by (d−1)/2 ln κ in the end.

Xu & Durrett, Spherical Latent Spaces for Stable Variational Autoencoders, EMNLP 2018,
https://arxiv.org/abs/1808.10805
Deviations: power spherical in the place of von Mises–Fisher; one sphere per step; the decoder
reads √d z, of unit variance under the prior.
"""

import math
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float, Float64
from scipy.optimize import brentq
from scipy.special import gammaincinv
from torch import Tensor
from torch.distributions import kl_divergence
from torch.nn.functional import normalize, softplus

from deltavae.latents.base import Latents
from deltavae.latents.conditional import Conditional
from deltavae.latents.posterior import Posterior
from deltavae.latents.power_spherical import (
    GammaQuantile,
    PowerSpherical,
    SphericalUniform,
    from_noise,
    log_area,
    log_density,
    rate_of,
)
from deltavae.units import both_units

KAPPA_MAX = 1e6  # beyond, float32 cannot tell 1 + μᵀz from 2
_KAPPA_MIN = 1e-6


@final
@dataclass(frozen=True)
class SphericalPosterior(Posterior):
    """q(z|x) = Π_t PowerSpherical(z_t; μ_t, κ).

    Attributes:
        mu: Direction μ_t, of length 1.
        excess: 0: nothing lies above the floor.
        kappa: κ, the same for all.
        quantile: That of Gamma((d−1)/2 + κ).
    """

    mu: Float[Tensor, "b n d"]
    excess: Float[Tensor, "b n 1"]
    kappa: float
    quantile: GammaQuantile

    def sample(self, noise: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Draw directions about μ, differentiable in μ; see `Posterior.sample`."""
        return from_noise(self.mu, noise, self.quantile)

    def log_prob(self, z: Float[Tensor, "b n d"]) -> Float[Tensor, " b"]:
        """Return ln q(z|x); see `Posterior.log_prob`."""
        return self.step_log_prob(z).sum(1)

    def step_log_prob(self, z: Float[Tensor, "b n d"]) -> Float[Tensor, "b n"]:
        """Return ln q(z_t|x) of every step.

        Args:
            z: Latents.

        Returns:
            Nats.
        """
        return log_density((z - self.mu).square().sum(-1), self.kappa, z.shape[-1])

    def pair_log_prob(self, z: Float[Tensor, "k n d"]) -> Float[Tensor, "k b"]:
        """Return ln q(z_i|x_j), a step after the other; see `Posterior.pair_log_prob`."""
        steps = zip(z.double().unbind(1), self.mu.double().unbind(1), strict=True)
        return sum(
            (log_density(2 - 2 * z_t @ mu_t.T, self.kappa, z.shape[-1]) for z_t, mu_t in steps),
            start=z.new_zeros(len(z), len(self.mu), dtype=torch.float64),
        )


@final
class ConditionalPowerSpherical(Conditional):
    """Power spherical densities of any direction and any κ, for the auxiliary prior.

    Outputs of 0 point along the first axis with κ = 0.018, next to uniform.

    Args:
        d: Dimensions of the space.
    """

    def __init__(self, d: int) -> None:
        self.d, self.width = d, d + 1

    def parameters(
        self, outputs: Float[Tensor, "*shape width"]
    ) -> tuple[Float[Tensor, "*shape d"], Float[Tensor, "*shape"]]:
        """Return direction and concentration.

        Args:
            outputs: The net's.

        Returns:
            μ and κ.
        """
        first = torch.eye(1, self.d, dtype=outputs.dtype, device=outputs.device)[0]
        kappa = softplus(outputs[..., -1] - 4).clamp(_KAPPA_MIN, KAPPA_MAX)
        return normalize(outputs[..., :-1] + first, dim=-1), kappa

    def log_prob(
        self, outputs: Float[Tensor, "b t width"], z: Float[Tensor, "b t d"]
    ) -> Float[Tensor, "b t"]:
        """Return the log-density; see `Conditional.log_prob`."""
        mu, kappa = self.parameters(outputs)
        return log_density((z - mu).square().sum(-1), kappa, self.d)

    def kl(
        self, outputs: Float[Tensor, "b t width"], q: Posterior, z: Float[Tensor, "b t d"]
    ) -> Float[Tensor, "b t"]:
        """Return ln q − ln p at the draw: the divergence has no closed form; see `Conditional`."""
        assert isinstance(q, SphericalPosterior)
        return q.step_log_prob(z) - self.log_prob(outputs, z)

    def draw(
        self, outputs: Float[Tensor, "b width"], noise: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b d"]:
        """Draw a direction; the Gamma quantile is taken on the CPU; see `Conditional.draw`."""
        mu, kappa = self.parameters(outputs.detach())

        def quantile(r: Tensor) -> Tensor:
            alpha = (self.d - 1) / 2 + kappa.double().cpu().numpy()[:, None]
            below = torch.special.ndtr(r.double()).cpu().numpy()
            return torch.from_numpy(gammaincinv(alpha, below)).to(r)

        return from_noise(mu, noise, quantile)

    def config(self) -> dict[str, Any]:
        """Return plain arguments that rebuild the family."""
        return {"d": self.d}


@final
class Spherical(Latents):
    """Directions: power spherical posteriors of one κ × the uniform prior.

    Args:
        n: Latent steps, at least 1.
        d: Dimensions of the space of each step's sphere, at least 2.
        kappa: Concentration κ, in [1e-6, 1e6].

    Attributes:
        proof: See `Latents`.
        constant_rate: See `Latents`.

    Raises:
        ValueError: If an argument is out of its range.
    """

    proof = "constant: the rate is n KL(PowerSpherical(·, κ) ‖ uniform) whatever the direction"
    constant_rate = True

    def __init__(self, n: int, d: int, kappa: float) -> None:
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        if d < 2:
            raise ValueError(f"d must be at least 2 for a sphere, got {d}")
        if not _KAPPA_MIN <= kappa <= KAPPA_MAX:
            raise ValueError(f"kappa must lie in [{_KAPPA_MIN:g}, {KAPPA_MAX:g}], got {kappa}")
        per_step = rate_of(kappa, d)
        alpha, beta = (d - 1) / 2 + kappa, (d - 1) / 2
        # Across μ: E(1 − t²)/(d − 1), (1 + t)/2 ~ Beta(α, β)
        spread = 4 * alpha * beta / ((alpha + beta) * (alpha + beta + 1)) / (d - 1)
        terms = torch.full((n, 1), per_step, dtype=torch.float64)
        sigma_star = torch.full((n, d), math.sqrt(spread), dtype=torch.float64)
        super().__init__(n * per_step, terms, sigma_star, params_per_step=d)
        self.kappa = float(kappa)
        self._quantile = GammaQuantile(alpha)

    @classmethod
    def from_rate(cls, delta: float, n: int, d: int) -> "Spherical":
        """Build the pair whose rate is ``delta``.

        Args:
            delta: δ in nats per example, above 0.
            n: Latent steps, at least 1.
            d: Dimensions of the space of each step's sphere, at least 2.

        Returns:
            The pair.

        Raises:
            ValueError: If delta is not above 0, or no κ up to 1e6 commits it.
        """
        if not delta > 0:
            raise ValueError(f"delta must be above 0, got {delta}")
        least, most = cls(n, d, _KAPPA_MIN), cls(n, d, KAPPA_MAX)
        if not least.committed_rate <= delta <= most.committed_rate:
            raise ValueError(
                f"delta must be from {least.committed_rate:.3g} nats to "
                f"{both_units(most.committed_rate)} at n={n}, d={d}, got {both_units(delta)}; "
                "more channels d carry more"
            )

        def gap(log_kappa: float) -> float:
            return n * rate_of(math.exp(log_kappa), d) - delta

        ends = math.log(_KAPPA_MIN), math.log(KAPPA_MAX)
        root = math.exp(brentq(gap, *ends, xtol=1e-14, rtol=1e-15))
        return cls(n, d, min(max(root, _KAPPA_MIN), KAPPA_MAX))

    def config(self) -> dict[str, Any]:
        """Return plain arguments that rebuild the pair exactly."""
        return {"n": self.n, "d": self.d, "kappa": self.kappa}

    @property
    def conditional(self) -> Conditional:
        """Power spherical densities."""
        return ConditionalPowerSpherical(self.d)

    def posterior(self, params: Float[Tensor, "b n k"]) -> SphericalPosterior:
        """Turn raw network output into directions μ = params/‖params‖.

        Args:
            params: Raw output, k = d.

        Returns:
            The posterior, in float32 at least.
        """
        mu = _directions(self._checked(params))
        return SphericalPosterior(mu, torch.zeros_like(mu[..., :1]), self.kappa, self._quantile)

    def direct_rate(self, q: Posterior) -> Float64[Tensor, " b"]:
        """Return the KL from the uniform distribution, ∞ off the sphere; see `Latents`."""
        assert isinstance(q, SphericalPosterior)
        kappa = torch.full_like(q.mu[..., 0], q.kappa, dtype=torch.float64)
        posterior = PowerSpherical(q.mu.double(), kappa, validate_args=False)
        rates = kl_divergence(posterior, SphericalUniform(self.d))
        on_sphere = (q.mu.double().norm(dim=-1) - 1).abs() < 1e-5
        return torch.where(on_sphere, rates, math.inf).sum(1)

    def prior_from_noise(self, noise: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Return the direction of the noise, which is uniform.

        Args:
            noise: Standard normal noise.

        Returns:
            Latents distributed as the prior.
        """
        return normalize(noise, dim=-1)

    def log_prior(self, z: Float[Tensor, "b n d"]) -> Float[Tensor, " b"]:
        """Return ln p(z) = −n ln |S^{d−1}|.

        Args:
            z: Latents.

        Returns:
            Log-density in nats.
        """
        return torch.full_like(z[:, 0, 0], -self.n * log_area(self.d))

    def nearest(self, z: Float[Tensor, "*shape n d"]) -> Float[Tensor, "*shape n d"]:
        """Return z/‖z‖, the nearest points of the spheres.

        Args:
            z: Any real numbers.

        Returns:
            Directions.
        """
        return _directions(z)

    def to_decoder(self, z: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Return √d z, of unit variance under the prior.

        Args:
            z: Latents.

        Returns:
            The decoder's input.
        """
        return math.sqrt(self.d) * z


def _directions(raw: Float[Tensor, "*shape d"]) -> Float[Tensor, "*shape d"]:
    # raw/‖raw‖ whatever the size of raw, whose square may overflow or vanish; of 0 the first axis.
    largest = raw.detach().abs().amax(-1, keepdim=True)
    first = torch.eye(1, raw.shape[-1], dtype=raw.dtype, device=raw.device)[0]
    return normalize(torch.where(largest > 0, raw / largest, raw + first), dim=-1)
