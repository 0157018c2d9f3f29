"""Benchmark of one gated layer's convolutions: how near each of their passes is to torch.mm."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deltavae.nn.gated import GatedLayer
from speed.counting import count_flops
from speed.measured import Measured, Row, Settings
from speed.recipes import Step
from speed.timing import interleave, ratio
from speed.training import PRODUCT, TYPES, product

PASSES = {
    "forward": None,
    "gradient of the input": [True, False, False],
    "gradient of the weights": [False, True, True],
}


def convolutions(settings: Settings) -> Measured:
    """Time every pass of every convolution of a gated layer."""
    cases: dict[str, Step] = {f"mm {name}": product(dtype) for name, dtype in TYPES.items()}
    facts: dict[str, float] = {}
    for kernel in (3, 5):
        layer = GatedLayer(settings.channels, kernel)
        for name, dtype in TYPES.items():
            for part in ("vertical", "horizontal", "link", "out"):
                conv = getattr(layer, part).to(memory_format=torch.channels_last, dtype=dtype)
                for which, mask in PASSES.items():
                    case = f"kernel {kernel}, {name}, {part}: {which}"
                    cases[case] = _step(conv, settings, dtype, mask)
                    facts[case] = count_flops(cases[case])
    return Measured(interleave(cases, settings.repetitions, settings.least / 10), facts)


def convolutions_rows(measured: Measured) -> list[Row]:
    """Rows of `convolutions`."""
    rows, whole = [], []
    for case, operations in measured.facts.items():
        title, _, which = case.partition(": ")
        kind = title.split(", ")[1]
        factor = operations / (2 * PRODUCT**3)
        figure = ratio(measured.seconds[f"mm {kind}"], measured.seconds[case], factor)
        rows.append(Row(f"{which}: share of the speed of torch.mm", title, figure, "%"))
    for kernel in (3, 5):
        for kind in TYPES:
            start = f"kernel {kernel}, {kind}, "
            names = [case for case in measured.facts if case.startswith(start)]
            together = [
                sum(times) for times in zip(*(measured.seconds[n] for n in names), strict=True)
            ]
            factor = sum(measured.facts[name] for name in names) / (2 * PRODUCT**3)
            figure = ratio(measured.seconds[f"mm {kind}"], together, factor)
            section = "all passes of all four together: share of the speed of torch.mm"
            whole.append(Row(section, start.removesuffix(", "), figure, "%"))
    return whole + sorted(rows, key=lambda row: row.section)


def _step(
    conv: nn.Conv2d, settings: Settings, dtype: torch.dtype, mask: list[bool] | None
) -> Step:
    rows, columns = conv.kernel_size
    margin = 0 if conv.padding[1] else columns - 1  # what the layer pads by itself
    shape = settings.batch, conv.in_channels, settings.side + rows - 1, settings.side + margin
    x = torch.randn(shape, dtype=dtype).contiguous(memory_format=torch.channels_last)
    weight, bias = conv.weight.detach(), conv.bias
    assert bias is not None
    forward = partial(F.conv2d, x, weight, bias.detach(), padding=conv.padding)
    if mask is None:
        return forward
    gradient: Tensor = torch.randn_like(forward())
    padding, size = list(conv.padding), [conv.out_channels]
    return partial(
        torch.ops.aten.convolution_backward,
        *(gradient, x, weight, size, [1, 1], padding, [1, 1], False, [0, 0], 1, mask),
    )
