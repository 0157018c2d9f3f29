"""The running moments of a BN-VAE for other weights than those that training left them with.

Training follows the raw means of the raw weights; the weights that are measured and kept are their
average, whose raw means have other moments. So these are taken anew, from training images.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import UInt8

from deltavae.data import Dataset
from deltavae.evaluation.encodings import batches, evaluating
from deltavae.latents import BatchNorm
from deltavae.model import DeltaVAE


def refit_moments(
    model: DeltaVAE, data: Dataset, *, examples: int = 20_000, batch_size: int = 256
) -> None:
    """Set a BN-VAE's running moments to those of its present weights; other models have none.

    Args:
        model: The model, changed in place where its latents are a `BatchNorm`.
        data: The data set whose training images are encoded.
        examples: Number of training images at most, the first ones.
        batch_size: Images per forward pass, at least 1.
    """
    _take_moments(model, data.train.images[:examples], batch_size)


@contextmanager
def moments_of(model: DeltaVAE, images: UInt8[np.ndarray, "m ..."]) -> Iterator[None]:
    """Let a BN-VAE hold the moments of its present weights for a while; others stay as they are.

    Args:
        model: The model.
        images: Images that the moments are taken from.

    Yields:
        Nothing; afterwards the running moments are those from before, bit for bit.
    """
    latents = model.latents
    if not isinstance(latents, BatchNorm):
        yield
        return
    held = latents.running_mean.clone(), latents.running_variance.clone()
    _take_moments(model, images)
    try:
        yield
    finally:
        latents.running_mean.copy_(held[0])
        latents.running_variance.copy_(held[1])


def _take_moments(
    model: DeltaVAE, images: UInt8[np.ndarray, "m ..."], batch_size: int = 256
) -> None:
    latents, encoder = model.latents, model.encoder
    if not isinstance(latents, BatchNorm) or encoder is None:
        return
    with evaluating(model) as device:
        parts = [
            encoder(torch.from_numpy(images[batch]).to(device))
            for batch in batches(len(images), batch_size)
        ]
        latents.set_moments(torch.cat(parts))
