"""Autoregressive decoders: p(x|z) = Π_i p(x_i | x_<i, the latents that position i may see)."""

from deltavae.decoders.base import Decoder, State
from deltavae.decoders.gated_pixelcnn import GatedPixelCNN

__all__ = ["Decoder", "GatedPixelCNN", "State"]
