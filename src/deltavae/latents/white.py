"""Normals over (n, d) latents that are held as the linear map that makes them white.

With e = W z standard normal where z ~ p,

    ln p(z) = ln |det W| − ½ Σ [e² + ln 2π],                                               (1)

and z is drawn by the inverse map from given or from new noise.

Bishop, Pattern Recognition and Machine Learning, 2006, section 2.3,
https://www.microsoft.com/en-us/research/publication/pattern-recognition-machine-learning/
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, constraints


class WhitenedNormal(Distribution, ABC):
    """A normal of mean 0 as a torch distribution; event shape (n, d); abstract.

    ``rsample`` draws from torch's own generator, as every torch distribution does; ``colour``
    takes given noise.

    Attributes:
        support: Every real (n, d) matrix.
        has_rsample: Samples are a differentiable map of the noise.
    """

    support = constraints.independent(constraints.real, 2)  # type: ignore[no-untyped-call]
    has_rsample = True

    @abstractmethod
    def whiten(self, z: Float[Tensor, "*shape n d"]) -> Float[Tensor, "*shape n d"]:
        """Return the innovations e of z.

        Args:
            z: Latents.

        Returns:
            e, independent standard normals where z ~ p.
        """

    @abstractmethod
    def colour(self, noise: Float[Tensor, "*shape n d"]) -> Float[Tensor, "*shape n d"]:
        """Return the z whose innovations are ``noise``: the inverse of ``whiten``.

        Args:
            noise: Innovations e.

        Returns:
            z, distributed as the prior where the noise is standard normal.
        """

    @abstractmethod
    def _log_det(self) -> Tensor | float:
        """Return ln |det W|, a number or one per batch."""

    @abstractmethod
    def _like(self) -> dict[str, Any]:
        """Return dtype and device of draws and moments."""

    @property
    def mean(self) -> Tensor:
        """Mean of every step and channel: 0."""
        return torch.zeros(self._extended_shape(), **self._like())

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw z ~ p(z), differentiable in what the distribution is made of.

        Args:
            sample_shape: Shape of the sample.

        Returns:
            Latents of shape (*sample_shape, *batch_shape, n, d).
        """
        return self.colour(
            torch.randn(self._extended_shape(torch.Size(sample_shape)), **self._like())
        )

    def log_prob(self, value: Tensor) -> Tensor:
        """Return ln p(z), summed over the event.

        Args:
            value: Latents, event shape (n, d).

        Returns:
            Log-density in nats, in the type of the latents.
        """
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(value.shape, self._extended_shape())  # type: ignore[no-untyped-call]
        squares = self.whiten(value.expand(shape)).square() + math.log(2 * math.pi)
        log_det = torch.as_tensor(self._log_det(), dtype=value.dtype, device=value.device)
        return log_det - 0.5 * squares.sum(dim=(-2, -1))  # (1)
