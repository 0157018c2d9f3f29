"""p(x|z): distributions of one position (a pixel with its channels) given the decoder's output.

A value x in 0..L−1 is an integer. With logits ℓ, means μ, scales s and mixture weights π:

    Bernoulli     p(x = 1) = σ(ℓ), independently for each channel.
    Categorical   p(x) = softmax(ℓ)_x; a pixel's channels are independent given earlier pixels.
    DiscretisedLogisticMixture
        x̃ = 2x/(L−1) − 1,   h = 1/(L−1),   p(x) = Σ_m π_m Π_c [σ((x̃+h−μ)/s) − σ((x̃−h−μ)/s)],
        the outer bins reaching to ±∞. For RGB, with x̃ = (r, g, b) and one m for all channels,
        μ_g ← μ_g + tanh(a)·r,   μ_b ← μ_b + tanh(b₁)·r + tanh(b₂)·g.        (PixelCNN++, eqs. 1-3)

The difference of two sigmoids is a product, so that no logarithm ever meets a cancellation:
    σ(a) − σ(b) = σ(a) σ(−b) (1 − e^{−w}),   w = a − b = 2h/s.
An outer bin lacks the factors of its missing edge. The bins telescope: the sum over x is one.

Salimans et al., PixelCNN++, ICLR 2017, https://arxiv.org/abs/1701.05517
Deviations:
    - exact bins for any L, in place of the published code's density fallback below p = 1e-5, which
      does not sum to one;
    - log s bounded smoothly to (−7, 7) in place of a clamp from below, so gradients never die;
    - the published code scales by the constant 127.5; here it is (L−1)/2.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields

import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor
from torch.nn import functional

_LOG_SCALE_BOUND = 7.0


@dataclass(frozen=True)
class Likelihood(ABC):
    """A distribution over the channels of one position; it has no parameters of its own.

    Attributes:
        channels: Channels per position, C ≥ 1.
        levels: Values per channel, L in 2..256; x lies in 0..L−1.

    Raises:
        ValueError: If an argument is outside its range.
    """

    channels: int
    levels: int

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise ValueError(f"channels must be at least 1, got {self.channels}")
        if not 2 <= self.levels <= 256:
            raise ValueError(f"levels must be in 2..256, got {self.levels}")

    @property
    @abstractmethod
    def params_per_position(self) -> int:
        """How many numbers K the decoder gives for one position."""

    @abstractmethod
    def log_prob(
        self, params: Float[Tensor, "b p k"], x: UInt8[Tensor, "b p c"]
    ) -> Float[Tensor, " b"]:
        """Log-probability of whole examples, summed over positions and channels.

        Args:
            params: The decoder's output, any real numbers; half precision is computed in float32.
            x: Values in 0..levels−1, positions in raster order.

        Returns:
            log p(x) in nats, finite, at most 0.
        """

    @property
    @abstractmethod
    def noise_per_position(self) -> int:
        """How many random numbers S a draw of one position takes."""

    def noise(
        self,
        batch: int,
        positions: int,
        generator: torch.Generator | None = None,
        *,
        temperature: float = 1.0,
        device: torch.device | None = None,
    ) -> Float64[Tensor, "b p s"]:
        """Draw the randomness of whole sequences at once, so that `sample` has little to do.

        Args:
            batch: Number b of sequences. With a generator of the CPU two calls for b₁ and b₂ give
                what one for b₁ + b₂ does; with one of a GPU they do not: it numbers its draws by
                the threads of a call.
            positions: Number p of positions.
            generator: Source of randomness, on any device; None takes torch's default.
            temperature: T > 0 multiplies the noise: as if logits were divided by T and the scales
                of logistics multiplied by it.
            device: Where the noise is to lie; None: on the CPU.

        Returns:
            Noise: Gumbel for logits of which one is chosen, logistic otherwise.

        Raises:
            ValueError: If temperature is not positive and finite.
        """
        if not 0.0 < temperature < math.inf:
            raise ValueError(f"temperature must be positive and finite, got {temperature}")
        device = torch.device("cpu") if device is None else device
        u = _uniform((batch, positions, self.noise_per_position), device, generator)
        return self._noise_from_uniform(u).mul_(temperature)

    @abstractmethod
    def _noise_from_uniform(self, u: Float64[Tensor, "b p s"]) -> Float64[Tensor, "b p s"]:
        """Turn uniforms in (0, 1) into noise, in place."""

    @abstractmethod
    def sample(
        self, params: Float[Tensor, "b k"], noise: Float64[Tensor, "b s"]
    ) -> UInt8[Tensor, "b c"]:
        """Draw one position; all arithmetic is in float64.

        Args:
            params: The decoder's output for this position.
            noise: What `noise` gave for it.

        Returns:
            Values in 0..levels−1.
        """

    def config(self) -> dict[str, int]:
        """The constructor's arguments, as plain integers."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.init}


