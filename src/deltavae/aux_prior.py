"""The auxiliary prior p_aux(z): an LSTM fitted to the aggregate posterior q(z) = E_x q(z|x).

It is trained on samples of q(z|x) and sends no gradient to encoder or decoder. Its rate

    aux_rate(x) = KL(q(z|x) ‖ p_aux) = E_q Σ_t KL(q(z_t|x) ‖ p_aux(z_t | z_<t))

is estimated with one draw of z_<t and, where there is one, the closed form for z_t. With

    E_x aux_rate = I(x;z) + KL(q(z) ‖ p_aux)

it bounds I(x;z) from above; distortion + aux_rate bounds −log p(x), and has no floor δ.

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, section 3,
https://arxiv.org/abs/1901.03416

Deviations:
    * The paper's figures name an autoregressive prior; one LSTM layer with diagonal Gaussian
      outputs is this project's reading. Directions and codes get conditionals of their own kind
      (`latents.conditional`).
    * The LSTM is fed z standardised by the posterior's mean and spread per step and channel.
"""

from operator import itemgetter
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from deltavae.latents import Conditional, ConditionalNormal, MeanFieldNormal, Posterior
from deltavae.nn.recurrent import draw, outputs, recurrent_layers


@final
class AuxiliaryPrior(nn.Module):
    """p_aux(z) = Π_t p(z_t | z_<t), one LSTM layer over the latent steps.

    Args:
        n: Latent steps.
        d: Latent channels.
        hidden: Units of the LSTM.
        conditional: Family of p(z_t | z_<t); None: normals, N(m(z_<t), s(z_<t)²). A pair's own is
            `Latents.conditional`.

    Attributes:
        loc: Mean of z per step and channel, (n, d), by which z is standardised.
        scale: Standard deviation of z per step and channel, (n, d).
        updates: Number of batches that `follow` has seen.

    Raises:
        ValueError: If an argument is below 1, or the conditional is of another number of channels.
    """

    loc: Tensor
    scale: Tensor
    updates: Tensor

    def __init__(
        self, n: int, d: int, hidden: int = 64, conditional: Conditional | None = None
    ) -> None:
        super().__init__()
        for name, value in (("n", n), ("d", d), ("hidden", hidden)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.conditional = ConditionalNormal(d) if conditional is None else conditional
        if self.conditional.d != d:
            raise ValueError(f"conditional must have d={d} channels, got {self.conditional.d}")
        self.lstm: nn.LSTM
        self.out: nn.Linear
        self.start: nn.Parameter
        layers = recurrent_layers(d, hidden, self.conditional.width)
        self.lstm, self.out, self.start = layers  # normals start at N(loc, scale²)
        self.register_buffer("loc", torch.zeros(n, d))
        self.register_buffer("scale", torch.ones(n, d))
        self.register_buffer("updates", torch.zeros(()))

    @torch.no_grad()
    def follow(self, q: Posterior) -> None:
        """Move the standardisation towards a batch's moments of z, over examples and noise.

        The first batch sets it; then the memory grows to about a hundred batches. Directions and
        codes have a scale of their own, and stay as they are.

        Args:
            q: Posterior of the batch.
        """
        if not self.conditional.standardised:
            return
        assert isinstance(q, MeanFieldNormal)
        memory = torch.clamp(self.updates / (self.updates + 1.0), max=0.99).to(self.loc)
        self.updates += 1.0
        variance = q.mu.var(0, correction=0) + q.sigma.square().mean(0)
        self.loc.copy_(torch.lerp(q.mu.mean(0).to(self.loc), self.loc, memory))
        variance = torch.lerp(variance.to(self.loc), self.scale.square(), memory)
        self.scale.copy_(variance.clamp_min(1e-12).sqrt())

    def _outputs(self, u: Float[Tensor, "b n d"]) -> Float[Tensor, "b n width"]:
        return outputs(self.lstm, self.out, self.start, u)

    def log_prob(self, z: Float[Tensor, "b n d"]) -> Float[Tensor, " b"]:
        """Return log p_aux(z) in nats."""
        u = (z - self.loc) / self.scale
        return self.conditional.log_prob(self._outputs(u), u).sum(1) - self.scale.log().sum()

    def rate(self, q: Posterior, z: Float[Tensor, "b n d"]) -> Float[Tensor, " b"]:
        """Estimate KL(q(z|x) ‖ p_aux) in nats, without gradient to the posterior.

        Args:
            q: Posterior of the batch.
            z: One draw from it.

        Returns:
            Σ_t KL(q(z_t|x) ‖ p_aux(z_t | z_<t)), an unbiased estimate, one per example.
        """
        q, u = q.map(torch.detach), z.detach()
        if isinstance(q, MeanFieldNormal):
            q, u = q.standardised(self.loc, self.scale), (u - self.loc) / self.scale
        return self.conditional.kl(self._outputs(u), q, u).sum(1)

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
        u = draw(self.lstm, self.out, self.start, noise, self.conditional.draw)
        return self.loc + self.scale * u


def fit(
    prior: AuxiliaryPrior,
    q: Posterior,
    *,
    steps: int,
    batch_size: int = 256,
    learning_rate: float = 3e-3,
    generator: torch.Generator | None = None,
) -> list[float]:
    """Fit the auxiliary prior to frozen posteriors: minimise E KL(q(z|x) ‖ p_aux).

    Args:
        prior: The prior, changed in place, its standardisation included.
        q: Posteriors of the training set.
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
    prior.follow(q)
    count = len(q.mu)
    optimiser = torch.optim.Adam(prior.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    losses = []
    for _ in range(steps):
        index = torch.randint(count, (min(batch_size, count),), generator=generator)
        noise = torch.randn(len(index), *q.mu.shape[1:], generator=generator).to(q.mu)
        batch = q.map(itemgetter(index))
        loss = prior.rate(batch, batch.sample(noise)).mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(prior.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        losses.append(loss.detach())
    return [float(loss) for loss in losses]
