"""Training on Lightning's Trainer: the module, the data module, the callbacks, and one function.

The whole training is one pass over a loader of `steps` batches, so that a continued run has a single
counter: the optimiser step. Batches, posterior noise and, without a time limit, the learning rate
are functions of (seed, step). The auxiliary prior is trained in the same backward pass on detached
posteriors; its parameters are a group of their own in AdamW (whose moments are per parameter) and
are clipped apart, so that the model's weights are the same bits with and without it.

Loshchilov & Hutter, Decoupled Weight Decay Regularization, ICLR 2019, https://arxiv.org/abs/1711.05101;
weights are averaged as in Polyak & Juditsky 1992 with an exponential window that grows from the start.
"""

import csv
import math
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, final

import lightning.pytorch as pl
import torch
from jaxtyping import Float
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch.callbacks import Checkpoint, WeightAveraging
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.fabric.utilities.rank_zero import rank_zero_only
from torch import Tensor, nn

from deltavae import aux_prior
from deltavae.data import Dataset
from deltavae.data.batches import StepLoader, StepSampler
from deltavae.evaluation.encodings import encode_images
from deltavae.model import DeltaVAE
from deltavae.noise import counter_normal
from deltavae.objectives import ELBO, Objective
from deltavae.run_folder import RunFolder, write_atomically
from deltavae.units import nats_to_bits, nats_to_bpd


class TrainingDiverged(RuntimeError):
    """The loss is no longer finite."""


