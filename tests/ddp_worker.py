"""Three training steps whose gradients are written down, by one process or by two.

With a third word the training goes on from the checkpoint of its second step. Every process writes
down its random numbers too.
"""

import shutil
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


class Draws(pl.Callback):
    """Keeps a random number of every step, and the checkpoint of the second."""

    def __init__(self, folder, resume):
        self.folder, self.resume, self.numbers = folder, resume, {}

    def setup(self, trainer, pl_module, stage):
        torch.manual_seed(7 if self.resume else 100 + trainer.global_rank)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.numbers[trainer.global_step] = torch.rand(()).item()
        if trainer.global_step == 2 and trainer.is_global_zero and not self.resume:
            saved = self.folder / "checkpoints" / "last.ckpt"
            shutil.copy(saved, self.folder / "second.ckpt")

    def on_train_end(self, trainer, pl_module):
        torch.save(self.numbers, self.folder / f"draws-{trainer.global_rank}.pt")


def main(folder: Path, devices: int, resume: bool) -> None:
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    model = instantiate(tiny_specification())
    gradients = Gradients()
    module = DeltaVAEModule(model, steps=3, log_every=1, seed=5)
    data = DeltaVAEDataModule(tiny_data(), steps=3, batch_size=12, seed=5)
    settings = {"accelerator": "cpu", "devices": devices, "precision": "64-true"}
    if devices > 1:
        settings["strategy"] = "ddp"
    outcome = train(
        module,
        data,
        RunFolder(folder),
        checkpoint_minutes=0.0,
        resume=resume,
        callbacks=[gradients, Draws(folder, resume)],
        trainer=settings,
    )
    if outcome.main_process:
        torch.save(gradients.steps, folder / "gradients.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), resume=len(sys.argv) > 3)
