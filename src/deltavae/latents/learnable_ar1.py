"""Mean-field Gaussian posterior × AR(1) prior whose α is learned and cannot fall below the floor.

Per channel, m ≥ 0 the least |α|, at which all channels commit the δ that was asked for, and one
trained number w, smoothly bounded on both sides:

    t = (atanh α_max − atanh m) sigmoid(w_0 + w) ≥ 0,   T = tanh t,                         (1)
    |α| = tanh(atanh m + t) = (m + T)/(1 + m T),   the sign that of the given α.            (2)

The committed rate δ(α) of `rates` grows with |α|, and by (2) what it has above the floor is a sum
of logarithms none of which can be negative in any precision:

    δ(α) − δ = ½ Σ_k [(n − 2) ln(1 + u (1 − m²)/((1 + m T)² (1 + m²))) + ln(1 + u cosh² t)],
    u = T (2m + T (1 + m²)) ≥ 0,                                                            (3)

so that with the rate of `ar1` at the present α, innovations e_t and minimiser σ*(α),

    KL(q ‖ p) = δ + [δ(α) − δ] + Σ_t [½ (e²ᵍ − 1 − 2g) + ½ e_t(μ)²] ≥ δ.                     (4)

w_0 makes t a tenth of atanh m where training starts, at w = 0, to which weight decay pulls.
α is a smooth function of w, so that averaged weights keep the floor too.

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, section 3.1,
https://arxiv.org/abs/1901.03416
Deviations: the paper's α is fixed; (1) to (4) are derived here; the options are those of `ar1`.
"""

import math
from typing import Any, final

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from deltavae.latents.ar1_prior import AR1Prior
from deltavae.latents.posterior import MeanFieldNormal
from deltavae.latents.whitened import WhitenedPair
from deltavae.latents.wording import told
from deltavae.rates import (
    ALPHA_MAX,
    Alpha,
    channels,
    committed_rate,
    committed_terms,
    minimiser,
    solve_alpha,
)

_START = 0.1  # t/atanh m at the start: at small α a δ(α) of 1.21 δ
_LEAST_SHARE = 1e-3  # of the room: where m is 0, and so that gradients do not vanish


