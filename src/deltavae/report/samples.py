"""What a report shows of a model's events, drawn in one pass of the decoder.

An autoregressive decoder is paid per position, not per event, so everything that a run shows is one batch:

    samples          z ~ p_aux(z),                       x ~ p(x|z)
    decodings        z ~ q(z|x_i) once per original x_i, x ~ p(x|z) several times: what z fixes
    interpolations   z on the line between the posterior means of two originals
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from deltavae.model import DeltaVAE
from deltavae.sampling import draw

_MANY_POSITIONS = 256  # above, the plain path of sampling takes minutes for a full page


@dataclass(frozen=True, eq=False)
class Samples:
    """Events drawn from one model.

    Attributes:
        samples: Draws from the model.
        prior: Where the samples' z come from: "aux", "model", or None without latents.
        decodings: Rows of decodings of one z; None without latents.
        originals: The events whose posteriors gave the rows' z; None if z came from the prior.
        interpolations: Rows of decodings along a line; None without latents or originals.
        line_ends: The two originals at the ends of every line; None without interpolations.
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
    count: int | None = None,
    fixed: int | None = None,
    decodings: int | None = None,
    lines: int | None = None,
    steps: int = 6,
    generator: torch.Generator | None = None,
    progress: Callable[[int], None] | None = None,
) -> Samples:
    """Draw all events of a report in one batch.

    Sizes that are None follow the number of positions: 32 samples, 4 × 8 decodings and 3 lines up
    to 256 positions, 8 samples and 2 × 4 decodings beyond.

    Args:
        model: The model, in evaluation mode.
        images: Events to encode, the first ones are taken; None: the fixed z come from the prior
            and there are no lines.
        count: Number of samples, at least 1.
        fixed: Number of fixed z, at least 1.
        decodings: Decodings of each, at least 1.
        lines: Number of interpolations, at least 0.
        steps: Events on each line, both ends included, at least 2.
        generator: Source of randomness.
        progress: Called with the number of positions done after each.

    Returns:
        The events; fewer rows where there are fewer images.

    Raises:
        ValueError: If a size is out of its range.
    """
    few = model.decoder.positions > _MANY_POSITIONS
    count = (8 if few else 32) if count is None else count
    fixed = (2 if few else 4) if fixed is None else fixed
    decodings = (4 if few else 8) if decodings is None else decodings
    lines = (0 if few else 3) if lines is None else lines
    least = {"count": 1, "fixed": 1, "decodings": 1, "lines": 0, "steps": 2}
    sizes = {"count": count, "fixed": fixed, "decodings": decodings, "lines": lines, "steps": steps}
    for name, size in sizes.items():
        if size < least[name]:
            raise ValueError(f"{name} must be at least {least[name]}, got {size}")
    prior: Literal["aux", "model"] = "model" if model.aux_prior is None else "aux"
    z = model.sample_latents(count, prior=prior, generator=generator)
    if model.latents is None or z is None:
        drawn = draw(model.decoder, None, count, generator=generator, progress=progress)
        return Samples(drawn.cpu().numpy())
    if images is None:
        rows = model.sample_latents(fixed, prior=prior, generator=generator)
        originals, ends, line = None, None, None
    else:
        originals = images[:fixed]
        ends = _pairs(images[fixed:], lines)
        rows, line = _encode(model, originals, ends, steps, generator)
    assert rows is not None  # the model has latents
    repeated = rows.repeat_interleave(decodings, dim=0)
    parts = [z, repeated] if line is None else [z, repeated, line.flatten(0, 1)]
    read = model.latents.to_decoder(torch.cat(parts))
    drawn = draw(model.decoder, read, len(read), generator=generator, progress=progress).cpu()
    first, second, third = (
        part.numpy() for part in drawn.tensor_split([count, count + len(repeated)])
    )
    return Samples(
        samples=first,
        prior=prior,
        decodings=second.reshape(len(rows), decodings, *second.shape[1:]),
        originals=originals,
        interpolations=None if line is None else third.reshape(*line.shape[:2], *third.shape[1:]),
        line_ends=ends,
    )


def _pairs(
    images: UInt8[np.ndarray, "m ..."], lines: int
) -> UInt8[np.ndarray, "lines 2 ..."] | None:
    lines = min(lines, len(images) // 2)
    return images[: 2 * lines].reshape(lines, 2, *images.shape[1:]) if lines else None


def _encode(
    model: DeltaVAE,
    originals: UInt8[np.ndarray, "rows ..."],
    ends: UInt8[np.ndarray, "lines 2 ..."] | None,
    steps: int,
    generator: torch.Generator | None,
) -> tuple[Float[Tensor, "rows n d"], Float[Tensor, "lines steps n d"] | None]:
    # One draw of q(z|x) per original, and the lines between posterior means.
    device = model.decoder.visible.device
    q = model.encode(torch.from_numpy(originals).to(device))
    source = device if generator is None else generator.device
    noise = torch.randn(q.mu.shape, generator=generator, device=source).to(q.mu)
    if ends is None:
        return q.sample(noise), None
    start, end = (
        model.encode(torch.from_numpy(np.ascontiguousarray(ends[:, i])).to(device)).mu
        for i in (0, 1)
    )
    weights = torch.linspace(0.0, 1.0, steps, device=device, dtype=start.dtype)
    return q.sample(noise), torch.lerp(start[:, None], end[:, None], weights[:, None, None])
