"""The gated two-stack PixelCNN, without masks.

A vertical stack v sees all rows above, a horizontal stack h sees the pixels to the left in the
same row and reads v. Causality comes from shifting the input once and from cropped kernels (rows
above only, columns to the left only): no multiplication is spent on a masked weight.

    v ← v + gate(conv_{⌈k/2⌉×k}(v))                  rows ≤ r of the shifted input: rows < r of x
    h ← h + W·gate(conv_{1×⌈k/2⌉}(h) + U·conv_v(v))  eq. 2: gate(a, b) = tanh(a) ⊙ σ(b)

van den Oord et al., Conditional Image Generation with PixelCNN Decoders, NeurIPS 2016, section 2.2
and figure 2, https://arxiv.org/abs/1606.05328; shifting and cropping after Salimans et al.,
PixelCNN++, ICLR 2017, section 2.1, https://arxiv.org/abs/1701.05517

Deviations:
    * v has a residual connection too, which helps deeper stacks.
    * The first layers read coordinates and a channel of ones beside the image.

Features lie in memory with their channels last, which convolutions read fastest.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from deltavae.nn.gates import gate
from deltavae.nn.images import shift_down, shift_right, with_coordinates
from deltavae.nn.precision import as_autocast


def run(module: nn.Module, *inputs: Tensor, again: bool) -> Any:
    """Call a module.

    Args:
        module: The module.
        *inputs: Its arguments.
        again: Whether the backward pass calls it again, in place of keeping what it computed.

    Returns:
        What the module returns.
    """
    if again and torch.is_grad_enabled():
        return checkpoint(module, *inputs, use_reentrant=False)
    return module(*inputs)


class GatedLayer(nn.Module):
    """One layer of both stacks.

    Args:
        channels: Width of either stack.
        kernel_size: Odd width k of the receptive field of the layer.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.reach = kernel_size // 2
        rows = self.reach + 1
        columns = (0, self.reach)  # the convolution's own margin needs no copy
        self.vertical = nn.Conv2d(channels, 2 * channels, (rows, kernel_size), padding=columns)
        self.horizontal = nn.Conv2d(channels, 2 * channels, (1, rows))
        self.link = nn.Conv2d(2 * channels, 2 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(
        self, v: Float[Tensor, "b c h w"], h: Float[Tensor, "b c h w"]
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b c h w"]]:
        """Return the two stacks one layer further."""
        p = self.reach
        above = self.vertical(F.pad(as_autocast(v), (0, 0, p, 0)))
        left = self.horizontal(F.pad(as_autocast(h), (p, 0, 0, 0)))
        return v + gate(above), h + self.out(gate(left + self.link(above)))


class GatedStack(nn.Module):
    """A strictly causal network: pixel i's features depend on the pixels before i in raster order.

    A size out of its range is a ValueError of `check_network`.

    Args:
        in_channels: Channels of the image.
        channels: Width of either stack.
        layers: Number of gated layers, at least 1.
        kernel_size: Odd kernel width, at least 3.
        checkpointing: Compute a layer again in the backward pass instead of keeping what it needs.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        layers: int,
        kernel_size: int,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        check_network(channels, layers, kernel_size)
        self.checkpointing = checkpointing
        self.reach = kernel_size // 2
        rows = self.reach + 1
        columns = (0, self.reach)
        self.embed_vertical = nn.Conv2d(
            in_channels + 3, channels, (rows, kernel_size), padding=columns
        )
        self.embed_horizontal = nn.Conv2d(in_channels + 3, channels, (1, rows))
        self.layers = nn.ModuleList(GatedLayer(channels, kernel_size) for _ in range(layers))

    def embed(
        self, x: Float[Tensor, "b c h w"]
    ) -> tuple[Float[Tensor, "b k h w"], Float[Tensor, "b k h w"]]:
        """Shift the image and start both stacks: v sees rows < r, h sees columns < c of row r."""
        p = self.reach
        x = with_coordinates(x).contiguous(memory_format=torch.channels_last)
        v = self.embed_vertical(F.pad(shift_down(x), (0, 0, p, 0)))
        h = self.embed_horizontal(F.pad(shift_right(x), (p, 0, 0, 0)))
        return v, h

    def layer(
        self, i: int, v: Float[Tensor, "b c h w"], h: Float[Tensor, "b c h w"]
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b c h w"]]:
        """Return the two stacks after layer i."""
        v, h = run(self.layers[i], v, h, again=self.checkpointing)
        return v, h

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """Return the horizontal stack's features after all layers."""
        v, h = self.embed(x)
        for i in range(len(self.layers)):
            v, h = self.layer(i, v, h)
        return h


class GatedConv(nn.Module):
    """A residual gated convolution that sees its whole neighbourhood (not causal).

    Args:
        channels: Width.
        kernel_size: Odd kernel width.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 2 * channels, kernel_size, padding=kernel_size // 2)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, h: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the features one layer further."""
        change: Tensor = self.out(gate(self.conv(h)))
        return h + change


def check_network(channels: int, layers: int, kernel_size: int) -> None:
    """Check the size arguments that all convolutional networks here share.

    Args:
        channels: Width, at least 1.
        layers: Depth, at least 1.
        kernel_size: Odd, at least 3.

    Raises:
        ValueError: If an argument is out of its range.
    """
    if channels < 1:
        raise ValueError(f"channels must be at least 1, got {channels}")
    if layers < 1:
        raise ValueError(f"layers must be at least 1, got {layers}")
    if kernel_size < 3 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd and at least 3, got {kernel_size}")
