"""Bounds on −log p(x), example by example, with z drawn from the posterior q(z|x).

One draw gives the two bounds that a δ-VAE reports (`deltavae.terms`), K draws a tighter one:

    neg_elbo     = E_q[−log p(x|z)] + KL(q ‖ p),
    aux_neg_elbo = E_q[−log p(x|z)] + KL(q ‖ p_aux),
    L_K = −log (1/K) Σ_k w_k,   w_k = p(x|z_k) p(z_k) / q(z_k|x),   z_k ~ q(z|x).          (1)

E L_1 = neg_elbo, E L_K never rises with K, and L_K → −log p(x) where the weights are bounded. With
p_aux in the place of p the same holds of the model p_aux(z) p(x|z); both bounds share their draws.

Burda, Grosse & Salakhutdinov, Importance Weighted Autoencoders, ICLR 2016, section 3,
https://arxiv.org/abs/1509.00519

Everything is kept per example and summed in float64, so that standard errors come for free; the
nets run in the model's own precision. The K draws are decoded one after the other: memory does
not grow with K, and beyond the nets' rounding no result depends on the batch size.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

from deltavae.evaluation.encodings import batches, evaluating
from deltavae.latents import Posterior
from deltavae.model import DeltaVAE
from deltavae.terms import Terms


@dataclass(frozen=True)
class ImportanceBounds:
    """Importance-weighted upper bounds on −log p(x), in nats per example.

    Attributes:
        model: L_K under the model's prior.
        aux: L_K under the auxiliary prior; None where the model has none.
    """

    model: Float64[Tensor, " m"]
    aux: Float64[Tensor, " m"] | None


def draw_terms(
    model: DeltaVAE,
    x: UInt8[np.ndarray, "m ..."],
    q: Posterior | None,
    *,
    generator: torch.Generator,
    batch_size: int = 256,
) -> Terms:
    """Compute the terms of the bound of every example, with one draw of z.

    A q that does not fit the model or the events is a ValueError.

    Args:
        model: The model.
        x: Events, integer levels.
        q: Their posteriors on the CPU (`encode_images`); None for a model without latents.
        generator: Source of the draw, on the CPU.
        batch_size: Events per forward pass, at least 1.

    Returns:
        What the model's forward returns, for all events, in float64 on the CPU; the rate is summed
        in float64, so that rounding cannot push it below δ.
    """
    _check(model, x, q)
    noise = None if q is None else _noise(q, generator)
    parts = []
    with evaluating(model) as device:
        for batch in batches(len(x), batch_size):
            events = torch.from_numpy(x[batch]).to(device)
            if q is None or noise is None:
                terms = model(events)
            else:
                terms = _terms(model, events, _at(q, batch, device), noise[batch].to(device))
            parts.append(terms)
    joined = {f.name: _join([getattr(part, f.name) for part in parts]) for f in fields(Terms)}
    return Terms(**joined)  # type: ignore[arg-type]


def importance_bounds(
    model: DeltaVAE,
    x: UInt8[np.ndarray, "m ..."],
    q: Posterior,
    samples: int,
    *,
    generator: torch.Generator,
    batch_size: int = 256,
    progress: Callable[[int], None] | None = None,
) -> ImportanceBounds:
    """Compute the importance-weighted bounds (1) of every example.

    Args:
        model: A model with latents.
        x: Events, integer levels.
        q: Their posteriors on the CPU (`encode_images`).
        samples: Draws K per example, at least 1.
        generator: Source of the draws, on the CPU.
        batch_size: Events per forward pass, at least 1.
        progress: Called with the number of draws done after each.

    Returns:
        The bounds under both priors, from the same draws, on the CPU.

    Raises:
        ValueError: If samples is below 1, or q does not fit the model or the events.
    """
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    _check(model, x, q)
    total: Tensor | None = None
    with evaluating(model) as device:
        for k in range(samples):
            noise = _noise(q, generator)
            parts = []
            for batch in batches(len(x), batch_size):
                events = torch.from_numpy(x[batch]).to(device)
                posterior = _at(q, batch, device)
                parts.append(_log_weights(model, events, posterior, noise[batch].to(device)).cpu())
            log_weights = torch.cat(parts, dim=1)
            total = log_weights if total is None else torch.logaddexp(total, log_weights)
            if progress is not None:
                progress(k + 1)
    assert total is not None
    bounds = math.log(samples) - total  # (1)
    return ImportanceBounds(bounds[0], bounds[1] if len(bounds) > 1 else None)


def _terms(
    model: DeltaVAE, x: UInt8[Tensor, "b ..."], q: Posterior, noise: Float[Tensor, "b n d"]
) -> Terms:
    # As DeltaVAE.forward, but for the sums of the rate in float64.
    assert model.latents is not None
    z = q.sample(noise)
    return Terms(
        -model.decoder.log_prob(x, model.latents.to_decoder(z)),
        *model.latents.rates(q.double(), z),
        None if model.aux_prior is None else model.aux_prior.rate(q, z),
    )


def _log_weights(
    model: DeltaVAE, x: UInt8[Tensor, "b ..."], q: Posterior, noise: Float[Tensor, "b n d"]
) -> Float64[Tensor, "priors b"]:
    # log w_k of (1) under the model's prior and, where there is one, under the auxiliary prior.
    assert model.latents is not None
    exact = q.double()
    z = exact.sample(noise.double())
    read = model.latents.to_decoder(z).to(q.mu.dtype)
    log_likelihood = model.decoder.log_prob(x, read).double()
    log_priors = [model.latents.log_prior(z)]
    if model.aux_prior is not None:
        log_priors.append(model.aux_prior.log_prob(z.to(q.mu.dtype)).double())
    return log_likelihood + torch.stack(log_priors) - exact.log_prob(z)


def _check(model: DeltaVAE, x: UInt8[np.ndarray, "m ..."], q: Posterior | None) -> None:
    shape = None if q is None else tuple(q.mu.shape)
    latents = model.latents
    needed = None if latents is None else (len(x), latents.n, latents.d)
    if shape != needed:
        raise ValueError(f"q must have shape {needed} for this model and these x, got {shape}")


def _noise(q: Posterior, generator: torch.Generator) -> Float[Tensor, "m n d"]:
    # For all examples at once: so the draws do not depend on the batch size.
    return torch.randn(q.mu.shape, generator=generator, dtype=q.mu.dtype)


def _at(q: Posterior, batch: slice, device: torch.device) -> Posterior:
    return q.map(lambda rows: rows[batch].to(device))


def _join(parts: list[Tensor | None]) -> Tensor | None:
    present = [part.double().cpu() for part in parts if part is not None]
    return torch.cat(present) if present else None
