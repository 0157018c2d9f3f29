"""The average of the weights over an exponential window that grows from the start.

After optimiser step s = 1, 2, … with weights w_s and t = s − 1,

    a_1 = w_1,   a_s = ρ_t a_{s−1} + (1 − ρ_t) w_s,   ρ_t = min(decay, (1 + t)/(10 + t)).

Polyak & Juditsky, Acceleration of Stochastic Approximation by Averaging, SIAM Journal on Control
and Optimization 1992, https://doi.org/10.1137/0330046

In the place of Lightning's WeightAveraging, which keeps the average on the CPU and waits for the
device once per parameter: here it lies beside the weights, and ρ_t is a number of the host.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, final

import lightning.pytorch as pl
import torch
from torch import Tensor


@final
class WeightAverage(pl.Callback):
    """Averages the module's parameters; at the end of the training the module holds the average.

    Args:
        decay: Weight of the average so far in the long run, in [0, 1); 0 keeps the last weights.

    Raises:
        ValueError: If decay is out of its range.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"ema_decay must lie in [0, 1), got {decay}")
        self.decay = decay
        self._average: list[Tensor] = []
        self._saved: Mapping[str, Tensor] | None = None

    def memory(self, step: int) -> float:
        """Return the share ρ of the average so far.

        Args:
            step: Optimiser steps done, at least 1.

        Returns:
            ρ in [0, 1); 0 after the first step.
        """
        t = step - 1
        return min(self.decay, (1.0 + t) / (10.0 + t)) if t else 0.0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lay the average beside the weights."""
        saved = self._saved or {}
        self._average = [
            saved.get(name, p).detach().to(p.device, copy=True)
            for name, p in pl_module.named_parameters()
        ]
        self._saved = None

    @torch.no_grad()
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Take the weights of this step in."""
        share = 1.0 - self.memory(trainer.global_step)
        torch._foreach_lerp_(self._average, list(pl_module.parameters()), share)

    @contextmanager
    def applied(self, pl_module: pl.LightningModule) -> Iterator[None]:
        """Let the module hold the average for a while.

        Args:
            pl_module: The module that is trained.

        Yields:
            Nothing; afterwards the module holds its own weights again.
        """
        current = [p.detach().clone() for p in pl_module.parameters()]
        _copy(self._average, pl_module)
        try:
            yield
        finally:
            _copy(current, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Leave the average in the module."""
        _copy(self._average, pl_module)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the average beside the weights."""
        names = [name for name, _ in pl_module.named_parameters()]
        checkpoint["average"] = dict(zip(names, self._average, strict=True))

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take the average from a checkpoint."""
        self._saved = checkpoint["average"]


@torch.no_grad()
def _copy(source: list[Tensor], pl_module: pl.LightningModule) -> None:
    for parameter, value in zip(pl_module.parameters(), source, strict=True):
        parameter.copy_(value)
