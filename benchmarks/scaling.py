"""Time the rate of the Gaussian pairs against n: it grows linearly.

python benchmarks/scaling.py                    n up to 65,536: a minute of one core
python benchmarks/scaling.py --largest 1024     less

One thread, pinned to a core where the system can; batch 1, one channel; the rate and its gradient,
all pairs and sizes in turn. Times are kept in benchmarks/scaling/, the plot in docs/assets/.
"""

import argparse
import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
from matplotlib.figure import Figure
from rich.console import Console
from speed.timing import interleave, machine, pin, slope

from deltavae.figures import COLOURS, to_svg
from deltavae.latents import AR1, ARp, Grid, Latents, Matern, SquaredExponential, Tree
from deltavae.run_folder import write_atomically

ROOT = Path(__file__).parents[1]
KEPT, PLOT = ROOT / "benchmarks" / "scaling" / "rate.json", ROOT / "docs" / "assets"
BATCH, SMALLEST, LARGEST = 1, 64, 65_536
Seconds: TypeAlias = dict[str, dict[int, float]]  # by pair and number of steps
LINEAR_FROM = 16_384  # below it calls cost more than what they compute, and caches hold it all


def square(n: int) -> Grid:
    """Return a grid of n steps that is as nearly square as powers of two permit."""
    height = 1 << (n.bit_length() // 2)
    return Grid(0.9, 0.9, height, n // height)


def binary_tree(n: int) -> Tree:
    """Return the tree of 2 n − 1 nodes: n of them leaves."""
    return Tree(0.9, depth=n.bit_length() - 1)


PAIRS: dict[str, Callable[[int], Latents]] = {
    "AR(1)": partial(AR1, alpha=0.9, minimiser_units=False, innovations=False),
    "AR(1), innovations": partial(AR1, alpha=0.9),
    "AR(2)": partial(ARp, d=1, partials=(0.9, -0.5)),
    "Matérn 3/2": partial(Matern, length=5.0, nu=1.5),
    "Matérn 5/2": partial(Matern, length=5.0, nu=2.5),
    "squared exponential": partial(SquaredExponential, length=3.0),
    "grid": square,
    "tree": binary_tree,
}


def rate_and_gradient(pair: Latents) -> Callable[[], None]:
    """Return what is timed: the rate of random raw outputs, and its gradient."""
    generator = torch.Generator().manual_seed(0)
    params = torch.randn(BATCH, pair.n, pair.params_per_step, generator=generator)
    params.requires_grad_()

    def step() -> None:
        params.grad = None
        pair.rate(pair.posterior(params)).sum().backward()

    return step


def measure(largest: int, repetitions: int = 5, least: float = 0.05) -> Seconds:
    """Time every pair at every n.

    Args:
        largest: Largest n.
        repetitions: How often every case takes its turn.
        least: Seconds of a turn at least.

    Returns:
        Seconds of the quietest repetition, by pair and number of steps.
    """
    sizes = [SMALLEST << i for i in range(1 + int(math.log2(largest / SMALLEST)))]
    pairs = {(name, n): make(n) for name, make in PAIRS.items() for n in sizes}
    cases = {f"{name}@{n}": rate_and_gradient(pair) for (name, n), pair in pairs.items()}
    taken = interleave(cases, repetitions, least)
    seconds: Seconds = {name: {} for name in PAIRS}
    for (name, n), pair in pairs.items():
        seconds[name][pair.n] = min(taken[f"{name}@{n}"])
    return seconds


def exponents(seconds: Seconds) -> dict[str, float]:
    """Fit k of time ∝ nᵏ where n is at least 16,384; NaN where fewer than two sizes are."""
    fitted = {}
    for name, times in seconds.items():
        large = {n: time for n, time in times.items() if n >= LINEAR_FROM}
        enough = len(large) > 1
        fitted[name] = slope(list(large), list(large.values())) if enough else math.nan
    return fitted


def plot(seconds: Seconds) -> Figure:
    """Draw times against n, both axes logarithmic, with the fitted exponents."""
    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    axes = figure.subplots()
    colours = (*COLOURS, "0.5")  # as many as PAIRS
    for (name, times), k, colour in zip(
        seconds.items(), exponents(seconds).values(), colours, strict=True
    ):
        label = f"{name}: n^{k:.2f}" if math.isfinite(k) else name
        milliseconds = [1e3 * time for time in times.values()]
        axes.loglog(list(times), milliseconds, "o-", color=colour, markersize=3, label=label)
    axes.set(xlabel="latent steps n", ylabel="rate and gradient, ms")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def main() -> None:
    """Measure, keep, draw, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--largest", type=int, default=LARGEST, help="largest n")
    options = parser.parse_args()
    pin()
    seconds = measure(options.largest)
    kept = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "torch": torch.__version__,
        "batch": BATCH,
        "seconds": seconds,
        "exponents": exponents(seconds),
    }
    text, drawn = json.dumps(kept, indent=2) + "\n", to_svg(plot(seconds))
    write_atomically(KEPT, lambda path: path.write_text(text))
    write_atomically(PLOT / "scaling-rate.svg", lambda path: path.write_text(drawn))
    say = Console(soft_wrap=True).print
    for name, k in exponents(seconds).items():
        n, time = max(seconds[name].items())
        say(f"{name}: {1e3 * time:.1f} ms at n={n}; time grows as n^{k:.2f}")


if __name__ == "__main__":
    main()
