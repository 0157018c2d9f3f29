"""What cached decoders share: weights laid out for single pixels, attention to the latents."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from deltavae.nn import LatentAttention


@dataclass(frozen=True, eq=False)
class Reader:
    """Attention to the latents, with the keys and values of a batch computed once.

    Attributes:
        query: Query weights.
        query_bias: Query bias.
        seen: Keys and values, (b, m, t, e) for m heads of width e, for all that is to be seen of
            the latents: the first t steps, t in 0..n.
        out: Output weights.
        out_bias: Output bias.
    """

    query: Float[Tensor, "c c"]
    query_bias: Float[Tensor, " c"]
    seen: tuple[tuple[Tensor, Tensor], ...]
    out: Float[Tensor, "c c"]
    out_bias: Float[Tensor, " c"]

    @classmethod
    def of(cls, attention: LatentAttention, z: Float[Tensor, "b n d"]) -> "Reader":
        """Compute the keys and values of latents."""
        keys, values = (
            t.unflatten(2, (attention.heads, -1)).transpose(1, 2)  # (b, m, n, e)
            for t in (attention.read(z) + attention.steps).chunk(2, dim=2)
        )
        return cls(
            matrix_of(attention.query),
            bias_of(attention.query),
            tuple((keys[:, :, :t], values[:, :, :t]) for t in range(z.shape[1] + 1)),
            matrix_of(attention.out),
            bias_of(attention.out),
        )

    def add_to(self, h: Float[Tensor, "b c"], seen: int) -> None:
        """Add to h what it reads from the first latents, `seen` many."""
        keys, values = self.seen[seen]
        query = torch.addmm(self.query_bias, F.elu(h), self.query)
        query = query.view(len(h), keys.shape[1], 1, -1)
        read = F.scaled_dot_product_attention(query, keys, values)
        h.addmm_(read.view(h.shape), self.out).add_(self.out_bias)


def matrix_of(module: nn.Module) -> Float[Tensor, "inputs outputs"]:
    """Return the weights of a linear map or a 1 × 1 convolution, to be multiplied from the right.

    Args:
        module: nn.Linear or nn.Conv2d.

    Returns:
        A new matrix.
    """
    assert isinstance(module, nn.Linear | nn.Conv2d)
    return module.weight.detach().flatten(1).t().contiguous()


def bias_of(module: nn.Module) -> Float[Tensor, " outputs"]:
    """Return the bias of a linear map or a convolution."""
    assert isinstance(module, nn.Linear | nn.Conv2d)
    assert module.bias is not None
    return module.bias.detach()


def for_levels(
    embed: nn.Conv2d, channels: int, levels: int
) -> tuple[Float[Tensor, "outputs c p1 k"], Float[Tensor, " outputs"]]:
    """Return an embedding's weights for pixels x in place of x̃ = 2x/(L−1) − 1.

    The −1 goes into the weight of the channel of ones, which is zero outside the image as x̃ is.

    Args:
        embed: A convolution of the image with its coordinates.
        channels: Channels of the image, which come before the channel of ones.
        levels: Number of levels L.

    Returns:
        New weights.
    """
    weight = embed.weight.detach().clone()
    weight[:, channels] -= weight[:, :channels].sum(1)
    weight[:, :channels] *= 2.0 / (levels - 1)
    return weight, bias_of(embed)
