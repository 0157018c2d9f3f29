"""Posteriors q(z|x) = Π_t q(z_t|x) of a batch: what everything after the encoder asks of them.

A family is a frozen dataclass of tensors, one row per example, and says how z is made of standard
normal noise, how likely a z is, and what it costs above the floor δ. With the location μ (in most
families the mean) and the pairs (i, j) of `pair_log_prob` everything that is measured of a
posterior, the information in z above all (`evaluation.information`), is written once.

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, section 2.2,
https://arxiv.org/abs/1901.03416
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, Normal
from torch.distributions import Independent as Reinterpreted


def standard_normal_log_prob(z: Float[Tensor, "b n d"]) -> Float[Tensor, " b"]:
    """Compute ln N(z; 0, I), summed over steps and channels."""
    return -0.5 * (z.square() + math.log(2 * math.pi)).sum(dim=(1, 2))


Family = TypeVar("Family", bound="Posterior")


class Posterior(ABC):
    """q(z|x) of a batch; abstract.

    A family is a dataclass. Its tensors have one row per example; what else it holds belongs to
    the family, and is the same for all examples.

    Attributes:
        mu: Location of z, (b, n, d): its mean, or the point that it scatters about.
        excess: Nats above the floor per step (and channel), never negative; carried along because
            computed again in float32 it could be.
    """

    mu: Float[Tensor, "b n d"]
    excess: Float[Tensor, "b n terms"]

    @abstractmethod
    def sample(self, noise: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Turn standard normal noise into z ~ q(z|x), differentiable in the parameters.

        Args:
            noise: Standard normal noise.

        Returns:
            z ~ q(z|x); of codes the gradient is the straight-through one.
        """

    @abstractmethod
    def log_prob(self, z: Float[Tensor, "b n d"]) -> Float[Tensor, " b"]:
        """Return ln q(z|x).

        Args:
            z: Latents.

        Returns:
            Log-density (of codes log-probability) in nats, summed over steps and channels.
        """

    @abstractmethod
    def pair_log_prob(self, z: Float[Tensor, "k n d"]) -> Float[Tensor, "k b"]:
        """Return ln q(z_i|x_j) of every pair, in float64, up to one constant for all pairs.

        Args:
            z: Latents of k examples, near the posteriors' own.

        Returns:
            A row for each z, a column for each x.
        """

    def arrays(self) -> dict[str, Tensor]:
        """Return what a user stores of the posteriors, by name: all of it but ``excess``."""
        named = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        del named["excess"]
        return named

    def map(self: Family, function: Callable[[Tensor], Tensor]) -> Family:
        """Apply a function to every tensor: ``q.map(lambda t: t[:10])`` has ten examples.

        Args:
            function: Keeps the meaning of the rows: a choice of rows, a cast, a move.

        Returns:
            A posterior of the same family.
        """
        mapped = {n: function(v) if isinstance(v, Tensor) else v for n, v in vars(self).items()}
        return type(self)(**mapped)

    def double(self: Family) -> Family:
        """Return the posterior in float64."""
        return self.map(lambda t: t.double() if t.is_floating_point() else t)

    @classmethod
    def cat(cls: type[Family], parts: Sequence[Family]) -> Family:
        """Join the examples of posteriors of one family.

        Args:
            parts: At least one.

        Returns:
            All examples.
        """
        columns = zip(*(vars(part).values() for part in parts), strict=True)
        return cls(*(torch.cat(c) if isinstance(c[0], Tensor) else c[0] for c in columns))


@final
@dataclass(frozen=True)
class MeanFieldNormal(Posterior):
    """q(z|x) = Π_tk N(z_tk; μ_tk, σ_tk²) and what it costs above the floor.

    Attributes:
        mu: Mean μ.
        sigma: Standard deviation σ, above 0.
        excess: Nats above the floor per step and channel, never negative.
    """

    mu: Float[Tensor, "b n d"]
    sigma: Float[Tensor, "b n d"]
    excess: Float[Tensor, "b n d"]

    def sample(self, noise: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Return z = μ + σ · noise, differentiable in μ and σ; see `Posterior.sample`."""
        return self.mu + self.sigma * noise

    def log_prob(self, z: Float[Tensor, "b n d"]) -> Float[Tensor, " b"]:
        """Return ln q(z|x); see `Posterior.log_prob`."""
        standardised = (z - self.mu) / self.sigma
        return standard_normal_log_prob(standardised) - self.sigma.log().sum(dim=(1, 2))

    @property
    def distribution(self) -> Distribution:
        """The posterior as a torch distribution of event shape (n, d), in float64."""
        # Unchecked: a check would wait for the device.
        normal = Normal(self.mu.double(), self.sigma.double(), validate_args=False)
        return Reinterpreted(normal, 2, validate_args=False)

    def standardised(
        self, loc: Float[Tensor, "n d"], scale: Float[Tensor, "n d"]
    ) -> "MeanFieldNormal":
        """Return the posterior of (z − loc)/scale.

        Args:
            loc: Any numbers.
            scale: Above 0.

        Returns:
            A mean-field normal.
        """
        return MeanFieldNormal((self.mu - loc) / scale, self.sigma / scale, self.excess)

    def pair_log_prob(self, z: Float[Tensor, "k n d"]) -> Float[Tensor, "k b"]:
        """Return ln q(z_i|x_j) by two products of matrices; see `Posterior.pair_log_prob`."""
        mu, sigma = self.mu.flatten(1).double(), self.sigma.flatten(1).double()
        centre = mu.mean(0)  # the expanded square below cancels: keep its terms small
        mu, moved = mu - centre, z.flatten(1).double() - centre
        precision = sigma.square().reciprocal()
        weighted = mu * precision
        # ln q(z|x_j) + ½ n d ln 2π = constant_j + zᵀ(μ_j/σ_j²) − ½ (z²)ᵀ(1/σ_j²)
        constant = -0.5 * (mu * weighted).sum(1) - sigma.log().sum(1)
        pairs = torch.addmm(constant, moved, weighted.T)
        return pairs.addmm_(moved.square_(), precision.T, alpha=-0.5)
