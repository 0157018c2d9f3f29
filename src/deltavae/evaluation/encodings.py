"""Posteriors of many examples, batch by batch."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from deltavae.latents import Posterior
from deltavae.model import DeltaVAE


@contextmanager
def evaluating(model: DeltaVAE) -> Iterator[torch.device]:
    """Switch to evaluation mode without gradients; afterwards the model is as it was.

    Args:
        model: The model.

    Yields:
        The model's device.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield model.decoder.visible.device
    finally:
        model.train(was_training)


def batches(count: int, batch_size: int) -> Iterator[slice]:
    """Cut 0..count−1 into consecutive slices.

    Args:
        count: Number of examples.
        batch_size: Examples per slice, at least 1; the last slice may reach beyond the end.

    Yields:
        One slice after the other.

    Raises:
        ValueError: If batch_size is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    for start in range(0, count, batch_size):
        yield slice(start, start + batch_size)


def encode_images(
    model: DeltaVAE, images: UInt8[np.ndarray, "m ..."], batch_size: int = 256
) -> Posterior:
    """Encode a data set; a model without latents is a ValueError.

    Args:
        model: A model with latents.
        images: Events of any shape, integer levels.
        batch_size: Events per forward pass, at least 1.

    Returns:
        The posterior of every event, on the CPU, in the precision of the model.
    """
    parts = []
    with evaluating(model) as device:
        for batch in batches(len(images), batch_size):
            q = model.encode(torch.from_numpy(images[batch]).to(device))
            parts.append(q.map(torch.Tensor.cpu))
    return type(q).cat(parts)


def draw_latents(q: Posterior, generator: torch.Generator) -> Float[Tensor, "m n d"]:
    """Draw z ~ q(z|x) for every example at once: the draws do not depend on a batch size.

    Args:
        q: Posteriors on the CPU.
        generator: Source of the draws, on the CPU.

    Returns:
        One z per example, in the precision of q.
    """
    return q.sample(torch.randn(q.mu.shape, generator=generator, dtype=q.mu.dtype))
