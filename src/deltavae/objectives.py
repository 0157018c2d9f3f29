"""Objectives: the terms of the bound → the loss that is minimised, in nats per example.

The δ-VAE's own objective is the plain ELBO: its floor lies in the model. The others are its
rivals. E is the mean over the batch, k = 1..d runs over the latent channels.

    ELBO                 E[distortion + rate]                           [1]
    Beta                 E[distortion + β·rate]                         [2]
    LinearAnnealing      β rises from 0 to 1 over the first steps       [3]
    CyclicalAnnealing    β rises from 0 to 1 again and again            [4]
    FreeBitsPerExample   E[distortion + max(rate, λ)]                   [5], for each example alone
    FreeBitsPerChannel   E[distortion] + Σ_k max(E[rate_k], λ/d)        [5], eq. 15

[1] Kingma & Welling 2014, https://arxiv.org/abs/1312.6114
[2] Higgins et al. 2017, https://openreview.net/forum?id=Sy2fzU9gl
[3] Bowman et al. 2016, https://arxiv.org/abs/1511.06349
[4] Fu et al. 2019, https://arxiv.org/abs/1903.10145
[5] Kingma et al. 2016, https://arxiv.org/abs/1606.04934
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor

from deltavae.terms import Terms
from deltavae.units import bits_to_nats


class Objective(ABC):
    """A loss made of the terms of the bound; abstract."""

    @abstractmethod
    def __call__(self, terms: Terms, step: int) -> Float[Tensor, ""]:
        """Return the loss of a batch in nats per example.

        Args:
            terms: Distortion and rates of the batch.
            step: Optimiser step, from 0.

        Returns:
            The loss, a scalar.
        """


@final
@dataclass(frozen=True)
class ELBO(Objective):
    """Mean of distortion + rate: the plain bound."""

    def __call__(self, terms: Terms, step: int) -> Float[Tensor, ""]:
        """Return the loss; see `Objective`."""
        return terms.neg_elbo.mean()


@final
@dataclass(frozen=True)
class Beta(Objective):
    """Mean of distortion + beta·rate.

    Attributes:
        beta: Weight of the rate, not negative.

    Raises:
        ValueError: If beta is negative.
    """

    beta: float = 1.0

    def __post_init__(self) -> None:
        if not self.beta >= 0:
            raise ValueError(f"beta must not be negative, got {self.beta}")

    def __call__(self, terms: Terms, step: int) -> Float[Tensor, ""]:
        """Return the loss; see `Objective`."""
        return (terms.distortion + self.beta * terms.rate).mean()


@final
@dataclass(frozen=True)
class LinearAnnealing(Objective):
    """The weight of the rate rises linearly from 0 to 1.

    Attributes:
        steps: Steps until the weight is 1, at least 1.

    Raises:
        ValueError: If steps is below 1.
    """

    steps: int = 1000

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")

    def beta(self, step: int) -> float:
        """Return the weight of the rate at a step."""
        return min(1.0, step / self.steps)

    def __call__(self, terms: Terms, step: int) -> Float[Tensor, ""]:
        """Return the loss; see `Objective`."""
        return (terms.distortion + self.beta(step) * terms.rate).mean()


@final
@dataclass(frozen=True)
class CyclicalAnnealing(Objective):
    """The weight of the rate rises from 0 to 1 in every cycle, then stays at 1 until its end.

    Attributes:
        cycle_steps: Steps of one cycle, at least 1.
        rising: Share of a cycle in which the weight rises, in (0, 1].
        cycles: Number of cycles, at least 1; afterwards the weight is 1.

    Raises:
        ValueError: If an argument is out of its range.
    """

    cycle_steps: int = 1000
    rising: float = 0.5
    cycles: int = 4

    def __post_init__(self) -> None:
        if self.cycle_steps < 1:
            raise ValueError(f"cycle_steps must be at least 1, got {self.cycle_steps}")
        if not 0 < self.rising <= 1:
            raise ValueError(f"rising must lie in (0, 1], got {self.rising}")
        if self.cycles < 1:
            raise ValueError(f"cycles must be at least 1, got {self.cycles}")

    def beta(self, step: int) -> float:
        """Return the weight of the rate at a step."""
        if step >= self.cycles * self.cycle_steps:
            return 1.0
        return min(1.0, (step % self.cycle_steps) / (self.rising * self.cycle_steps))

    def __call__(self, terms: Terms, step: int) -> Float[Tensor, ""]:
        """Return the loss; see `Objective`."""
        return (terms.distortion + self.beta(step) * terms.rate).mean()


@final
@dataclass(frozen=True)
class FreeBitsPerExample(Objective):
    """Every example's rate counts only above a threshold.

    Attributes:
        bits: Free bits λ per example, not negative.

    Raises:
        ValueError: If bits is negative.
    """

    bits: float = 10.0

    def __post_init__(self) -> None:
        if not self.bits >= 0:
            raise ValueError(f"bits must not be negative, got {self.bits}")

    def __call__(self, terms: Terms, step: int) -> Float[Tensor, ""]:
        """Return the loss; see `Objective`."""
        return (terms.distortion + terms.rate.clamp_min(bits_to_nats(self.bits))).mean()


@final
@dataclass(frozen=True)
class FreeBitsPerChannel(Objective):
    """Every channel's rate, averaged over the batch, counts only above its share of the threshold.

    The mean is over the examples of one process: with several processes it is each one's own.

    Attributes:
        bits: Free bits λ per example, shared equally by the channels, not negative.

    Raises:
        ValueError: If bits is negative.
    """

    bits: float = 10.0

    def __post_init__(self) -> None:
        if not self.bits >= 0:
            raise ValueError(f"bits must not be negative, got {self.bits}")

    def __call__(self, terms: Terms, step: int) -> Float[Tensor, ""]:
        """Return the loss; see `Objective`."""
        if terms.rate_terms is None:
            return terms.neg_elbo.mean()
        rates = terms.rate_terms.sum(1).mean(0)  # (d,)
        free = bits_to_nats(self.bits) / len(rates)
        return terms.distortion.mean() + rates.clamp_min(free).sum()
