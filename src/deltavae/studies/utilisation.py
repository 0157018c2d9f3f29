"""What the latents are used for: probes, likeness of decodings, rows, pictures.

The trainings are those of `rate-distortion`. Of each, against its rate:

    probes      accuracy of a linear classifier on μ, on a draw z ~ q(z|x), and of the nearest
                neighbours of μ; a probe on μ reads what the decoder never gets to see
    likeness    whether two decodings of one z are more alike than decodings of two z's, with an
                exact permutation test; Holm's correction over all trainings of the study
    rows        which rows' z matter for which rows of pixels

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, sections 4.3 and 4.4,
https://arxiv.org/abs/1901.03416
"""

import base64
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from matplotlib.figure import Figure
from PIL import Image

from deltavae.configuration import WITHOUT_LATENTS
from deltavae.evaluation import decode_repeatedly, decoding_similarity, latent_ablation
from deltavae.figures import beside, image_grid, matrices, scatter_with_errors
from deltavae.run_folder import RunFolder
from deltavae.studies.base import Budget, Cell, Findings, Result, Study, by_labels
from deltavae.studies.measuring import data_of
from deltavae.studies.methods import ABOUT_RATE, ABOUT_UNITS, DELTA_VAE
from deltavae.studies.rate_distortion import method_cell, methods
from deltavae.studies.settings import SEEDS
from deltavae.studies.statistics import Interval, holm, mean
from deltavae.studies.summaries import (
    ABOUT_COST,
    ABOUT_INFORMATION,
    COST,
    LEVEL,
    NAMES,
    asked,
    cost,
    information,
    metric,
)
from deltavae.studies.tables import Table

LATENTS: Mapping[Budget, int] = {"smoke": 4, "cpu": 32, "paper": 64}  # z's that are decoded
DECODINGS: Mapping[Budget, int] = {"smoke": 3, "cpu": 8, "paper": 8}  # times each
ABLATED: Mapping[Budget, int] = {"smoke": 20, "cpu": 300, "paper": 1000}  # images
SHOWN = 6  # z's, and decodings of each, in a picture
SHOWN_BITS = (10.0, 20.0, 79.447)  # targets of which pictures are kept, from the first seed
PROBES = {
    "probe_accuracy": "linear probe on μ",
    "probe_draw_accuracy": "linear probe on z",
    "knn_accuracy": "nearest neighbours of μ",
}


class Utilisation(Study):
    """What the latents of the δ-VAE and of its rivals are used for."""

    name = "utilisation"
    title = "Use of the latents"
    description = (
        "The trainings of rate-distortion, measured for what their latents say and for what the "
        "decoder does with it. Every picture shows, left, images, and right of each decodings of "
        f"one z drawn from its posterior. {ABOUT_UNITS} {ABOUT_RATE}"
    )

    def cells(self, budget: Budget) -> list[Cell]:
        """Return the cells of rate-distortion that have latents; see `Study`."""
        return [
            method_cell(budget, method, seed)
            for seed in range(SEEDS[budget])
            for method in methods(budget)
            if method.options["latents"] not in WITHOUT_LATENTS
        ]

    def analyse(self, run: RunFolder, cell: Cell, budget: Budget) -> dict[str, Any]:
        """Decode and ablate; see `Study`."""
        model, images = run.load_model(), data_of(run).test.images
        generator = torch.Generator().manual_seed(0)
        count, times = LATENTS[budget], DECODINGS[budget]
        decodings = decode_repeatedly(model, images[:count], times, generator=generator)
        levels = model.decoder.likelihood.levels
        found = {
            measure: asdict(
                decoding_similarity(decodings, levels, measure=measure, generator=generator)
            )
            for measure in ("squared", "correlation")
        }
        ablation = latent_ablation(
            model,
            images[: ABLATED[budget]],
            spans=images.shape[2],  # rows of pixels, whatever the latents stand for
            generator=generator,
        )
        found["ablation"] = np.round(ablation.bits, 4).tolist()
        if cell.labels["seed"] == 0 and cell.labels["target"] in (None, *SHOWN_BITS):
            shown = np.concatenate([images[:count, None], decodings], axis=1)
            found["picture"] = _packed(shown[:SHOWN, : 1 + SHOWN]) | {"levels": levels}
        return found

    def findings(self, results: Sequence[Result], budget: Budget) -> Findings:
        """Draw tables and pictures; see `Study`."""
        groups = by_labels(results, "method", "target", "unit")
        pictures = {
            f"decodings-{_slug(result.cell)}": _picture(result.analysis["picture"])
            for result in results
            if "picture" in result.analysis
        }
        ablations = {
            f"{method}, {target:g} {unit}": np.mean(
                [result.analysis["ablation"] for result in found], axis=0
            )
            for (method, target, unit), found in groups.items()
            if method == DELTA_VAE
        }
        figures: dict[str, Figure | Image.Image] = {"probes": _probe_figure(groups)}
        if ablations:
            figures["rows"] = matrices(
                ablations, "row of pixels", "latent step t", "bits lost with another image's z_t"
            )
        return Findings(
            tables={"probes": _probes(groups), "likeness": _likeness(groups)},
            figures=figures | pictures,
        )


