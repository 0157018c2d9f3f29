"""Encoders: x → raw parameters of q(z|x), one set per latent step."""

from deltavae.encoders.base import Encoder
from deltavae.encoders.image import AntiCausalEncoder, NonCausalEncoder

__all__ = ["AntiCausalEncoder", "Encoder", "NonCausalEncoder"]
