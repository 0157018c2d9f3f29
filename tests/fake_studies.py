"""Two small studies of real trainings on the digits; they share one cell."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from PIL import Image

from deltavae.run_folder import RunFolder
from deltavae.studies.base import Budget, Cell, Findings, Result, Study
from deltavae.studies.tables import Table

TINY = {
    "data": "digits",
    "levels": 5,
    "decoder": {
        "class_path": "deltavae.decoders.GatedPixelCNN",
        "init_args": {"channels": 4, "layers": 1},
    },
    "encoder": {
        "class_path": "deltavae.encoders.AntiCausalEncoder",
        "init_args": {"channels": 4, "layers": 1},
    },
    "latent_channels": 1,
    "aux_hidden": 4,
    "prior_steps": 2,
    "batch_size": 128,
    "report": False,
    "importance_samples": 1,
    "limit": 32,
    "log_every": 2,
    "epochs": 0.5,
}


def cell(bits: float, **options: Any) -> Cell:
    return Cell(f"{bits:g}bits", {**TINY, "delta_bits": bits, **options}, {"bits": bits})


SHARED = cell(2, holdout=20)


class Rates(Study):
    """Does the rate reach its floor?"""

    name = "rates"
    title = "Rates"
    description = "Rates of tiny trainings."

    def cells(self, budget: Budget) -> list[Cell]:
        return [SHARED, cell(4)]

    def findings(self, results: Sequence[Result], budget: Budget) -> Findings:
        rows = [(r.cell.labels["bits"], r.metrics["rate_bits"]) for r in results]
        figure = Figure()
        figure.subplots().plot(*zip(*rows, strict=True)) if rows else None
        return Findings(
            tables={"rates": Table(("δ", "rate"), rows, "Rates.")},
            figures={"plot": figure, "picture": Image.new("RGB", (4, 4))},
            text=f"{len(rows)} rates.",
        )


class Weights(Study):
    """Takes something from the weights; has a cell of 2 bits too, and another name for it."""

    name = "weights"
    title = "Weights"

    def cells(self, budget: Budget) -> list[Cell]:
        return [Cell("two", SHARED.options)]

    def analyse(self, run: RunFolder, cell: Cell, budget: Budget) -> dict[str, Any]:
        weights = sum(p.numel() for p in run.load_model().parameters())
        threads = torch.get_num_threads()
        return {"weights": weights, "threads": threads, "nan": float("nan"), "budget": budget}

    def findings(self, results: Sequence[Result], budget: Budget) -> Findings:
        return Findings(text=f"{[r.analysis['weights'] for r in results]} weights.")


class Failing(Rates):
    """One cell cannot be trained."""

    name = "failing"

    def cells(self, budget: Budget) -> list[Cell]:
        return [Cell("wrong", {**TINY, "delta_bits": -1.0}, {"bits": -1}), SHARED]


class Long(Rates):
    """A cell long enough to be interrupted."""

    name = "long"

    def cells(self, budget: Budget) -> list[Cell]:
        return [cell(2, epochs=20, checkpoint_minutes=0)]


class BadAnalysis(Weights):
    """Its analysis fails."""

    name = "bad-analysis"

    def analyse(self, run: RunFolder, cell: Cell, budget: Budget) -> dict[str, Any]:
        raise RuntimeError("nothing to be seen here")


class BadFindings(Rates):
    """Its page cannot be made."""

    name = "bad-findings"

    def findings(self, results: Sequence[Result], budget: Budget) -> Findings:
        raise RuntimeError("nothing to be found here")


def write_result(out: Path, study: str, cell: Cell, **fields: Any) -> None:
    """Write a result as the engine would, without a training."""
    origin = {"train_seconds": 60.0, "commit": "1234"}
    values: dict[str, Any] = {"budget": "smoke", "origin": origin} | fields
    result = Result(cell, {"rate_bits": 5.0}, {"step": [1.0]}, {}, **values)
    file = out / study / "cells" / f"{cell.name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(result.to_json())
