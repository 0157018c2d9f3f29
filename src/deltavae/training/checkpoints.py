"""Checkpoints that a kill, a full disk or Ctrl-C cannot damage."""

import signal
import time
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, final

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.fabric.utilities.types import _PATH
from lightning.pytorch.callbacks import Checkpoint

from deltavae.run_folder import write_atomically
from deltavae.training.floors import BrokenFloorError
from deltavae.training.module import DeltaVAEModule, TrainingDivergedError


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
                f"{path}: the checkpoint could not be written ({reason}); "
                "the one before is whole: make room and go on with --resume"
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
        assert isinstance(pl_module, DeltaVAEModule)
        self._saved = time.monotonic()
        if pl_module.seconds >= pl_module.max_seconds:  # continued after its time was up
            trainer.should_stop = True
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
        pl_module.close_step()
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
        wrong = isinstance(exception, TrainingDivergedError | BrokenFloorError)
        if wrong and self.path.is_file():
            exception.args = (f"{exception}; the last good checkpoint is {self.path}",)
