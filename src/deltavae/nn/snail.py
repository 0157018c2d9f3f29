"""The PixelSNAIL network: residual gated causal convolutions and attention over earlier pixels.

One stream h, strictly causal: its features at pixel i depend on x_<i only.

    h ← conv_above(x one row up) + conv_left(x one column left)
    layer:      h ← h + a ⊙ σ(b),  [a, b] = conv(φ(conv(φ(h)))),  φ(h) = ELU([h, −h])
    attention:  r_i = Σ_{j<i} softmax_j(q_i·k_j/√m) v_j,  q from h_i, k and v from (x_j, h_j)
                h ← h + a ⊙ σ(b),  [a, b] = W φ(h) + U ELU(r)

Kernels are k × k, cropped to the rows above and the columns to the left, their own pixel included.
Attention is strictly causal in one call: queries 1.. against keys ..P−2 with a causal mask, and a
row of zeros for pixel 0, which has nothing to look at.

Chen et al., PixelSNAIL: An Improved Autoregressive Generative Model, ICML 2018, section 3,
https://arxiv.org/abs/1712.09763; φ and the gated layer: Salimans et al., PixelCNN++, ICLR 2017,
https://arxiv.org/abs/1701.05517

Deviations:
    * q, k and v are linear in h, x and the coordinates; the source puts 1×1 residual layers first.
    * No weight normalisation.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from deltavae.nn.gated import run
from deltavae.nn.gates import glu
from deltavae.nn.images import as_image, pixels, shift_down, shift_right, with_coordinates
from deltavae.nn.precision import as_autocast


def concat_elu(x: Float[Tensor, "b c ..."]) -> Float[Tensor, "b two_c ..."]:
    """φ(x) = ELU([x, −x]): twice the channels, so that both signs pass a gradient."""
    return F.elu(torch.cat([x, -x], dim=1))


class ResidualLayer(nn.Module):
    """Two convolutions and a gate around a residual connection.

    Args:
        channels: Width.
        kernel_size: Width k of the cropped kernel; not causal: 2k − 1, the whole neighbourhood.
        dropout: Share of features dropped between the convolutions while training.
        causal: Whether a pixel sees only rows above and columns to the left, and itself.
    """

    def __init__(self, channels: int, kernel_size: int, dropout: float, causal: bool) -> None:
        super().__init__()
        reach = kernel_size - 1
        width = kernel_size if causal else 2 * reach + 1
        self.padding = (reach, 0, reach, 0) if causal else (reach, reach, reach, reach)
        self.first = nn.Conv2d(2 * channels, channels, width)
        self.second = nn.Conv2d(2 * channels, 2 * channels, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the features one layer further."""
        padded = F.pad(as_autocast(h), self.padding)  # ELU(0) = 0: padding comes first
        u = self.first(concat_elu(padded))
        u = self.second(self.dropout(concat_elu(F.pad(u, self.padding))))
        return h + glu(u)


class PixelAttention(nn.Module):
    """Attention from every pixel to all earlier pixels, merged through a gate.

    Args:
        image_channels: Channels of the image with its coordinates.
        channels: Width of the features, even; queries, keys and values have half of it.
        heads: Number of heads; must divide half of channels.
        causal: Whether a pixel attends to earlier pixels only, or to all.

    Raises:
        ValueError: If channels is odd, or heads does not divide half of it.
    """

    def __init__(self, image_channels: int, channels: int, heads: int, causal: bool) -> None:
        super().__init__()
        inner = channels // 2
        if channels % 2:
            raise ValueError(f"channels must be even where there is attention, got {channels}")
        if heads < 1 or inner % heads:
            raise ValueError(f"heads must divide half of channels = {channels}, got {heads}")
        self.heads, self.causal = heads, causal
        self.features = nn.Linear(channels, 3 * inner)  # q, k, v from h
        self.image = nn.Linear(image_channels, 2 * inner, bias=False)  # k, v from x
        self.place = nn.Linear(3, inner, bias=False)  # q from the coordinates
        self.gate = nn.Linear(2 * channels, 2 * channels)
        self.read = nn.Linear(inner, 2 * channels, bias=False)

    def forward(
        self, h: Float[Tensor, "b c h w"], image: Float[Tensor, "b k h w"]
    ) -> Float[Tensor, "b c h w"]:
        """Return the features after what each pixel reads.

        Args:
            h: Features.
            image: The image with its coordinates, not shifted.

        Returns:
            Features of the same shape.
        """
        x, seen = pixels(image), as_autocast(h)
        q, k, v = self.features(F.elu(pixels(seen))).chunk(3, dim=2)
        k, v = torch.cat([k, v], dim=2).add(self.image(x)).chunk(2, dim=2)
        q = q + self.place(x[:, :, -3:])
        read = self._attend(*(t.unflatten(2, (self.heads, -1)).transpose(1, 2) for t in (q, k, v)))
        return h + glu(as_image(self.gate(pixels(concat_elu(seen))) + self.read(F.elu(read)), h))

    def _attend(
        self, q: Float[Tensor, "b m p e"], k: Float[Tensor, "b m p e"], v: Float[Tensor, "b m p e"]
    ) -> Float[Tensor, "b p c"]:
        # On CPUs attention with narrow heads is faster in float32 than in bfloat16.
        wide = torch.promote_types(q.dtype, torch.float32) if q.device.type == "cpu" else q.dtype
        q, k, v = (t.to(wide) for t in (q, k, v))
        with torch.autocast("cpu", enabled=False):  # of other devices it is left as it is
            if self.causal:
                later = F.scaled_dot_product_attention(
                    q[:, :, 1:], k[:, :, :-1], v[:, :, :-1], is_causal=True
                )
                read = F.pad(later, (0, 0, 1, 0))
            else:
                read = F.scaled_dot_product_attention(q, k, v)
        return read.transpose(1, 2).flatten(2)


