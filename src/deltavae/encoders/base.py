"""What every encoder offers: events in, raw posterior parameters out."""

from abc import ABC, abstractmethod

from jaxtyping import Float, UInt8
from torch import Tensor, nn


class Encoder(nn.Module, ABC):
    """Maps an event x to the raw parameters of q(z|x); `Latents.posterior` gives them meaning."""

    @abstractmethod
    def forward(self, x: UInt8[Tensor, "b ..."]) -> Float[Tensor, "b n k"]:
        """Encode a batch.

        Args:
            x: Events, integer levels.

        Returns:
            Raw outputs, k = `Latents.params_per_step` for each of the n latent steps.
        """
