"""Objectives: the terms of the bound → the loss that is minimised, in nats per example.

The δ-VAE's own objective is the plain ELBO: its floor lies in the model. The others are its
rivals. E is the mean over the batch, k = 1..d runs over the latent channels.

    ELBO                 E[distortion + rate]                           [1]
    Beta                 E[distortion + β·rate]                         [2]
    LinearAnnealing      β rises from 0 to 1 over the first steps       [3]
    CyclicalAnnealing    β rises from 0 to 1 again and again            [4]
    FreeBitsPerExample   E[distortion + max(rate, λ)]                   [5], for each example alone
    FreeBitsPerChannel   E[distortion] + Σ_k max(E[rate_k], λ/d)        [5], eq. 15
    ControlVAE           E[distortion + β(t)·rate], β(t) steers E[rate] [6]

[1] Kingma & Welling 2014, https://arxiv.org/abs/1312.6114
[2] Higgins et al. 2017, https://openreview.net/forum?id=Sy2fzU9gl
[3] Bowman et al. 2016, https://arxiv.org/abs/1511.06349, as a sigmoid; as a line
    Sønderby et al. 2016, https://arxiv.org/abs/1602.02282
[4] Fu et al. 2019, https://arxiv.org/abs/1903.10145
[5] Kingma et al. 2016, https://arxiv.org/abs/1606.04934
[6] Shao et al. 2020, algorithm 1, https://arxiv.org/abs/2004.06706
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deltavae.terms import Terms
from deltavae.units import bits_to_nats


class Objective(ABC):
    """A loss made of the terms of the bound; abstract.

    Attributes:
        steers_rate: Whether the loss differs from the plain bound by what it makes of the rate, so
            that a rate which is constant leaves it without effect.
    """

    steers_rate: ClassVar[bool] = False

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
        steers_rate: See `Objective`.
        beta: Weight of the rate, not negative.

    Raises:
        ValueError: If beta is negative.
    """

    steers_rate: ClassVar[bool] = True
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
        steers_rate: See `Objective`.
        steps: Steps until the weight is 1, at least 1.

    Raises:
        ValueError: If steps is below 1.
    """

    steers_rate: ClassVar[bool] = True
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
        steers_rate: See `Objective`.
        cycle_steps: Steps of one cycle, at least 1.
        rising: Share of a cycle in which the weight rises, in (0, 1].
        cycles: Number of cycles, at least 1; afterwards the weight is 1.

    Raises:
        ValueError: If an argument is out of its range.
    """

    steers_rate: ClassVar[bool] = True
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
        steers_rate: See `Objective`.
        bits: Free bits λ per example, not negative.

    Raises:
        ValueError: If bits is negative.
    """

    steers_rate: ClassVar[bool] = True
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
    Where a family ties its channels (directions, codes), there is one term per step: then the rate
    counts as a whole above λ, in the mean over the batch.

    Attributes:
        steers_rate: See `Objective`.
        bits: Free bits λ per example, shared equally by the channels, not negative.

    Raises:
        ValueError: If bits is negative.
    """

    steers_rate: ClassVar[bool] = True
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


@final
class ControlVAE(nn.Module, Objective):
    """The weight of the rate is the output of a PI controller that steers the rate to a target.

    At step t, with e = target − E[rate] in nats,

        I(t) = I(t−1) − k_i·e,   β(t) = k_p/(1 + exp e) + I(t) + beta_min,

    clamped to [beta_min, beta_max]; I rests while the clamp holds and e pushes further outwards.
    The controller's state is in buffers, so that a checkpoint has it; it moves in training mode
    only, without a wait for the device. With several processes each takes its own examples' mean.

    Deviations: the source lets I rest while β(t−1) is out of its range, whichever way e points;
    once k_p is less than the overshoot, that holds β at the end of its range for good.

    Args:
        bits: Target of the mean rate per example, above 0.
        k_p: Gain of the proportional term, not negative.
        k_i: Gain of the integral per step and nat, above 0.
        beta_min: Least weight, not negative.
        beta_max: Largest weight, above beta_min.

    Attributes:
        steers_rate: See `Objective`.
        integral: I, the integral term.
        output: β before the clamp.

    Raises:
        ValueError: If an argument is out of its range.
    """

    steers_rate: ClassVar[bool] = True
    integral: Tensor
    output: Tensor

    def __init__(
        self,
        bits: float = 20.0,
        k_p: float = 0.01,
        k_i: float = 1e-4,
        beta_min: float = 0.0,
        beta_max: float = 1.0,
    ) -> None:
        super().__init__()
        for name, value in (("bits", bits), ("k_i", k_i)):
            if not value > 0:
                raise ValueError(f"{name} must be above 0, got {value}")
        for name, value in (("k_p", k_p), ("beta_min", beta_min)):
            if not value >= 0:
                raise ValueError(f"{name} must not be negative, got {value}")
        if not beta_max > beta_min:
            raise ValueError(f"beta_max must be above beta_min={beta_min}, got {beta_max}")
        self.bits, self.k_p, self.k_i = bits, k_p, k_i
        self.beta_min, self.beta_max = beta_min, beta_max
        self.register_buffer("integral", torch.zeros(()))
        self.register_buffer("output", torch.full((), beta_min))

    @property
    def beta(self) -> Float[Tensor, ""]:
        """The weight of the rate at the last step."""
        return self.output.clamp(self.beta_min, self.beta_max)

    @torch.no_grad()
    def control(self, rate: Float[Tensor, ""]) -> None:
        """Move the controller by one step.

        Args:
            rate: Mean rate of the batch in nats per example.
        """
        error = bits_to_nats(self.bits) - rate.to(self.output)
        change = -self.k_i * error
        outwards = (self.output > self.beta_max) & (change > 0)
        outwards |= (self.output < self.beta_min) & (change < 0)
        self.integral += change.masked_fill(outwards, 0.0)
        proportional = self.k_p * torch.sigmoid(-error)
        self.output.copy_(proportional + self.integral + self.beta_min)

    def __call__(self, terms: Terms, step: int) -> Float[Tensor, ""]:
        """Return the loss; see `Objective`."""
        if self.training:
            self.control(terms.rate.detach().mean())
        return (terms.distortion + self.beta * terms.rate).mean()
