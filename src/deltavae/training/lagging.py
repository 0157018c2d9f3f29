"""Lagging inference networks: the encoder is trained ahead of the decoder until it has caught up.

While z says little, the decoder learns to do without it before q(z|x) has come near the true
posterior. So, to begin with, the aggressive phase: cycles of K + 1 steps of one loss, in which

    K inner steps   move the encoder alone,
    one outer step  moves decoder and prior alone.

Every `check_every` steps I(x;z) is estimated by (2) of `evaluation.information` on fixed images
with fixed noise; the phase ends at the `patience`-th check in a row that is not above the best
before. Then everything moves in every step. The estimate cannot exceed ln(images): where I comes
near it the phase ends too. A step is one batch and counts as one, inner or not; the auxiliary
prior moves in all of them.

He, Spokoyny, Neubig & Berg-Kirkpatrick, Lagging Inference Networks and Posterior Collapse in
Variational Autoencoders, ICLR 2019, algorithm 1 and section 4.2, https://arxiv.org/abs/1901.05534
Deviations: the source takes inner steps until the loss stops falling, at most 100, and here their
number K is fixed, so that a step is a function of its number; it checks once an epoch, on
validation data, and stops at the first fall: patience 1.
"""

from collections.abc import Iterator
from typing import Any, final

import lightning.pytorch as pl
import numpy as np
import torch
from jaxtyping import UInt8
from torch import nn

from deltavae.evaluation import encode_images, mutual_information
from deltavae.model import DeltaVAE
from deltavae.training.module import DeltaVAEModule
from deltavae.units import nats_to_bits


@final
class LaggingInference(pl.Callback):
    """Trains the encoder ahead of the decoder; its state is in the checkpoint.

    What is not to move loses its gradient before the optimiser's step: weights, moments and weight
    decay stay as they are, bit for bit. The log gets the column lagging_information_bits.

    Args:
        images: Images on which I(x;z) is estimated: held-out ones, or some of the training set.
        inner_steps: Steps K of the encoder alone per step of the decoder, at least 1.
        check_every: Steps between two estimates of I(x;z), at least 1.
        patience: Checks in a row without a rise that end the phase, at least 1.
        seed: Seed of the estimate's noise.

    Attributes:
        active: Whether the aggressive phase goes on.

    Raises:
        ValueError: If a number is below 1, or there are no images.
    """

    active: bool

    def __init__(
        self,
        images: UInt8[np.ndarray, "m ..."],
        *,
        inner_steps: int = 10,
        check_every: int = 500,
        patience: int = 1,
        seed: int = 0,
    ) -> None:
        numbers = {"inner_steps": inner_steps, "check_every": check_every, "patience": patience}
        for name, value in {"images": len(images), **numbers}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.images, self.inner_steps = images, inner_steps
        self.check_every, self.patience, self.seed = check_every, patience, seed
        self.active = True
        self._best, self._waited = -float("inf"), 0

    def is_inner(self, step: int) -> bool:
        """Tell whether a step of the aggressive phase moves the encoder.

        Args:
            step: Optimiser steps done before it.

        Returns:
            True in the first K steps of every cycle of K + 1.
        """
        return step % (self.inner_steps + 1) < self.inner_steps

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse a model without latents: a ValueError."""
        assert isinstance(pl_module, DeltaVAEModule)
        if pl_module.model.latents is None:
            raise ValueError(
                "lagging.inner_steps must be 0 without latents: there is no encoder to train ahead"
            )

    def on_before_optimizer_step(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Take the gradient from what this step is not to move."""
        assert isinstance(pl_module, DeltaVAEModule)
        if self.active:
            inner = self.is_inner(trainer.global_step)
            for part in _resting(pl_module.model, inner):
                part.zero_grad(set_to_none=True)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Estimate I(x;z) where it is time to, and end the phase where it no longer rises."""
        assert isinstance(pl_module, DeltaVAEModule)
        if not self.active or trainer.global_step % self.check_every:
            return
        information: float = trainer.strategy.broadcast(self.information(pl_module.model))
        self.judge(information)
        found = {"lagging_information_bits": nats_to_bits(information)}
        pl_module.measured = {**pl_module.measured, **found}

    def information(self, model: DeltaVAE) -> float:
        """Estimate I(x;z) on the images, with the weights as they are.

        Args:
            model: The model.

        Returns:
            The estimate in nats, at most ln(images).
        """
        generator = torch.Generator().manual_seed(self.seed)
        return float(mutual_information(encode_images(model, self.images), generator).mean())

    def judge(self, information: float) -> None:
        """Take an estimate in: the phase ends where it has not risen `patience` times in a row.

        Args:
            information: I(x;z) in nats.
        """
        self._waited = 0 if information > self._best else self._waited + 1
        self._best = max(self._best, information)
        self.active = self._waited < self.patience

    def state_dict(self) -> dict[str, Any]:
        """Return what a continued run needs."""
        return {"active": self.active, "best": self._best, "waited": self._waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state.

        Args:
            state_dict: What `state_dict` returned.
        """
        self.active = state_dict["active"]
        self._best, self._waited = state_dict["best"], state_dict["waited"]


def _resting(model: DeltaVAE, inner: bool) -> Iterator[nn.Module]:
    # Of the pairs' own parameters all are the prior's.
    assert model.encoder is not None
    assert model.latents is not None
    yield from (model.decoder, model.latents) if inner else (model.encoder,)
