"""One training from its first step, or from its last checkpoint, to averaged weights.

The whole training is one pass over a loader of `steps` batches, so that a continued run has a
single counter: the optimiser step.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, final

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from deltavae import aux_prior
from deltavae.data import Dataset
from deltavae.data.batches import StepLoader, StepSampler
from deltavae.evaluation import encode_images
from deltavae.model import DeltaVAE
from deltavae.run_folder import RunFolder
from deltavae.training.averaging import WeightAverage
from deltavae.training.checkpoints import AtomicCheckpointIO, RunCheckpoint
from deltavae.training.compilation import compiled_training
from deltavae.training.log import CSVLog
from deltavae.training.module import DeltaVAEModule
from deltavae.training.validation import Validation

VAL_EVERY = 1000  # steps between two validations, where nothing else is said


@final
class DeltaVAEDataModule(pl.LightningDataModule):
    """The training set as batches that are a function of (seed, step).

    One epoch of the Trainer is the whole training: use it with `max_epochs=1` and
    `use_distributed_sampler=False`.

    Args:
        data: The data set.
        steps: Optimiser steps of the whole training.
        batch_size: Examples per step over all processes.
        seed: Seed of the order.
    """

    def __init__(self, data: Dataset, *, steps: int, batch_size: int = 64, seed: int = 0) -> None:
        super().__init__()
        self.data, self.steps, self.batch_size, self.seed = data, steps, batch_size, seed

    def train_dataloader(self) -> StepLoader:
        """Return the loader of this process's share of every batch."""
        rank, world = (
            (0, 1)
            if self.trainer is None
            else (
                self.trainer.global_rank,
                self.trainer.world_size,
            )
        )
        size = len(self.data.train.images)
        sampler = StepSampler(size, self.steps, self.batch_size, self.seed, rank, world)
        return StepLoader(self.data.train, sampler)


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes:
        step: Optimiser steps done.
        seconds: Wall time of the training.
        interrupted: Ended by Ctrl-C, with a checkpoint to continue from.
        main_process: Whether this process is the one that goes on to evaluate.
    """

    step: int
    seconds: float
    interrupted: bool
    main_process: bool


def train(
    module: DeltaVAEModule,
    data: DeltaVAEDataModule,
    run: RunFolder,
    *,
    ema_decay: float = 0.999,
    checkpoint_minutes: float = 2.0,
    resume: bool = False,
    val_every: int | None = None,
    val_examples: int = 1000,
    compiled: bool = False,
    callbacks: Sequence[pl.Callback] = (),
    trainer: Mapping[str, Any] | None = None,
) -> Outcome:
    """Train into a run folder; afterwards the module holds the averaged weights.

    A loss that is no longer finite is a `TrainingDivergedError`, a checkpoint that cannot be
    written an OSError, an argument out of its range a ValueError.

    Args:
        module: Model, objective and optimiser.
        data: The batches.
        run: Where checkpoints and logs go.
        ema_decay: Decay of the weight average.
        checkpoint_minutes: Time between two checkpoints.
        resume: Go on from the run's last checkpoint, where there is one.
        val_every: Steps between two measurements of the averaged weights on the images that the
            data set holds out; 0: none; None: every 1,000 steps, where there are such images.
        val_examples: Held-out images that are measured at most, the first ones.
        compiled: Whether to compile the training step (`compiled_training`).
        callbacks: Further Lightning callbacks, a progress bar for example.
        trainer: Further arguments of Lightning's Trainer.

    Returns:
        How it ended.
    """
    checkpoint = RunCheckpoint(run.checkpoint, timedelta(minutes=checkpoint_minutes))
    given = dict(trainer or {})
    average = WeightAverage(ema_decay)
    validation = _validation(average, data, val_every, val_examples)
    quiet = {"devices": 1, "enable_model_summary": False, "enable_progress_bar": False}
    pl_trainer = pl.Trainer(
        **{**quiet, **given},
        max_epochs=1,
        callbacks=[average, *validation, *callbacks, checkpoint],
        logger=[CSVLog(run.log), TensorBoardLogger(run.path, name="", version="tensorboard")],
        plugins=[AtomicCheckpointIO()],
        log_every_n_steps=module.log_every,
        use_distributed_sampler=False,
    )
    from_checkpoint = run.checkpoint if resume and run.checkpoint.is_file() else None
    device = pl_trainer.strategy.root_device
    with compiled_training(module.model, device) if compiled else nullcontext():
        pl_trainer.fit(module, datamodule=data, ckpt_path=from_checkpoint, weights_only=True)
    return Outcome(
        step=pl_trainer.global_step,
        seconds=module.seconds,
        interrupted=checkpoint.interrupted,
        main_process=pl_trainer.is_global_zero,
    )


def _validation(
    average: WeightAverage, data: DeltaVAEDataModule, every: int | None, examples: int
) -> list[Validation]:
    split = data.data.val
    if split is None:
        if every:
            raise ValueError(
                f"val_every must be 0 where no images are held out (holdout), got {every}"
            )
        return []
    if every is None:
        every = VAL_EVERY
    if not every:
        return []
    return [Validation(average, split, every=every, examples=examples, train=data.data.train)]


def refit_prior(
    model: DeltaVAE,
    data: Dataset,
    *,
    steps: int = 2000,
    examples: int = 20_000,
    batch_size: int = 256,
    seed: int = 0,
) -> None:
    """Fit the model's auxiliary prior to its frozen encoder, in place.

    Args:
        model: A model with latents and an auxiliary prior.
        data: The data set whose training images are encoded.
        steps: Optimiser steps.
        examples: Number of training images at most, the first ones.
        batch_size: Images per step.
        seed: Seed of batches and noise.

    Raises:
        ValueError: If the model has no auxiliary prior.
    """
    if model.aux_prior is None:
        raise ValueError("this model has no auxiliary prior to fit")
    q = encode_images(model, data.train.images[:examples])
    generator = torch.Generator().manual_seed(seed)
    aux_prior.fit(model.aux_prior, q, steps=steps, batch_size=batch_size, generator=generator)
