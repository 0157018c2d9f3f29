"""The δ-VAE: x → q(z|x) → z → p(x|z), and the terms of its bound.

    −log p(x) ≤ E_q[−log p(x|z)] + KL(q(z|x) ‖ p(z)),
    KL(q(z|x) ‖ p(z)) ≥ δ   for every q of the family.

The model is put together from an encoder, a pair of posterior and prior (`deltavae.latents`), a
decoder and an auxiliary prior. Without latents it is the decoder alone: the rival in every table.

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019,
https://arxiv.org/abs/1901.03416
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from deltavae.aux_prior import AuxiliaryPrior
from deltavae.decoders import Decoder
from deltavae.encoders import Encoder
from deltavae.latents import Latents, Posterior
from deltavae.sampling import draw_in_batches, resample
from deltavae.terms import Terms

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Completion:
    """Events of which a part was given.

    Attributes:
        events: Completions of each event.
        effective_candidates: For each event between how many candidates for z there was in effect
            a choice, from 1 to all of them: near 1 all completions share one z, and more
            candidates should be drawn. Empty without latents.
    """

    events: UInt8[Tensor, "b count ..."]
    effective_candidates: tuple[float, ...]


@final
class DeltaVAE(nn.Module):
    """A latent-variable model with an autoregressive decoder and a committed rate.

    Args:
        decoder: p(x|z).
        encoder: x → raw parameters of q(z|x); None without latents.
        latents: The pair of posterior and prior; None without latents.
        aux_prior: p_aux(z); None without latents, or where it is not wanted.

    Raises:
        ValueError: If the parts do not fit each other.
    """

    def __init__(
        self,
        decoder: Decoder,
        encoder: Encoder | None = None,
        latents: Latents | None = None,
        aux_prior: AuxiliaryPrior | None = None,
    ) -> None:
        super().__init__()
        if (encoder is None) != (latents is None):
            raise ValueError("encoder and latents must be given both or neither")
        shape = None if latents is None else (latents.n, latents.d)
        if latents is not None and decoder.latent_shape != shape:
            raise ValueError(f"decoder.latent_shape must be {shape}, got {decoder.latent_shape}")
        if aux_prior is not None and tuple(aux_prior.loc.shape) != shape:
            raise ValueError(
                f"aux_prior must have shape {shape}, got {tuple(aux_prior.loc.shape)}"
            )
        self.decoder = decoder
        self.encoder = encoder
        self.latents = latents
        self.aux_prior = aux_prior

    def forward(
        self,
        x: UInt8[Tensor, "b ..."],
        noise: Float[Tensor, "b n d"] | None = None,
    ) -> Terms:
        """Return the terms of the bound.

        Args:
            x: Events, integer levels.
            noise: Standard normal noise of the posterior's draw; None without latents.

        Returns:
            Distortion, rate and aux_rate per example, in nats.

        Raises:
            ValueError: If noise is missing in a model with latents.
        """
        if self.latents is None:
            distortion = -self.decoder.log_prob(x, None)
            return Terms(distortion, torch.zeros_like(distortion))
        if noise is None:
            raise ValueError(
                "noise must be given: standard normal, one value per step and channel"
            )
        q = self.encode(x)
        z = q.sample(noise)
        distortion = -self.decoder.log_prob(x, self.latents.to_decoder(z))
        with torch.autocast(device_type=x.device.type, enabled=False):
            aux_rate = None
            if self.aux_prior is not None:
                if self.training:
                    self.aux_prior.follow(q)
                aux_rate = self.aux_prior.rate(q, z)
            rate, rate_terms = self.latents.rates(q, z)
            return Terms(distortion, rate, rate_terms, aux_rate)

    def encode(self, x: UInt8[Tensor, "b ..."]) -> Posterior:
        """Return q(z|x).

        Args:
            x: Events, integer levels.

        Returns:
            The posterior of every example, in full precision.

        Raises:
            ValueError: If the model has no latents.
        """
        if self.encoder is None or self.latents is None:
            raise ValueError("this model has no latents: there is nothing to encode")
        params = self.encoder(x)
        with torch.autocast(device_type=x.device.type, enabled=False):
            return self.latents.posterior(params)

    @torch.no_grad()
    def sample_latents(
        self,
        count: int,
        *,
        prior: Literal["aux", "model"] = "aux",
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "count n d"] | None:
        """Draw latents from a prior.

        Args:
            count: Number of draws.
            prior: "aux", the auxiliary prior, or "model", the prior of the bound.
            generator: Source of randomness.

        Returns:
            z; None for a model without latents.

        Raises:
            ValueError: If the prior is unknown, or "aux" and the model has none.
        """
        if prior not in ("aux", "model"):
            raise ValueError(f'prior must be "aux" or "model", got "{prior}"')
        if self.latents is None:
            return None
        if prior == "model":
            return self.latents.sample_prior(count, generator)
        if self.aux_prior is None:
            raise ValueError('prior must be "model": this model has no auxiliary prior')
        return self.aux_prior.sample(count, generator)

    def decode(
        self,
        z: Float[Tensor, "b n d"],
        *,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
        batch_size: int = 64,
        progress: Progress | None = None,
    ) -> UInt8[Tensor, "b ..."]:
        """Draw one event for every z.

        Args:
            z: Latents, of at least 1 event.
            generator: Source of randomness.
            temperature: Scale of the decoder's logits, above 0.
            batch_size: Events drawn at a time, at least 1; with a generator of the CPU it changes
                memory and time only.
            progress: Called with the number of the decoder's steps done and their total.

        Returns:
            Drawn events.

        Raises:
            ValueError: If the model has no latents or an argument is out of its range.
        """
        if self.latents is None:
            raise ValueError("this model has no latents: there is nothing to decode")
        return draw_in_batches(
            self.decoder,
            self._read(z),
            len(z),
            generator=generator,
            temperature=temperature,
            batch_size=batch_size,
            progress=progress,
        )

    def sample(
        self,
        count: int,
        *,
        prior: Literal["aux", "model"] = "aux",
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
        batch_size: int = 64,
        progress: Progress | None = None,
    ) -> UInt8[Tensor, "count ..."]:
        """Draw events: z from a prior, then x from the decoder.

        Args:
            count: Number of events, at least 1.
            prior: "aux", the auxiliary prior, or "model", the prior of the bound.
            generator: Source of randomness.
            temperature: Scale of the decoder's logits, above 0.
            batch_size: Events drawn at a time, at least 1; with a generator of the CPU it changes
                memory and time only.
            progress: Called with the number of the decoder's steps done and their total.

        Returns:
            Drawn events.

        Raises:
            ValueError: If an argument is out of its range.
        """
        if count < 1:
            raise ValueError(f"count must be at least 1, got {count}")
        z = self.sample_latents(count, prior=prior, generator=generator)
        return draw_in_batches(
            self.decoder,
            None if z is None else self._read(z),
            count,
            generator=generator,
            temperature=temperature,
            batch_size=batch_size,
            progress=progress,
        )

    @torch.no_grad()
    def complete(
        self,
        x: UInt8[Tensor, "b ..."],
        positions: int,
        count: int,
        *,
        candidates: int = 64,
        prior: Literal["aux", "model"] = "aux",
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
        batch_size: int = 64,
        progress: Progress | None = None,
    ) -> Completion:
        """Keep the first positions of events and draw the rest, several times.

        z comes from p(z | x_1..x_k) by resampling candidates from a prior (`sampling.resample`):
        the encoder cannot tell, since q(z|x) has seen the rest.

        Args:
            x: Events, at least 1; from position k on they are not read.
            positions: Number k of positions to keep, in 0..P; of an image rows·W are that many
                rows.
            count: Completions of each event, at least 1.
            candidates: Candidates for the z of each event, at least 1.
            prior: Where they come from: "aux", the auxiliary prior, or "model".
            generator: Source of randomness.
            temperature: Scale of the decoder's logits, above 0; candidates are weighed at 1.
            batch_size: Candidates weighed and events drawn at a time, at least 1; with a generator
                of the CPU it changes memory and time only.
            progress: Called with the number of the decoder's steps done and their total.

        Returns:
            Events whose first k positions are those of x, and how far the candidates went.

        Raises:
            ValueError: If an argument is out of its range.
        """
        for name, value in (("count", count), ("candidates", candidates)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        chosen, effective = [], []
        for event in x if self.latents is not None else ():
            z = self.sample_latents(candidates, prior=prior, generator=generator)
            assert z is not None  # the model has latents
            read = self._read(z)
            index, number = resample(
                self.decoder,
                read,
                event,
                positions,
                count,
                generator=generator,
                batch_size=batch_size,
            )
            chosen.append(read[index])
            effective.append(number)
        drawn = draw_in_batches(
            self.decoder,
            torch.cat(chosen) if chosen else None,
            len(x) * count,
            given=x.repeat_interleave(count, dim=0),
            positions=positions,
            generator=generator,
            temperature=temperature,
            batch_size=batch_size,
            progress=progress,
        )
        return Completion(drawn.view(len(x), count, *drawn.shape[1:]), tuple(effective))

    def _read(self, z: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        # Latents as the decoder reads them; priors draw in float32.
        assert self.latents is not None
        return self.latents.to_decoder(z.to(next(self.decoder.parameters()).dtype))

    @torch.no_grad()
    def interpolate(
        self,
        start: UInt8[Tensor, "b ..."],
        end: UInt8[Tensor, "b ..."],
        *,
        steps: int,
        generator: torch.Generator | None = None,
    ) -> UInt8[Tensor, "b steps ..."]:
        """Decode points on the line between pairs of events, see `latent_line`.

        Args:
            start: Events at one end.
            end: Events at the other.
            steps: Points on the line, both ends included, at least 2.
            generator: Source of the decoder's randomness.

        Returns:
            For each pair one drawn event per point.
        """
        line = self.latent_line(start, end, steps)
        drawn = self.decode(line.flatten(0, 1), generator=generator)
        return drawn.reshape(len(start), steps, *drawn.shape[1:])

    @torch.no_grad()
    def latent_line(
        self, start: UInt8[Tensor, "b ..."], end: UInt8[Tensor, "b ..."], steps: int
    ) -> Float[Tensor, "b steps n d"]:
        """Return points on the straight line between the posterior locations of pairs of events.

        Args:
            start: Events at one end.
            end: Events at the other.
            steps: Points on the line, both ends included, at least 2.

        Returns:
            Latents; where not every point is one (directions, codes), those nearest to the line.

        Raises:
            ValueError: If steps is below 2 or the model has no latents.
        """
        if steps < 2:
            raise ValueError(f"steps must be at least 2, got {steps}")
        if self.latents is None:
            raise ValueError("this model has no latents: there is no line between them")
        a, b = self.encode(start).mu, self.encode(end).mu
        weights = torch.linspace(0.0, 1.0, steps, device=a.device, dtype=a.dtype)
        return self.latents.nearest(torch.lerp(a[:, None], b[:, None], weights[:, None, None]))
