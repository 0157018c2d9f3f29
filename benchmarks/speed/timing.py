"""Seconds that can be divided by each other.

A busy machine is slow now and fast then, so no time means much by itself. All cases of a benchmark
take their turn in every repetition, in an order that is rotated from one to the next; a turn's
time is the median over its calls. A ratio of two cases is formed inside each repetition; its value
is the median over the repetitions, its range the quartiles.
"""

import gc
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

MOST_CALLS = 30  # in one turn
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")


@dataclass(frozen=True)
class Figure:
    """A figure with the range of its repetitions.

    Attributes:
        value: Median over the repetitions.
        low: Lower quartile.
        high: Upper quartile.
    """

    value: float
    low: float
    high: float


def pin() -> int | None:
    """Keep this process on one core with one thread.

    Returns:
        The core, the last one of those permitted; None where the system cannot pin.
    """
    torch.set_num_threads(1)
    with suppress(RuntimeError):  # can be set only once
        torch.set_num_interop_threads(1)
    if not hasattr(os, "sched_setaffinity"):
        return None
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core


def machine() -> dict[str, object]:
    """Name the processor, its number of CPUs and the vector instructions that matter here."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.is_file() else ""
    fields = dict(
        (part.strip() for part in line.split(":", 1)) for line in text.splitlines() if ":" in line
    )
    flags = fields.get("flags", fields.get("Features", "")).split()
    return {
        "processor": fields.get("model name") or platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "instructions": [name for name in INSTRUCTIONS if name in flags],
    }


def interleave(
    cases: Mapping[str, Callable[[], object]], repetitions: int, least: float
) -> dict[str, list[float]]:
    """Time all cases in turn.

    Args:
        cases: What to call, by name.
        repetitions: How often every case takes its turn, at least 1.
        least: Seconds that a turn should last at least; a slow case is called once.

    Returns:
        For every case one time per repetition: the median over the calls of its turn.
    """
    calls = {}
    for name, case in cases.items():
        case()  # compiles, allocates
        calls[name] = max(1, min(MOST_CALLS, int(least / _seconds(case))))
    names, taken = list(cases), {name: [] for name in cases}
    gc.collect()
    gc.disable()
    try:
        for i in range(repetitions):
            start = i % len(names)
            for name in names[start:] + names[:start]:
                turn = [_seconds(cases[name]) for _ in range(calls[name])]
                taken[name].append(float(np.median(turn)))
    finally:
        gc.enable()
    return taken


def ratio(above: Sequence[float], below: Sequence[float], factor: float = 1.0) -> Figure:
    """Divide the times of two cases, repetition by repetition.

    Args:
        above: Times of one case.
        below: Times of the other, of the same repetitions.
        factor: The ratios are multiplied by it.

    Returns:
        The ratio.
    """
    ratios = factor * np.asarray(above) / np.asarray(below)
    low, value, high = np.percentile(ratios, [25, 50, 75])
    return Figure(float(value), float(low), float(high))


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Fit the exponent k of y ∝ xᵏ by least squares of log y on log x.

    Args:
        x: Sizes, above 0, at least two different ones.
        y: Times, above 0.

    Returns:
        The exponent.
    """
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def _seconds(case: Callable[[], object]) -> float:
    start = time.perf_counter()
    case()
    return time.perf_counter() - start
