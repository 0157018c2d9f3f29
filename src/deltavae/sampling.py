"""One incremental path through the decoder: sampling, completion and teacher-forced scoring.

    x_i ~ p(x_i | x_<i, z)   for i = 1..P, or for i > k with x_1..x_k given

Everything goes through `Decoder.init_state` and `Decoder.step`, so that a decoder with caches
makes all of it fast and one test (scoring equals the parallel forward) covers sampling as well.
The noise of a whole sequence is drawn before it begins: a step is the decoder's alone.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from deltavae.decoders import Decoder


def draw(
    decoder: Decoder,
    z: Float[Tensor, "b n d"] | None,
    batch: int,
    *,
    given: UInt8[Tensor, "b ..."] | None = None,
    positions: int = 0,
    generator: torch.Generator | None = None,
    temperature: float = 1.0,
    progress: Callable[[int], None] | None = None,
) -> UInt8[Tensor, "b ..."]:
    """Draw a batch of events; a temperature not above 0 is the likelihood's ValueError.

    Args:
        decoder: The decoder, in evaluation mode.
        z: Latents as the decoder reads them; None without latents.
        batch: Number of events.
        given: Events whose first positions are kept; what they hold further on is never read.
        positions: How many positions are kept, in 0..P; 0: nothing is.
        generator: Source of randomness.
        temperature: Scale of the likelihood's logits, above 0; 1 draws from the model.
        progress: Called with the number of positions done after each.

    Returns:
        The events: given up to there, drawn from there on.

    Raises:
        ValueError: If positions is out of its range, or given does not fit.
    """
    if not 0 <= positions <= decoder.positions:
        raise ValueError(f"positions must be in 0..{decoder.positions}, got {positions}")
    shape = (batch, *decoder.event_shape)
    if positions and (given is None or given.shape != shape):
        got = None if given is None else tuple(given.shape)
        raise ValueError(f"given must have shape {shape} where positions are kept, got {got}")
    device = decoder.visible.device
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        noise = decoder.likelihood.noise(
            batch,
            decoder.positions - positions,
            generator,
            temperature=temperature,
            device=device,
        )
        sequence = [] if given is None else [*decoder.to_sequence(given).unbind(1)[:positions]]
        left = iter(noise.transpose(0, 1).contiguous())  # a position's noise in one piece
        state = decoder.init_state(z, batch)
        for i in range(decoder.positions):
            params, state = decoder.step(state, sequence[i - 1] if i else None)
            if i >= positions:
                sequence.append(decoder.likelihood.sample(params, next(left)))
            if progress is not None:
                progress(i + 1)
        drawn = decoder.from_sequence(torch.stack(sequence, dim=1))
    return drawn.clone()  # outside: a tensor like any other


def draw_in_batches(
    decoder: Decoder,
    z: Float[Tensor, "count n d"] | None,
    count: int,
    *,
    given: UInt8[Tensor, "count ..."] | None = None,
    positions: int = 0,
    generator: torch.Generator | None = None,
    temperature: float = 1.0,
    batch_size: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> UInt8[Tensor, "count ..."]:
    """Draw any number of events, as `draw` does, in memory for one batch of them.

    Args:
        decoder: The decoder, in evaluation mode.
        z: Latents as the decoder reads them; None without latents.
        count: Number of events, at least 1.
        given: Events whose first positions are kept.
        positions: How many positions are kept, in 0..P.
        generator: Source of randomness.
        temperature: Scale of the likelihood's logits, above 0.
        batch_size: Events at a time, at least 1; with a generator of the CPU it has no part in
            what is drawn (`Likelihood.noise`).
        progress: Called with the number of steps done and their total after each.

    Returns:
        The events.

    Raises:
        ValueError: If an argument is out of its range.
    """
    for name, value in (("count, the events of a batch,", count), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    total = -(-count // batch_size) * decoder.positions
    drawn: list[Tensor] = []

    def report(position: int) -> None:
        if progress is not None:
            progress(len(drawn) * decoder.positions + position, total)

    for start in range(0, count, batch_size):
        here = slice(start, min(start + batch_size, count))
        drawn.append(
            draw(
                decoder,
                None if z is None else z[here],
                here.stop - start,
                given=None if given is None else given[here],
                positions=positions,
                generator=generator,
                temperature=temperature,
                progress=report,
            )
        )
    return torch.cat(drawn)


@torch.no_grad()
def resample(
    decoder: Decoder,
    candidates: Float[Tensor, "m n d"],
    x: UInt8[Tensor, "..."],
    positions: int,
    count: int,
    *,
    generator: torch.Generator | None = None,
    batch_size: int = 64,
) -> tuple[Int64[Tensor, " count"], float]:
    """Choose among candidates for z, in proportion to p(x_1..x_k | z).

    With candidates from p(z) the chosen follow p(z | x_1..x_k) as their number grows; it is enough
    where its logarithm to base 2 is well above the bits that x_1..x_k say of z.

    Rubin, Using the SIR algorithm to simulate posterior distributions, in Bayesian Statistics 3,
    Oxford University Press 1988.

    Args:
        decoder: The decoder, in evaluation mode.
        candidates: m draws from a prior, as the decoder reads them.
        x: One event; from position k on it is not read.
        positions: Number k of positions, in 0..P.
        count: How many to choose, with replacement, at least 1.
        generator: Source of randomness.
        batch_size: Candidates weighed at a time, at least 1.

    Returns:
        The places of the chosen, and the effective number of candidates: 1/Σw², w the normalised
        weights. Near 1 all that are chosen are one.

    Raises:
        ValueError: If positions or batch_size is out of its range.
    """
    if not 0 <= positions <= decoder.positions:
        raise ValueError(f"positions must be in 0..{decoder.positions}, got {positions}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    sequence = decoder.to_sequence(x[None]).clone()
    sequence[:, positions:] = 0
    kept = decoder.from_sequence(sequence)
    log_weight = [
        decoder.log_prob(kept.expand(len(part), *x.shape), part, positions)
        for part in torch.split(candidates, batch_size)
    ]
    weight = torch.cat(log_weight).double().softmax(0)
    source = weight.device if generator is None else generator.device
    chosen = torch.multinomial(weight.to(source), count, replacement=True, generator=generator)
    return chosen.to(weight.device), 1.0 / weight.square().sum().item()


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
    steps = []
    with torch.inference_mode():
        previous: Tensor | None = None
        state = decoder.init_state(z, len(x))
        for value in decoder.to_sequence(x).unbind(1):
            params, state = decoder.step(state, previous)
            steps.append(params)
            previous = value
    return torch.stack(steps, dim=1)