@final
class DeltaVAEModule(pl.LightningModule):
    """A DeltaVAE with its objective and optimiser, for any Lightning Trainer.

    Args:
        model: The model.
        objective: Terms of the bound → loss.
        steps: Optimiser steps of the whole training, at least 1.
        learning_rate: Peak step size of AdamW; it rises linearly, then falls to zero on a cosine.
        warmup_steps: Steps of the rise.
        weight_decay: Decoupled weight decay.
        clip_norm: Largest norm of the model's gradient, and of the auxiliary prior's, each apart.
        aux_learning_rate: Peak step size for the auxiliary prior.
        max_minutes: Time after which the cosine has reached zero, whatever the step; None: no limit.
        seed: Seed of the posterior noise.
        log_every: Steps between two entries of the log, where finiteness is checked too.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self,
        model: DeltaVAE,
        objective: Objective | None = None,
        *,
        steps: int,
        learning_rate: float = 2e-3,
        warmup_steps: int = 100,
        weight_decay: float = 1e-4,
        clip_norm: float = 1.0,
        aux_learning_rate: float = 2e-3,
        max_minutes: float | None = None,
        seed: int = 0,
        log_every: int = 50,
    ) -> None:
        super().__init__()
        positive = {
            "steps": steps,
            "learning_rate": learning_rate,
            "clip_norm": clip_norm,
            "aux_learning_rate": aux_learning_rate,
            "log_every": log_every,
            "max_minutes": math.inf if max_minutes is None else max_minutes,
        }
        for name, value in positive.items():
            if not value > 0:
                raise ValueError(f"{name} must be above 0, got {value}")
        self.model = model
        self.objective = ELBO() if objective is None else objective
        self.steps, self.warmup_steps = steps, warmup_steps
        self.learning_rate, self.aux_learning_rate = learning_rate, aux_learning_rate
        self.weight_decay, self.clip_norm = weight_decay, clip_norm
        self.max_seconds = math.inf if max_minutes is None else 60.0 * max_minutes
        self.seed, self.log_every = seed, log_every
        self.seconds = 0.0  # wall time of the training, interruptions not counted
        self._clock: float | None = None
        self._sums = torch.zeros(4)  # distortion, rate, aux_rate, steps since the last log entry

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return AdamW with one group for the model and one for the auxiliary prior."""
        prior = self.model.aux_prior
        apart = [] if prior is None else list(prior.parameters())
        ids = {id(p) for p in apart}
        rest = [p for p in self.model.parameters() if id(p) not in ids]
        groups: list[dict[str, Any]] = [
            {"params": rest, "peak": self.learning_rate, "weight_decay": self.weight_decay}
        ]
        if apart:
            groups.append({"params": apart, "peak": self.aux_learning_rate, "weight_decay": 0.0})
        return torch.optim.AdamW(groups, lr=self.learning_rate, betas=(0.9, 0.99))

    def rate_factor(self, step: int) -> float:
        """Return the learning rate of a step relative to its peak: warm-up, then a cosine."""
        progress = min(1.0, max(step / self.steps, self.seconds / self.max_seconds))
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        return warm * 0.5 * (1.0 + math.cos(math.pi * progress))

    def on_train_start(self) -> None:
        """Start the clock."""
        self._clock = time.monotonic()
        self._sums = self._sums.to(self.device)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the learning rate of this step."""
        if math.isfinite(self.max_seconds) and self.trainer.world_size > 1:
            self.seconds = self.trainer.strategy.broadcast(self.seconds)  # one schedule for all
        optimiser = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimiser, torch.optim.Optimizer)
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * self.rate_factor(self.global_step)

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Float[Tensor, ""]:
        """Return the loss of a batch: {"x": events, "index": their positions in the data set}."""
        x, index = batch["x"], batch["index"]
        noise = None
        if self.model.latents is not None:
            shape = (self.model.latents.n, self.model.latents.d)
            noise = counter_normal(self.seed, self.global_step, index, shape)
        terms = self.model(x, noise)
        loss = self.objective(terms, self.global_step)
        aux_rate = torch.zeros_like(loss) if terms.aux_rate is None else terms.aux_rate.mean()
        with torch.no_grad():
            means = [terms.distortion.mean(), terms.rate.mean(), aux_rate, torch.ones_like(loss)]
            self._sums += torch.stack(means)
        # aux_rate reaches the auxiliary prior's parameters only: its inputs are detached.
        return loss + aux_rate

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Advance the clock; write the log at log steps."""
        now = time.monotonic()
        self.seconds += now - (self._clock or now)
        self._clock = now
        if self.global_step % self.log_every == 0 or self.global_step == self.steps:
            self._log_means()

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of each parameter group apart."""
        for group in optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], self.clip_norm)

    def check_finite(self) -> tuple[float, float, float]:
        """Return distortion, rate and aux_rate in nats, averaged since the last log entry.

        Returns:
            The three means.

        Raises:
            TrainingDiverged: If they are not finite.
        """
        *means, steps = self._sums.tolist()
        distortion, rate, aux_rate = (mean / max(1.0, steps) for mean in means)
        if not math.isfinite(distortion + rate + aux_rate):
            raise TrainingDiverged(
                f"the loss is not finite at step {self.global_step} (distortion {distortion:g}, "
                f"rate {rate:g}, aux_rate {aux_rate:g} nats); try a lower learning rate"
            )
        return distortion, rate, aux_rate

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a continued run needs beyond weights and optimiser; refuse a diverged state."""
        self.check_finite()
        checkpoint["deltavae"] = {
            "seconds": self.seconds,
            "sums": self._sums.cpu(),
            "rng": torch.get_rng_state(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what `on_save_checkpoint` added."""
        state = checkpoint["deltavae"]
        self.seconds, self._sums = state["seconds"], state["sums"]
        torch.set_rng_state(state["rng"])

    def _log_means(self) -> None:
        distortion, rate, aux_rate = self.check_finite()
        dims = math.prod(self.model.decoder.event_shape)
        bits = {"distortion_bits": nats_to_bits(distortion)}
        if self.model.latents is not None:
            bits["rate_bits"] = nats_to_bits(rate)
            bits["committed_rate_bits"] = nats_to_bits(self.model.latents.committed_rate)
            if self.model.aux_prior is not None:
                bits["aux_rate_bits"] = nats_to_bits(aux_rate)
        self.log_dict(bits, prog_bar=True, logger=False)
        values = {
            **bits,
            "elbo_bpd": nats_to_bpd(distortion + rate, dims),
            "learning_rate": self.learning_rate * self.rate_factor(self.global_step - 1),
            "seconds": self.seconds,
        }
        for logger in self.trainer.loggers:
            logger.log_metrics(values, self.global_step)
        self._sums.zero_()


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


@final
class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint under a temporary name and renames it."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint; the one before survives a full disk.

        Args:
            checkpoint: What to save.
            path: Where.
            storage_options: Not used.

        Raises:
            OSError: If it could not be written.
        """
        try:
            write_atomically(Path(path), lambda temporary: torch.save(checkpoint, temporary))
        except (OSError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise OSError(
                f"{path}: the checkpoint could not be written ({reason}); the one before is whole: "
                "make room and go on with --resume"
            ) from error


@final
class RunCheckpoint(Checkpoint):
    """Saves checkpoints/last.ckpt from time to time, on Ctrl-C, and when the time is up.

    Args:
        path: The checkpoint's file.
        interval: Time between two checkpoints.
    """

    def __init__(self, path: Path, interval: timedelta) -> None:
        self.path, self.interval = path, interval.total_seconds()
        self.interrupted = False
        self._saved = time.monotonic()
        self._handler: Any = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take over Ctrl-C: the first ends the training after the current step."""
        self._saved = time.monotonic()
        self._handler = signal.signal(signal.SIGINT, self._interrupt)

    def _interrupt(self, signum: int, frame: FrameType | None) -> None:
        self.interrupted = True
        signal.signal(signal.SIGINT, self._handler)  # a second Ctrl-C ends at once

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save where it is time to, and stop where that was asked for."""
        assert isinstance(pl_module, DeltaVAEModule)
        now = time.monotonic()
        over = pl_module.seconds >= pl_module.max_seconds
        stop, due = self.interrupted or over, now - self._saved >= self.interval
        if trainer.world_size > 1:
            stop, due = trainer.strategy.broadcast((stop, due))
        if stop or due or trainer.global_step == pl_module.steps:
            trainer.save_checkpoint(self.path)
            self._saved = now
        if stop:
            trainer.should_stop = True

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give Ctrl-C back."""
        signal.signal(signal.SIGINT, self._handler)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Give Ctrl-C back, and name the last good checkpoint."""
        if self._handler is not None:
            signal.signal(signal.SIGINT, self._handler)
        if isinstance(exception, TrainingDiverged) and self.path.is_file():
            exception.args = (f"{exception}; the last good checkpoint is {self.path}",)


@final
class CSVLog(Logger):
    """Appends the training's means to log.csv; a continued run drops what it will write again.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._fields: list[str] | None = None

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "csv"

    @property
    def version(self) -> str:
        """Version of the log: there is only one."""
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: config.yaml has them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Append one row."""
        row = {"step": step, **metrics}
        if self._fields is None:
            self._fields = list(row)
            kept = read_log(self.path) if self.path.is_file() else []
            with self.path.open("w", newline="") as file:
                writer = csv.DictWriter(file, self._fields, extrasaction="ignore")
                writer.writeheader()
                writer.writerows(old for old in kept if old["step"] < (step or 0))
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self._fields, extrasaction="ignore").writerow(row)


def read_log(path: Path) -> list[dict[str, float]]:
    """Read log.csv.

    Args:
        path: The file.

    Returns:
        One mapping per log entry.
    """
    with path.open(newline="") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def ema(decay: float) -> Any:
    """Return the averaging function of an exponential window that grows from the start.

    Args:
        decay: Weight of the average so far in the long run, in [0, 1).

    Returns:
        A function for `torch.optim.swa_utils.AveragedModel`: weight min(decay, (1 + t)/(10 + t)).

    Raises:
        ValueError: If decay is out of its range.
    """
    if not 0.0 <= decay < 1.0:
        raise ValueError(f"ema_decay must lie in [0, 1), got {decay}")

    def average(averaged: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        t = float(count)
        return torch.lerp(averaged, current.to(averaged), 1.0 - min(decay, (1.0 + t) / (10.0 + t)))

    return average


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
    callbacks: Sequence[pl.Callback] = (),
    trainer: Mapping[str, Any] | None = None,
) -> Outcome:
    """Train into a run folder; afterwards the module holds the averaged weights.

    Args:
        module: Model, objective and optimiser.
        data: The batches.
        run: Where checkpoints and logs go.
        ema_decay: Decay of the weight average.
        checkpoint_minutes: Time between two checkpoints.
        resume: Go on from the run's last checkpoint, where there is one.
        callbacks: Further Lightning callbacks, a progress bar for example.
        trainer: Further arguments of Lightning's Trainer.

    Returns:
        How it ended.

    Raises:
        ValueError: If an argument is out of its range.
        TrainingDiverged: If the loss is no longer finite.
        OSError: If a checkpoint could not be written.
    """
    checkpoint = RunCheckpoint(run.checkpoint, timedelta(minutes=checkpoint_minutes))
    given = dict(trainer or {})
    averaging = WeightAveraging(avg_fn=ema(ema_decay), use_buffers=False)
    quiet = {"devices": 1, "enable_model_summary": False, "enable_progress_bar": False}
    pl_trainer = pl.Trainer(
        **{**quiet, **given},
        max_epochs=1,
        callbacks=[averaging, *callbacks, checkpoint],
        logger=[CSVLog(run.log), TensorBoardLogger(run.path, name="", version="tensorboard")],
        plugins=[AtomicCheckpointIO()],
        log_every_n_steps=module.log_every,
        use_distributed_sampler=False,
    )
    from_checkpoint = run.checkpoint if resume and run.checkpoint.is_file() else None
    pl_trainer.fit(module, datamodule=data, ckpt_path=from_checkpoint, weights_only=True)
    return Outcome(
        step=pl_trainer.global_step,
        seconds=module.seconds,
        interrupted=checkpoint.interrupted,
        main_process=pl_trainer.is_global_zero,
    )


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
    aux_prior.fit(
        model.aux_prior, q.mu, q.sigma, steps=steps, batch_size=batch_size, generator=generator
    )
