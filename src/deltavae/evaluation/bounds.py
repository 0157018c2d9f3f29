"""Bounds on −log p(x), example by example, with z drawn from the posterior q(z|x).

One draw gives the two bounds that a δ-VAE reports (`deltavae.terms`), K draws a tighter one:

    neg_elbo     = E_q[−log p(x|z)] + KL(q ‖ p),
    aux_neg_elbo = E_q[−log p(x|z)] + KL(q ‖ p_aux),
    L_K = −log (1/K) Σ_k w_k,   w_k = p(x|z_k) p(z_k) / q(z_k|x),   z_k ~ q(z|x).          (1)

E L_1 = neg_elbo, E L_K never rises with K, and L_K → −log p(x) where the weights are bounded. With p_aux in
the place of p the same holds of the model p_aux(z) p(x|z); both bounds share their draws.

Burda, Grosse & Salakhutdinov, Importance Weighted Autoencoders, ICLR 2016, section 3,
https://arxiv.org/abs/1509.00519

Everything is kept per example and in float64, so that standard errors come for free; the nets run in
the model's own precision. Draws k = 1..K are decoded one after the other: memory does not grow with K,
and no result depends on the batch size beyond the rounding of the nets.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

from deltavae.evaluation.encodings import batches, evaluating
from deltavae.latents import Posterior
from deltavae.model import DeltaVAE
from deltavae.terms import Terms


@dataclass(frozen=True)
class ImportanceBound:
    """Importance-weighted upper bounds on −log p(x), in nats per example.

    Attributes:
        model: L_K under the model's prior p.
        aux: L_K under the auxiliary prior p_aux; None where the model has none.
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
    """Compute the terms of the bound for every example, with one draw of z.

    Args:
        model: The model.
        x: Events, integer levels.
        q: Their posteriors, on the CPU (`encode_images`); None for a model without latents.
        generator: Source of the draws, on the CPU.
        batch_size: Events per forward pass, at least 1.

    Returns:
        What the model's forward returns for all events at once, in float64 on the CPU. The rate is
        summed in float64: it is not below δ by a rounding.

    Raises:
        ValueError: If q is missing in a model with latents, or batch_size is below 1.
    """
    if model.latents is None:
        distortion = _distortion(model, x, None, batch_size)
        return Terms(distortion, torch.zeros_like(distortion))
    q = _required(q)
    z = q.sample(_noise(q, generator))
    distortion = _distortion(model, x, z, batch_size)
    prior, aux = model.aux_prior, []
    with evaluating(model) as device:
        for batch in batches(len(x) if prior is not None else 0, batch_size):
            part = Posterior(q.mu[batch], q.sigma[batch], q.excess[batch])
            assert prior is not None
            aux.append(prior.rate(_to(part, device), z[batch].to(device)).cpu().double())
        exact = _to(q, device, torch.float64)
        rate, rate_terms = model.latents.rate(exact).cpu(), model.latents.rate_terms(exact).cpu()
    return Terms(distortion, rate, rate_terms, torch.cat(aux) if aux else None)
