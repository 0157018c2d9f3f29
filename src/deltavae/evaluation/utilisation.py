"""What the decoder does with z: how alike the decodings of one z are, which row needs which z_t.

Decoding similarity. M posterior draws z_m, each decoded K times into y_mk ~ p(x|z_m); with a
similarity s of two images, either minus their mean squared difference or their correlation,

    T = mean_{m, k≠l} s(y_mk, y_ml) − mean_{m≠m', k, l} s(y_mk, y_m'l).                    (1)

A decoder that ignores z makes all M·K decodings exchangeable: T is then 0 on average, and among N
random relabellings of the decodings (K to each z) with their T_1..T_N,

    p = (1 + #{i : T_i ≥ T}) / (1 + N)                                                     (2)

is below u with probability at most u, for every u that N allows: an exact test, whatever the
images are. The standard error of T is the jackknife's over the M z's.

Ablation. With teacher forcing, where z' is z except that z'_t is another example's z_t,

    A_tr = E [log₂ p(x_r | x_<r, z) − log₂ p(x_r | x_<r, z')],                             (3)

x_r the r-th span of positions (of an image: its r-th row): the bits that x_r costs more when step
t lies. 0 exactly where no position of x_r may see z_t. It measures reliance, not information: a
z_t that contradicts its neighbours can cost more than one that is merely missing.

Phipson & Smyth, Permutation P-values Should Never Be Zero, Statistical Applications in Genetics
and Molecular Biology 9(1), 2010, https://arxiv.org/abs/1603.05766, for (2).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor

from deltavae.evaluation.encodings import batches, draw_latents, encode_images, evaluating
from deltavae.model import DeltaVAE
from deltavae.units import nats_to_bits

_RELABELLINGS_AT_ONCE = 500  # some 10 MB at M·K² = 2,000
_ROUNDING = 1e-12  # relative; relabellings that leave T as it is count as ties


@dataclass(frozen=True)
class DecodingSimilarity:
    """How much more alike two decodings of one z are than decodings of two z's.

    Attributes:
        within: Mean similarity of two decodings of the same z.
        between: Mean similarity of decodings of different z's.
        difference: T = within − between, eq. (1); above 0 where the decoder uses z.
        error: Standard error of the difference, by the jackknife over z.
        p_value: Eq. (2), in [1/(1+N), 1].
        permutations: Number N of relabellings.
    """

    within: float
    between: float
    difference: float
    error: float
    p_value: float
    permutations: int


@dataclass(frozen=True, eq=False)
class Ablation:
    """How many bits a span costs more when one step of z is another example's, eq. (3).

    Attributes:
        bits: A_tr, mean over examples; one row per latent step, one column per span.
        error: Its standard error, the examples taken as independent.
    """

    bits: Float64[np.ndarray, "n r"]
    error: Float64[np.ndarray, "n r"]


def decode_repeatedly(
    model: DeltaVAE,
    images: UInt8[np.ndarray, "m ..."],
    decodings: int,
    *,
    generator: torch.Generator,
    batch_size: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> UInt8[np.ndarray, "m k ..."]:
    """Draw one z ~ q(z|x) for every event and decode it several times.

    Args:
        model: A model with latents.
        images: Events to encode.
        decodings: Decodings K of each z, at least 1.
        generator: Source of the draws, on the CPU.
        batch_size: Events at a time, at least 1.
        progress: Called with the number of the decoder's steps done and their total.

    Returns:
        For every event K decodings of its z.

    Raises:
        ValueError: If decodings is below 1, or the model has no latents.
    """
    if decodings < 1:
        raise ValueError(f"decodings must be at least 1, got {decodings}")
    z = draw_latents(encode_images(model, images, batch_size), generator)
    with evaluating(model) as device:
        drawn = model.decode(
            z.repeat_interleave(decodings, dim=0).to(device),
            generator=generator,
            batch_size=batch_size,
            progress=progress,
        )
    return drawn.cpu().numpy().reshape(len(images), decodings, *images.shape[1:])


def decoding_similarity(
    decodings: UInt8[np.ndarray, "m k ..."],
    levels: int,
    *,
    measure: Literal["squared", "correlation"] = "squared",
    permutations: int = 9999,
    generator: torch.Generator,
) -> DecodingSimilarity:
    """Compare the decodings of one z with each other and with those of other z's.

    Args:
        decodings: K decodings of each of M z's (`decode_repeatedly`), M at least 3, K at least 2.
        levels: Levels L of the pixels, for values x/(L−1) in [0, 1]; at least 2.
        measure: The similarity s of two images: "squared", minus the mean squared difference of
            their values, in [−1, 0]; "correlation", Pearson's over the values, in [−1, 1], and 0
            where an image is constant.
        permutations: Relabellings N, at least 1.
        generator: Source of the relabellings, on the CPU.

    Returns:
        The similarities, their difference and its p-value.

    Raises:
        ValueError: If an argument is out of its range.
    """
    m, k = decodings.shape[:2]
    if m < 3 or k < 2:
        raise ValueError(f"decodings must hold at least 3 z's, 2 decodings each, got {m} and {k}")
    if permutations < 1:
        raise ValueError(f"permutations must be at least 1, got {permutations}")
    if levels < 2:
        raise ValueError(f"levels must be at least 2, got {levels}")
    if measure not in ("squared", "correlation"):
        raise ValueError(f'measure must be "squared" or "correlation", got "{measure}"')
    values = torch.from_numpy(decodings.reshape(m * k, -1)).double() / (levels - 1)
    s = _squared(values) if measure == "squared" else _correlation(values)
    s.fill_diagonal_(0.0)  # an image's similarity to itself is no evidence
    groups = s.view(m, k, m, k).sum((1, 3))  # sums over the pairs of decodings of two z's
    within, between = _means(groups, k)
    error = _jackknife_error(groups, k)
    as_high = _count_as_high(s, m, k, permutations, generator)
    return DecodingSimilarity(
        within=float(within),
        between=float(between),
        difference=float(within - between),  # (1)
        error=error,
        p_value=(1 + as_high) / (1 + permutations),  # (2)
        permutations=permutations,
    )


def latent_ablation(
    model: DeltaVAE,
    images: UInt8[np.ndarray, "m ..."],
    *,
    spans: int | None = None,
    generator: torch.Generator,
    batch_size: int = 256,
) -> Ablation:
    """Replace z_t by another event's, for every t, and see which spans cost more, eq. (3).

    Every event has one donor for all its steps: the next one on a random tour of the events.

    Args:
        model: A model with latents.
        images: At least 2 events.
        spans: Number of spans of consecutive positions, all of one length: a divisor of the
            positions; None: one per latent step (of an image its rows, with one step per row).
        generator: Source of the draws and of the tour, on the CPU.
        batch_size: Events per forward pass, at least 1.

    Returns:
        The extra bits of every span for every step.

    Raises:
        ValueError: If an argument is out of its range, or the model has no latents.
    """
    if len(images) < 2:
        raise ValueError(f"images must be at least 2, got {len(images)}")
    z = draw_latents(encode_images(model, images, batch_size), generator)
    spans = z.shape[1] if spans is None else spans
    if spans < 1 or model.decoder.positions % spans:
        raise ValueError(f"spans must divide {model.decoder.positions} positions, got {spans}")
    tour = torch.randperm(len(z), generator=generator)
    donated = torch.empty_like(z)
    donated[tour] = z[tour.roll(1)]
    parts = []
    with evaluating(model) as device:
        for batch in batches(len(images), batch_size):
            x = torch.from_numpy(images[batch]).to(device)
            own, other = z[batch].to(device), donated[batch].to(device)
            reference = _log_prob(model, x, own, spans)
            extra = []
            for t in range(z.shape[1]):
                changed = own.clone()
                changed[:, t] = other[:, t]
                extra.append(reference - _log_prob(model, x, changed, spans))  # (3)
            parts.append(torch.stack(extra, dim=1).cpu())
    bits = nats_to_bits(torch.cat(parts))  # (m, n, r)
    return Ablation(bits.mean(0).numpy(), (bits.std(0) / len(bits) ** 0.5).numpy())


def _log_prob(
    model: DeltaVAE, x: UInt8[Tensor, "b ..."], z: Float[Tensor, "b n d"], spans: int
) -> Float64[Tensor, "b r"]:
    # log p(x_r | x_<r, z) of every span: the likelihood sums over the positions it is given.
    assert model.latents is not None  # encode_images has refused a model without
    decoder = model.decoder
    params = decoder(x, model.latents.to_decoder(z)).double()
    sequence = decoder.to_sequence(x)
    log_prob = decoder.likelihood.log_prob(
        params.reshape(len(x) * spans, -1, params.shape[2]),
        sequence.reshape(len(x) * spans, -1, sequence.shape[2]),
    )
    return log_prob.view(len(x), spans)


def _squared(values: Float64[Tensor, "i v"]) -> Float64[Tensor, "i i"]:
    values = values - values.mean(0)  # the expanded square cancels: keep its terms small
    norm = values.square().sum(1)
    return (2 * values @ values.T - norm[:, None] - norm) / values.shape[1]


def _correlation(values: Float64[Tensor, "i v"]) -> Float64[Tensor, "i i"]:
    values = values - values.mean(1, keepdim=True)
    norm = values.norm(dim=1, keepdim=True)
    scaled = torch.where(norm > _ROUNDING, values / norm.clamp_min(_ROUNDING), 0.0)
    return scaled @ scaled.T


def _means(
    groups: Float64[Tensor, "*more m m"], k: int
) -> tuple[Float64[Tensor, "*more"], Float64[Tensor, "*more"]]:
    # Mean similarity within and between z's, from the sums over all pairs of decodings.
    m = groups.shape[-1]
    own = groups.diagonal(dim1=-2, dim2=-1).sum(-1)
    within = own / (m * k * (k - 1))
    between = (groups.sum((-2, -1)) - own) / (m * (m - 1) * k * k)
    return within, between


def _jackknife_error(groups: Float64[Tensor, "m m"], k: int) -> float:
    m = len(groups)
    rest = torch.arange(m).expand(m, m)[~torch.eye(m, dtype=torch.bool)].view(m, m - 1)
    within, between = _means(groups[rest[:, :, None], rest[:, None, :]], k)
    left_out = within - between  # T without one of the z's
    return float((left_out - left_out.mean()).square().sum().mul((m - 1) / m).sqrt())


def _count_as_high(
    s: Float64[Tensor, "i i"], m: int, k: int, permutations: int, generator: torch.Generator
) -> int:
    # The sum over all pairs does not change with the labels: T rises with the sum within.
    def within(order: Tensor) -> Tensor:
        of_z = order.view(-1, m, k)
        return s[of_z[..., :, None], of_z[..., None, :]].sum((1, 2, 3))

    observed = within(torch.arange(m * k))
    threshold = observed - _ROUNDING * s.abs().sum()
    count = 0
    for batch in batches(permutations, _RELABELLINGS_AT_ONCE):
        number = min(batch.stop, permutations) - batch.start
        keys = torch.rand(number, m * k, generator=generator, dtype=torch.float64)
        count += int((within(keys.argsort(1)) >= threshold).sum())
    return count
