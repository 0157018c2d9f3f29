"""One incremental path through the decoder: ancestral sampling and teacher-forced scoring.

    x_i ~ p(x_i | x_<i, z)   for i = 1..P

Everything goes through `Decoder.init_state` and `Decoder.step`, so that a decoder with caches
makes all of it fast and one test (scoring equals the parallel forward) covers sampling as well.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from deltavae.decoders import Decoder


@torch.no_grad()
def draw(
    decoder: Decoder,
    z: Float[Tensor, "b n d"] | None,
    batch: int,
    *,
    generator: torch.Generator | None = None,
    temperature: float = 1.0,
    progress: Callable[[int], None] | None = None,
) -> UInt8[Tensor, "b ..."]:
    """Draw events position by position; a temperature not above 0 is the likelihood's ValueError.

    Args:
        decoder: The decoder, in evaluation mode.
        z: Latents as the decoder reads them; None without latents.
        batch: Number of events.
        generator: Source of randomness.
        temperature: Scale of the likelihood's logits, above 0; 1 draws from the model.
        progress: Called with the number of positions done after each.

    Returns:
        The drawn events.
    """
    state = decoder.init_state(z, batch)
    drawn: list[Tensor] = []
    for i in range(decoder.positions):
        params, state = decoder.step(state, drawn[-1] if drawn else None)
        drawn.append(decoder.likelihood.sample(params, generator, temperature))
        if progress is not None:
            progress(i + 1)
    return decoder.from_sequence(torch.stack(drawn, dim=1))


@torch.no_grad()
def score(
    decoder: Decoder, x: UInt8[Tensor, "b ..."], z: Float[Tensor, "b n d"] | None
) -> Float[Tensor, "b p k"]:
    """Return the likelihood parameters of given events, one position after the other.

    Args:
        decoder: The decoder, in evaluation mode.
        x: Events.
        z: Latents as the decoder reads them; None without latents.

    Returns:
        What `Decoder.forward` gives in parallel.
    """
    sequence = decoder.to_sequence(x)
    state = decoder.init_state(z, len(x))
    steps = []
    for i in range(decoder.positions):
        params, state = decoder.step(state, sequence[:, i - 1] if i else None)
        steps.append(params)
    return torch.stack(steps, dim=1)
