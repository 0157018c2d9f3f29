"""One pixel after the other through a gated stack: every layer keeps what it has computed.

The vertical stack runs once per row, for all columns (`deltavae.nn.gated` has the symbols). What
it has to say to the horizontal stack is known of every layer when the row begins, and the left
neighbours' part when the pixel begins:

    row     above_i = U_i·conv_v(v_i) + biases,  v_{i+1} = v_i + gate(conv_v(v_i))
    pixel   pre_i   = above_i + Σ_t A_it h_i(column − t)         one batched product for all i
            pre_i  += A_i0 h_i,  h_{i+1} = h_i + W_i·gate(pre_i)

In memory columns come before the batch, so that a tap of a kernel meets one matrix. Constants are
folded into the weights, which are laid out once per batch:
    * 2 tanh(a) σ(b) = t_a + t_a·t_b with [t_a, t_b] = tanh [a, b/2]: one tanh for a whole gate;
    * pixels stay integers x: x̃ = 2x/(L−1) − 1 goes into the embeddings, its −1 into the weight of
      the channel of ones, which is zero outside the image, as x̃ is;
    * a column of ones beside the gate carries the bias of W_i.
Buffers are written in place; nothing is differentiated.
"""

from itertools import pairwise
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from deltavae.decoders.base import State
from deltavae.decoders.cached import Reader, bias_of, for_levels, matrix_of
from deltavae.nn import GatedStack, LatentAttention, with_coordinates
from deltavae.nn.gated import GatedLayer


@final
class Rows:
    """The last p + 1 rows of some features, and a kernel of k = 2p + 1 columns over them.

    Args:
        weight: Kernel.
        bias: Bias.
        batch: Number b of images.
        width: Number w of columns.
    """

    def __init__(
        self,
        weight: Float[Tensor, "outputs c p1 k"],
        bias: Float[Tensor, " outputs"],
        batch: int,
        width: int,
    ) -> None:
        _, c, rows, k = weight.shape
        self.bias, p = bias, rows - 1
        buffer = weight.new_zeros(width + 2 * p, batch, rows, c)
        taps = (buffer[j : j + width].view(width * batch, rows * c) for j in range(k))
        weights = weight.permute(3, 2, 1, 0).flatten(1, 2).contiguous()  # (k, (p + 1)·c, outputs)
        self.taps = list(zip(taps, weights, strict=True))
        self.rows = buffer.unbind(2)
        self.newest = self.rows[p][p:-p]  # (w, b, c), its place; zeros around it are the margin

    def convolve(self) -> Float[Tensor, "wb outputs"]:
        """Return the convolution at every column, and make room for the next row."""
        total = self.bias.expand(len(self.taps[0][0]), -1)
        for i, (tap, weight) in enumerate(self.taps):
            total = total.addmm_(tap, weight) if i else torch.addmm(total, tap, weight)
        for earlier, later in pairwise(self.rows):
            earlier.copy_(later)
        return total


