"""Three training steps whose gradients are written down, by one process or by two."""

import sys
import warnings
from pathlib import Path

import lightning.pytorch as pl
import torch

from deltavae.run_folder import RunFolder, instantiate
from deltavae.training import DeltaVAEDataModule, DeltaVAEModule, train
from runs import tiny_data, tiny_specification


class Gradients(pl.Callback):
    """Keeps the model's gradients of every step, before clipping."""

    def __init__(self):
        self.steps = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        named = pl_module.model.named_parameters()
        self.steps.append({k: p.grad.clone() for k, p in named if not k.startswith("aux_prior")})


def main(folder: str, devices: int) -> None:
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    model = instantiate(tiny_specification())
    gradients = Gradients()
    module = DeltaVAEModule(model, steps=3, log_every=1, seed=5)
    data = DeltaVAEDataModule(tiny_data(), steps=3, batch_size=12, seed=5)
    settings = {"accelerator": "cpu", "devices": devices, "precision": "64-true"}
    if devices > 1:
        settings["strategy"] = "ddp"
    outcome = train(module, data, RunFolder(Path(folder)), callbacks=[gradients], trainer=settings)
    if outcome.main_process:
        torch.save(gradients.steps, Path(folder) / "gradients.pt")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
