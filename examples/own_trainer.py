"""A δ-VAE of your own parts: your arrays, your decoder, your Lightning Trainer.

`python examples/own_trainer.py` trains on scikit-learn's digits for some seconds and prints the
bound. `deltavae.training.train` also averages the weights, writes checkpoints and resumes.
"""

import lightning.pytorch as pl
import numpy as np
import torch
from rich.console import Console
from sklearn.datasets import load_digits
from torch import Tensor, nn

from deltavae import AR1, DeltaVAE
from deltavae.data import Dataset, Split
from deltavae.decoders import Decoder
from deltavae.encoders import AntiCausalEncoder
from deltavae.evaluation import evaluate
from deltavae.likelihoods import Categorical
from deltavae.training import DeltaVAEDataModule, DeltaVAEModule

STEPS, LEVELS = 120, 17  # optimiser steps; pixels hold 0 to 16
# Your data: uint8 images of shape (N, C, H, W), as two splits. Labels are optional.
images = load_digits().images.astype(np.uint8)[:, None]  # (1797, 1, 8, 8)
data = Dataset("digits", train=Split(images[:-300]), test=Split(images[-300:]), levels=LEVELS)


class RowDecoder(Decoder):
    """Given z_r and the row above, the pixels of row r are independent: z has much to say."""

    def __init__(self, pixel: Categorical, d: int) -> None:
        # 64 positions, the pixels in raster order; row r, which begins at 8r, may read z_0 to z_r.
        super().__init__((1, 8, 8), 64, pixel, (8, d), visible_from=tuple(range(0, 64, 8)))
        self.net = nn.Sequential(nn.Linear(8 + d, 128), nn.ELU(), nn.Linear(128, 8 * LEVELS))

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Return the logits of all 64 pixels: a pixel may depend on earlier ones only."""
        above = nn.functional.pad(x / (LEVELS - 1), (0, 0, 1, -1))  # row r holds row r - 1 of x
        return self.net(torch.cat([above.squeeze(1), z], dim=2)).reshape(len(x), 64, -1)

    def to_sequence(self, x: Tensor) -> Tensor:
        """Lay the pixels out in raster order: (b, 1, 8, 8) to (b, 64, 1)."""
        return x.flatten(2).transpose(1, 2)

    def from_sequence(self, sequence: Tensor) -> Tensor:
        """Undo `to_sequence`."""
        return sequence.reshape(-1, 1, 8, 8)


torch.manual_seed(0)  # for the weights: the library itself never seeds
latents = AR1.from_rate(7.0, n=8, d=4)  # a latent step per row; never less than 7 nats of rate
encoder = AntiCausalEncoder((1, 8, 8), LEVELS, latents.params_per_step, layers=1)
model = DeltaVAE(RowDecoder(Categorical(channels=1, levels=LEVELS), d=4), encoder, latents)

# Your Trainer: one epoch is the whole training, since batches are a function of (seed, step).
trainer = pl.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False)
module = DeltaVAEModule(model, steps=STEPS, learning_rate=1e-2)
trainer.fit(module, datamodule=DeltaVAEDataModule(data, steps=STEPS, batch_size=64))
bits = "{elbo_bpd:.3f} bits/dim at most, rate {rate_bits:.2f} bits, δ {committed_rate_bits:.2f}"
Console().print(bits.format(**evaluate(model, data)))
