"""Categorical posterior of bounded entropy × uniform prior over K codes.

Every step is one of K codes, z_t one-hot. The most likely code k has a probability of at least c,
the least confidence, 1/K < c < 1: with logits l, r = softmax(l), k = argmax r and

    q = w e_k + (1 − w) r,   w = (K c − 1)/(K − 1):   q_k ≥ w + (1 − w)/K = c.              (1)

Of all distributions with max q ≥ c the entropy is largest where the other codes share the rest:
q⁰ = (c, b, …, b), b = (1 − c)/(K − 1), which (1) takes at l = 0. So with q⁰ about the same k

    KL(q ‖ uniform) = ln K − H(q) ≥ δ_t = ln K − H(q⁰) = KL(q⁰ ‖ uniform),                  (2)
    KL(q ‖ uniform) − δ_t = Σ_j q⁰_j φ(q_j/q⁰_j − 1) + (q_k − c) ln(c/b),                   (3)

φ(x) = (1+x) ln(1+x) − x ≥ 0: sums of terms that cannot be negative. As c → 1, δ_t → ln K.

The draw is by the Gumbel maximum, the gradient straight through: that of r stands for that of z.

Jang, Gu & Poole, Categorical Reparameterization with Gumbel-Softmax, ICLR 2017,
https://arxiv.org/abs/1611.01144; Bengio, Léonard & Courville 2013, https://arxiv.org/abs/1308.3432
Deviations: (1) to (3) are derived here; q jumps where the most likely code changes.
"""

import math
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float, Float64
from scipy.optimize import brentq
from torch import Tensor
from torch.nn.functional import one_hot

from deltavae.latents.base import Latents
from deltavae.latents.conditional import Conditional
from deltavae.latents.posterior import Posterior
from deltavae.units import both_units

_CERTAIN = 1 - 1e-9


