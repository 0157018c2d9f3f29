"""The terms of the bound: what the model returns and what the objectives read.

For one example x and one draw z ~ q(z|x), in nats,

    distortion = −log p(x|z),   rate = KL(q(z|x) ‖ p(z)),   aux_rate = KL(q(z|x) ‖ p_aux(z)),
    −log p(x) ≤ neg_elbo = E_q[distortion] + rate.                      (δ-VAE, eq. 1)

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, https://arxiv.org/abs/1901.03416
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Terms:
    """Distortion and rates of a batch, in nats per example.

    Attributes:
        distortion: −log p(x|z) at one draw of z (exactly −log p(x) without latents).
        rate: KL(q(z|x) ‖ p(z)); zero without latents; never below the committed rate.
        rate_terms: The rate per latent step and channel; None without latents.
        aux_rate: KL(q(z|x) ‖ p_aux(z)), one draw; None without an auxiliary prior.
    """

    distortion: Float[Tensor, " b"]
    rate: Float[Tensor, " b"]
    rate_terms: Float[Tensor, "b n d"] | None = None
    aux_rate: Float[Tensor, " b"] | None = None

    @property
    def neg_elbo(self) -> Float[Tensor, " b"]:
        """Distortion + rate: an upper bound on −log p(x), in nats."""
        return self.distortion + self.rate

    @property
    def aux_neg_elbo(self) -> Float[Tensor, " b"] | None:
        """Distortion + aux_rate: the bound under the auxiliary prior, in nats."""
        return None if self.aux_rate is None else self.distortion + self.aux_rate
