"""Quantised posterior × uniform prior over codes: exactly log K nats per code.

Channel k of a step takes one of L_k levels, equally spaced in [−1, 1]: a product codebook of
K = Π_k L_k vectors. Raw output r goes to the nearest level of a bounded line,

    y = L/2 (tanh r + 1) − ½ ∈ (−½, L − ½),   i = round(y),   z = 2 i/(L − 1) − 1,         (1)

with the gradient of (2y)/(L−1) − 1 in the place of that of z (straight through). q(z|x) is one
code for certain and p(z) = Π_t 1/K, so

    KL(q(z|x) ‖ p) = δ = n Σ_k ln L_k     for every x and every net:

the rate is constant, and the bound needs no more terms than any other: no codebook to learn, none
that falls out of use.

Mentzer et al., Finite Scalar Quantization: VQ-VAE Made Simple, ICLR 2024,
https://arxiv.org/abs/2309.15505; van den Oord et al., Neural Discrete Representation Learning,
NeurIPS 2017, https://arxiv.org/abs/1711.00937
Deviations: van den Oord et al. learn the codebook, with a commitment loss beside the bound, which
a δ-VAE leaves as it is; the levels of (1) are as wide in tanh r as each other, for even L too.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, final

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from deltavae.latents.base import Latents
from deltavae.latents.conditional import Conditional
from deltavae.latents.posterior import Posterior
from deltavae.units import both_units

MOST_LEVELS = 256


def _indices(z: Float[Tensor, "*shape d"], levels: Sequence[int]) -> Tensor:
    # Number of the nearest level of every channel.
    counts = torch.tensor(levels, dtype=z.dtype, device=z.device)
    place = (0.5 * (z + 1) * (counts - 1)).round()
    return torch.minimum(place.clamp_min(0), counts - 1)


def _values(indices: Tensor, levels: Sequence[int]) -> Tensor:
    counts = torch.tensor(levels, dtype=indices.dtype, device=indices.device)
    return 2 * indices / (counts - 1) - 1


@final
@dataclass(frozen=True)
class QuantisedPosterior(Posterior):
    """q(z|x): one code for certain.

    Attributes:
        mu: The code, with the straight-through gradient.
        excess: 0: nothing lies above the floor.
        levels: Number of levels L of each channel.
    """

    mu: Float[Tensor, "b n d"]
    excess: Float[Tensor, "b n 1"]
    levels: tuple[int, ...]

    def sample(self, noise: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Return the code, whatever the noise; see `Posterior.sample`."""
        return self.mu

    def log_prob(self, z: Float[Tensor, "b n d"]) -> Float[Tensor, " b"]:
        """Return 0 at the code and −∞ at others; see `Posterior.log_prob`."""
        same = (_indices(z, self.levels) == _indices(self.mu, self.levels)).flatten(1).all(1)
        return torch.where(same, 0.0, -math.inf).to(z.dtype)

    def pair_log_prob(self, z: Float[Tensor, "k n d"]) -> Float[Tensor, "k b"]:
        """Return 0 where the codes agree and −∞ elsewhere; see `Posterior.pair_log_prob`."""
        codes = _indices(torch.cat([z.to(self.mu), self.mu]), self.levels).flatten(1)
        _, label = torch.unique(codes, dim=0, return_inverse=True)
        same = label[: len(z), None] == label[len(z) :]
        return torch.where(same, 0.0, -math.inf).double()

    def arrays(self) -> dict[str, Tensor]:
        """Return the codes."""
        return {"codes": self.mu}


