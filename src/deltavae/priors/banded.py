"""Priors whose whitening is a banded triangular matrix.

    e_t = Σ_{k=0..p} w_kt z_{t−k},   w_0t > 0,   w_kt = 0 for k > t.                        (1)

Then S_t = w_0t⁻² and f_i = S_i Σ_{k≥1} w_{k,i+k}², the squares of a column. The inverse goes block
by block, each as long as the band at least, so that block j meets only block j − 1:

    D_j z_j = e_j − C_j z_{j−1},   D_j lower triangular.                                   (2)

Golub & Van Loan, Matrix Computations, 4th edition, section 4.3,
https://doi.org/10.56021/9781421407944
"""

from abc import ABC
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor
from torch.nn.functional import pad

from deltavae.priors.base import Constant, GaussianPrior

_BLOCK = 32  # steps per block of (2): fewer calls against more memory


class BandedPrior(GaussianPrior, ABC):
    """Gaussian prior with a banded triangular whitening.

    Args:
        bands: w, band k in row k; w_kt is 0 for k > t.
    """

    def __init__(self, bands: Float64[np.ndarray, "p_plus_1 n"]) -> None:
        ratios = np.zeros_like(bands)
        for k in range(1, min(bands.shape)):
            ratios[k, :-k] = bands[k, k:] / bands[0, :-k]
        super().__init__(bands[0] ** -2, np.square(ratios).sum(axis=0))
        self._bands = Constant(bands)

    def _whiten(self, x: Float64[Tensor, "*shape n"]) -> Float64[Tensor, "*shape n"]:
        first, *others = self._bands.on(x.device)
        white: Tensor = first * x
        for k, band in enumerate(others[: self.n - 1], start=1):
            white = white + pad(band[k:] * x[..., :-k], (k, 0))  # (1)
        return white

    def _colour(self, noise: Float64[Tensor, "*shape n"]) -> Float64[Tensor, "*shape n"]:
        inner, outer = (blocks.on(noise.device) for blocks in self._blocks)
        count, size = inner.shape[:2]
        padded = pad(noise.reshape(-1, self.n), (0, count * size - self.n))
        columns = padded.reshape(-1, count, size).permute(1, 2, 0)  # block, step, example
        solved = [torch.zeros_like(columns[0])]
        for d, c, e in zip(inner.unbind(), outer.unbind(), columns.unbind(), strict=True):
            solved.append(torch.linalg.solve_triangular(d, e - c @ solved[-1], upper=False))  # (2)
        return torch.cat(solved[1:]).T[:, : self.n].reshape(noise.shape)

    @cached_property
    def _blocks(self) -> tuple[Constant, Constant]:
        """D and C of (2); the last block is filled up with ones on the diagonal."""
        bands = self._bands.on(torch.device("cpu")).numpy()
        order, size = len(bands) - 1, max(_BLOCK, len(bands) - 1)
        count = -(-self.n // size)
        filled = np.zeros((order + 1, count * size))
        filled[0] = 1
        filled[:, : self.n] = bands
        blocks, row = np.zeros((count, size, 2 * size)), np.arange(size)
        for lag, band in enumerate(filled):
            blocks[:, row, row + size - lag] = band.reshape(count, size)
        return Constant(blocks[..., size:]), Constant(blocks[..., :size])
