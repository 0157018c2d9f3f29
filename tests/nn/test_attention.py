"""Attention to the latents: what it keeps of the format of its input."""

import torch

from deltavae.nn import LatentAttention


def test_outside_autocast_no_device_changes_the_format():
    with torch.device("meta"):  # neither a CPU nor a device that has autocast
        attention = LatentAttention(8, (4, 2), heads=2)
        features, z = torch.randn(3, 20, 8), torch.randn(3, 4, 2)
        read = attention(features, z, torch.ones(20, 4, dtype=torch.bool))
    assert read.dtype == torch.float32
    assert read.shape == (3, 20, 8)