@final
class ConditionalLevels(Conditional):
    """Probabilities of the levels of each channel: uniform where the outputs are 0.

    Args:
        levels: Number of levels L of each channel.
    """

    def __init__(self, levels: Sequence[int]) -> None:
        self.levels = tuple(levels)
        self.d, self.width = len(self.levels), sum(self.levels)
        self._cuts = tuple(accumulate(self.levels[:-1]))

    def log_prob(
        self, outputs: Float[Tensor, "b t width"], z: Float[Tensor, "b t d"]
    ) -> Float[Tensor, "b t"]:
        """Return the log-probability; see `Conditional.log_prob`."""
        index = _indices(z, self.levels).long()
        channels = outputs.tensor_split(self._cuts, dim=-1)
        chosen = [
            channel.log_softmax(-1).gather(-1, index[..., k : k + 1])
            for k, channel in enumerate(channels)
        ]
        return torch.cat(chosen, dim=-1).sum(-1)

    def kl(
        self, outputs: Float[Tensor, "b t width"], q: Posterior, z: Float[Tensor, "b t d"]
    ) -> Float[Tensor, "b t"]:
        """Return −ln p of the code, which q gives for certain; see `Conditional.kl`."""
        return -self.log_prob(outputs, q.mu)

    def draw(
        self, outputs: Float[Tensor, "b width"], noise: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b d"]:
        """Draw a level of each channel, by inverting its distribution; see `Conditional.draw`."""
        channels = outputs.detach().tensor_split(self._cuts, dim=-1)
        below = torch.special.ndtr(noise.double()).unbind(-1)
        drawn = [
            (channel.double().softmax(-1).cumsum(-1)[:, :-1] < u[:, None]).sum(-1)
            for channel, u in zip(channels, below, strict=True)
        ]
        return _values(torch.stack(drawn, dim=-1).to(noise), self.levels)

    def config(self) -> dict[str, Any]:
        """Return plain arguments that rebuild the family."""
        return {"levels": list(self.levels)}


@final
class Quantised(Latents):
    """Vectors of d quantised channels × the uniform prior over them.

    Args:
        n: Latent steps, at least 1.
        levels: Levels L_k of each of the d channels, 2 to 256.

    Attributes:
        proof: See `Latents`.
        constant_rate: See `Latents`.

    Raises:
        ValueError: If an argument is out of its range.
    """

    proof = "constant: the rate is n Σ_k ln L_k whatever the code"
    constant_rate = True

    def __init__(self, n: int, levels: Sequence[int]) -> None:
        if n < 1:
            raise ValueError(f"n must be at least 1, got {n}")
        if not levels or not all(2 <= count <= MOST_LEVELS for count in levels):
            raise ValueError(
                f"levels must be one or more whole numbers in 2..{MOST_LEVELS}, got {levels}"
            )
        per_step = math.fsum(math.log(count) for count in levels)
        terms = torch.full((n, 1), per_step, dtype=torch.float64)
        # Nothing scatters: a unit counts as active where it moves by a tenth of a level.
        step = torch.tensor([2 / (count - 1) for count in levels], dtype=torch.float64)
        sigma_star = step.expand(n, -1).clone()
        super().__init__(n * per_step, terms, sigma_star, params_per_step=len(levels))
        self.levels = tuple(int(count) for count in levels)

    @classmethod
    def from_rate(cls, delta: float, n: int, d: int) -> "Quantised":
        """Build the pair of L or L + 1 levels in every channel whose rate is nearest to ``delta``.

        Args:
            delta: δ in nats per example, above 0.
            n: Latent steps, at least 1.
            d: Channels, at least 1.

        Returns:
            The pair; its ``committed_rate`` is n d ln 2 at least.

        Raises:
            ValueError: If delta is not above 0, d below 1, or delta above n d ln 256.
        """
        if d < 1:
            raise ValueError(f"d must be at least 1, got {d}")
        if not 0 < delta <= n * d * math.log(MOST_LEVELS):
            raise ValueError(
                f"delta must be above 0 and at most {both_units(n * d * math.log(MOST_LEVELS))} "
                f"at n={n} steps of d={d} channels, got {both_units(delta)}"
            )
        few = min(max(2, math.floor(math.exp(delta / (n * d)))), MOST_LEVELS - 1)
        more = min(range(d + 1), key=lambda k: abs(_rate_of(n, d, few, k) - delta))
        return cls(n, [few + 1] * more + [few] * (d - more))

    def config(self) -> dict[str, Any]:
        """Return plain arguments that rebuild the pair exactly."""
        return {"n": self.n, "levels": list(self.levels)}

    @property
    def conditional(self) -> Conditional:
        """Probabilities of the levels of each channel."""
        return ConditionalLevels(self.levels)

    def posterior(self, params: Float[Tensor, "b n k"]) -> QuantisedPosterior:
        """Round raw network output to levels, eq. (1).

        Args:
            params: Raw output r, k = d.

        Returns:
            The posterior, in float32 at least.
        """
        raw = self._checked(params)
        counts = torch.tensor(self.levels, dtype=raw.dtype, device=raw.device)
        y = 0.5 * counts * (raw.tanh() + 1) - 0.5
        index = torch.minimum(y.detach().round().clamp_min(0), counts - 1)
        smooth = 2 * y / (counts - 1)
        z = _values(index, self.levels) + (smooth - smooth.detach())  # (1), the codes exactly
        return QuantisedPosterior(z, torch.zeros_like(z[..., :1]), self.levels)

    def direct_rate(self, q: Posterior) -> Float64[Tensor, " b"]:
        """Return Σ_tk ln L_k, ∞ where q is on no level; see `Latents.direct_rate`."""
        counts = torch.tensor(self.levels, dtype=torch.float64, device=q.mu.device)
        place = 0.5 * (q.mu.double() + 1) * (counts - 1)
        on_level = ((place - place.round()).abs() < 1e-3) & (place > -0.5) & (place < counts - 0.5)
        return torch.where(on_level, counts.log(), math.inf).sum((1, 2))

    def prior_from_noise(self, noise: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Cut the noise's quantile into equal parts.

        Args:
            noise: Standard normal noise.

        Returns:
            Latents distributed as the prior.
        """
        counts = torch.tensor(self.levels, dtype=torch.float64, device=noise.device)
        index = torch.minimum((torch.special.ndtr(noise.double()) * counts).floor(), counts - 1)
        return _values(index, self.levels).to(noise.dtype)

    def log_prior(self, z: Float[Tensor, "b n d"]) -> Float[Tensor, " b"]:
        """Return ln p(z) = −δ.

        Args:
            z: Latents.

        Returns:
            Log-probability in nats.
        """
        return torch.full_like(z[:, 0, 0], -self.committed_rate)

    def nearest(self, z: Float[Tensor, "*shape n d"]) -> Float[Tensor, "*shape n d"]:
        """Return the nearest codes.

        Args:
            z: Any real numbers.

        Returns:
            Codes.
        """
        return _values(_indices(z, self.levels), self.levels)


def _rate_of(n: int, d: int, few: int, more: int) -> float:
    return n * ((d - more) * math.log(few) + more * math.log(few + 1))