def gumbel(noise: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Turn standard normal noise into standard Gumbel noise, −ln(−ln Φ(noise))."""
    return -torch.log(-torch.special.log_ndtr(noise))


def _one_hot_of_largest(scores: Float[Tensor, "*shape k"]) -> Float[Tensor, "*shape k"]:
    return one_hot(scores.argmax(-1), scores.shape[-1]).to(scores.dtype)


def divergence_terms(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Compute φ(x) = (1+x) ln(1+x) − x ≥ 0 to full precision, φ(−1) = 1, x ≥ −1."""
    near = x.abs() < 0.05
    small = torch.where(near, x, 0.0)
    series = torch.zeros_like(x)
    for k in range(14, 1, -1):  # x²/2 − x³/6 + x⁴/12 − …: 1e-17 relative at |x| = 0.05
        series = 1 / (k * (k - 1)) - small * series
    far = torch.where(near, 1.0, x)
    y = 1 + far
    positive = torch.where(y > 0, y, 1.0)  # y ln y at 0 has no slope, which must not become NaN
    return torch.where(near, small.square() * series, y * positive.log() - far)


@final
@dataclass(frozen=True)
class CategoricalPosterior(Posterior):
    """q(z|x) = Π_t Categorical(z_t; q_t), z_t one-hot.

    Attributes:
        mu: Probabilities q_t, each step's the mean of z_t.
        excess: Nats above the floor per step, eq. (3).
        slope: Factor 1/(1 − w) that turns the gradient of q into that of softmax(l).
    """

    mu: Float[Tensor, "b n d"]
    excess: Float[Tensor, "b n 1"]
    slope: float

    def sample(self, noise: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Draw one-hot codes with the straight-through gradient; see `Posterior.sample`."""
        tiny = torch.finfo(self.mu.dtype).tiny
        drawn = _one_hot_of_largest(self.mu.detach().clamp_min(tiny).log() + gumbel(noise))
        return drawn + self.slope * (self.mu - self.mu.detach())

    def log_prob(self, z: Float[Tensor, "b n d"]) -> Float[Tensor, " b"]:
        """Return the log-probability of the codes; see `Posterior.log_prob`."""
        return (z * self.mu).sum(-1).log().sum(1)

    def pair_log_prob(self, z: Float[Tensor, "k n d"]) -> Float[Tensor, "k b"]:
        """Return ln q(z_i|x_j) by one product of matrices; see `Posterior.pair_log_prob`."""
        log_q = self.mu.double().clamp_min(torch.finfo(torch.float64).tiny).log()
        return z.double().flatten(1) @ log_q.flatten(1).T

    def arrays(self) -> dict[str, Tensor]:
        """Return the probabilities."""
        return {"probabilities": self.mu}


@final
class ConditionalCodes(Conditional):
    """Probabilities of K one-hot codes, softmax of the outputs: uniform where these are 0.

    Args:
        d: Number K of codes.
    """

    def __init__(self, d: int) -> None:
        self.d = self.width = d

    def log_prob(
        self, outputs: Float[Tensor, "b t width"], z: Float[Tensor, "b t d"]
    ) -> Float[Tensor, "b t"]:
        """Return the log-probability; see `Conditional.log_prob`."""
        return (z * outputs.log_softmax(-1)).sum(-1)

    def kl(
        self, outputs: Float[Tensor, "b t width"], q: Posterior, z: Float[Tensor, "b t d"]
    ) -> Float[Tensor, "b t"]:
        """Return the divergence in closed form; see `Conditional.kl`."""
        terms: Tensor = torch.special.xlogy(q.mu, q.mu) - q.mu * outputs.log_softmax(-1)
        return terms.sum(-1)

    def draw(
        self, outputs: Float[Tensor, "b width"], noise: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b d"]:
        """Draw a code by the Gumbel maximum; see `Conditional.draw`."""
        return _one_hot_of_largest(outputs.detach() + gumbel(noise))

    def config(self) -> dict[str, Any]:
        """Return plain arguments that rebuild the family."""
        return {"d": self.d}


@final
class Categorical(Latents):
    """One of d codes per step, of a least confidence × the uniform prior.

    Args:
        n: Latent steps, at least 1.
        d: Number K of codes, at least 2: the channels of the one-hot z.
        confidence: Least probability c of the most likely code, in (1/d, 1).

    Attributes:
        proof: See `Latents`.

    Raises:
        ValueError: If an argument is out of its range.
    """

    proof = "closed form: δ = n [ln K + c ln c + (1 − c) ln((1 − c)/(K − 1))], K = d codes"

    def __init__(self, n: int, d: int, confidence: float) -> None:
        _check(n, d)
        if not 1 / d < confidence < 1:
            raise ValueError(f"confidence must lie in (1/d, 1) = ({1 / d:g}, 1), got {confidence}")
        per_step = _rate_of(confidence, d)
        terms = torch.full((n, 1), per_step, dtype=torch.float64)
        # Of one code's indicator about its mean, averaged over the codes at the floor.
        rest = (1 - confidence) / (d - 1)
        variance = (confidence * (1 - confidence) + (d - 1) * rest * (1 - rest)) / d
        sigma_star = torch.full((n, d), math.sqrt(variance), dtype=torch.float64)
        super().__init__(n * per_step, terms, sigma_star, params_per_step=d)
        self.confidence = float(confidence)

    @classmethod
    def from_rate(cls, delta: float, n: int, d: int) -> "Categorical":
        """Build the pair whose committed rate is ``delta``.

        Args:
            delta: δ in nats per example, above 0, below n ln d.
            n: Latent steps, at least 1.
            d: Number of codes, at least 2.

        Returns:
            The pair.

        Raises:
            ValueError: If delta is out of its range; the message names a d that would carry it.
        """
        _check(n, d)
        if not 0 < delta < n * _rate_of(_CERTAIN, d):
            carried = ""
            if 0 < delta < 20 * n:  # of half a billion codes at most
                enough = max(2, math.ceil(math.exp(delta / n) * (1 + 1e-6)))
                carried = f"; d={enough} codes would carry it"
            raise ValueError(
                f"delta must be above 0 and below {both_units(n * math.log(d))} at n={n} steps of "
                f"d={d} codes, got {both_units(delta)}{carried}"
            )

        def gap(confidence: float) -> float:
            return n * _rate_of(confidence, d) - delta

        return cls(n, d, brentq(gap, 1 / d, _CERTAIN, xtol=1e-16, rtol=1e-15))

    def config(self) -> dict[str, Any]:
        """Return plain arguments that rebuild the pair exactly."""
        return {"n": self.n, "d": self.d, "confidence": self.confidence}

    @property
    def conditional(self) -> Conditional:
        """Probabilities of the codes."""
        return ConditionalCodes(self.d)

    def posterior(self, params: Float[Tensor, "b n k"]) -> CategoricalPosterior:
        """Turn logits into probabilities, eq. (1).

        Args:
            params: Logits l, k = d.

        Returns:
            The posterior, in float32 at least.
        """
        c = self.confidence
        w = (self.d * c - 1) / (self.d - 1)
        r = self._checked(params).softmax(-1)
        top = _one_hot_of_largest(r.detach())
        q = w * top + (1 - w) * r
        rest = (1 - c) / (self.d - 1)
        floor = rest + (c - rest) * top  # q⁰
        gained = (1 - w) * (r - 1 / self.d)  # q − q⁰, without cancellation
        above = (top * gained).sum(-1, keepdim=True).clamp_min(0)
        spread = (floor * divergence_terms((gained / floor).clamp_min(-1))).sum(-1, keepdim=True)
        excess = spread + above * math.log(c / rest)  # (3)
        return CategoricalPosterior(q, excess, 1 / (1 - w))

    def direct_rate(self, q: Posterior) -> Float64[Tensor, " b"]:
        """Return Σ_t [ln K + Σ_j q_j ln q_j]; see `Latents.direct_rate`."""
        probabilities = q.mu.double()
        negative_entropy: Tensor = torch.special.xlogy(probabilities, probabilities).sum((1, 2))
        return self.n * math.log(self.d) + negative_entropy

    def prior_from_noise(self, noise: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Return the code at which the noise is largest, which is uniform.

        Args:
            noise: Standard normal noise.

        Returns:
            Latents distributed as the prior.
        """
        return _one_hot_of_largest(noise)

    def log_prior(self, z: Float[Tensor, "b n d"]) -> Float[Tensor, " b"]:
        """Return ln p(z) = −n ln d.

        Args:
            z: Latents.

        Returns:
            Log-probability in nats.
        """
        return torch.full_like(z[:, 0, 0], -self.n * math.log(self.d))

    def nearest(self, z: Float[Tensor, "*shape n d"]) -> Float[Tensor, "*shape n d"]:
        """Return the code of the largest entry of every step.

        Args:
            z: Any real numbers.

        Returns:
            One-hot codes.
        """
        return _one_hot_of_largest(z)


def _check(n: int, d: int) -> None:
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    if d < 2:
        raise ValueError(f"d must be at least 2 codes, got {d}")


def _rate_of(confidence: float, codes: int) -> float:
    # δ_t = ln K + c ln c + (1 − c) ln b of (2), as a sum of terms that are not negative.
    floor = torch.full((codes,), (1 - confidence) / (codes - 1), dtype=torch.float64)
    floor[0] = confidence
    return float((divergence_terms(codes * floor - 1) / codes).sum())
