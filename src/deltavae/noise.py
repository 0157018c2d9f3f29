"""Standard normal noise and fair coins as pure functions of (seed, step, example index).

A counter-based generator: the counter (seed, step, index, coordinate) is mixed by the SplitMix64
finaliser into 64 bits: two 32-bit uniforms, which Box-Muller turns into one normal, or, at the
coordinate −1, which no normal has, one coin. What an example draws does not depend on the batch,
the process or the device it is drawn in, so that an interrupted and a two-process training repeat
the uninterrupted one. Everything stays on the device of ``index``: no host-device wait.

Steele, Lea & Flood, Fast Splittable Pseudorandom Number Generators, OOPSLA 2014,
https://doi.org/10.1145/2660193.2660195
"""

import math

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

# Odd 64-bit constants of SplitMix64, as the signed integers that torch multiplies modulo 2^64.
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)


def _shift_right(x: Int64[Tensor, "..."], bits: int) -> Int64[Tensor, "..."]:
    # torch shifts signed integers arithmetically; the mask makes the shift logical.
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Int64[Tensor, "..."]) -> Int64[Tensor, "..."]:
    x = x + _GOLDEN
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


def _counter(seed: int, step: int, index: Int64[Tensor, " b"]) -> Int64[Tensor, " b"]:
    key = _mix(torch.tensor([seed, step], dtype=torch.int64))  # on the CPU; added as a number
    return _mix(_mix(index + key[0]) + key[1])


def counter_normal(
    seed: int, step: int, index: Int64[Tensor, " b"], shape: tuple[int, ...]
) -> Float[Tensor, "b ..."]:
    """Draw standard normal noise that depends on nothing but its arguments.

    Args:
        seed: Seed of the run.
        step: Optimiser step.
        index: Position of each example in its data set.
        shape: Shape of one example's noise.

    Returns:
        Noise of shape (b, *shape), float32, on the device of ``index``.
    """
    size = math.prod(shape)
    coordinate = torch.arange(size, device=index.device, dtype=torch.int64)
    bits = _mix(_counter(seed, step, index)[:, None] + _mix(coordinate)[None])  # (b, size)
    u = (_shift_right(bits, 32).double() + 0.5) * 2.0**-32  # in (0, 1)
    v = (bits & 0xFFFFFFFF).double() * 2.0**-32  # in [0, 1)
    normal = torch.sqrt(-2.0 * torch.log(u)) * torch.cos(2.0 * math.pi * v)  # Box-Muller
    return normal.float().reshape(index.shape[0], *shape)


def counter_coin(seed: int, step: int, index: Int64[Tensor, " b"]) -> Bool[Tensor, " b"]:
    """Toss one fair coin per example, independent of its `counter_normal`.

    Args:
        seed: Seed of the run.
        step: Optimiser step.
        index: Position of each example in its data set.

    Returns:
        True or False with probability ½ each, on the device of ``index``.
    """
    coordinate = torch.tensor(-1, dtype=torch.int64)
    return _mix(_counter(seed, step, index) + _mix(coordinate)) < 0  # the highest bit