@final
class LearnableAR1(WhitenedPair):
    """Mean-field Gaussian posterior × AR(1) prior with trained α.

    Args:
        n: Latent steps, at least 2.
        alpha: α per channel at the floor, from which |α| can only grow, |α| ≤ 1 − 1e-6; a number
            for one channel. Training starts a little above.
        minimiser_units: Whether the decoder reads z/σ*; without innovations the mean is given in
            units of σ* too.
        innovations: Whether the mean is given by innovations (`whitened`). The paper's pair has
            both of them False; the study `information` compares.

    Attributes:
        least_alpha: The given α, float64.
        weight: w of each channel, trained.
        proof: See `Latents`.

    Raises:
        ValueError: If an argument leaves its range.
    """

    least_alpha: Float64[Tensor, " d"]
    _room: Float64[Tensor, " d"]
    _start: Float64[Tensor, " d"]
    weight: nn.Parameter
    proof = (
        "closed form: ½ Σ_k [(n − 2) ln(1 + α_k²) − ln(1 − α_k²)] grows with |α_k|, and δ is its "
        "value at the least |α_k| that can be learned"
    )

    def __init__(
        self, n: int, alpha: Alpha, minimiser_units: bool = True, innovations: bool = True
    ) -> None:
        if n < 2:
            raise ValueError(f"n must be at least 2 for alpha to matter, got {n}")
        least = channels(alpha)
        if float(least.abs().max()) > ALPHA_MAX:
            raise ValueError(f"alpha must lie within ±(1 - 1e-6), got {least.tolist()}")
        floor = committed_rate(least, n), committed_terms(least, n), minimiser(least, n)
        super().__init__(*floor, minimiser_units, innovations)
        room = (math.atanh(ALPHA_MAX) - least.abs().atanh()).clamp(min=0)
        self.register_buffer("least_alpha", least, persistent=False)
        self.register_buffer("_room", room, persistent=False)
        start = (_START * least.abs().atanh() / room).clamp(_LEAST_SHARE, 0.5).logit()
        self.register_buffer("_start", start, persistent=False)
        self.weight = nn.Parameter(torch.zeros(len(least)))

    @classmethod
    def from_rate(
        cls,
        delta: float,
        n: int,
        d: int,
        bounds: tuple[float, float] | None = None,
        minimiser_units: bool = True,
        innovations: bool = True,
    ) -> "LearnableAR1":
        """Build the pair whose rate is at least ``delta`` whatever α it learns.

        Args:
            delta: δ in nats per example, above 0.
            n: Latent steps, at least 2.
            d: Latent channels, at least 1.
            bounds: None for equal least α; (lo, hi) for a ladder, as in `rates.solve_alpha`.
            minimiser_units: As in the constructor.
            innovations: As in the constructor.

        Returns:
            The pair.
        """
        return cls(n, solve_alpha(delta, n, d, bounds), minimiser_units, innovations)

    def config(self) -> dict[str, Any]:
        """Return plain arguments that rebuild the pair, but for the trained α."""
        return {
            "n": self.n,
            "alpha": self.least_alpha.tolist(),
            "minimiser_units": self.minimiser_units,
            "innovations": self.innovations,
        }

    @property
    def alpha(self) -> Float64[Tensor, " d"]:
        """α at present, differentiable in ``weight``."""
        least, step = self.least_alpha.abs(), self._step.tanh()
        sign = torch.where(self.least_alpha < 0, -1.0, 1.0)
        return sign * (least + step) / (1 + least * step)  # (2)

    @property
    def current_committed_rate(self) -> float:
        """δ(α) at present in nats per example, at least ``committed_rate``."""
        return self.committed_rate + float(self._gap().detach().sum())

    @property
    def summary(self) -> str:
        """α at present and the least that can be learned; see `Latents.summary`."""
        least = super().summary.removeprefix("alpha ")
        return f"alpha {told(self.alpha.tolist())}, at least {least}"

    @property
    def sigma_star(self) -> Float64[Tensor, "n d"]:
        """Standard deviation σ*(α) of the posterior at the floor of the present α."""
        return self._minimiser().detach()

    @property
    def prior(self) -> AR1Prior:
        """The prior at the present α as a torch distribution."""
        return AR1Prior(self.n, self.alpha, validate_args=False)

    def posterior(self, params: Float[Tensor, "b n k"]) -> MeanFieldNormal:
        """Turn raw network output (m, r) into μ and σ as `WhitenedPair` does, at the present α.

        Args:
            params: Raw output, k = 2d.

        Returns:
            The posterior, in float32 at least; its excess has δ(α) − δ in it.
        """
        q = super().posterior(params)
        return MeanFieldNormal(q.mu, q.sigma, self._gap().to(q.mu.dtype) + q.excess)  # (4)

    @property
    def _step(self) -> Float64[Tensor, " d"]:
        return self._room * torch.sigmoid(self._start + self.weight.double())  # (1)

    def _gap(self) -> Float64[Tensor, "n d"]:
        """Return what the present α commits above the floor, step by step, eq. (3)."""
        least, step = self.least_alpha.abs(), self._step
        tangent = step.tanh()
        u = tangent * (2 * least + tangent * (1 + least.square()))
        scale = (1 - least) * (1 + least) / (1 + least.square())
        first = 0.5 * (u * step.cosh().square()).log1p()
        inner = 0.5 * (u * scale / (1 + least * tangent).square()).log1p()
        rows = [first[None], inner.expand(self.n - 2, -1), torch.zeros_like(first)[None]]
        return torch.cat(rows)

    def _minimiser(self) -> Float64[Tensor, "n d"]:
        """Return σ*(α) as `rates.minimiser` does, differentiable in α."""
        alpha = self.alpha
        ends = (1 - alpha) * (1 + alpha)
        inner = (ends / (1 + alpha.square())).expand(self.n - 2, -1)
        return torch.cat([ends[None], inner, ends[None]]).sqrt()
