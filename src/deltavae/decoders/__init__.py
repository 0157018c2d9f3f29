"""Autoregressive decoders: p(x|z) = Π_i p(x_i | x_<i, the latents that position i may see)."""

from deltavae.decoders.base import Decoder, State
from deltavae.decoders.gated_pixelcnn import GatedPixelCNN
from deltavae.decoders.image import ImageDecoder
from deltavae.decoders.pixelsnail import PixelSNAIL

__all__ = ["Decoder", "GatedPixelCNN", "ImageDecoder", "PixelSNAIL", "State"]
