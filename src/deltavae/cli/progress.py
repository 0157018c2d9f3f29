"""What the user sees while a model trains: a line that moves, or in a log one now and then."""

import sys
import time
from typing import Any

import lightning.pytorch as pl
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

QUIET_SECONDS = 15.0  # between two lines where the error stream is no terminal

LABELS = {
    "distortion_bits": "distortion",
    "rate_bits": "rate",
    "committed_rate_bits": "δ",
    "aux_rate_bits": "aux rate",
}
VALIDATION = "val_elbo_bpd"


class TrainingProgress(pl.Callback):
    """Shows steps, distortion, rate, δ and aux_rate in bits per example, and the last validation.

    Args:
        steps: Optimiser steps of the whole training.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._begin = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the line."""
        self._begin = trainer.global_step
        self._started = self._spoke = time.monotonic()
        if not trainer.is_global_zero or not sys.stderr.isatty():
            return
        self._progress = Progress(
            TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
            BarColumn(bar_width=20),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[terms]}"),
            console=Console(stderr=True),
        )
        self._progress.start()
        self._task = self._progress.add_task("fit", total=self.steps, terms="")
        self._progress.update(self._task, completed=self._begin)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Move the line; without a terminal print one now and then."""
        if not trainer.is_global_zero:
            return
        step, now = trainer.global_step, time.monotonic()
        if self._progress is not None:
            self._progress.update(self._task, completed=step, terms=self._terms(trainer))
        elif now - self._spoke >= QUIET_SECONDS or step == self.steps:
            self._spoke = now
            pace = (step - self._begin) / max(1e-9, now - self._started)
            line = f"step {step}/{self.steps}  {pace:.1f} steps/s  {self._terms(trainer)}"
            print(line, file=sys.stderr, flush=True)

    def _terms(self, trainer: pl.Trainer) -> str:
        values = trainer.progress_bar_metrics
        parts = [f"{LABELS[k]} {float(values[k]):.2f}" for k in LABELS if k in values]
        bound = f"  val {float(values[VALIDATION]):.4f} bits/dim" if VALIDATION in values else ""
        return "  ".join(parts) + (" bits" if parts else "") + bound

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the line."""
        self._close()

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Close the line."""
        self._close()

    def _close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
