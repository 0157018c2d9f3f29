"""Encoders: x → raw parameters of q(z|x), one set per latent step."""

from deltavae.encoders.base import Encoder
from deltavae.encoders.image import AntiCausalEncoder, NonCausalEncoder
from deltavae.encoders.pixelsnail import AntiCausalPixelSNAIL, NonCausalPixelSNAIL

__all__ = [
    "AntiCausalEncoder",
    "AntiCausalPixelSNAIL",
    "Encoder",
    "NonCausalEncoder",
    "NonCausalPixelSNAIL",
]