Groups = Mapping[tuple[Any, ...], Sequence[Result]]


def _probes(groups: Groups) -> Table:
    rows = []
    for (method, target, unit), found in groups.items():
        figures = [metric(found, name) for name in ("rate_bits", *PROBES, "baseline_accuracy")]
        rows.append([method, asked(target, unit), len(found), *figures, *cost(found)])
    columns = ["method", "asked for", "seeds", "rate, bits", *PROBES.values()]
    return Table(
        [*columns, "linear probe on pixels", *COST],
        rows,
        "Accuracy on test images, mean over seeds ± standard error over seeds. A probe on μ is "
        "high even where the posterior has collapsed: it reads μ without the posterior's noise. "
        f"{ABOUT_COST}",
        {"rate, bits": 1, "training, min": 1},
    )


def _likeness(groups: Groups) -> Table:
    p_values = [
        result.analysis["squared"]["p_value"] for found in groups.values() for result in found
    ]
    adjusted = iter(holm(p_values))
    rows = []
    for (method, target, unit), found in groups.items():
        corrected = [next(adjusted) for _ in found]
        correlations = [
            mean([result.analysis["correlation"][name] for result in found])
            for name in ("within", "between", "difference")
        ]
        row = [method, asked(target, unit), len(found), information(found), *correlations]
        rows.append([*row, max(corrected), sum(p < LEVEL for p in corrected), *cost(found)])
    said = NAMES["mutual_information_bits"]
    columns = ["method", "asked for", "seeds", said, "one z", "two z's", "difference"]
    significant = f"seeds with p < {LEVEL}"
    return Table(
        [*columns, "largest p", significant, *COST],
        rows,
        "Mean correlation of two decodings: of one z, of two z's. p: permutation test of the "
        "squared distance, corrected after Holm over all trainings here, the largest over seeds. "
        f"{ABOUT_INFORMATION} {ABOUT_COST}",
        {said: 1, "largest p": 4, significant: 0, "training, min": 1},
    )


def _probe_figure(groups: Groups) -> Figure:
    panels: list[dict[str, tuple[list[Interval], list[Interval]]]] = []
    for name in ("probe_draw_accuracy", "knn_accuracy"):
        panel: dict[str, tuple[list[Interval], list[Interval]]] = {}
        for (method, _, _), found in groups.items():
            rate, accuracy = metric(found, "rate_bits"), metric(found, name)
            if rate is None or accuracy is None:
                continue
            x, y = panel.setdefault(method, ([], []))
            x.append(rate)
            y.append(accuracy)
        panels.append(panel)
    return scatter_with_errors(
        *panels,
        xlabels=("rate, bits (linear probe on z)", "rate, bits (nearest neighbours of μ)"),
        ylabel="accuracy",
    )


def _slug(cell: Cell) -> str:
    return cell.name.removesuffix(f"-seed{cell.labels['seed']}")


def _packed(images: UInt8[np.ndarray, "m k c h w"]) -> dict[str, Any]:
    pixels = base64.b64encode(zlib.compress(images.tobytes(), 9)).decode()
    return {"shape": list(images.shape), "pixels": pixels}


def _picture(packed: Mapping[str, Any]) -> Image.Image:
    pixels = zlib.decompress(base64.b64decode(packed["pixels"]))
    images = np.frombuffer(pixels, np.uint8).reshape(packed["shape"])
    levels = packed["levels"]
    return beside(image_grid(images[:, :1], levels), image_grid(images[:, 1:], levels))
