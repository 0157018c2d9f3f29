"""What stays in float32 where the rest of a network is in half precision."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


def exactly(function: Callable[[Tensor], Result], x: Tensor, weight: Tensor) -> Result:
    """Call a function in the precision of the weights, autocast or not.

    For a decoder's ends: the layer that reads the image, whose levels bfloat16 rounds by up to a
    quarter of the distance between two of 256, and the one that writes the likelihood's
    parameters, means on the same scale. Residual layers add to what the first returns, in its
    precision. (What attention reads of an image is rounded; it finds pixels, it does not copy.)

    Args:
        function: A layer, or several.
        x: What it is called with.
        weight: One of its weights.

    Returns:
        What the function returns.
    """
    device = x.device.type
    if not torch.amp.is_autocast_available(device):
        return function(x)
    with torch.autocast(device, enabled=False):
        return function(x.to(weight.dtype))


def as_autocast(x: Tensor) -> Tensor:
    """Round what a layer reads of features that add up in float32, before it works on them.

    Args:
        x: Features.

    Returns:
        Under autocast the features in its type, else, and in float64, as they are.
    """
    device = x.device.type
    if x.dtype == torch.float64:  # autocast leaves it alone
        return x
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return x.to(torch.get_autocast_dtype(device))
    return x
