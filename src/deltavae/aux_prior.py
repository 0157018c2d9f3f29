"""The auxiliary prior p_aux(z): an LSTM fitted to the aggregate posterior q(z) = E_x q(z|x).

It is trained on samples of q(z|x) and sends no gradient to encoder or decoder. Its rate

    aux_rate(x) = KL(q(z|x) ‖ p_aux) = E_q Σ_t KL(q(z_t|x) ‖ p_aux(z_t | z_<t))

is estimated with one draw of z_<t and the closed form for z_t. With

    E_x aux_rate = I(x;z) + KL(q(z) ‖ p_aux)

it bounds I(x;z) from above; distortion + aux_rate bounds −log p(x), and has no floor δ.

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, section 3,
https://arxiv.org/abs/1901.03416

Deviations:
    * The paper's figures name an autoregressive prior; one LSTM layer with diagonal Gaussian
      outputs is this project's reading.
    * The LSTM is fed z standardised by the posterior's mean and spread per step and channel.
"""

import math
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deltavae.latents import Posterior
from deltavae.nn.recurrent import conditionals, draw, recurrent_layers


@final
class AuxiliaryPrior(nn.Module):
    """p_aux(z) = Π_t N(z_t; m(z_<t), s(z_<t)²), one LSTM layer over the latent steps.

    Args:
        n: Latent steps.
        d: Latent channels.
        hidden: Units of the LSTM.

    Attributes:
        loc: Mean of z per step and channel, (n, d), by which z is standardised.
        scale: Standard deviation of z per step and channel, (n, d).
        updates: Number of batches that `follow` has seen.

    Raises:
        ValueError: If an argument is below 1.
    """

    loc: Tensor
    scale: Tensor
    updates: Tensor

    def __init__(self, n: int, d: int, hidden: int = 64) -> None:
        super().__init__()
        for name, value in (("n", n), ("d", d), ("hidden", hidden)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.lstm: nn.LSTM
        self.out: nn.Linear
        self.start: nn.Parameter
        self.lstm, self.out, self.start = recurrent_layers(d, hidden)  # starts at N(loc, scale²)
        self.register_buffer("loc", torch.zeros(n, d))
        self.register_buffer("scale", torch.ones(n, d))
        self.register_buffer("updates", torch.zeros(()))

    @torch.no_grad()
    def follow(self, q: Posterior) -> None:
        """Move the standardisation towards a batch's moments of z, over examples and noise.

        The first batch sets it; then the memory grows to about a hundred batches.

        Args:
            q: Posterior of the batch.
        """
        memory = torch.clamp(self.updates / (self.updates + 1.0), max=0.99).to(self.loc)
        self.updates += 1.0
        variance = q.mu.var(0, correction=0) + q.sigma.square().mean(0)
        self.loc.copy_(torch.lerp(q.mu.mean(0).to(self.loc), self.loc, memory))
        variance = torch.lerp(variance.to(self.loc), self.scale.square(), memory)
        self.scale.copy_(variance.clamp_min(1e-12).sqrt())

    def _conditionals(self, z: Float[Tensor, "b n d"]) -> tuple[Tensor, Tensor]:
        # Mean and standard deviation of p_aux(z_t | z_<t) for every t, teacher-forced.
        u = (z - self.loc) / self.scale
        mean, log_scale = conditionals(self.lstm, self.out, self.start, u)
        return self.loc + self.scale * mean, self.scale * log_scale.exp()

    def log_prob(self, z: Float[Tensor, "b n d"]) -> Float[Tensor, " b"]:
        """Return log p_aux(z) in nats."""
        mean, scale = self._conditionals(z)
        standard = (z - mean) / scale
        return -(0.5 * standard.square() + scale.log() + 0.5 * math.log(2 * math.pi)).sum((1, 2))

    def rate(self, q: Posterior, z: Float[Tensor, "b n d"]) -> Float[Tensor, " b"]:
        """Estimate KL(q(z|x) ‖ p_aux) in nats, without gradient to the posterior.

        Args:
            q: Posterior of the batch.
            z: One draw from it.

        Returns:
            Σ_t KL(N(mu_t, sigma_t²) ‖ p_aux(z_t | z_<t)), an unbiased estimate, one per example.
        """
        mu, sigma = q.mu.detach(), q.sigma.detach()
        mean, scale = self._conditionals(z.detach())
        ratio = sigma / scale
        terms = 0.5 * (ratio.square() + ((mu - mean) / scale).square() - 1.0) - ratio.log()
        return terms.sum((1, 2))

    def sample(
        self, count: int, generator: torch.Generator | None = None
    ) -> Float[Tensor, "count n d"]:
        """Draw latents step by step.

        Args:
            count: Number of draws.
            generator: Source of randomness.

        Returns:
            Draws of p_aux(z).
        """
        n, d = self.loc.shape
        options = {"device": self.loc.device, "dtype": self.loc.dtype}
        noise = torch.randn(count, n, d, generator=generator, **options)  # type: ignore[call-overload]
        return self.loc + self.scale * draw(self.lstm, self.out, self.start, noise)


def fit(
    prior: AuxiliaryPrior,
    mu: Float[Tensor, "m n d"],
    sigma: Float[Tensor, "m n d"],
    *,
    steps: int,
    batch_size: int = 256,
    learning_rate: float = 3e-3,
    generator: torch.Generator | None = None,
) -> list[float]:
    """Fit the auxiliary prior to frozen posteriors: minimise E KL(q(z|x) ‖ p_aux).

    Args:
        prior: The prior, changed in place, its standardisation included.
        mu: Posterior means of the training set.
        sigma: Posterior standard deviations.
        steps: Optimiser steps, at least 1; the learning rate falls to zero on a cosine.
        batch_size: Examples per step.
        learning_rate: Peak step size of Adam.
        generator: Source of batches and noise.

    Returns:
        The loss of every step in nats per example.

    Raises:
        ValueError: If steps is below 1.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    prior.updates.zero_()
    prior.follow(Posterior(mu, sigma, torch.zeros_like(mu)))
    optimiser = torch.optim.Adam(prior.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    losses = []
    for _ in range(steps):
        index = torch.randint(len(mu), (min(batch_size, len(mu)),), generator=generator)
        noise = torch.randn(len(index), *mu.shape[1:], generator=generator).to(mu)
        q = Posterior(mu[index], sigma[index], torch.zeros_like(noise))
        loss = prior.rate(q, q.sample(noise)).mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(prior.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.detach())
    return [float(loss) for loss in losses]
