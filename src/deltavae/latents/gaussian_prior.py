"""Independent Gaussian priors, one per channel, as a torch distribution over (n, d) latents.

Channel k is N(0, Λ_k⁻¹) over its n steps, held as the map that makes it white (`deltavae.priors`),
so that density, draws and divergence are O(n). From a mean-field normal q, with e_k(μ) = W_k μ_k,

    KL(q ‖ p) = ½ Σ_k [Σ_t Λ_k,tt σ_tk² + ‖e_k(μ)‖² − n − Σ_t ln σ_tk² − ln det Λ_k],        (1)

the textbook form, registered with ``torch.distributions.kl_divergence``.

Bishop, Pattern Recognition and Machine Learning, 2006, section 2.3,
https://www.microsoft.com/en-us/research/publication/pattern-recognition-machine-learning/
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, Normal, constraints, register_kl
from torch.distributions import Independent as Reinterpreted

from deltavae.latents.white import WhitenedNormal
from deltavae.priors import GaussianPrior


@final
class GaussianMarkovPrior(WhitenedNormal):
    """d independent Gaussian priors of n steps each; event shape (n, d).

    Args:
        priors: One per channel, all of n steps. Channels that share one object are computed at
            once; others one after another.
        dtype: Floating type of draws and moments; None for torch's default.
        device: Device of draws and moments.
        validate_args: As in torch.distributions.

    Attributes:
        priors: As given.
        arg_constraints: None: the priors have checked their arguments.

    Raises:
        ValueError: If there are no priors or their steps differ.
    """

    priors: tuple[GaussianPrior, ...]
    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(
        self,
        priors: Sequence[GaussianPrior],
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
        validate_args: bool | None = None,
    ) -> None:
        self.priors = tuple(priors)
        steps = sorted({prior.n for prior in self.priors})
        if len(steps) != 1:
            raise ValueError(f"priors must be one or more of the same n, got n in {steps}")
        self._dtype, self._device = dtype or torch.get_default_dtype(), torch.device(device)
        shape = torch.Size((steps[0], len(self.priors)))
        super().__init__(torch.Size(), shape, validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "GaussianMarkovPrior":
        """Return the same distribution with a larger batch shape."""
        wide = self._get_checked_instance(GaussianMarkovPrior, _instance)  # type: ignore[no-untyped-call]
        wide.priors, wide._dtype, wide._device = self.priors, self._dtype, self._device
        super(GaussianMarkovPrior, wide).__init__(
            torch.Size(batch_shape), self.event_shape, validate_args=False
        )
        wide._validate_args = self._validate_args
        return wide  # type: ignore[no-any-return]

    @property
    def variance(self) -> Tensor:
        """Variance of every step and channel."""
        marginal = torch.stack([prior.marginal_variance for prior in self.priors], dim=-1)
        return marginal.to(self._device, self._dtype).expand(self._extended_shape())

    def whiten(self, z: Float[Tensor, "*shape n d"]) -> Float[Tensor, "*shape n d"]:
        """Return the innovations e of z; see `WhitenedNormal.whiten`."""
        return self._by_channel(GaussianPrior.whiten, z)

    def colour(self, noise: Float[Tensor, "*shape n d"]) -> Float[Tensor, "*shape n d"]:
        """Return the z whose innovations are ``noise``; see `WhitenedNormal.colour`."""
        return self._by_channel(GaussianPrior.colour, noise)

    def _log_det(self) -> float:
        return 0.5 * sum(prior.log_det for prior in self.priors)

    def _like(self) -> dict[str, Any]:
        return {"dtype": self._dtype, "device": self._device}

    def _by_channel(
        self, function: Callable[[GaussianPrior, Tensor], Tensor], x: Float[Tensor, "*shape n d"]
    ) -> Float[Tensor, "*shape n d"]:
        first, *others = self.priors
        if all(prior is first for prior in others):
            return function(first, x.mT).mT
        pairs = zip(self.priors, x.unbind(-1), strict=True)
        return torch.stack([function(prior, channel) for prior, channel in pairs], dim=-1)


def _kl_mean_field_gaussian(q: Distribution, p: GaussianMarkovPrior) -> Tensor:
    """KL of the mean-field normal from Gaussian priors, eq. (1), in float64."""
    if not (isinstance(q, Reinterpreted) and isinstance(q.base_dist, Normal)):
        raise NotImplementedError(f"no closed-form KL between {q} and {p}")
    if q.event_shape != p.event_shape:
        raise ValueError(f"event shapes must agree, got {q.event_shape} and {p.event_shape}")
    mu, variance = q.base_dist.loc.double(), q.base_dist.scale.double().square()
    diagonal = torch.stack([prior.diagonal for prior in p.priors], dim=-1).to(mu.device)
    terms = diagonal * variance + p.whiten(mu).square() - 1 - variance.log()
    return 0.5 * (terms.sum(dim=(-2, -1)) - sum(prior.log_det for prior in p.priors))  # (1)


register_kl(Reinterpreted, GaussianMarkovPrior)(_kl_mean_field_gaussian)  # type: ignore[no-untyped-call]
