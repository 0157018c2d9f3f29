"""Benchmarks of sampling, and of growth: how time grows with side, width, depth and latents."""

from functools import partial

import torch
from torch import Tensor

from deltavae.decoders import Decoder
from deltavae.sampling import draw
from speed.measured import Measured, Row, Settings
from speed.recipes import KINDS, LATENT_CHANNELS, Network, Recipe, Step, images, training_step
from speed.timing import interleave, ratio, slope

PLAIN_PIXELS = 2  # of so many pixels the time without caches is measured, then multiplied up
LATENTS = {False: "no latents", True: "latents"}
TARGETED = {
    ("GatedPixelCNN", 64): "sampling-gated-many",
    ("GatedPixelCNN", 1): "sampling-gated-one",
    ("PixelSNAIL", 16): "sampling-snail",
}
AXES = {"side": "image side", "width": "width", "depth": "depth"}


def sampling(settings: Settings) -> Measured:
    """Time sampling with caches, one full forward pass, and some pixels without caches."""
    cases: dict[str, Step] = {}
    facts: dict[str, float] = {}
    for kind in KINDS:
        network = settings.network(kind)
        for latents, which in LATENTS.items():
            torch.manual_seed(0)
            decoder = network.decoder(latents).eval()
            facts[f"{kind}, {which}"] = sum(p.numel() for p in decoder.parameters())
            for batch in settings.batches:
                name = f"{kind}, {which}, batch {batch}"
                z = torch.randn(batch, network.side, LATENT_CHANNELS) if latents else None
                x = images(batch, network.side)
                cases[f"{name}: forward"] = partial(_forward, decoder, x, z)
                cases[f"{name}: sampling"] = _drawing(decoder, z, batch)
                cases[f"{name}: plain"] = partial(_plain, decoder, x, z)
    facts["pixels"] = settings.side**2
    return Measured(interleave(cases, settings.repetitions, settings.least), facts)


def sampling_rows(measured: Measured) -> list[Row]:
    """Rows of `sampling`."""
    rows, seconds = [], measured.seconds
    factor = measured.facts["pixels"] / PLAIN_PIXELS
    for name in [name.split(": ")[0] for name in seconds if name.endswith(": sampling")]:
        drawn = seconds[f"{name}: sampling"]
        kind, _, batch = name.split(", ")
        target = TARGETED.get((kind, int(batch.removeprefix("batch "))))
        figure = ratio(drawn, seconds[f"{name}: forward"])
        rows.append(Row("sampling, in forward passes of the batch", name, figure, "×", target))
        figure = ratio(seconds[f"{name}: plain"], drawn, factor)
        rows.append(Row("sampling without caches over sampling", name, figure, "×"))
    return sorted(rows, key=lambda row: "without" in row.section)


def growth(settings: Settings) -> Measured:
    """Time training steps and sampling over image side, width and depth."""
    sizes = {"side": settings.sides, "width": settings.widths, "depth": settings.depths}
    cases: dict[str, Step] = {}
    recipe = Recipe().without("compiled", "bfloat16")
    for kind in KINDS:
        for axis, values in sizes.items():
            for value in values:
                network = _grown(settings, kind, axis, value)
                for latents, which in LATENTS.items():
                    name = f"{kind}, {which}, {axis} {value}"
                    step = training_step(recipe, network, settings.growth_batch, latents)
                    cases[f"{name}: step"] = step
                    cases[f"{name}: sampling"] = _sampler(network, settings.growth_batch, latents)
    repetitions = max(1, settings.repetitions // 2)
    return Measured(interleave(cases, repetitions, settings.least / 3))


def growth_rows(measured: Measured) -> list[Row]:
    """Rows of `growth`: the exponents of power laws."""
    rows: list[Row] = []
    for what, axis, line in growth_lines(measured):
        for name, points in line.items():
            sizes, times = list(points), list(points.values())
            ends = {f"exponent of the time of {what}": (sizes, times)}
            if len(sizes) > 2:
                last = f"the same between the two largest sizes, {what}"
                ends[last] = (sizes[-2:], times[-2:])
            for section, (x, y) in ends.items():
                label = f"{name}: {AXES[axis]} {x[0]} to {x[-1]}"
                rows.append(Row.exact(section, label, slope(x, y), ""))
    return rows


def growth_lines(measured: Measured) -> list[tuple[str, str, dict[str, dict[int, float]]]]:
    """Sort the times of `growth` by plot.

    Args:
        measured: What `growth` returned.

    Returns:
        For "step" and "sampling" and every axis, the lines: by name and size the time over that
        of the first network without latents at its smallest size.
    """
    seconds, panels = measured.seconds, []
    for what in ("step", "sampling"):
        for axis in AXES:
            lines: dict[str, dict[int, float]] = {}
            unit: list[float] | None = None
            for name, times in seconds.items():
                case, kind = name.split(": ")
                network, which, size = case.split(", ")
                if kind == what and size.split()[0] == axis:
                    unit = unit or times
                    line = lines.setdefault(f"{network}, {which}", {})
                    line[int(size.split()[1])] = ratio(times, unit).value
            panels.append((what, axis, lines))
    return panels


def _grown(settings: Settings, kind: str, axis: str, value: int) -> Network:
    sizes = {
        "side": settings.growth_side,
        "width": settings.growth_channels,
        "depth": settings.growth_layers,
    }
    sizes[axis] = value
    return Network(kind, sizes["side"], sizes["width"], sizes["depth"])


def _sampler(network: Network, batch: int, latents: bool) -> Step:
    torch.manual_seed(0)
    decoder = network.decoder(latents).eval()
    z = torch.randn(batch, network.side, LATENT_CHANNELS) if latents else None
    return _drawing(decoder, z, batch)


def _drawing(decoder: Decoder, z: Tensor | None, batch: int) -> Step:
    return partial(draw, decoder, z, batch, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def _forward(decoder: Decoder, x: Tensor, z: Tensor | None) -> Tensor:
    params: Tensor = decoder(x, z)
    return params


@torch.inference_mode()
def _plain(decoder: Decoder, x: Tensor, z: Tensor | None) -> None:
    # The first pixels through the default step: one full forward pass each.
    state = Decoder.init_state(decoder, z, len(x))
    previous = [None, *decoder.to_sequence(x).unbind(1)]
    for i in range(PLAIN_PIXELS):
        _, state = Decoder.step(decoder, state, previous[i])
