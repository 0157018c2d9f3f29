"""Independent draws from one density on the real line: a torch distribution over (n, d).

    ln p(z) = Σ_tk ln p(z_tk),                                                             (1)
    KL(Π_tk N(μ_tk, σ_tk²) ‖ p) = Σ_tk KL(N(μ_tk, σ_tk²) ‖ p),                             (2)

each term of (2) by `quadrature.divergence`, registered with ``torch.distributions.kl_divergence``.

Cover & Thomas, Elements of Information Theory, 2006, section 2.5,
https://doi.org/10.1002/047174882X
"""

from collections.abc import Sequence
from typing import Any, ClassVar, final

import torch
from torch import Tensor
from torch.distributions import Distribution, Normal, constraints, register_kl
from torch.distributions import Independent as Reinterpreted

from deltavae.certified.base import ScalarPrior
from deltavae.certified.quadrature import divergence
from deltavae.certified.quantiles import from_noise

_TERMS_AT_ONCE = 1024  # of the divergence: 12 MB per intermediate result


@final
class ProductPrior(Distribution):
    """n d independent draws from one density; event shape (n, d).

    It has no mean and no variance: not every density has (Cauchy's).

    Args:
        density: The density of every step and channel.
        n: Steps, at least 1.
        d: Channels, at least 1.
        dtype: Floating type of draws; None for torch's default.
        device: Device of draws.
        validate_args: As in torch.distributions.

    Attributes:
        density: As given.
        arg_constraints: None: the density has checked its arguments.
        support: Every real (n, d) matrix.
        has_rsample: Samples are a differentiable map of the noise.

    Raises:
        ValueError: If n or d is below 1.
    """

    density: ScalarPrior
    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.independent(constraints.real, 2)  # type: ignore[no-untyped-call]
    has_rsample = True

    def __init__(
        self,
        density: ScalarPrior,
        n: int,
        d: int,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
        validate_args: bool | None = None,
    ) -> None:
        if n < 1 or d < 1:
            raise ValueError(f"n and d must be at least 1, got n={n}, d={d}")
        self.density = density
        self._dtype, self._device = dtype or torch.get_default_dtype(), torch.device(device)
        super().__init__(torch.Size(), torch.Size((n, d)), validate_args)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> "ProductPrior":
        """Return the same distribution with a larger batch shape."""
        wide = self._get_checked_instance(ProductPrior, _instance)  # type: ignore[no-untyped-call]
        wide.density, wide._dtype, wide._device = self.density, self._dtype, self._device
        super(ProductPrior, wide).__init__(
            torch.Size(batch_shape), self.event_shape, validate_args=False
        )
        wide._validate_args = self._validate_args
        return wide  # type: ignore[no-any-return]

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw z ~ p(z) by the table of the quantile transform.

        Args:
            sample_shape: Shape of the sample.

        Returns:
            Latents of shape (*sample_shape, *batch_shape, n, d).
        """
        shape = self._extended_shape(torch.Size(sample_shape))
        noise = torch.randn(shape, dtype=self._dtype, device=self._device)
        return from_noise(noise, self.density.quantiles.to(self._device))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return ln p(z), eq. (1).

        Args:
            value: Latents, event shape (n, d).

        Returns:
            Log-density in nats, in the type of the latents.
        """
        if self._validate_args:
            self._validate_sample(value)
        shape = torch.broadcast_shapes(value.shape, self._extended_shape())  # type: ignore[no-untyped-call]
        return self.density.log_prob(value.expand(shape)).sum(dim=(-2, -1))  # (1)


def _kl_mean_field_product(q: Distribution, p: ProductPrior) -> Tensor:
    """KL of the mean-field normal from independent draws, eq. (2), in float64."""
    if not (isinstance(q, Reinterpreted) and isinstance(q.base_dist, Normal)):
        raise NotImplementedError(f"no KL by quadrature between {q} and {p}")
    if q.event_shape != p.event_shape:
        raise ValueError(f"event shapes must agree, got {q.event_shape} and {p.event_shape}")
    mu, sigma = q.base_dist.loc.double(), q.base_dist.scale.double()
    parts = zip(*(torch.split(t.flatten(), _TERMS_AT_ONCE) for t in (mu, sigma)), strict=True)
    terms = torch.cat([divergence(p.density.log_prob, *part) for part in parts]).view(mu.shape)
    batch = torch.broadcast_shapes(q.batch_shape, p.batch_shape)  # type: ignore[no-untyped-call]
    return terms.sum(dim=(-2, -1)).expand(batch)  # (2)


register_kl(Reinterpreted, ProductPrior)(_kl_mean_field_product)  # type: ignore[no-untyped-call]
