"""The floor, watched while a model is trained: at log steps the rate is computed a second time.

The rate of training is δ plus terms that cannot be negative: it could not show that δ were wrong.
So, of the raw parameters that a step saw, in float64, by the textbook (`Latents.direct_rate`):

    KL(q(z|x) ‖ p) ≥ δ            for every example, where the pair says so;                (1)
    rate(q) ≥ KL(q(z|x) ‖ p)      or else the bound that is maximised were none.            (2)

Either broken is a bug, and ends the training before the next checkpoint. Rounding is allowed for:
1e-9 of δ in (1), 1e-6 of the rate in (2), and 1e-12 nats per dimension, for textbook terms cancel.
"""

from collections.abc import Mapping
from typing import Any, final

import lightning.pytorch as pl
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from deltavae.certificate import arguments
from deltavae.latents import Latents
from deltavae.model import DeltaVAE

_FLOOR, _RATE, _DIMENSION = 1e-9, 1e-6, 1e-12


class BrokenFloorError(RuntimeError):
    """A rate below the committed rate, or a KL above the rate that training sees: a bug."""


@final
class FloorWatch(pl.Callback):
    """Checks the examples of log steps; `DeltaVAEModule` brings it along into every Trainer.

    Other steps do nothing more. The weights are the same bits with and without it.

    Args:
        model: The model that is trained.
        log_every: Steps between two checks.
        steps: Optimiser steps of the whole training, the last of which is checked too.
    """

    def __init__(self, model: DeltaVAE, log_every: int, steps: int) -> None:
        self.model, self.log_every, self.steps = model, log_every, steps
        self._params: Tensor | None = None
        self._handle: RemovableHandle | None = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Begin to listen to the encoder, where this is a log step."""
        step = trainer.global_step + 1
        due = step % self.log_every == 0 or step == self.steps
        if due and self.model.encoder is not None:
            self._handle = self.model.encoder.register_forward_hook(self._hear)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Mapping[str, Tensor],
        batch_idx: int,
    ) -> None:
        """Check what the encoder said in this step; a `BrokenFloorError` ends the training."""
        params, latents = self._params, self.model.latents
        self._stop()
        if params is None or latents is None:
            return
        with torch.autocast(device_type=params.device.type, enabled=False):
            check_floor(latents, params, batch["index"], trainer.global_step)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Listen no longer."""
        self._stop()

    def _hear(self, encoder: nn.Module, inputs: Any, output: Tensor) -> None:
        if encoder.training:  # not what other callbacks measure
            self._params = output.detach()

    def _stop(self) -> None:
        if self._handle is not None:
            self._handle.remove()
        self._handle = self._params = None


@torch.no_grad()
def check_floor(
    latents: Latents, params: Float[Tensor, "b n k"], index: Int64[Tensor, " b"], step: int
) -> None:
    """Compute the rates of a batch by both formulas, wait for the device and compare them.

    A pair without a second formula is not checked, and NaN is for others to find.

    Args:
        latents: The pair; a BN-VAE's running moments stand for the batch's and stay as they are.
        params: Raw output of the encoder, as the step saw it; of a costly pair the first
            ``direct_examples`` are read.
        index: Positions of the examples in the data set, for the message.
        step: Optimiser step, for the message.

    Raises:
        BrokenFloorError: If (1) or (2) does not hold.
    """
    was_training = latents.training
    latents.eval()
    q = latents.posterior(params[: latents.direct_examples].double())
    latents.train(was_training)
    direct = latents.direct_rate(q)
    if direct is None:
        return
    rate = latents.rate(q).double()
    delta = latents.committed_rate if latents.floor == "example" else 0.0
    rounding = _DIMENSION * latents.n * latents.d
    below = direct < delta * (1 - _FLOOR) - rounding
    short = rate < direct * (1 - _RATE) - rounding
    wrong = below | short
    if not bool(wrong.any()):
        return
    first = int(wrong.nonzero()[0])
    exact = f"KL(q ‖ p) is {float(direct[first]):.12g} nats"
    found = (
        f"{exact}, below the committed rate δ = {delta:.12g} nats"
        if bool(below[first])
        else f"{exact}, above the rate that training sees, {float(rate[first]):.12g} nats"
    )
    given = arguments(latents) or {"n": latents.n, "d": latents.d}
    options = ", ".join(f"{name}={value}" for name, value in given.items())
    raise BrokenFloorError(
        f"step {step}, example {int(index[first])} of the training set: {found}: a bug in "
        f"{type(latents).__name__}({options:.300}), not in your data; please report it, with the "
        "run's config.yaml"
    )
