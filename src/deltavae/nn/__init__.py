"""Layers that encoders and decoders share."""

from deltavae.nn.attention import LatentAttention
from deltavae.nn.boxes import BoxMeans
from deltavae.nn.gated import GatedConv, GatedStack
from deltavae.nn.images import (
    as_image,
    pixels,
    scale_image,
    shift_down,
    shift_right,
    with_coordinates,
)
from deltavae.nn.snail import SnailStack

__all__ = [
    "BoxMeans",
    "GatedConv",
    "GatedStack",
    "LatentAttention",
    "SnailStack",
    "as_image",
    "pixels",
    "scale_image",
    "shift_down",
    "shift_right",
    "with_coordinates",
]
