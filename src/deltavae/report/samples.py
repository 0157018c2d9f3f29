"""What a report shows of a model's events, drawn in one pass of the decoder.

An autoregressive decoder is paid per position, hardly per event, so what a run shows is one batch:

    samples          z ~ p_aux(z), x ~ p(x|z)
    decodings        z ~ q(z|x_i), once per original x_i, then x ~ p(x|z) several times
    interpolations   z on the straight line between the locations of two originals
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from deltavae.model import DeltaVAE
from deltavae.sampling import draw


@dataclass(frozen=True)
class Sizes:
    """How many events a report shows of one run.

    Attributes:
        count: Samples, at least 1.
        fixed: Rows of decodings of one z, at least 1.
        decodings: Decodings in such a row, at least 1.
        lines: Interpolations, at least 0.
        steps: Events on a line, both ends included, at least 2.

    Raises:
        ValueError: If a size is below its least value.
    """

    count: int = 32
    fixed: int = 4
    decodings: int = 8
    lines: int = 3
    steps: int = 6

    def __post_init__(self) -> None:
        for field, least in zip(fields(self), (1, 1, 1, 0, 2), strict=True):
            if getattr(self, field.name) < least:
                value = getattr(self, field.name)
                raise ValueError(f"{field.name} must be at least {least}, got {value}")


@dataclass(frozen=True, eq=False)
class Samples:
    """Events drawn from one model.

    Attributes:
        samples: Draws from the model.
        prior: Where the samples' z come from: "aux", "model", or None without latents.
        decodings: Rows of decodings of one z; None without latents.
        originals: The events whose posteriors gave the rows' z; None where a prior gave them.
        interpolations: Rows of decodings along a line; None without latents or originals.
        line_ends: The two originals of every line; None without interpolations.
    """

    samples: UInt8[np.ndarray, "count ..."]
    prior: Literal["aux", "model"] | None = None
    decodings: UInt8[np.ndarray, "rows columns ..."] | None = None
    originals: UInt8[np.ndarray, "rows ..."] | None = None
    interpolations: UInt8[np.ndarray, "lines steps ..."] | None = None
    line_ends: UInt8[np.ndarray, "lines 2 ..."] | None = None


@torch.no_grad()
def draw_samples(
    model: DeltaVAE,
    images: UInt8[np.ndarray, "m ..."] | None = None,
    *,
    sizes: Sizes | None = None,
    generator: torch.Generator | None = None,
    progress: Callable[[int], None] | None = None,
) -> Samples:
    """Draw all events that a report shows of a model, in one batch.

    Args:
        model: The model, in evaluation mode.
        images: Events to encode, of which the first are taken; None or none at all: the fixed z
            come from the prior, and there are no lines.
        sizes: How many of each; None: the defaults.
        generator: Source of randomness.
        progress: Called with the number of positions done after each.

    Returns:
        The events; fewer rows where there are fewer images.
    """
    sizes = Sizes() if sizes is None else sizes
    prior: Literal["aux", "model"] = "model" if model.aux_prior is None else "aux"
    z = model.sample_latents(sizes.count, prior=prior, generator=generator)
    if model.latents is None or z is None:
        drawn = draw(model.decoder, None, sizes.count, generator=generator, progress=progress)
        return Samples(drawn.cpu().numpy())
    originals, ends = _choose(images, sizes)
    if originals is None:
        rows = model.sample_latents(sizes.fixed, prior=prior, generator=generator)
        assert rows is not None  # the model has latents
    else:
        rows = _posterior_draw(model, originals, generator)
    lines = rows.new_zeros(0, sizes.steps, *rows.shape[1:])
    if ends is not None:
        pairs = torch.from_numpy(ends).to(rows.device)
        lines = model.latent_line(pairs[:, 0], pairs[:, 1], sizes.steps)
    repeated = rows.repeat_interleave(sizes.decodings, dim=0)
    read = model.latents.to_decoder(torch.cat([z, repeated, lines.flatten(0, 1)]))
    drawn = draw(model.decoder, read, len(read), generator=generator, progress=progress).cpu()
    samples, decodings, between = drawn.tensor_split([len(z), len(z) + len(repeated)])
    return Samples(
        samples=samples.numpy(),
        prior=prior,
        decodings=decodings.numpy().reshape(len(rows), sizes.decodings, *decodings.shape[1:]),
        originals=originals,
        interpolations=None
        if ends is None
        else between.numpy().reshape(*lines.shape[:2], *between.shape[1:]),
        line_ends=ends,
    )


def _choose(
    images: UInt8[np.ndarray, "m ..."] | None, sizes: Sizes
) -> tuple[UInt8[np.ndarray, "rows ..."] | None, UInt8[np.ndarray, "lines 2 ..."] | None]:
    # The first images give the fixed z, the next ones, two by two, the ends of the lines.
    if images is None or len(images) == 0:
        return None, None
    originals, rest = images[: sizes.fixed], images[sizes.fixed :]
    lines = min(sizes.lines, len(rest) // 2)
    ends = rest[: 2 * lines].reshape(lines, 2, *images.shape[1:]) if lines else None
    return originals, ends


def _posterior_draw(
    model: DeltaVAE, images: UInt8[np.ndarray, "rows ..."], generator: torch.Generator | None
) -> Float[Tensor, "rows n d"]:
    device = model.decoder.visible.device
    q = model.encode(torch.from_numpy(images).to(device))
    source = device if generator is None else generator.device
    noise = torch.randn(q.mu.shape, generator=generator, device=source)
    return q.sample(noise.to(q.mu))
