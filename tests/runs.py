"""Tiny models and data that several test modules build on."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from deltavae.configuration import ENCODERS, build_latents, model_specification
from deltavae.data import Dataset, Split
from deltavae.model import DeltaVAE
from deltavae.run_folder import RunFolder, instantiate

DECODER = {
    "class_path": "deltavae.decoders.GatedPixelCNN",
    "init_args": {"channels": 8, "layers": 2},
}
ENCODER = {"class_path": ENCODERS["anti-causal"], "init_args": {"channels": 6, "layers": 1}}


def tiny_specification(
    latents: str | None = "AR1", delta_bits: float | None = 4.0, aux_prior: bool = True
) -> dict[str, Any]:
    """A model of 4 × 4 images with 5 levels, 4 latent steps of 2 channels."""
    pair = None
    if latents is not None:
        spec = {"class_path": f"deltavae.latents.{latents}"}
        pair = build_latents(spec, n=4, d=2, delta_bits=delta_bits)
    spec = model_specification(
        (1, 4, 4), 5, decoder=DECODER, encoder=ENCODER, latents=pair, aux_hidden=6
    )
    if not aux_prior:
        spec["init_args"].pop("aux_prior", None)
    return spec


def write_run(path: Path, spec: dict[str, Any]) -> tuple[RunFolder, DeltaVAE]:
    """A run folder with an untrained model of this specification, and the model."""
    run = RunFolder(path)
    torch.manual_seed(0)
    model = instantiate(spec)
    run.write_config({"model": spec, "seed": 0})
    run.save_weights(model)
    return run, model.eval()


def tiny_data(examples: int = 48, seed: int = 0) -> Dataset:
    """Images whose rows are noisy copies of one level: latents have something to say."""
    rng = np.random.default_rng(seed)

    def split(count: int) -> Split:
        level = rng.integers(0, 5, (count, 1, 1, 1))
        images = np.clip(level + rng.integers(-1, 2, (count, 1, 4, 4)), 0, 4)
        return Split(images.astype(np.uint8), level.ravel().astype(np.int64))

    return Dataset("tiny", split(examples), split(examples), levels=5)
