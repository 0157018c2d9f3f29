"""Nats, bits and bits per dimension: the only module that divides by ln 2.

Every loss and rate inside deltavae is in nats per example. One bit is ln 2 nats. A rate of ``x``
nats for ``dims`` dimensions is ``x / (dims ln 2)`` bits per dimension (bits/dim, bpd).
"""

import math
from typing import TypeVar

from torch import Tensor

Value = TypeVar("Value", float, Tensor)

LN2 = math.log(2.0)


def nats_to_bits(nats: Value) -> Value:
    """Convert nats to bits.

    >>> round(nats_to_bits(1.0), 4)
    1.4427
    """
    return nats / LN2


def bits_to_nats(bits: Value) -> Value:
    """Convert bits to nats.

    >>> round(bits_to_nats(1.0), 4)
    0.6931
    """
    return bits * LN2


def both_units(nats: float) -> str:
    """Tell a rate to people, who may have asked for it in either unit.

    >>> both_units(math.log(16))
    '2.77259 nats = 4 bits'

    Args:
        nats: Nats.

    Returns:
        Nats and bits, six digits of each.
    """
    return f"{nats:.6g} nats = {nats_to_bits(nats):.6g} bits"


def nats_to_bpd(nats: Value, dims: int) -> Value:
    """Convert nats per example to bits per dimension.

    Args:
        nats: Nats per example.
        dims: Dimensions of one example, at least 1.

    Returns:
        Bits per dimension.

    Raises:
        ValueError: If dims is below 1.
    """
    if dims < 1:
        raise ValueError(f"dims must be at least 1, got {dims}")
    return nats_to_bits(nats) / dims
