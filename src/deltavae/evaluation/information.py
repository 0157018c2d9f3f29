"""How much z says about x: I(x;z) from below, KL(q(z) ‖ p) from above, and the units in use.

A guaranteed rate is not guaranteed information. With q(z) = E_x q(z|x),

    E_x KL(q(z|x) ‖ p) = I(x;z) + KL(q(z) ‖ p).                                            (1)

Since q(z|x) is known, I can be estimated from N examples and one draw z_i ~ q(z|x_i) of each:

    I ≥ E (1/N) Σ_i [log q(z_i|x_i) − log (1/N) Σ_j q(z_i|x_j)],   j = i included.         (2)

A lower bound that never exceeds ln N: where I is near ln N or above, (2) says ln N and no more.
It lacks E_q(z)[r̄ ln r̄] ≤ ln(1 + (E r² − 1)/N), r̄ the mean of N independent r = q(z|x)/q(z): up to
2 % of I at I = 5, 5 % at I = 6 nats, N = 10,000, x and z jointly Gaussian (E r² = e^{2I}).
With (1), rate − (2) is an upper bound of KL(q(z) ‖ p); E_x KL(q(z|x) ‖ p_aux) bounds I from above.

Poole et al., On Variational Bounds of Mutual Information, ICML 2019, section 2,
https://arxiv.org/abs/1905.06922

A unit (step, channel) is active where its posterior mean moves with x,
    Var_x μ > 0.01 σ*²,                                                                    (3)
with σ* the posterior's standard deviation at the floor: the noise that the mean must rise above.

Burda, Grosse & Salakhutdinov, Importance Weighted Autoencoders, ICLR 2016, section 5.2,
https://arxiv.org/abs/1509.00519
Deviations: their threshold is 0.01, absolute; it is the same where σ* = 1 (`Standard`).
"""

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from deltavae.evaluation.encodings import batches
from deltavae.latents import Posterior

ACTIVE_VARIANCE = 0.01  # Var_x μ / σ*², (3)

_BLOCK = 2**23  # pairs (i, j) held at a time: 64 MiB in float64


def mutual_information(q: Posterior, generator: torch.Generator) -> Float64[Tensor, " m"]:
    """Estimate I(x;z) from below, eq. (2), in O(m² n d) time.

    To first order the references x_j add no variance (each counts ∫ q(z|x_j) dz = 1), so that
    well below the cap the standard error of the mean is that of independent summands.

    Args:
        q: Posteriors of m examples, on the CPU.
        generator: Source of the draws, on the CPU.

    Returns:
        The summands of (2) in nats, one per example, each at most ln m; their mean estimates I.
    """
    exact, count = q.double(), len(q.mu)
    noise = torch.randn(q.mu.shape, generator=generator, dtype=q.mu.dtype)
    z = exact.sample(noise.double())
    summands = []
    for batch in batches(count, max(1, _BLOCK // count)):
        pairs = exact.pair_log_prob(z[batch])
        own = pairs.diagonal(batch.start)
        summands.append(own - pairs.logsumexp(1) + math.log(count))  # (2)
    return torch.cat(summands)


def active_units(mu: Float[Tensor, "m n d"], sigma_star: Float[Tensor, "n d"]) -> int:
    """Count the active units, eq. (3).

    Args:
        mu: Posterior means of m examples.
        sigma_star: Standard deviation of the posterior at the floor (`Latents.sigma_star`).

    Returns:
        Number of pairs of step and channel, in 0..n·d.
    """
    variance = mu.double().var(0, correction=0)
    return int((variance > ACTIVE_VARIANCE * sigma_star.to(variance).square()).sum())  # (3)
