"""Mean-field Gaussian posterior × a grid of latents, AR(1) down the rows × AR(1) along each.

Covariance Σ = Σ_r ⊗ Σ_c over n_r × n_c steps in raster order, every marginal N(0, 1), steps that
are i rows and j columns apart correlated by α_r^i α_c^j (`deltavae.priors.grid`). With δ_r and δ_c
what each factor commits by itself,

    δ = Σ_k [n_c δ_r(α_rk) + n_r δ_c(α_ck)].                                               (1)

Step (i, j) stands for its tile of the image: the first n_r-th of the rows × n_c-th of the columns
is (0, 0). Where a line has one latent per row, a grid tells left from right too.

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, section 3.1,
https://arxiv.org/abs/1901.03416
Deviations: the paper has one step per row of an image; the grid and (1) are derived here.
"""

from collections.abc import Sequence
from typing import Any, final

import numpy as np
from jaxtyping import Float64

from deltavae import priors
from deltavae.latents.gaussian import (
    MOST_STEPS,
    GaussianPair,
    per_channel,
    priors_of,
    solved_prior,
)

_SIDE = 4


@final
class Grid(GaussianPair):
    """Mean-field Gaussian posterior × separable AR(1) × AR(1) prior in raster order.

    Args:
        down: α_r of each channel, from row to row, in (−1, 1); a number for one channel.
        across: α_c of each channel, within a row, in (−1, 1); as many as in down.
        height: Rows n_r of the grid, at least 1.
        width: Columns n_c of the grid, at least 1; a grid of one step commits nothing.
        minimiser_units: Whether the mean is given in units of σ* and the decoder reads z/σ*.

    Attributes:
        down: α_r of each channel.
        across: α_c of each channel.
        height: n_r.
        width: n_c.

    Raises:
        ValueError: If an argument leaves its range, or down and across differ in length.
    """

    down: tuple[float, ...]
    across: tuple[float, ...]
    height: int
    width: int

    def __init__(
        self,
        down: float | Sequence[float],
        across: float | Sequence[float],
        height: int = _SIDE,
        width: int = _SIDE,
        minimiser_units: bool = False,
    ) -> None:
        self.steps(0, height=height, width=width)  # checks them
        rows, columns = per_channel(down), per_channel(across)
        if len(rows) != len(columns):
            raise ValueError(
                f"down and across must have one number per channel, got {down} and {across}"
            )
        made = priors_of(
            list(zip(rows, columns, strict=True)),
            lambda alphas: priors.Grid(
                priors.Autoregressive(height, alphas[:1]),
                priors.Autoregressive(width, alphas[1:]),
            ),
        )
        super().__init__(made, minimiser_units)
        self.down, self.across, self.height, self.width = rows, columns, height, width

    @classmethod
    def from_rate(
        cls,
        delta: float,
        n: int,
        d: int,
        height: int = _SIDE,
        width: int = _SIDE,
        minimiser_units: bool = False,
    ) -> "Grid":
        """Build the pair whose committed rate is ``delta``, with one α both ways.

        Args:
            delta: δ in nats per example, above 0.
            n: Latent steps, height · width (`steps`), at least 2.
            d: Latent channels, at least 1; they share δ equally.
            height: As in the constructor.
            width: As in the constructor.
            minimiser_units: As in the constructor.

        Returns:
            The pair, α at most 1 − 1e-6.

        Raises:
            ValueError: If n is not height · width, or an argument leaves its range.
        """
        if n != cls.steps(n, height=height, width=width):
            raise ValueError(f"n must be height · width = {height} · {width}, got {n}")
        prior = solved_prior(delta, d, lambda rate: priors.Grid.from_rate(rate, height, width))
        assert isinstance(prior.down, priors.Autoregressive)
        (alpha,) = prior.down.partials
        return cls([alpha] * d, [alpha] * d, height, width, minimiser_units)

    @classmethod
    def steps(cls, rows: int, /, **options: Any) -> int:
        """Count the latent steps: height · width, whatever the size of the image.

        Args:
            rows: Rows of the image.
            **options: Those of ``from_rate``.

        Returns:
            n.

        Raises:
            ValueError: If height or width is below 1, or there are more than 2²⁰ steps.
        """
        height, width = options.get("height", _SIDE), options.get("width", _SIDE)
        for name, value in (("height", height), ("width", width)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if height * width > MOST_STEPS:
            raise ValueError(
                f"height · width must be at most {MOST_STEPS}, got {height} · {width}"
            )
        return int(height * width)

    def config(self) -> dict[str, Any]:
        """Return plain arguments that rebuild the pair exactly."""
        return {
            "down": list(self.down),
            "across": list(self.across),
            "height": self.height,
            "width": self.width,
            "minimiser_units": self.minimiser_units,
        }

    def extents(self) -> Float64[np.ndarray, "n 2 2"]:
        """Return the tile of each step: an interval of rows and one of columns, as fractions."""
        row, column = np.divmod(np.arange(self.n), self.width)
        starts = np.stack([row / self.height, column / self.width], axis=1)
        ends = np.stack([(row + 1) / self.height, (column + 1) / self.width], axis=1)
        return np.stack([starts, ends], axis=2)