class SnailStack(nn.Module):
    """Residual layers with attention interleaved at equal distances.

    A size out of its range is a ValueError.

    Args:
        in_channels: Channels of the image.
        channels: Width.
        layers: Number of residual layers, at least 1.
        attention_layers: Number of attention layers, at most one after each residual layer.
        kernel_size: Width k of the cropped kernels, at least 2.
        heads: Attention heads.
        dropout: Share of features dropped while training, in [0, 1).
        causal: Strictly causal (pixel i's features depend on x_<i), or none of it.
        checkpointing: Compute a layer again in the backward pass instead of keeping what it needs.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        layers: int,
        attention_layers: int,
        kernel_size: int = 2,
        heads: int = 2,
        dropout: float = 0.0,
        causal: bool = True,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        _check(channels, layers, attention_layers, kernel_size, dropout)
        self.causal, self.checkpointing, self.reach = causal, checkpointing, kernel_size - 1
        k, p, inputs = kernel_size, kernel_size - 1, in_channels + 3
        if causal:
            self.embed_above = nn.Conv2d(inputs, channels, (p, 2 * p + 1))
            self.embed_left = nn.Conv2d(inputs, channels, (k, p))
        else:
            self.embed_around = nn.Conv2d(inputs, channels, 2 * p + 1, padding=p)
        self.layers = nn.ModuleList(
            ResidualLayer(channels, kernel_size, dropout, causal) for _ in range(layers)
        )
        after = [(j + 1) * layers // attention_layers - 1 for j in range(attention_layers)]
        self.attention = nn.ModuleDict(
            {str(i): PixelAttention(inputs, channels, heads, causal) for i in after}
        )

    def embed(self, image: Float[Tensor, "b k h w"]) -> Float[Tensor, "b c h w"]:
        """Start the stream from the image with its coordinates."""
        if not self.causal:
            start: Tensor = self.embed_around(image)
            return start
        p = self.reach
        above: Tensor = self.embed_above(F.pad(shift_down(image), (p, p, p - 1, 0)))
        left: Tensor = self.embed_left(F.pad(shift_right(image), (p - 1, 0, p, 0)))
        return left + above

    def layer(
        self, i: int, h: Float[Tensor, "b c h w"], image: Float[Tensor, "b k h w"]
    ) -> Float[Tensor, "b c h w"]:
        """Return the features after residual layer i and the attention that follows it, if any."""
        h = run(self.layers[i], h, again=self.checkpointing)
        if str(i) in self.attention:
            h = run(self.attention[str(i)], h, image, again=self.checkpointing)
        return h

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
        """Return the features after all layers."""
        image = with_coordinates(x).contiguous(memory_format=torch.channels_last)
        h = self.embed(image)
        for i in range(len(self.layers)):
            h = self.layer(i, h, image)
        return h


def _check(
    channels: int, layers: int, attention_layers: int, kernel_size: int, dropout: float
) -> None:
    if channels < 1:
        raise ValueError(f"channels must be at least 1, got {channels}")
    if layers < 1:
        raise ValueError(f"layers must be at least 1, got {layers}")
    if not 0 <= attention_layers <= layers:
        raise ValueError(f"attention_layers must be in 0..{layers}, got {attention_layers}")
    if kernel_size < 2:
        raise ValueError(f"kernel_size must be at least 2, got {kernel_size}")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout must lie in [0, 1), got {dropout}")
