"""Measure what bfloat16 costs in bits/dim, keep it as JSON, and write docs/performance.md again.

python benchmarks/bf16.py weights RUN ...    a finished run's weights, evaluated in both formats
python benchmarks/bf16.py pairs              five paired trainings, about 20 minutes of one core;
                                             what is finished is not trained again

One thread, pinned to a core where the system can.
"""

import argparse
import dataclasses
import json
import logging
import warnings
from pathlib import Path
from typing import Any

from performance import KEPT, ROOT, origin, write_page
from rich.console import Console
from speed import precision
from speed.timing import pin

from deltavae.cli.console import load_dataset
from deltavae.data import load_data
from deltavae.run_folder import RunFolder, load, write_atomically

SAY = Console(stderr=True).print


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    weights_parser = commands.add_parser("weights", help="the same weights in both formats")
    weights_parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    weights_parser.add_argument("--limit", type=int, help="the first so many test images only")
    pairs_parser = commands.add_parser("pairs", help="paired trainings")
    pairs_parser.add_argument("--data", default="fashion_mnist")
    pairs_parser.add_argument("--size", type=int, default=14, help="rows and columns")
    pairs_parser.add_argument("--seeds", type=int, default=5, help="number of pairs")
    pairs_parser.add_argument("--steps", type=int, default=800, help="optimiser steps of each")
    pairs_parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "bf16")
    options = parser.parse_args()
    pin()
    if options.command == "weights":
        for run in options.runs:
            weights(run, options.limit, KEPT)
    else:
        pairs(options.data, options.size, options.seeds, options.steps, options.runs, KEPT)
    write_page()


def weights(path: Path, limit: int | None, kept: Path) -> None:
    """Compare one run's weights in both formats and keep the result.

    Args:
        path: The run's folder.
        limit: Test images at most; None for all.
        kept: Folder of the JSON files.
    """
    data = load_dataset(RunFolder(path).read_config())
    bounds = precision.compare(load(path), data.test.images[:limit])
    difference = precision.mean(bounds["bfloat16"] - bounds["float32"])
    name = f"{path.resolve().parent.name}--{path.resolve().name}"
    found = {
        "run": name,
        "examples": len(bounds["float32"]),
        **{kind: float(values.mean()) for kind, values in bounds.items()},
        "difference": dataclasses.asdict(difference),
        "origin": origin(),
    }
    _keep(kept / f"bf16-weights-{name}.json", found)
    SAY(f"{name}: {difference.value:+.5f} ± {difference.error:.5f} bits/dim")


def pairs(data: str, size: int, seeds: int, steps: int, runs: Path, kept: Path) -> None:
    """Train in pairs, cell by cell, and keep what is finished after every cell.

    Args:
        data: Name of the data set.
        size: Rows and columns of its images.
        seeds: Number of pairs.
        steps: Optimiser steps of each training.
        runs: Folder of the run folders.
        kept: Folder of the JSON files.
    """
    dataset = load_data(data, size=size)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    cells: dict[str, dict[str, Any]] = {}
    for seed in range(seeds):
        pair = {}
        for kind in precision.PRECISIONS:
            folder = runs / f"{data}-{size}-{steps}" / f"{seed}-{kind}"
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", module="lightning")
                pair[kind] = precision.cell(folder, dataset, kind, seed, steps)
            SAY(f"seed {seed}, {kind}: {pair[kind]['elbo_bpd']:.4f} bits/dim")
        cells[str(seed)] = pair
        found = {"data": data, "size": size, "steps": steps, "cells": cells, "origin": origin()}
        _keep(kept / "bf16-pairs.json", found)


def _keep(path: Path, found: dict[str, Any]) -> None:
    text = json.dumps(found, indent=1) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text))


if __name__ == "__main__":
    main()