@final
class GatedCache(State):
    """The state of a `GatedPixelCNN` between two pixels.

    Args:
        stack: The gated stack.
        attention: Attention to the latents, by the layer that it follows.
        head: ELU, 1 × 1 convolution, ELU, 1 × 1 convolution.
        z: Latents as the decoder reads them; None without latents.
        seen: How many latents each pixel sees.
        batch: Number b of images.
        event_shape: Channels, rows and columns (C, H, W).
        levels: Number of levels of a pixel.
    """

    def __init__(
        self,
        stack: GatedStack,
        attention: nn.ModuleDict,
        head: nn.Sequential,
        z: Float[Tensor, "b n d"] | None,
        seen: list[int],
        batch: int,
        event_shape: tuple[int, ...],
        levels: int,
    ) -> None:
        super().__init__(position=0)
        self.reach, self.seen = stack.reach, seen
        channels, _, self.width = event_shape
        layers = [layer for layer in stack.layers if isinstance(layer, GatedLayer)]
        self.readers = {
            int(i): Reader.of(module, z)
            for i, module in attention.items()
            if z is not None and isinstance(module, LatentAttention)
        }
        # The vertical stack. Its features are 2v, what comes before a gate is [a, b/2].
        weight, bias = for_levels(stack.embed_vertical, channels, levels)
        self.image = Rows(2.0 * weight, 2.0 * bias, batch, self.width)
        gate = torch.cat([bias.new_ones(len(bias)), bias.new_full((len(bias),), 0.5)])
        self.vertical = [
            Rows(
                layer.vertical.weight * (0.5 * gate[:, None, None, None]),
                bias_of(layer.vertical) * gate,
                batch,
                self.width,
            )
            for layer in layers
        ]
        self.link = [
            (
                (bias_of(layer.link) + bias_of(layer.horizontal)) * gate,
                (matrix_of(layer.link) / gate[:, None]).mul_(gate),
            )
            for layer in layers
        ]
        # The horizontal stack and the head.
        weight, self.embed_bias = for_levels(stack.embed_horizontal, channels, levels)
        self.embed = weight[:, :, 0].permute(2, 1, 0).flatten(0, 1)  # ((p + 1)·k, c)
        taps = torch.stack([a.horizontal.weight[:, :, 0] * gate[:, None, None] for a in layers])
        *self.left, own = taps.permute(3, 0, 2, 1).contiguous()  # p + 1 times (L, c, 2c)
        out = [torch.cat([0.5 * matrix_of(a.out), bias_of(a.out)[None]]) for a in layers]
        self.weights = list(zip(own, out, strict=True))
        self.head = [(bias_of(head[i]), matrix_of(head[i])) for i in (1, 3)]
        self._allocate(batch, event_shape, len(layers), len(bias))

    def _allocate(self, batch: int, event_shape: tuple[int, ...], depth: int, c: int) -> None:
        # Buffers, and the views of them that pixels need.
        p, w, new = self.reach, self.width, self.embed.new_zeros
        image = with_coordinates(new(1, *event_shape))[0]
        self.blank = image.permute(1, 2, 0)  # (H, w, k): every row before its pixels are known
        k = len(image)
        line = new(batch, p + 1 + w, k)  # the current row with its left margin
        self.line = line[:, p + 1 :]
        self.pixels = self.line[:, :, : event_shape[0]].unbind(1)
        self.windows = line.flatten(1).unfold(1, (p + 1) * k, k).unbind(1)
        above = new(depth, w, batch, 2 * c)
        self.above_rows, self.above = above.flatten(1, 2).unbind(0), above.unbind(1)
        self.recent = new(p + 1, depth, batch, c)  # h of this and the last p columns, in a ring
        last = new(batch, c)  # h after all layers
        self.h = [[*column.unbind(0), last] for column in self.recent]
        self.pre = new(depth, batch, 2 * c)
        self.pre_of = [(pre, *pre.chunk(2, dim=1)) for pre in self.pre]
        self.gated = new(batch, c + 1).fill_(1.0)
        self.gate = self.gated[:, :c]

    def step(self, previous: UInt8[Tensor, "b c"] | None) -> Float[Tensor, "b k"]:
        """Predict the next pixel; see `Decoder.step`."""
        row, column = divmod(self.position, self.width)
        if previous is not None:
            self.pixels[column - 1].copy_(previous)
        if column == 0:
            self._begin_row(row)
        params = self._pixel(column)
        self.position += 1
        return params

    def _begin_row(self, row: int) -> None:
        # The vertical stack for one row: rows < row of the image, every column.
        if row > 0:
            self.image.newest.copy_(self.line.transpose(0, 1))
        self.line.copy_(self.blank[row])
        self.recent.zero_()
        v = self.image.convolve()  # (w·b, c)
        for rows, (bias, link), above in zip(
            self.vertical, self.link, self.above_rows, strict=True
        ):
            rows.newest.copy_(v.view(rows.newest.shape))
            pre = rows.convolve()  # (w·b, 2c)
            torch.addmm(bias, pre, link, out=above)
            a, b = pre.tanh_().chunk(2, dim=1)
            v = v.add_(a).addcmul_(a, b)

    def _pixel(self, column: int) -> Float[Tensor, "b k"]:
        # The horizontal stack for one pixel: the pixels to its left, and what comes from above.
        p, pre = self.reach, self.above[column]
        for t in range(p, 0, -1):
            left = self.recent[(column - t) % (p + 1)]
            pre = torch.baddbmm(pre, left, self.left[p - t], out=self.pre)
        h = self.h[column % (p + 1)]
        torch.addmm(self.embed_bias, self.windows[column], self.embed, out=h[0])
        for i, (own, out) in enumerate(self.weights):
            pre, a, b = self.pre_of[i]
            pre.addmm_(h[i], own).tanh_()
            torch.addcmul(a, a, b, out=self.gate)
            torch.addmm(h[i], self.gated, out, out=h[i + 1])
            if i in self.readers:
                self.readers[i].add_to(h[i + 1], self.seen[self.position])
        params: Tensor = h[-1]
        for bias, weight in self.head:
            params = torch.addmm(bias, F.elu(params), weight)
        return params
