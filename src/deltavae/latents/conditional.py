"""Families of the densities p(z_t | z_<t) whose parameters a net gives: one per kind of z.

An autoregressive density over latents, the auxiliary prior above all, needs of the kind of z (a
vector, a direction, a code) no more than this: how many outputs it takes, the log-density, the
divergence of q(z_t|x) from it and how to draw. Outputs of 0 are where a net starts.
"""

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor

from deltavae.latents.posterior import MeanFieldNormal, Posterior
from deltavae.latents.scale import scale_excess


class Conditional(ABC):
    """A family of densities of one latent step; abstract.

    Attributes:
        standardised: Whether z is given in units of its mean and spread over the data.
        d: Channels of z.
        width: Outputs that a net gives per step.
    """

    standardised: ClassVar[bool] = False
    d: int
    width: int

    @abstractmethod
    def log_prob(
        self, outputs: Float[Tensor, "b t width"], z: Float[Tensor, "b t d"]
    ) -> Float[Tensor, "b t"]:
        """Return ln p(z_t | z_<t) of every step.

        Args:
            outputs: The net's.
            z: Latents.

        Returns:
            Nats.
        """

    @abstractmethod
    def kl(
        self, outputs: Float[Tensor, "b t width"], q: Posterior, z: Float[Tensor, "b t d"]
    ) -> Float[Tensor, "b t"]:
        """Return KL(q(z_t|x) ‖ p(z_t | z_<t)) of every step, or an unbiased estimate of it.

        Args:
            outputs: The net's, with z_<t from the draw.
            q: A posterior of the family.
            z: The draw from q.

        Returns:
            Nats.
        """

    @abstractmethod
    def draw(
        self, outputs: Float[Tensor, "b width"], noise: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b d"]:
        """Draw z_t, without gradient in any family but the normal.

        Args:
            outputs: The net's at step t.
            noise: Standard normal noise.

        Returns:
            z_t ~ p(z_t | z_<t).
        """

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Return plain arguments that rebuild the family."""


@final
class ConditionalNormal(Conditional):
    """Diagonal normals: means, and log standard deviations kept within ±6 by a tanh.

    Args:
        d: Channels of z.

    Attributes:
        standardised: True.
    """

    standardised = True

    def __init__(self, d: int) -> None:
        self.d, self.width = d, 2 * d

    def moments(
        self, outputs: Float[Tensor, "*shape width"]
    ) -> tuple[Float[Tensor, "*shape d"], Float[Tensor, "*shape d"]]:
        """Return mean and log standard deviation.

        Args:
            outputs: The net's.

        Returns:
            m and ln s: 0 where the outputs are 0.
        """
        mean, log_scale = outputs.chunk(2, dim=-1)
        return mean, 6.0 * torch.tanh(log_scale / 6.0)

    def log_prob(
        self, outputs: Float[Tensor, "b t width"], z: Float[Tensor, "b t d"]
    ) -> Float[Tensor, "b t"]:
        """Return the log-density; see `Conditional.log_prob`."""
        mean, log_scale = (moment.to(z) for moment in self.moments(outputs))
        standard = (z - mean) * (-log_scale).exp()
        return -(0.5 * standard.square() + log_scale + 0.5 * math.log(2 * math.pi)).sum(-1)

    def kl(
        self, outputs: Float[Tensor, "b t width"], q: Posterior, z: Float[Tensor, "b t d"]
    ) -> Float[Tensor, "b t"]:
        """Return the divergence in closed form; see `Conditional.kl`."""
        return self.kl_terms(outputs, q).sum(-1)

    def kl_terms(
        self, outputs: Float[Tensor, "b t width"], q: Posterior
    ) -> Float[Tensor, "b t d"]:
        """Return the divergence in closed form, channel by channel.

        Args:
            outputs: The net's.
            q: A mean-field normal.

        Returns:
            Nats, never negative, in the precision of q.
        """
        assert isinstance(q, MeanFieldNormal)
        mean, log_scale = (moment.to(q.mu) for moment in self.moments(outputs))
        distance = (q.mu - mean) * (-log_scale).exp()
        return scale_excess(q.sigma.log() - log_scale) + 0.5 * distance.square()

    def draw(
        self, outputs: Float[Tensor, "b width"], noise: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b d"]:
        """Return m + s · noise; see `Conditional.draw`."""
        mean, log_scale = self.moments(outputs)
        return mean + log_scale.exp() * noise

    def config(self) -> dict[str, Any]:
        """Return plain arguments that rebuild the family."""
        return {"d": self.d}
