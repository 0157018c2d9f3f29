"""Mean-field Gaussian posterior × autoregressive LSTM prior, trained together: δ = 0.

The rival of the δ-VAE with a flexible prior: with p(z) = Π_t N(z_t; m_t(z_<t), s_t(z_<t)²),

    KL(q(z|x) ‖ p) = E_q Σ_t KL(q(z_t|x) ‖ p(z_t | z_<t)),                                 (1)

estimated without bias from one draw z ~ q(z|x), in closed form for each step: with g = ln(σ/s),

    Σ_tk [½ (e²ᵍ − 1 − 2g) + ½ (μ_tk − m_tk)²/s_tk²] ≥ 0.                                  (2)

The bound trains the prior and, through z too, the encoder. Prior and posterior can meet, so that
nothing is committed; usually β < 1 keeps the rate up (`objectives.Beta`). No length is fixed in z:
the prior starts at N(0, I) and may scale z as it likes, so an active unit's threshold is relative
to that start.

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, section 4 (its β-VAE with an
autoregressive prior), https://arxiv.org/abs/1901.03416
Deviations: one LSTM layer with diagonal Gaussian outputs is this project's reading; z is not
standardised before the LSTM.
"""

from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deltavae.latents.base import Latents
from deltavae.latents.conditional import ConditionalNormal
from deltavae.latents.posterior import MeanFieldNormal, Posterior
from deltavae.latents.scale import bounded_log_scale
from deltavae.nn.recurrent import draw, outputs, recurrent_layers


@final
class LearnedPrior(Latents):
    """The pair of a VAE whose prior is an LSTM; the posterior can collapse onto the prior.

    Args:
        n: Latent steps, at least 1.
        d: Latent channels, at least 1.
        hidden: Units of the prior's LSTM, at least 1.

    Attributes:
        proof: See `Latents`.

    Raises:
        ValueError: If an argument is below 1.
    """

    proof = "nothing is committed: the prior learns, and the posterior can equal it"

    def __init__(self, n: int, d: int, hidden: int = 64) -> None:
        for name, value in (("n", n), ("d", d), ("hidden", hidden)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        zeros = torch.zeros(n, d, dtype=torch.float64)
        super().__init__(0.0, zeros, torch.ones_like(zeros))
        self.lstm: nn.LSTM
        self.out: nn.Linear
        self.start: nn.Parameter
        self._normal = ConditionalNormal(d)
        layers = recurrent_layers(d, hidden, self._normal.width)  # starts at N(0, I)
        self.lstm, self.out, self.start = layers

    @classmethod
    def from_rate(cls, delta: float, n: int, d: int, hidden: int = 64) -> "LearnedPrior":
        """Build the pair; it commits no rate, so ``delta`` must say so.

        Args:
            delta: 0.
            n: Latent steps, at least 1.
            d: Latent channels, at least 1.
            hidden: As in the constructor.

        Returns:
            The pair.

        Raises:
            ValueError: If delta is not 0, or another argument is below 1.
        """
        if delta != 0:
            raise ValueError(
                f"delta must be 0 for LearnedPrior, which commits no rate, got {delta}"
            )
        return cls(n, d, hidden)

    def config(self) -> dict[str, Any]:
        """Return plain arguments that rebuild the pair, but for the weights of its prior."""
        return {"n": self.n, "d": self.d, "hidden": self.lstm.hidden_size}

    def posterior(self, params: Float[Tensor, "b n k"]) -> MeanFieldNormal:
        """Turn raw network output (m, r) into μ = m and σ = eᵍ, g = 10 tanh(r/10).

        Args:
            params: Raw output, k = 2d.

        Returns:
            The posterior, in float32 at least; its excess is 0, for what it costs depends on the
            draw: `rate_terms`.
        """
        mu, raw = self._split(params)
        return MeanFieldNormal(mu, bounded_log_scale(raw).exp(), torch.zeros_like(mu))

    def rate(self, q: Posterior, z: Float[Tensor, "b n d"] | None = None) -> Float[Tensor, " b"]:
        """Estimate KL(q(z|x) ‖ p) from one draw, eq. (1).

        Args:
            q: A posterior of this pair.
            z: One draw from it.

        Returns:
            Nats per example, an unbiased estimate that is never negative.
        """
        return self.rates(q, z)[0]

    def rates(
        self, q: Posterior, z: Float[Tensor, "b n d"] | None = None
    ) -> tuple[Float[Tensor, " b"], Float[Tensor, "b n d"]]:
        """Return the estimate of ``rate`` and its summands, from one run of the LSTM.

        Args:
            q: A posterior of this pair.
            z: One draw from it.

        Returns:
            Nats per example, and nats per step and channel.
        """
        terms = self.rate_terms(q, z)
        return terms.sum(dim=(1, 2)), terms

    def rate_terms(
        self, q: Posterior, z: Float[Tensor, "b n d"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """Return the summands of (2), with gradient to q, to the prior and through z.

        Args:
            q: A posterior of this pair.
            z: One draw from it.

        Returns:
            Nats, never negative.

        Raises:
            ValueError: If z is missing.
        """
        if z is None:
            raise ValueError(
                "z must be given: under a learned prior the rate is an estimate from a draw of q"
            )
        return self._normal.kl_terms(self._outputs(z), q)  # (2)

    def prior_from_noise(self, noise: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Run the LSTM step by step: z_t = m_t(z_<t) + s_t(z_<t) · noise_t.

        Args:
            noise: Standard normal noise.

        Returns:
            Latents distributed as the prior.
        """
        exact = noise.to(self.start.dtype)
        return draw(self.lstm, self.out, self.start, exact, self._normal.draw).to(noise.dtype)

    def log_prior(self, z: Float[Tensor, "b n d"]) -> Float[Tensor, " b"]:
        """Return ln p(z).

        Args:
            z: Latents.

        Returns:
            Log-density in nats, summed over steps and channels.
        """
        return self._normal.log_prob(self._outputs(z), z).sum(dim=1)

    def _outputs(self, z: Float[Tensor, "b n d"]) -> Tensor:
        # Of every step, in the precision of the LSTM, whatever that of z.
        return outputs(self.lstm, self.out, self.start, z.to(self.start.dtype))
