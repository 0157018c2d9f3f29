"""docs/performance.md and its plots, from what the benchmarks kept."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure as Plot

from deltavae.figures import to_svg
from speed import convolutions, drawing, plots, training
from speed.measured import Measured, Row, Settings
from speed.targets import TARGETS
from speed.timing import Figure


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        title: Its heading.
        text: What is measured.
        measure: Runs it.
        rows: From what it measured to the lines of its tables.
        plot: From the same to its plot.
    """

    title: str
    text: str
    measure: Callable[[Settings], Measured]
    rows: Callable[[Measured], list[Row]]
    plot: Callable[[Measured, list[Row]], Plot]


BENCHMARKS = {
    "stack": Benchmark(
        "The gated stack",
        "Forward and backward pass of the two stacks alone. The speed of the product is that of "
        "`torch.mm` in the same number format, its turns in between. Every case switches one "
        "optimisation off; full masked kernels compute the same numbers.",
        training.stack,
        training.stack_rows,
        plots.bars,
    ),
    "convolutions": Benchmark(
        "The convolutions of a gated layer",
        "Each by itself, forward, and its two gradients: the most that a gated stack could reach "
        "if gates, additions and margins were free.",
        convolutions.convolutions,
        convolutions.convolutions_rows,
        plots.bars,
    ),
    "gated": Benchmark(
        "A training step of GatedPixelCNN",
        "Forward, likelihood, backward, clipping and AdamW, without latents.",
        training.gated,
        training.gated_rows,
        plots.bars,
    ),
    "snail": Benchmark(
        "A training step of PixelSNAIL",
        "The same of PixelSNAIL with one attention layer per four residual layers. Of the "
        "attention's operations the pairs j < i count only. Naive attention computes all pairs, "
        "masks half of them and keeps the weights for the backward pass.",
        training.snail,
        training.snail_rows,
        plots.bars,
    ),
    "sampling": Benchmark(
        "Sampling",
        "In float32. A forward pass gives the parameters of all pixels of the batch at once. "
        f"Without caches every pixel costs one: measured on {drawing.PLAIN_PIXELS} pixels and "
        "multiplied up to the whole image.",
        drawing.sampling,
        drawing.sampling_rows,
        plots.bars,
    ),
    "growth": Benchmark(
        "Growth with image side, width and depth",
        "In float32, not compiled; sampling with caches. The exponent k of time ∝ sizeᵏ is a "
        "least-squares fit in logarithms, over all sizes and over the last two.",
        drawing.growth,
        drawing.growth_rows,
        plots.growth,
    ),
    "latents": Benchmark(
        "What latents cost",
        "A training step of the δ-VAE (encoder, posterior and rate, attention to the latents, "
        "auxiliary prior) over that of the same decoder without latents. The encoder has at most "
        "a third of the decoder's parameters.",
        training.latents,
        training.latents_rows,
        plots.bars,
    ),
    "memory": Benchmark(
        "Memory and checkpointing",
        "Most bytes of tensors alive at any time of a training step in bfloat16, not compiled, "
        "beyond weights, optimiser and batch.",
        training.memory,
        training.memory_rows,
        plots.bars,
    ),
}


@dataclass(frozen=True)
class Kept:
    """A benchmark's file.

    Attributes:
        origin: Machine, date, versions, commit, settings.
        measured: What was measured.
    """

    origin: Mapping[str, Any]
    measured: Measured


def read(folder: Path) -> dict[str, Kept]:
    """Read the benchmarks that were kept, in the order of the page."""
    kept = {}
    for name in BENCHMARKS:
        path = folder / f"{name}.json"
        if path.is_file():
            content = json.loads(path.read_text())
            kept[name] = Kept(content["origin"], Measured(**content["measured"]))
    return kept