@dataclass(frozen=True)
class Bernoulli(Likelihood):
    """Two levels, σ(logit) the probability of 1; channels independent given earlier pixels.

    Attributes:
        channels: Channels per position, at least 1.
        levels: Always 2.
    """

    channels: int = 1
    levels: int = field(default=2, init=False)

    @property
    def params_per_position(self) -> int:
        """K = C logits."""
        return self.channels

    @property
    def noise_per_position(self) -> int:
        """S = C logistic draws."""
        return self.channels

    def _noise_from_uniform(self, u: Float64[Tensor, "b p s"]) -> Float64[Tensor, "b p s"]:
        return u.logit_()

    def log_prob(
        self, params: Float[Tensor, "b p k"], x: UInt8[Tensor, "b p c"]
    ) -> Float[Tensor, " b"]:
        """Σ log σ(±logit): see Likelihood."""
        logits = _at_least_float32(params)
        return functional.logsigmoid(torch.where(x > 0, logits, -logits)).sum((1, 2))

    def sample(
        self, params: Float[Tensor, "b k"], noise: Float64[Tensor, "b s"]
    ) -> UInt8[Tensor, "b c"]:
        """1 where the logit is above a logistic draw: see Likelihood."""
        return (params.double() > noise).to(torch.uint8)


@dataclass(frozen=True)
class Categorical(Likelihood):
    """A softmax over the levels of each channel; channels independent given earlier pixels."""

    @property
    def params_per_position(self) -> int:
        """K = C·L logits, channel by channel."""
        return self.channels * self.levels

    @property
    def noise_per_position(self) -> int:
        """S = C·L Gumbel draws."""
        return self.channels * self.levels

    def _noise_from_uniform(self, u: Float64[Tensor, "b p s"]) -> Float64[Tensor, "b p s"]:
        return _gumbel(u)

    def log_prob(
        self, params: Float[Tensor, "b p k"], x: UInt8[Tensor, "b p c"]
    ) -> Float[Tensor, " b"]:
        """Σ log softmax(ℓ)_x: see Likelihood."""
        logits = _at_least_float32(params).reshape(*x.shape, self.levels)  # (b, p, c, L)
        chosen = logits.log_softmax(-1).gather(-1, x.long().unsqueeze(-1))  # (b, p, c, 1)
        return torch.sum(chosen, (1, 2, 3))

    def sample(
        self, params: Float[Tensor, "b k"], noise: Float64[Tensor, "b s"]
    ) -> UInt8[Tensor, "b c"]:
        """Take the argmax of logits plus Gumbel noise: see Likelihood."""
        disturbed = params.double() + noise
        return disturbed.view(-1, self.channels, self.levels).argmax(2).to(torch.uint8)


