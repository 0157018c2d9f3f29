"""Mean-field Gaussian posterior × independent draws from a prior that is no Gaussian.

p(z) = Π_tk p(z_tk) with a density p on the real line, q(z|x) = Π_tk N(z_tk; μ_tk, σ_tk²). The
dimensions do not know of each other, so that each commits the floor of its own:

    δ = n d δ₁,   δ₁ = min over μ, σ of KL(N(μ, σ²) ‖ p) > 0,                              (1)

proven by branch and bound from bounds of −ln p alone (`deltavae.certified`). With a minimiser
(μ*, σ*) (a prior with several modes may have several: one of them is taken) and the median c of p

    μ = c + σ* m,   σ = σ* eᵍ,   the decoder reads (z − c)/σ*,                             (2)

m and g the network's: raw output 0 is the middle of p, between its modes if it has an even number,
so that the sign of m says which. The mean is free to go anywhere. The rate is δ plus the excess of
`certified.base`, an upper bound of the true one that is exact to ``quadrature_error``.

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, section 2.2,
https://arxiv.org/abs/1901.03416
Deviations: the paper has Gaussian priors only; (1) and (2) are derived here.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, final

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.distributions import kl_divergence

from deltavae import certified
from deltavae.certified import Certificate, ProductPrior, Rule, ScalarPrior
from deltavae.latents.base import Latents
from deltavae.latents.posterior import MeanFieldNormal, Posterior
from deltavae.latents.scale import bounded_log_scale
from deltavae.units import both_units

_PANELS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
_TWO_MODES = certified.GaussianMixture()
_ERROR = 5e-4  # of the quadrature at the minimiser, as a share of the floor


@final
class MeanFieldPair(Latents):
    """Mean-field Gaussian posterior × product of one density, with a certified floor.

    Args:
        prior: The density of every dimension: one of `deltavae.certified`, by itself or as its
            {class_path, init_args}, or in Python a `ScalarPrior` of your own.
        n: Latent steps, at least 1.
        d: Latent channels, at least 1.
        panels: Panels of the quadrature in training, at least 2, two evaluations of ln p each;
            None: as many as bring ``quadrature_error`` to 0.1 % of δ, 512 at most.

    Attributes:
        density: The density of every dimension.
        proof: See `Latents`.
        direct_examples: 4, for the many nodes of the finer quadrature.
        quadrature_error: Nats by which the rate at the minimiser is overstated at most; 0 for a
            closed form; nan where the floor is not certified.
        nodes: Nodes of the quadrature, float64.
        weights: Their weights, float64.
        quantiles: Table of the quantile transform, float64.

    Raises:
        ValueError: If an argument leaves its range, or the prior is none.
    """

    density: ScalarPrior
    proof: str
    direct_examples = 4
    quadrature_error: float
    nodes: Float64[Tensor, " j"]
    weights: Float64[Tensor, " j"]
    quantiles: Float64[Tensor, " knots"]

    def __init__(
        self,
        prior: ScalarPrior | Mapping[str, Any],
        n: int,
        d: int,
        panels: int | None = None,
    ) -> None:
        if n < 1 or d < 1:
            raise ValueError(f"n and d must be at least 1, got n={n}, d={d}")
        density = _built(prior)
        floor, sigma = density.certificate.lower, density.certificate.sigma
        terms = torch.full((n, d), floor, dtype=torch.float64)
        super().__init__(n * d * floor, terms, torch.full_like(terms, sigma))
        self.density, self.panels = density, panels
        self.proof = _proof(density.certificate)
        if panels is None:
            within = (p for p in _PANELS if not _error(density, p) > 2 * _ERROR * floor)
            panels = next(within, _PANELS[-1])
        by = certified.rule(panels)
        self.quadrature_error = _error(density, panels)
        self._second, self._fourth = by.second, by.fourth
        self._centre, _ = certified.spread(density.quantiles)
        self.register_buffer("nodes", by.nodes, persistent=False)
        self.register_buffer("weights", by.weights, persistent=False)
        self.register_buffer("quantiles", density.quantiles, persistent=False)

    @classmethod
    def from_rate(
        cls,
        delta: float,
        n: int,
        d: int,
        prior: ScalarPrior | Mapping[str, Any] = _TWO_MODES,
        panels: int | None = None,
    ) -> "MeanFieldPair":
        """Turn the prior's knob until the committed rate is ``delta``, to within 1e-6 of itself.

        Args:
            delta: δ in nats per example, above 0.
            n: Latent steps, at least 1.
            d: Latent channels, at least 1.
            prior: A prior of the family that is wanted: its knob (StudentT: degrees,
                GaussianMixture: separation) is turned. Others have none, for to stretch or shift p
                does not move the floor: then n d alone says what is committed. By default
                two modes, which reach up to n d ln 2.
            panels: As in the constructor.

        Returns:
            The pair.

        Raises:
            ValueError: If delta, n or d leave their range, or no knob commits delta: the message
                says which n d would.
        """
        if not delta > 0:
            raise ValueError(f"delta must be above 0, got {delta}")
        if n < 1 or d < 1:
            raise ValueError(f"n and d must be at least 1, got n={n}, d={d}")
        density = _built(prior)
        least, most = density.floors
        share = delta / (n * d)
        if not least * (1 - 1e-6) <= share <= most * (1 + 1e-6):
            raise ValueError(_out_of_reach(type(density).__name__, delta, least, most, n * d))
        return cls(density.at_floor(share), n, d, panels)

    @classmethod
    def from_log_prob(
        cls,
        log_prob: Callable[[Tensor], Tensor],
        n: int,
        d: int,
        curvature: tuple[float, float] | None = None,
        quartic: float | None = None,
    ) -> "MeanFieldPair":
        """Build the pair of a prior of your own, given as a function.

        Args:
            log_prob: ln p, normalised; element by element and differentiable, in any float type.
            n: Latent steps, at least 1.
            d: Latent channels, at least 1.
            curvature: (l, L) with l ≤ (−ln p)'' ≤ L everywhere, which the proof needs: it says how
                far −ln p can stray between the points at which it is read. Without it the floor
                is only the least that an optimiser found (``certificate.certified`` is False).
            quartic: M with |(−ln p)''''| ≤ M everywhere, if it is known: the rate is then computed
                more exactly, and the floor proven faster.

        Returns:
            The pair; a configuration cannot hold it (`certified.GivenPrior`).
        """
        return cls(certified.GivenPrior(log_prob, curvature, quartic), n, d)

    @property
    def prior(self) -> ProductPrior:
        """The prior as a torch distribution, whose draws are in float64."""
        sigma_star = self.sigma_star
        return ProductPrior(
            self.density, self.n, self.d, sigma_star.dtype, sigma_star.device, False
        )

    @property
    def certificate(self) -> Certificate:
        """What is known of the floor of one dimension."""
        return self.density.certificate

    def config(self) -> dict[str, Any]:
        """Return plain arguments that rebuild the pair exactly."""
        prior = self.density.specification()
        return {"prior": prior, "n": self.n, "d": self.d, "panels": self.panels}

    @property
    def summary(self) -> str:
        """The prior, in a line."""
        if isinstance(self.density, certified.GivenPrior):
            return "prior given as a function"  # which no configuration holds
        return super().summary

    def posterior(self, params: Float[Tensor, "b n k"]) -> MeanFieldNormal:
        """Turn raw network output (m, r) into μ and σ, eq. (2), g = 10 tanh(r/10).

        Args:
            params: Raw output, k = 2d.

        Returns:
            The posterior, in float32 at least.
        """
        mean, raw = self._split(params)
        g = bounded_log_scale(raw)
        sigma_star = self.sigma_star.to(g.dtype)
        mu = self._centre + sigma_star * mean
        by = Rule(self.nodes, self.weights, self._second, self._fourth)
        return MeanFieldNormal(mu, sigma_star * g.exp(), self.density.excess(mu, g, by))

    def direct_rate(self, q: Posterior) -> Float64[Tensor, " b"]:
        """Return the KL that is registered with the prior; see `Latents.direct_rate`."""
        assert isinstance(q, MeanFieldNormal)
        return kl_divergence(q.distribution, self.prior)

    def prior_from_noise(self, noise: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Turn standard normal noise into z ~ p by the table of the quantile transform.

        Args:
            noise: Standard normal noise.

        Returns:
            Latents distributed as the prior.
        """
        return certified.from_noise(noise, self.quantiles)

    def log_prior(self, z: Float[Tensor, "b n d"]) -> Float[Tensor, " b"]:
        """Return ln p(z).

        Args:
            z: Latents.

        Returns:
            Log-density in nats, summed over steps and channels.
        """
        return self.prior.log_prob(z)

    def to_decoder(self, z: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Return (z − c)/σ*: the scale of the prior is no business of the decoder's.

        Args:
            z: Latents.

        Returns:
            The decoder's input.
        """
        return (z - self._centre) / self.sigma_star.to(z.dtype)

    def extra_repr(self) -> str:
        """Describe the pair in one line."""
        word = "certified" if self.certificate.certified else "not certified"
        return f"{super().extra_repr()} ({word}), prior={type(self.density).__name__}"


def _proof(found: Certificate) -> str:
    if not found.certified:
        return f"not proven: δ = n d δ₁, δ₁ = {found.lower:.9g} {found.method}"
    return f"{found.method}: δ = n d δ₁, {found.lower:.9g} ≤ δ₁ ≤ {found.upper:.9g} nats"


def _out_of_reach(name: str, delta: float, least: float, most: float, dimensions: int) -> str:
    if least < most:
        fewest, many = math.ceil(delta / most), math.floor(delta / least)
        return (
            f"delta={both_units(delta)} takes n d from {fewest} to {many} with {name}, which "
            f"commits {least:.6g} to {most:.6g} nats per dimension; got n d = {dimensions}"
        )
    near = max(1, round(delta / least))
    return (
        f"delta={both_units(delta)}: {name} has no knob and commits {least:.6g} nats per "
        f"dimension; the nearest is {both_units(near * least)} at n d = {near}; "
        f"got n d = {dimensions}"
    )


def _error(prior: ScalarPrior, panels: int) -> float:
    """Return twice the bound of the quadrature's error at the minimiser."""
    if prior.curvature is None:
        return 0.0 if prior.certificate.certified else float("nan")
    at = torch.tensor(prior.certificate.sigma, dtype=torch.float64)
    return 2 * float(certified.rule(panels).error(at, prior.curvature, prior.quartic))


def _built(prior: ScalarPrior | Mapping[str, Any]) -> ScalarPrior:
    """Build a prior of `deltavae.certified` from its {class_path, init_args}."""
    if isinstance(prior, ScalarPrior):
        return prior
    path = str(prior.get("class_path"))
    package, _, name = path.rpartition(".")
    kind = getattr(certified, name, None) if package.startswith("deltavae.certified") else None
    if not (isinstance(kind, type) and issubclass(kind, ScalarPrior)):
        raise ValueError(f'prior must be a prior of deltavae.certified, got class_path "{path}"')
    try:
        return kind(**(prior.get("init_args") or {}))
    except TypeError as error:
        raise ValueError(f"prior: {path}: {error}") from error
