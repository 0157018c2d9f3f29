"""Layers that encoders and decoders share."""

from deltavae.nn.attention import LatentAttention
from deltavae.nn.gated import GatedConv, GatedStack
from deltavae.nn.images import scale_image, shift_down, shift_right, with_coordinates

__all__ = [
    "GatedConv",
    "GatedStack",
    "LatentAttention",
    "scale_image",
    "shift_down",
    "shift_right",
    "with_coordinates",
]
