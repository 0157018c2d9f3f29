"""What every pair of posterior and prior has in common.

Posterior q(z|x) of n steps and d channels (`posterior`), prior p(z), and the rate as a floor plus
terms that cannot be negative, step by step and, where it is written so, channel by channel:

    KL(q(z|x) ‖ p) = δ + Σ_tk excess_tk,   excess_tk ≥ 0,   δ = min_q KL(q ‖ p).           (1)

The textbook form of the KL falls below δ in float32; (1) holds in every precision up to the
rounding of δ itself, for no rounding turns its terms negative (`scale`).

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, section 2.2,
https://arxiv.org/abs/1901.03416
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from deltavae.latents.conditional import Conditional, ConditionalNormal
from deltavae.latents.posterior import Posterior
from deltavae.latents.wording import told


class Latents(nn.Module, ABC):
    """A posterior family and a prior that stay δ nats apart.

    The constants are float64 buffers that follow the module to its device but never change their
    precision, and that no state dict holds: ``config`` rebuilds them. What a pair learns in
    training, and it alone, is in the state dict. Under autocast call the
    methods with autocast disabled.

    Args:
        committed_rate: δ in nats per example, at least 0.
        committed_terms: How δ is shared among steps and, where the rate is told by channels,
            channels; sums to δ.
        sigma_star: Standard deviation of the posterior at the floor.
        mean_rate_floor: Floor in nats of the rate's mean over a training batch, where no example
            by itself has one; None where δ is the floor of every example.
        params_per_step: Width of the raw network output per step; None: two numbers per channel.

    Attributes:
        n: Latent steps.
        d: Latent channels.
        params_per_step: Width of the raw network output per step: two numbers per channel, unless
            the pair says otherwise.
        committed_rate: δ in nats per example.
        committed_terms: How δ is shared among the rate's terms, in nats, float64.
        floor: "example" where no example's rate is ever below δ; "mean" where in training mode the
            mean over a batch has a floor, and no example (`batch_norm`).
        mean_rate_floor: Floor of the rate's mean over a batch in nats: δ where each example has
            it; else in training mode only.
        proof: How the floor is proven, in one line.
        constant_rate: Whether every posterior of the family has the rate δ, neither more nor less.
        direct_examples: Examples of a batch for which checks in training can afford
            ``direct_rate``; None: all.
    """

    n: int
    d: int
    params_per_step: int
    committed_rate: float
    committed_terms: Float64[Tensor, "n terms"]
    _sigma_star: Float64[Tensor, "n d"]
    floor: Literal["example", "mean"]
    mean_rate_floor: float
    proof: str = "none is given: the pair states its floor"
    constant_rate: bool = False
    direct_examples: int | None = None

    def __init__(
        self,
        committed_rate: float,
        committed_terms: Float64[Tensor, "n terms"],
        sigma_star: Float64[Tensor, "n d"],
        mean_rate_floor: float | None = None,
        params_per_step: int | None = None,
    ) -> None:
        super().__init__()
        self.n, self.d = sigma_star.shape
        self.params_per_step = 2 * self.d if params_per_step is None else params_per_step
        self.committed_rate = committed_rate
        self.floor = "example" if mean_rate_floor is None else "mean"
        self.mean_rate_floor = committed_rate if mean_rate_floor is None else mean_rate_floor
        self.register_buffer("committed_terms", committed_terms, persistent=False)
        self.register_buffer("_sigma_star", sigma_star, persistent=False)

    @property
    def sigma_star(self) -> Float64[Tensor, "n d"]:
        """Standard deviation σ* of the posterior at the floor, float64, a constant to autograd.

        It is the scale of a unit's posterior, against which the spread of μ over the data is
        judged. A pair whose prior learns (`learnable_ar1`) says where the minimiser is at present.
        """
        return self._sigma_star

    @property
    def current_committed_rate(self) -> float | None:
        """Floor of the present prior in nats, at least δ, where the prior learns; else None."""
        return None

    @property
    def summary(self) -> str:
        """The pair's knob and options by name, in a line; empty where there are none."""
        options = {name: told(v) for name, v in self.config().items() if name not in ("n", "d")}
        return ", ".join(f"{name} {words}" for name, words in options.items() if words)

    @classmethod
    @abstractmethod
    def from_rate(cls, delta: float, n: int, d: int) -> "Latents":
        """Build the pair whose committed rate is ``delta``.

        Args:
            delta: δ in nats per example.
            n: Latent steps.
            d: Latent channels.

        Returns:
            The pair.
        """

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Return plain arguments: ``type(self)(**self.config())`` is the same pair exactly."""

    @abstractmethod
    def posterior(self, params: Float[Tensor, "b n k"]) -> Posterior:
        """Turn raw network output into q(z|x).

        Args:
            params: Raw output, any real numbers, k = ``params_per_step``, any floating type.

        Returns:
            The posterior, in float32 at least.
        """

    @abstractmethod
    def prior_from_noise(self, noise: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Turn standard normal noise into z ~ p(z).

        Args:
            noise: Standard normal noise.

        Returns:
            Latents distributed as the prior.
        """

    @abstractmethod
    def log_prior(self, z: Float[Tensor, "b n d"]) -> Float[Tensor, " b"]:
        """Return ln p(z).

        Args:
            z: Latents.

        Returns:
            Log-density in nats, summed over steps and channels.
        """

    def rate(self, q: Posterior, z: Float[Tensor, "b n d"] | None = None) -> Float[Tensor, " b"]:
        """Return KL(q(z|x) ‖ p), never below δ, eq. (1).

        Args:
            q: A posterior of this pair.
            z: A draw from it; only a pair without a closed form reads it (`learned_prior`).

        Returns:
            Nats per example.
        """
        return self.committed_rate + q.excess.sum(dim=(1, 2))  # (1)

    def rate_terms(
        self, q: Posterior, z: Float[Tensor, "b n d"] | None = None
    ) -> Float[Tensor, "b n terms"]:
        """Return the terms of the rate; they sum to ``rate(q, z)`` up to rounding.

        Args:
            q: A posterior of this pair.
            z: A draw from it; only a pair without a closed form reads it (`learned_prior`).

        Returns:
            Nats of every step and channel (of every step, where a family ties its channels), never
            negative.
        """
        return self.committed_terms.to(q.excess.dtype) + q.excess

    def rates(
        self, q: Posterior, z: Float[Tensor, "b n d"] | None = None
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, "b n terms"]]:
        """Return ``rate`` and ``rate_terms``: at once where both cost the same pass of a net.

        Args:
            q: A posterior of this pair.
            z: A draw from it; only a pair without a closed form reads it (`learned_prior`).

        Returns:
            Nats per example, and nats per term.
        """
        return self.rate(q, z), self.rate_terms(q, z)

    def direct_rate(self, q: Posterior) -> Float64[Tensor, " b"] | None:
        """Return KL(q(z|x) ‖ p) by the textbook, from the posterior's parameters alone.

        A second derivation for checks (`certificate`, training's log steps): it knows nothing of δ
        and ``excess``, and its terms cancel, so that it is for float64 only.

        Args:
            q: A posterior of this pair.

        Returns:
            Nats per example; None where the pair has no such formula.
        """
        return None

    def sample_prior(
        self, count: int, generator: torch.Generator | None = None
    ) -> Float[Tensor, "count n d"]:
        """Draw z ~ p(z) on this module's device.

        Args:
            count: Number of draws.
            generator: Source of randomness, on any device; None for torch's own.

        Returns:
            Latents in float32.
        """
        device = self.sigma_star.device
        source = device if generator is None else generator.device
        noise = torch.randn(count, self.n, self.d, generator=generator, device=source)
        return self.prior_from_noise(noise.float().to(device))

    @property
    def conditional(self) -> Conditional:
        """Family of an autoregressive density over this pair's z: normals unless it says so."""
        return ConditionalNormal(self.d)

    def to_decoder(self, z: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Return what the decoder reads: z itself, unless the pair rescales it.

        Args:
            z: Latents.

        Returns:
            The decoder's input.
        """
        return z

    def nearest(self, z: Float[Tensor, "*shape n d"]) -> Float[Tensor, "*shape n d"]:
        """Return the latents that a point between latents stands for: itself, in a vector space.

        Args:
            z: Any real numbers.

        Returns:
            Points at which the prior has mass.
        """
        return z

    @classmethod
    def steps(cls, rows: int, /, **options: Any) -> int:
        """Count the latent steps of an event.

        Args:
            rows: Extent of the event along its first axis: rows of an image, samples, tokens.
            **options: Those of ``from_rate``.

        Returns:
            n: one step per row, unless the pair has another arrangement.
        """
        return rows

    def extents(self) -> Float64[np.ndarray, "n axes 2"]:
        """Return which part of the event each step stands for.

        Returns:
            An interval [start, end) along each axis of the event, as fractions of it: by default
            the first axis cut in n equal parts.
        """
        edges = np.arange(self.n + 1) / self.n
        return np.stack([edges[:-1], edges[1:]], axis=1)[:, None]

    def extra_repr(self) -> str:
        """Describe the pair in one line."""
        return f"n={self.n}, d={self.d}, committed_rate={self.committed_rate:.6g} nats"

    def _split(
        self, params: Float[Tensor, "b n k"]
    ) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b n d"]]:
        """Check and lift the raw output, and cut it in two."""
        first, second = self._checked(params).chunk(2, dim=-1)
        return first, second

    def _checked(self, params: Float[Tensor, "b n k"]) -> Float[Tensor, "b n k"]:
        """Check the shape of the raw output, and lift half precision to float32."""
        if params.shape[1:] != (self.n, self.params_per_step):
            raise ValueError(
                f"params must have shape (b, {self.n}, {self.params_per_step}), "
                f"got {tuple(params.shape)}"
            )
        return params.to(torch.promote_types(params.dtype, torch.float32))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Latents":
        """Move the constants with the module but keep their precision: half loses the floor."""
        constants = self._non_persistent_buffers_set
        exact = {name: self._buffers[name] for name in constants}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, constant in exact.items():
            moved = self._buffers[name]
            if constant is not None and moved is not None:
                self._buffers[name] = constant.to(moved.device)
        return self
