"""Image encoders: one latent step per image row, or per box of pixels (`deltavae.nn.boxes`).

The past of row t is known to the decoder when z_t is first read; so the anti-causal encoder spends
z_t on the present and the future only:

    reverse rows and columns → pad one column, so that the strictly causal network's features,
    cropped by one column, see their own pixel too → reverse back: pixel i sees pixels ≥ i in
    raster order → mean over each row → linear: z_t sees rows ≥ t.

With boxes the mean runs over each box, and z_t sees the pixels from the first of its box on. How
much of what follows, is up to the depth; with a summary it is all of it: the linear map then reads
the mean over the steps from t on too. The non-causal encoder is the ablation: every z_t sees the
whole image.

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, section 3 and its figure of
the anti-causal encoder, https://arxiv.org/abs/1901.03416

Deviations:
    * The non-causal encoder reaches the whole image through a global mean beside its
      convolutions, whatever its depth; the anti-causal one's summary is the counterpart.
"""

from collections.abc import Callable
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from deltavae.encoders.base import Encoder
from deltavae.nn import BoxMeans, GatedConv, GatedStack, scale_image, with_coordinates
from deltavae.nn.boxes import Boxes
from deltavae.nn.gated import check_network, run


@final
class AntiCausalEncoder(Encoder):
    """Raw parameters of q(z_t|x) from rows ≥ t, or from the pixels from the box of t on.

    An argument out of its range is a ValueError of `check_network` or of `first_pixels`.

    Args:
        image_shape: Channels, rows and columns (C, H, W) of the images.
        levels: Number of levels of a pixel.
        params_per_step: Width k of the output per latent step.
        channels: Width of the network.
        layers: Number of gated layers.
        kernel_size: Odd kernel width.
        checkpointing: Compute a layer again in the backward pass instead of keeping what it needs.
        boxes: Top, left, height and width, in pixels, of what each latent step stands for, in the
            order of their first pixels; None: one step per row.
        summary: Whether a step also reads the mean of the features of all steps from its own on.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        levels: int,
        params_per_step: int,
        channels: int = 16,
        layers: int = 4,
        kernel_size: int = 5,
        checkpointing: bool = False,
        boxes: Boxes | None = None,
        summary: bool = False,
    ) -> None:
        super().__init__()
        self.levels, self.summary = levels, summary
        self.stack = GatedStack(image_shape[0], channels, layers, kernel_size, checkpointing)
        self.means = step_means(boxes, image_shape)
        self.out = nn.Linear((1 + summary) * channels, params_per_step)

    def forward(self, x: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b n k"]:
        """Encode images; see `Encoder.forward`."""
        image = scale_image(x, self.levels, self.out.weight.dtype)
        means = self.means(backward_in_raster_order(self.stack, image))
        params: Tensor = self.out(with_mean_from_here_on(means) if self.summary else means)
        return params


@final
class NonCausalEncoder(Encoder):
    """Raw parameters of q(z_t|x) from the whole image.

    An argument out of its range is a ValueError of `check_network` or of `first_pixels`.

    Args:
        image_shape: Channels, rows and columns (C, H, W) of the images.
        levels: Number of levels of a pixel.
        params_per_step: Width k of the output per latent step.
        channels: Width of the network.
        layers: Number of gated layers.
        kernel_size: Odd kernel width.
        checkpointing: Compute a layer again in the backward pass instead of keeping what it needs.
        boxes: Top, left, height and width, in pixels, of what each latent step stands for, in the
            order of their first pixels; None: one step per row.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        levels: int,
        params_per_step: int,
        channels: int = 16,
        layers: int = 4,
        kernel_size: int = 5,
        checkpointing: bool = False,
        boxes: Boxes | None = None,
    ) -> None:
        super().__init__()
        check_network(channels, layers, kernel_size)
        self.levels, self.checkpointing = levels, checkpointing
        self.embed = nn.Conv2d(image_shape[0] + 3, channels, kernel_size, padding=kernel_size // 2)
        self.layers = nn.Sequential(*(GatedConv(channels, kernel_size) for _ in range(layers)))
        self.means = step_means(boxes, image_shape)
        self.out = nn.Linear(2 * channels, params_per_step)

    def forward(self, x: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b n k"]:
        """Encode images; see `Encoder.forward`."""
        image = with_coordinates(scale_image(x, self.levels, self.out.weight.dtype))
        h = self.embed(image.contiguous(memory_format=torch.channels_last))
        for layer in self.layers:
            h = run(layer, h, again=self.checkpointing)
        params: Tensor = self.out(with_global_mean(self.means(h)))
        return params


def backward_in_raster_order(
    network: nn.Module, image: Float[Tensor, "b c h w"]
) -> Float[Tensor, "b k h w"]:
    """Run a strictly causal network from the last pixel to the first.

    Args:
        network: Its features at pixel i depend on pixels before i.
        image: Scaled images.

    Returns:
        Features; those at pixel i depend on pixels ≥ i in raster order.
    """
    padded = F.pad(image.flip(2, 3), (0, 1))  # column c + 1 sees columns ≤ c
    features: Tensor = network(padded)
    return features[..., 1:].flip(2, 3)


def step_means(
    boxes: Boxes | None, image_shape: tuple[int, int, int]
) -> Callable[[Tensor], Tensor]:
    """Choose what averages the activated features over the part of every latent step.

    Args:
        boxes: Boxes of pixels; None: rows.
        image_shape: Channels, rows and columns (C, H, W) of the images.

    Returns:
        Features (b, c, h, w) → means (b, n, c).
    """
    return row_means if boxes is None else BoxMeans(boxes, *image_shape[1:])


def row_means(features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h c"]:
    """Average the activated features over each row."""
    return F.elu(features).mean(dim=3).transpose(1, 2)


def with_global_mean(means: Float[Tensor, "b n c"]) -> Float[Tensor, "b n two_c"]:
    """Append the mean over all steps to each."""
    return torch.cat([means, means.mean(dim=1, keepdim=True).expand_as(means)], dim=2)


def with_mean_from_here_on(means: Float[Tensor, "b n c"]) -> Float[Tensor, "b n two_c"]:
    """Append to each step the mean over the steps from it on."""
    sums = means.flip(1).cumsum(dim=1).flip(1)
    counts = torch.arange(means.shape[1], 0, -1, device=means.device)[:, None]
    return torch.cat([means, sums / counts], dim=2)
