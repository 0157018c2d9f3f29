"""Time one training step of every arm of the study latents-against-decoder.

python benchmarks/step_times.py   a minute of one core; prints SECONDS and FIT_SECONDS of the study

One thread, pinned to a core where the system can; random images; all arms of a data set and depth
in turn, medians over the repetitions.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
import yaml
from rich.console import Console
from speed.recipes import Recipe, Step, step_of
from speed.timing import interleave, pin

from deltavae.aux_prior import AuxiliaryPrior, fit
from deltavae.cli.parsing import parse
from deltavae.cli.specified import specified_model
from deltavae.data import data_layout
from deltavae.latents import MeanFieldNormal
from deltavae.run_folder import instantiate
from deltavae.studies.arms import ARMS, OURS, PLANS, RATE, options, parts
from deltavae.studies.methods import channels_for

REPETITIONS, LEAST = 9, 0.5


def step(arm: str, data: str, depth: int) -> Step:
    """Return the training step of an arm, as the study trains it."""
    chosen = options("cpu", data, depth, arm)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "arm.yaml"
        file.write_text(yaml.safe_dump(chosen))
        parsed = parse("fit", ["--config", str(file), "--run-dir", folder])
    layout = data_layout(data, size=chosen["size"])
    torch.manual_seed(0)
    model = instantiate(specified_model(parsed, layout.shape, layout.levels))
    shape = (chosen["batch_size"], *layout.shape)
    x = torch.randint(0, layout.levels, shape, dtype=torch.uint8)
    recipe = Recipe().without("compiled")
    if chosen["precision"] != "bf16-mixed":
        recipe = recipe.without("bfloat16")
    return step_of(recipe, model, x)


def fit_of_prior(data: str, depth: int) -> Step:
    """Return one step of fitting the δ-VAE's auxiliary prior after the training."""
    rows, d = options("cpu", data, depth, OURS)["size"], channels_for("cpu", data, RATE[data])
    prior = AuxiliaryPrior(rows, d, parts("cpu", data, depth)[OURS]["aux_hidden"])
    mu = torch.randn(1024, rows, d)
    q = MeanFieldNormal(mu, torch.ones_like(mu), torch.zeros_like(mu))

    def step() -> None:
        fit(prior, q, steps=1)

    return step


def main() -> None:
    """Measure and print."""
    pin()
    say = Console(soft_wrap=True).print
    fitted = set()
    for compared in PLANS["cpu"].comparisons:
        data, depth = compared.data, compared.depth
        if data not in fitted:
            fitting = interleave({"fit": fit_of_prior(data, depth)}, REPETITIONS, LEAST)
            say(f'"{data}": {round(float(np.median(fitting["fit"])), 4)}  # FIT_SECONDS')
            fitted.add(data)
        taken = interleave({arm: step(arm, data, depth) for arm in ARMS}, REPETITIONS, LEAST)
        seconds = {arm: round(float(np.median(times)), 4) for arm, times in taken.items()}
        say(f'("{data}", {depth}): {seconds}')


if __name__ == "__main__":
    main()
