"""What every Gaussian prior over n latent steps has in common, its committed rate above all.

A zero-mean Gaussian N(0, Λ⁻¹) is held as a linear map that makes it white, and never as a matrix:

    e = W z,   Λ = Wᵀ W,   W triangular in some order of the steps.                        (1)

With S_i = W_ii⁻², the variance of z_i given what comes before it in that order, and the rest of
column i of W, which tells how far the steps after i pin z_i down as well,

    Λ_ii = (1 + f_i)/S_i,   f_i = S_i Σ_{t≠i} W_ti² ≥ 0,   ln det Λ = −Σ_i ln S_i,           (2)

and what a mean-field Gaussian posterior commits is a sum of terms none of which is negative:

    δ = ½ [Σ_i ln Λ_ii − ln det Λ] = ½ Σ_i ln(1 + f_i),   at σ*_i = Λ_ii^(−½).              (3)

S and f come out of every construction without cancellation, so that δ is exact to rounding however
small. W is both what the model applies and what (3) is read from: the prior in use has the δ that
it claims, whatever its constants were derived from.

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, section 3.1,
https://arxiv.org/abs/1901.03416
Deviations: the paper has AR(1) only; (1) to (3) are derived here.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Float64, Shaped
from torch import Tensor


@final
class Constant:
    """A constant array that keeps a copy on each device where it was asked for.

    Args:
        value: The constant, float64 or integers.
    """

    def __init__(self, value: Shaped[np.ndarray, "*shape"]) -> None:
        self._value = value.copy()  # C order
        self._copies: dict[torch.device, Tensor] = {}

    def on(self, device: torch.device) -> Shaped[Tensor, "*shape"]:
        """Return the constant on ``device``: no copy from the host after the first time."""
        if device not in self._copies:
            with torch.inference_mode(False):  # autograd could not save an inference tensor
                self._copies[device] = torch.from_numpy(self._value).to(device)
        return self._copies[device]


class GaussianPrior(ABC):
    """Zero-mean Gaussian over n steps, as the linear map that makes it white.

    Its constants are float64 and stay outside every state dict: its pair rebuilds them. Time and
    memory of everything are O(n). A tensor of other than n steps is a ValueError, and so is a rate
    that no knob of a ``from_rate`` commits (`solve`).

    Args:
        innovation_variance: S, above 0.
        feedback: f, at least 0.

    Attributes:
        n: Steps.
        innovation_variance: S_i: variance of step i given what comes before it, eq. (2).
        diagonal: Λ_ii.
        log_det: ln det Λ.
        committed_terms: How δ is shared among the steps, in nats, never negative, eq. (3).
        committed_rate: δ in nats.
        conditional_scale: σ*_i = Λ_ii^(−½): standard deviation of step i given all others, and of
            the mean-field posterior at the floor.
    """

    n: int
    innovation_variance: Float64[Tensor, " n"]
    diagonal: Float64[Tensor, " n"]
    log_det: float
    committed_terms: Float64[Tensor, " n"]
    committed_rate: float
    conditional_scale: Float64[Tensor, " n"]

    def __init__(
        self,
        innovation_variance: Float64[np.ndarray, " n"],
        feedback: Float64[np.ndarray, " n"],
    ) -> None:
        variance, terms = np.array(innovation_variance), 0.5 * np.log1p(feedback)
        self.n = len(variance)
        self.innovation_variance = torch.from_numpy(variance)
        self.diagonal = torch.from_numpy((1 + feedback) / variance)  # (2)
        self.log_det = -math.fsum(np.log(variance))
        self.committed_terms = torch.from_numpy(terms)
        self.committed_rate = math.fsum(terms)  # (3)
        self.conditional_scale = self.diagonal.rsqrt()

    @abstractmethod
    def _whiten(self, x: Float64[Tensor, "*shape n"]) -> Float64[Tensor, "*shape n"]:
        """Apply W."""

    @abstractmethod
    def _colour(self, noise: Float64[Tensor, "*shape n"]) -> Float64[Tensor, "*shape n"]:
        """Apply W⁻¹."""

    @cached_property
    def marginal_variance(self) -> Float64[Tensor, " n"]:
        """Variance of every step: 1, unless the prior was given as a matrix (`sparse`)."""
        return torch.ones(self.n, dtype=torch.float64, device="cpu")

    def whiten(self, x: Float[Tensor, "*shape n"]) -> Float[Tensor, "*shape n"]:
        """Apply W: xᵀΛx = ‖whiten(x)‖², computed in float64 whatever the type of x.

        Args:
            x: Any real numbers, the steps on the last axis.

        Returns:
            Linear in x, in the type of x; independent standard normals where x follows the prior.
        """
        return self._applied(self._whiten, x)

    def colour(self, noise: Float[Tensor, "*shape n"]) -> Float[Tensor, "*shape n"]:
        """Apply W⁻¹, the inverse of ``whiten``.

        Args:
            noise: Innovations, the steps on the last axis.

        Returns:
            Linear in the noise, in its type; follows the prior where the noise is standard normal.
        """
        return self._applied(self._colour, noise)

    def log_prob(self, x: Float[Tensor, "*shape n"]) -> Float[Tensor, "*shape"]:
        """Return the log-density, summed over the steps.

        Args:
            x: Any real numbers, the steps on the last axis.

        Returns:
            Nats.
        """
        squares = (self.whiten(x).square() + math.log(2 * math.pi)).sum(-1)
        return 0.5 * (self.log_det - squares)

    def __repr__(self) -> str:
        """Describe the prior in one line."""
        return f"{type(self).__name__}(n={self.n}, committed_rate={self.committed_rate:.6g} nats)"

    def _applied(
        self, function: Callable[[Tensor], Tensor], x: Float[Tensor, "*shape m"]
    ) -> Float[Tensor, "*shape m"]:
        if x.shape[-1] != self.n:
            raise ValueError(f"the last axis must have n={self.n} entries, got {tuple(x.shape)}")
        return function(x.double()).to(x.dtype)
