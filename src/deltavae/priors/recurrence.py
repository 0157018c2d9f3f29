"""Linear recurrences by odd–even reduction: O(n) work in O(log n) calls, instead of n.

    s_t = A_t s_{t−1} + u_t,   t = 0..n−1,   s_{−1} = 0.                                   (1)

Two steps at a time are a recurrence of half the length over the odd ones, from which the even ones
follow:

    s_{2j+1} = A_{2j+1} A_{2j} s_{2j−1} + (A_{2j+1} u_{2j} + u_{2j+1}),                    (2)
    s_{2j} = A_{2j} s_{2j−1} + u_{2j}.                                                     (3)

The A_t are constants that settle: A_t = A_{k−1} for t ≥ k. So do those of (2), after k//2 + 1
steps: the products take O(k + log n) memory.

Ladner & Fischer, Parallel Prefix Computation, Journal of the ACM 27(4), 1980,
https://doi.org/10.1145/322217.322232
"""

from typing import final

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from deltavae.priors.base import Constant


def _times(
    matrices: Float64[Tensor, "k m m"], u: Float64[Tensor, "*shape t m"]
) -> Float64[Tensor, "*shape t m"]:
    """Multiply step t by matrix t, every step from k − 1 on by the last one."""
    settled = len(matrices) - 1
    head = torch.einsum("tij,...tj->...ti", matrices[: u.shape[-2]][:settled], u[..., :settled, :])
    return torch.cat([head, u[..., settled:, :] @ matrices[-1].mT], dim=-2)


@final
class LinearRecurrence:
    """Solver of (1) for given constants.

    Args:
        transitions: A_t for t < k; the last one holds from then on.
        n: Steps, at least 0.
    """

    def __init__(self, transitions: Float64[np.ndarray, "k m m"], n: int) -> None:
        self._levels: list[tuple[Constant, Constant]] = []
        while n > 1:
            last = len(transitions) - 1
            pairs = np.arange(len(transitions) // 2 + 1)
            even, odd, after = (
                transitions[np.minimum(2 * pairs + shift, last)] for shift in (0, 1, 2)
            )
            self._levels.append((Constant(odd), Constant(after)))
            transitions, n = odd @ even, n // 2

    def solve(self, u: Float64[Tensor, "*shape n m"]) -> Float64[Tensor, "*shape n m"]:
        """Return s of (1).

        Args:
            u: Inputs.

        Returns:
            States, differentiable in the inputs.
        """
        return self._solve(u, 0)

    def _solve(
        self, u: Float64[Tensor, "*shape t m"], level: int
    ) -> Float64[Tensor, "*shape t m"]:
        if level == len(self._levels):
            return u
        odd, after = (matrices.on(u.device) for matrices in self._levels[level])
        u_even, u_odd = u[..., 0::2, :], u[..., 1::2, :]
        pairs = u_odd.shape[-2]
        s_odd = self._solve(_times(odd, u_even[..., :pairs, :]) + u_odd, level + 1)  # (2)
        rest = u_even.shape[-2] - 1
        carried = _times(after, s_odd[..., :rest, :]) + u_even[..., 1:, :]  # (3)
        s_even = torch.cat([u_even[..., :1, :], carried], dim=-2)
        both = torch.stack([s_even[..., :pairs, :], s_odd], dim=-2).flatten(-3, -2)
        return torch.cat([both, s_even[..., pairs:, :]], dim=-2)
