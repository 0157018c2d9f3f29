"""What bfloat16 costs in bits per dimension: the same weights in both formats, paired trainings.

Δ_i = bound of example i in bfloat16 − in float32, the same weights and posterior noise;
D_s = test bound of the run with seed s trained in bfloat16 − in float32, same start and data;
mean ± t·s/√N, s the standard deviation, t Student's quantile with N − 1 degrees of freedom.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from deltavae import AR1, DeltaVAE
from deltavae.configuration import ENCODERS, model_specification
from deltavae.data import Dataset
from deltavae.evaluation import evaluate
from deltavae.run_folder import RunFolder, instantiate
from deltavae.training import DeltaVAEDataModule, DeltaVAEModule, train
from deltavae.units import bits_to_nats, nats_to_bpd
from speed.page import table

PERMITTED = 0.002  # bits/dim between the two formats
PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed"}
DECODER = {
    "class_path": "deltavae.decoders.GatedPixelCNN",
    "init_args": {"channels": 32, "layers": 4},
}
ENCODER = {"class_path": ENCODERS["anti-causal"], "init_args": {"channels": 16, "layers": 3}}
DELTA, LATENT_CHANNELS = bits_to_nats(20.0), 4


@dataclass(frozen=True)
class Mean:
    """A mean of independent values.

    Attributes:
        value: The mean.
        error: Its standard error.
        half_width: Half the width of its 95 % t interval.
    """

    value: float
    error: float
    half_width: float


def mean(values: Sequence[float]) -> Mean:
    """Average at least two values."""
    count = len(values)
    error = float(np.std(values, ddof=1)) / math.sqrt(count)
    return Mean(float(np.mean(values)), error, float(stats.t.ppf(0.975, count - 1)) * error)


@torch.no_grad()
def compare(
    model: DeltaVAE, images: np.ndarray, *, seed: int = 0, batch_size: int = 100
) -> dict[str, np.ndarray]:
    """Evaluate the same weights in both formats, with the same posterior noise.

    Args:
        model: A trained model.
        images: Images, uint8 (m, C, H, W).
        seed: Seed of the noise.
        batch_size: Images at a time.

    Returns:
        For each format the bound of every image in bits/dim.
    """
    model.eval()
    generator = torch.Generator().manual_seed(seed)
    dims = math.prod(images.shape[1:])
    found: dict[str, list[np.ndarray]] = {name: [] for name in PRECISIONS}
    for start in range(0, len(images), batch_size):
        x = torch.from_numpy(images[start : start + batch_size])
        noise = None
        if model.latents is not None:
            noise = torch.randn(len(x), model.latents.n, model.latents.d, generator=generator)
        for name, bounds in found.items():
            with torch.autocast("cpu", torch.bfloat16, enabled=name == "bfloat16"):
                bounds.append(nats_to_bpd(model(x, noise).neg_elbo.double(), dims).numpy())
    return {name: np.concatenate(bounds) for name, bounds in found.items()}


def cell(folder: Path, data: Dataset, precision: str, seed: int, steps: int) -> dict[str, Any]:
    """Train one model, or go on with it, or read what it reached.

    Args:
        folder: Its run folder.
        data: The data set.
        precision: "float32" or "bfloat16".
        seed: Seed of weights, batches and noise.
        steps: Optimiser steps.

    Returns:
        Test bound in bits/dim (evaluated in float32) with its standard error, and seconds.
    """
    run = RunFolder(folder)
    if run.metrics.is_file():
        finished: dict[str, Any] = json.loads(run.metrics.read_text())
        return finished
    torch.manual_seed(seed)
    plain = {"minimiser_units": False, "innovations": False}
    latents = AR1.from_rate(DELTA, n=data.shape[1], d=LATENT_CHANNELS, **plain)
    parts = {"decoder": DECODER, "encoder": ENCODER, "latents": latents}
    model = instantiate(model_specification(data.shape, data.levels, **parts))
    module = DeltaVAEModule(model, steps=steps, seed=seed)
    batches = DeltaVAEDataModule(data, steps=steps, seed=seed)
    trainer = {"accelerator": "cpu", "precision": PRECISIONS[precision]}
    outcome = train(module, batches, run, resume=True, checkpoint_minutes=0.5, trainer=trainer)
    if outcome.interrupted:
        raise KeyboardInterrupt
    metrics = evaluate(model, data, probe=False)
    reached = {name: metrics[name] for name in ("elbo_bpd", "elbo_bpd_se", "rate_bits")}
    reached |= {"steps": steps, "seconds": outcome.seconds}
    run.write_json(run.metrics, reached)
    return reached


def section(kept: Path) -> str:
    """Write the page's section on bfloat16 from what was kept; empty where nothing was."""
    parts = []
    files = sorted(kept.glob("bf16-weights-*.json"))
    if files:
        parts.append(_weights([json.loads(path.read_text()) for path in files]))
    if (kept / "bf16-pairs.json").is_file():
        parts.append(_pairs(json.loads((kept / "bf16-pairs.json").read_text())))
    return "\n\n".join(["## What bfloat16 costs", *parts]) if parts else ""


def _weights(found: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for one in found:
        difference = Mean(**one["difference"])
        verdict = "yes" if abs(difference.value) < PERMITTED else "no"
        bounds = [f"{one[name]:.4f}" for name in PRECISIONS]
        shown = f"{difference.value:+.5f} ± {difference.error:.5f}"
        lines.append([one["run"], f"{one['examples']:,}", *bounds, shown, verdict])
    head = ["run", "test images", "float32", "bfloat16", "difference", f"below {PERMITTED}"]
    text = (
        "The same trained weights evaluated in both formats with the same posterior noise: bounds "
        "in bits/dim, and the mean difference ± its standard error over images."
    )
    return f"{text}\n\n{table(head, lines)}"


def _pairs(found: Mapping[str, Any]) -> str:
    cells = found["cells"]
    lines, differences = [], []
    for seed, pair in cells.items():
        values = [pair[name]["elbo_bpd"] for name in PRECISIONS]
        differences.append(values[1] - values[0])
        bounds = [f"{one['elbo_bpd']:.4f} ± {one['elbo_bpd_se']:.4f}" for one in pair.values()]
        lines.append([seed, *bounds, f"{differences[-1]:+.4f}"])
    head = ["seed", "trained in float32", "trained in bfloat16", "difference"]
    text = (
        f"Paired trainings on {found['data']} at {found['size']}×{found['size']}, "
        f"{found['steps']} steps each, the same start, order and noise in both; test bounds in "
        "bits/dim, evaluated in float32, ± their standard error over images "
        f"({found['origin']['date']})."
    )
    text += f"\n\n{table(head, lines)}"
    if len(differences) > 1:
        average = mean(differences)
        ends = (average.value + sign * average.half_width for sign in (-1, 1))
        verdict = "within" if abs(average.value) <= 2 * average.error else "beyond"
        text += (
            f"\n\nMean difference {average.value:+.4f} ± {average.error:.4f} bits/dim over "
            f"{len(differences)} seeds, 95 % t interval {' to '.join(f'{x:+.4f}' for x in ends)}: "
            f"{verdict} two standard errors of zero."
        )
    return text
