"""What the optimisations are measured against: full masked kernels, attention written out.

The masked stack has the parameters of a cropped one; where the mask is one both compute the same
numbers, as a test shows. A masked weight is multiplied all the same: a k × k kernel of the
vertical stack has ⌈k/2⌉/k useful weights, a 1 × k kernel of the horizontal stack as many.

van den Oord et al., Pixel Recurrent Neural Networks, ICML 2016, section 3.4 (masks),
https://arxiv.org/abs/1601.06759; Vaswani et al., Attention Is All You Need, NeurIPS 2017, eq. 1,
https://arxiv.org/abs/1706.03762
"""

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deltavae.nn import GatedStack, shift_down, shift_right, with_coordinates


class MaskedConv(nn.Module):
    """A convolution whose kernel is centred on its pixel, and multiplied by a mask of 0 and 1.

    Args:
        cropped: The same without the masked rows below and columns to the right.
        kernel_size: Odd width k of the full kernel.
    """

    mask: Tensor

    def __init__(self, cropped: nn.Conv2d, kernel_size: int) -> None:
        super().__init__()
        rows, columns = cropped.weight.shape[2:]
        height = 1 if rows == 1 else kernel_size
        full = cropped.weight.new_zeros(*cropped.weight.shape[:2], height, kernel_size)
        full[:, :, :rows, :columns] = cropped.weight.detach()
        mask = torch.zeros_like(full)
        mask[:, :, :rows, :columns] = 1.0
        self.weight = nn.Parameter(full)
        self.bias = nn.Parameter(cropped.bias.detach().clone())
        self.register_buffer("mask", mask)
        self.padding = (height // 2, kernel_size // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=self.padding)


class MaskedGatedLayer(nn.Module):
    """A gated layer with full masked kernels.

    Args:
        layer: The layer with cropped kernels.
        kernel_size: Odd width k of the full kernels.
    """

    def __init__(self, layer: nn.Module, kernel_size: int) -> None:
        super().__init__()
        self.vertical = MaskedConv(layer.vertical, kernel_size)
        self.horizontal = MaskedConv(layer.horizontal, kernel_size)
        self.link = copy.deepcopy(layer.link)
        self.out = copy.deepcopy(layer.out)

    def forward(self, v: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Return the two stacks one layer further."""
        above = self.vertical(v)
        change = self.out(_gate(self.horizontal(h) + self.link(above)))
        return v + _gate(above), h + change


class MaskedGatedStack(nn.Module):
    """The gated PixelCNN's two stacks with full masked kernels.

    Args:
        stack: The stack with cropped kernels.
    """

    def __init__(self, stack: GatedStack) -> None:
        super().__init__()
        kernel_size = 2 * stack.reach + 1
        self.embed_vertical = MaskedConv(stack.embed_vertical, kernel_size)
        self.embed_horizontal = MaskedConv(stack.embed_horizontal, kernel_size)
        self.layers = nn.ModuleList(MaskedGatedLayer(layer, kernel_size) for layer in stack.layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return the horizontal stack's features after all layers."""
        x = with_coordinates(x)
        v, h = self.embed_vertical(shift_down(x)), self.embed_horizontal(shift_right(x))
        for layer in self.layers:
            v, h = layer(v, h)
        return h


def _gate(x: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=1)
    return torch.tanh(a) * torch.sigmoid(b)


def naive_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
) -> Tensor:
    """Attend by the book: all scores, a mask, a softmax, a weighted sum.

    Args:
        query: Queries (…, p, e).
        key: Keys (…, m, e).
        value: Values (…, m, f).
        attn_mask: True where a query may see a key; None: everywhere.
        dropout_p: Share of weights dropped.
        is_causal: Query i sees keys ≤ i only.

    Returns:
        What `torch.nn.functional.scaled_dot_product_attention` returns.
    """
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -math.inf)
    return F.dropout(scores.softmax(-1), dropout_p) @ value