@dataclass(frozen=True)
class DiscretisedLogisticMixture(Likelihood):
    """A mixture of logistics over the rounding cells of the levels: 1 channel (grey) or 3 (RGB).

    The mixture component is shared by the channels of a pixel; blue depends linearly on red and
    green, green on red. The decoder's K numbers are, M at a time: the mixture's logits, C means,
    C log-scales y (used as log s = y/√(1 + y²/49)), and for RGB the coefficients a, b₁, b₂.

    Attributes:
        levels: Values per channel, in 2..256.
        mixtures: Components M, at least 1.

    Raises:
        ValueError: If an argument is outside its range.
    """

    levels: int = 256
    mixtures: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels not in (1, 3):
            raise ValueError(
                f"channels must be 1 (grey) or 3 (RGB) for a mixture of logistics, "
                f"got {self.channels}"
            )
        if self.mixtures < 1:
            raise ValueError(f"mixtures must be at least 1, got {self.mixtures}")

    @property
    def params_per_position(self) -> int:
        """K = M·(1 + 2C + C(C−1)/2): 3M for grey, 10M for RGB."""
        return self.mixtures * sum(self._rows)

    @property
    def noise_per_position(self) -> int:
        """S = M + C: Gumbel draws for the component, logistic ones for the channels."""
        return self.mixtures + self.channels

    def _noise_from_uniform(self, u: Float64[Tensor, "b p s"]) -> Float64[Tensor, "b p s"]:
        _gumbel(u[..., : self.mixtures])
        u[..., self.mixtures :].logit_()
        return u

    @property
    def _rows(self) -> list[int]:
        pairs = self.channels * (self.channels - 1) // 2
        return [1, self.channels, self.channels, pairs]

    def log_prob(
        self, params: Float[Tensor, "b p k"], x: UInt8[Tensor, "b p c"]
    ) -> Float[Tensor, " b"]:
        """Σ log p(x) over the exact bins: see Likelihood."""
        # Positions come last, in memory too: the few mixtures would leave vector units idle.
        rows = _at_least_float32(params).transpose(1, 2).contiguous()
        rows = rows.view(len(rows), -1, self.mixtures, rows.shape[2])  # (b, rows, M, p)
        logits, means, raw_log_scales, coefficients = torch.split(rows, self._rows, 1)
        x = x.transpose(1, 2).contiguous().unsqueeze(2)  # (b, c, 1, p)
        scaled = 2.0 * x.to(means.dtype) / (self.levels - 1) - 1.0  # x̃
        inverse_scale = torch.exp(-_bounded(raw_log_scales))
        centre = scaled - _means_given_x(means, coefficients, scaled)
        h = 1.0 / (self.levels - 1)
        upper = functional.logsigmoid((centre + h) * inverse_scale)  # log σ(a)
        lower = functional.logsigmoid((h - centre) * inverse_scale)  # log σ(−b)
        width = torch.log(-torch.expm1(-2.0 * h * inverse_scale))  # log(1 − e^{−w})
        first, last = x == 0, x == self.levels - 1
        log_bin = (
            upper.masked_fill(last, 0.0)
            + lower.masked_fill(first, 0.0)
            + width.masked_fill(first | last, 0.0)
        )  # (b, c, M, p)
        log_mixture = logits.squeeze(1).log_softmax(1)
        return torch.logsumexp(log_mixture + log_bin.sum(1), dim=1).sum(1)

    def sample(
        self, params: Float[Tensor, "b k"], noise: Float64[Tensor, "b s"]
    ) -> UInt8[Tensor, "b c"]:
        """Draw the component, then a logistic per channel, rounded to the nearest level.

        The bins are the cells of this rounding, so that the integers follow ``log_prob``.
        """
        m, top = self.mixtures, self.levels - 1
        half = top / 2.0  # level = half·(x̃ + 1)
        gumbel, logistic = noise.split_with_sizes([m, self.channels], 1)
        rows = params.double().view(len(params), -1, m)
        component = (rows[:, 0] + gumbel).argmax(1)
        place = component.view(-1, 1, 1).expand(-1, rows.shape[1], 1)
        _, means, raw, coefficients = rows.gather(2, place)[..., 0].split_with_sizes(self._rows, 1)
        scales = _bounded(raw).exp_()
        x = (means + 1.0).addcmul_(scales, logistic).mul_(half)  # (b, c), levels to be rounded
        red, *others = x.unbind(1)
        red.round_().clamp_(0, top)
        if others:  # green and blue read red, blue reads green
            (green, blue), (a, b1, b2) = others, coefficients.tanh_().unbind(1)
            centred = red - half  # half·x̃
            green.addcmul_(a, centred).round_().clamp_(0, top)
            blue.addcmul_(b1, centred).addcmul_(b2, green - half).round_().clamp_(0, top)
        return x.to(torch.uint8)


def default_likelihood(channels: int, levels: int) -> Likelihood:
    """The likelihood that suits a number of levels.

    Args:
        channels: Channels per position, at least 1; 1 or 3 above 32 levels.
        levels: Values per channel, in 2..256.

    Returns:
        Bernoulli for 2 levels, Categorical up to 32, a mixture of logistics above.
    """
    if levels == 2:
        return Bernoulli(channels)
    if levels <= 32:
        return Categorical(channels, levels)
    return DiscretisedLogisticMixture(channels, levels)


def _means_given_x(
    means: Float[Tensor, "b c m p"],
    coefficients: Float[Tensor, "b pairs m p"],
    scaled: Float[Tensor, "b c 1 p"],
) -> Float[Tensor, "b c m p"]:
    """Means of the logistics given the scaled values of earlier channels (PixelCNN++, eq. 3)."""
    if means.shape[1] == 1:
        return means
    a, b1, b2 = torch.tanh(coefficients).unbind(1)
    red, green, _ = scaled.unbind(1)
    mean_r, mean_g, mean_b = means.unbind(1)
    return torch.stack((mean_r, mean_g + a * red, mean_b + b1 * red + b2 * green), dim=1)


def _bounded(raw: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Log-scale y/√(1 + (y/7)²) in [−7, 7]: its slope falls as |y|⁻³, not exponentially."""
    return raw * torch.rsqrt(1.0 + (raw / _LOG_SCALE_BOUND).square())


def _at_least_float32(params: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    return params.to(torch.promote_types(params.dtype, torch.float32))


def _uniform(
    shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
) -> Float64[Tensor, "..."]:
    """Uniforms in (0, 1), drawn where the generator lives and moved to the device."""
    source = device if generator is None else generator.device
    u = torch.rand(shape, generator=generator, dtype=torch.float64, device=source)
    return u.clamp_min_(2.0**-54).to(device)  # torch.rand may give 0, never 1


def _gumbel(u: Float64[Tensor, "..."]) -> Float64[Tensor, "..."]:
    """Uniforms → Gumbel noise, in place: the argmax of logits with it follows their softmax."""
    return u.log_().neg_().log_().neg_()
