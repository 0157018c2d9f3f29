"""Attention from every pixel to the latent steps.

Queries come from the pixels' features, keys and values from z_1..z_n; in the δ-VAE's anti-causal
setting a pixel in row r attends to z_t with t ≤ r only (Razavi et al. 2019, section 3). Keys and
values carry a learned embedding of the step t, so that a pixel can ask for the latent of its own
row.

Vaswani et al., Attention Is All You Need, NeurIPS 2017, eq. 1, https://arxiv.org/abs/1706.03762
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from deltavae.nn.precision import as_autocast


class LatentAttention(nn.Module):
    """Multi-head attention from positions to latents, added to the positions' features.

    Args:
        channels: Width of the features.
        latent_shape: Steps n and channels d of z.
        heads: Number of heads; must divide channels.

    Raises:
        ValueError: If heads does not divide channels.
    """

    def __init__(self, channels: int, latent_shape: tuple[int, int], heads: int) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise ValueError(f"heads must divide channels = {channels}, got {heads}")
        n, d = latent_shape
        self.heads = heads
        self.query = nn.Linear(channels, channels)
        self.read = nn.Linear(d, 2 * channels)
        self.steps = nn.Parameter(0.5 * torch.randn(n, 2 * channels))
        self.out = nn.Linear(channels, channels)

    def forward(
        self,
        features: Float[Tensor, "b p c"],
        z: Float[Tensor, "b n d"],
        visible: Bool[Tensor, "p n"],
    ) -> Float[Tensor, "b p c"]:
        """Return what each position reads from the latents it may see.

        Args:
            features: Features of the p positions.
            z: Latents as the decoder reads them.
            visible: True where position p may see latent step t; every position sees at least one.

        Returns:
            The attended values, projected to the width of the features.
        """
        b, p, c = features.shape
        key, value = (self.read(z) + self.steps).chunk(2, dim=-1)
        query = self.query(F.elu(as_autocast(features)))
        q, k, v = (
            t.view(b, -1, self.heads, c // self.heads).transpose(1, 2) for t in (query, key, value)
        )
        # On CPUs bfloat16 attention to a few keys takes three times as long as float32.
        with torch.autocast("cpu", enabled=False):  # of other devices it is left as it is
            if q.device.type == "cpu":
                q, k, v = (t.to(self.steps.dtype) for t in (q, k, v))
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
        read: Tensor = self.out(attended.transpose(1, 2).reshape(b, p, c))
        return read
