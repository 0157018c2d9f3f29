"""Image encoders on the blueprint of PixelSNAIL: one latent step per image row, or box.

What z_t sees is as in `deltavae.encoders.image`: rows ≥ t, or the pixels from its box on, with the
anti-causal encoder, the whole image with the non-causal one. The network is `deltavae.nn.snail`'s,
with its own width and depth.

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, section 3 and table 6,
https://arxiv.org/abs/1901.03416

Deviations:
    * The non-causal encoder reaches the whole image through a global mean, whatever its depth.
"""

from typing import final

from jaxtyping import Float, UInt8
from torch import Tensor, nn

from deltavae.encoders.base import Encoder
from deltavae.encoders.image import backward_in_raster_order, step_means, with_global_mean
from deltavae.nn import scale_image
from deltavae.nn.boxes import Boxes
from deltavae.nn.snail import SnailStack


@final
class AntiCausalPixelSNAIL(Encoder):
    """Raw parameters of q(z_t|x) from rows ≥ t, or from the pixels from the box of t on.

    An argument out of its range is a ValueError of `SnailStack` or of `first_pixels`.

    Args:
        image_shape: Channels, rows and columns (C, H, W) of the images.
        levels: Number of levels of a pixel.
        params_per_step: Width k of the output per latent step.
        channels: Width of the network.
        layers: Number of residual layers.
        attention_layers: Number of attention layers, spread evenly among the residual layers.
        kernel_size: Width k of the cropped kernels, at least 2.
        heads: Attention heads; must divide half of channels.
        dropout: Share of features dropped while training, in [0, 1).
        checkpointing: Compute a layer again in the backward pass instead of keeping what it needs.
        boxes: Top, left, height and width, in pixels, of what each latent step stands for, in the
            order of their first pixels; None: one step per row.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        levels: int,
        params_per_step: int,
        channels: int = 32,
        layers: int = 4,
        attention_layers: int = 0,
        kernel_size: int = 2,
        heads: int = 2,
        dropout: float = 0.0,
        checkpointing: bool = False,
        boxes: Boxes | None = None,
    ) -> None:
        super().__init__()
        self.levels = levels
        self.stack = SnailStack(
            image_shape[0],
            channels,
            layers,
            attention_layers,
            kernel_size=kernel_size,
            heads=heads,
            dropout=dropout,
            checkpointing=checkpointing,
        )
        self.means = step_means(boxes, image_shape)
        self.out = nn.Linear(channels, params_per_step)

    def forward(self, x: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b n k"]:
        """Encode images; see `Encoder.forward`."""
        image = scale_image(x, self.levels, self.out.weight.dtype)
        params: Tensor = self.out(self.means(backward_in_raster_order(self.stack, image)))
        return params


@final
class NonCausalPixelSNAIL(Encoder):
    """Raw parameters of q(z_t|x) from the whole image.

    An argument out of its range is a ValueError of `SnailStack` or of `first_pixels`.

    Args:
        image_shape: Channels, rows and columns (C, H, W) of the images.
        levels: Number of levels of a pixel.
        params_per_step: Width k of the output per latent step.
        channels: Width of the network.
        layers: Number of residual layers.
        attention_layers: Number of attention layers, spread evenly among the residual layers.
        kernel_size: The kernels are 2·kernel_size − 1 wide, at least 2.
        heads: Attention heads; must divide half of channels.
        dropout: Share of features dropped while training, in [0, 1).
        checkpointing: Compute a layer again in the backward pass instead of keeping what it needs.
        boxes: Top, left, height and width, in pixels, of what each latent step stands for, in the
            order of their first pixels; None: one step per row.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        levels: int,
        params_per_step: int,
        channels: int = 32,
        layers: int = 4,
        attention_layers: int = 0,
        kernel_size: int = 2,
        heads: int = 2,
        dropout: float = 0.0,
        checkpointing: bool = False,
        boxes: Boxes | None = None,
    ) -> None:
        super().__init__()
        self.levels = levels
        self.stack = SnailStack(
            image_shape[0],
            channels,
            layers,
            attention_layers,
            kernel_size=kernel_size,
            heads=heads,
            dropout=dropout,
            causal=False,
            checkpointing=checkpointing,
        )
        self.means = step_means(boxes, image_shape)
        self.out = nn.Linear(2 * channels, params_per_step)

    def forward(self, x: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b n k"]:
        """Encode images; see `Encoder.forward`."""
        image = scale_image(x, self.levels, self.out.weight.dtype)
        params: Tensor = self.out(with_global_mean(self.means(self.stack(image))))
        return params