def write(folder: Path, page: Path, assets: Path, more: str = "") -> None:
    """Write the page and its plots.

    Args:
        folder: Where the benchmarks' files and the hand-written introduction and notes lie.
        page: The page to write.
        assets: Folder for its plots.
        more: Text to put at the end.
    """
    kept = read(folder)
    rows = {name: BENCHMARKS[name].rows(value.measured) for name, value in kept.items()}
    parts = [note(folder, "introduction"), *_origins(kept), *_asked(rows)]
    assets.mkdir(parents=True, exist_ok=True)
    for name, value in kept.items():
        benchmark = BENCHMARKS[name]
        picture = assets / f"performance-{name}.svg"
        picture.write_text(to_svg(benchmark.plot(value.measured, rows[name])))
        where = f"{assets.name}/{picture.name}"
        parts += [f"## {benchmark.title}", benchmark.text, note(folder, name)]
        parts += [f"![{benchmark.title}]({where})", *_tables(rows[name])]
        parts += _profiles(value.measured)
    page.write_text("\n\n".join(part.strip() for part in [*parts, more] if part.strip()) + "\n")


def note(folder: Path, name: str) -> str:
    """Return a hand-written text that goes with a benchmark; empty where there is none."""
    path = folder / f"{name}.md"
    return path.read_text() if path.is_file() else ""


def table(head: list[str], lines: list[list[str]], words: int = 1) -> str:
    """Lay out a Markdown table; the columns after the first `words` are aligned right."""
    rule = ["---"] * words + ["--:"] * (len(head) - words)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, rule, *lines])


def shown(figure: Figure, unit: str) -> str:
    """Write a figure, and its quartiles where they differ from it."""
    text = _number(figure.value, unit)
    low, high = _number(figure.low, unit), _number(figure.high, unit)
    return text if low == high else f"{text} ({low} to {high})"


def _number(value: float, unit: str) -> str:
    if unit == "%":
        return f"{100 * value:.0f} %"
    digits = 0 if value >= 100 else 1 if value >= 20 else 2
    return f"{value:,.{digits}f}{' ×' if unit else ''}".replace(" ×", "×")


def _origins(kept: Mapping[str, Kept]) -> Iterator[str]:
    head = ["", "date", "machine", "torch", "commit", "repetitions"]
    lines = []
    for name, value in kept.items():
        origin = value.origin
        known = origin["machine"]
        what = f"{known['processor']}, {known['cpus']} CPUs ({', '.join(known['instructions'])})"
        rough = ", **quick run**" if origin["quick"] else ""
        repetitions = f"{origin['settings']['repetitions']}{rough}"
        commit, dirty, _ = str(origin["commit"]).partition("-dirty")
        commit = commit[:12] + dirty
        title = BENCHMARKS[name].title
        lines.append([title, origin["date"], what, origin["torch"], commit, repetitions])
    if lines:
        yield table(head, lines, words=len(head))


def _asked(rows: Mapping[str, list[Row]]) -> Iterator[str]:
    yield "## What was asked for"
    head = ["what", "case", "sensible", "goal", "measured", "reached"]
    lines = []
    for name, target in TARGETS.items():
        found = [row for part in rows.values() for row in part if row.target == name]
        aims = [
            "–" if x is None else _number(x, target.unit) for x in (target.target, target.goal)
        ]
        if not found:
            lines.append([target.what, "–", *aims, "–", "not measured"])
        for row in found:
            measured = shown(row.figure, target.unit)
            lines.append(
                [target.what, row.label, *aims, measured, target.verdict(row.figure.value)]
            )
    yield table(head, lines, words=2)


def _tables(rows: list[Row]) -> Iterator[str]:
    for section in dict.fromkeys(row.section for row in rows):
        part = [row for row in rows if row.section == section]
        cells = {tuple(row.label.split(": ")): shown(row.figure, row.unit) for row in part}
        if all(len(key) == 2 for key in cells):  # "line: column"
            columns = list(dict.fromkeys(key[-1] for key in cells))
            names = dict.fromkeys(key[0] for key in cells)
            lines = [[name, *(cells.get((name, c), "–") for c in columns)] for name in names]
            yield table([section, *columns], lines)
        else:
            lines = [[row.label, shown(row.figure, row.unit)] for row in part]
            yield table([section, "median (quartiles)"], lines)


def _profiles(measured: Measured) -> Iterator[str]:
    if measured.profiles:
        lines = [
            [name, ", ".join(f"{operator} {share:.0%}" for operator, share in shares.items())]
            for name, shares in measured.profiles.items()
        ]
        yield "Where the time goes, as shares of the time spent in operators:"
        yield table(["case", "operators"], lines, words=2)
