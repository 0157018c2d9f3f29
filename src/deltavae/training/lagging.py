"""Lagging inference networks: the encoder is trained ahead of the decoder until it has caught up.

While z says little, the decoder learns to do without it before q(z|x) has come near the true
posterior. So, to begin with, the aggressive phase: cycles of K + 1 steps of one loss, in which

    K inner steps   move the encoder alone,
    one outer step  moves decoder and prior alone.

Every `check_every` outer steps I(x;z) is estimated by (2) of `evaluation.information` on fixed
images with fixed noise; the phase ends at the `patience`-th check that is not above the best
before. Then everything moves in every step. The estimate cannot exceed ln(images): where I comes
near it the phase ends too. The auxiliary prior moves in all steps. A training of S steps has

    extra = False   S steps of all kinds: the time of other methods, fewer updates of the decoder,
    extra = True    S outer steps: the decoder's updates of other methods, and more time. Inner
                    steps are then part of the step that follows them, on batches of their own.

He, Spokoyny, Neubig & Berg-Kirkpatrick, Lagging Inference Networks and Posterior Collapse in
Variational Autoencoders, ICLR 2019, algorithm 1 and section 4.2, https://arxiv.org/abs/1901.05534;
the numbers are those of its code for images, https://github.com/jxhe/vae-lagging-encoder, where
inner steps are extra.
Deviations: there inner steps go on until the loss of ten stops falling, fewer than 100, and here
their number K is fixed, so that a step is a function of its number; there a check that equals the
best does not count, and there is one per epoch, of 490 outer steps or so.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any, final

import lightning.pytorch as pl
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from deltavae.data.batches import StepLoader, StepSampler
from deltavae.evaluation import encode_images, mutual_information
from deltavae.model import DeltaVAE
from deltavae.training.module import DeltaVAEModule
from deltavae.units import nats_to_bits


@final
class LaggingInference(pl.Callback):
    """Trains the encoder ahead of the decoder; its state is in the checkpoint.

    What is not to move loses its gradient before the optimiser's step: weights, moments and weight
    decay stay as they are, bit for bit. The log gets the columns lagging_information_bits, at
    checks, and decoder_updates, the number of them so far. Extra inner steps need the loader of
    `DeltaVAEDataModule`; the log's means are over inner and outer steps.

    Args:
        images: Images on which I(x;z) is estimated: held-out ones, or some of the training set.
        inner_steps: Steps K of the encoder alone per step of the decoder, at least 1.
        check_every: Outer steps between two estimates of I(x;z), at least 1.
        patience: Checks without a rise above the best that end the phase, at least 1.
        extra: Whether inner steps are added to the steps of the training.
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
        check_every: int = 100,
        patience: int = 5,
        extra: bool = False,
        seed: int = 0,
    ) -> None:
        numbers = {"inner_steps": inner_steps, "check_every": check_every, "patience": patience}
        for name, value in {"images": len(images), **numbers}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.images, self.inner_steps, self.extra = images, inner_steps, extra
        self.check_every, self.patience, self.seed = check_every, patience, seed
        self.active = True
        self._best, self._waited, self._updates = -float("inf"), 0, 0
        self._cycle = 1 if extra else inner_steps + 1  # steps of the training per outer step
        self._in_extra = False
        self._sampler: StepSampler | None = None

    def is_inner(self, step: int) -> bool:
        """Tell whether a step of the aggressive phase moves the encoder.

        Args:
            step: Steps of the training done before it.

        Returns:
            True in the first K steps of every cycle of K + 1; never where inner steps are extra.
        """
        return step % self._cycle < self._cycle - 1

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Refuse a model without latents: a ValueError."""
        assert isinstance(pl_module, DeltaVAEModule)
        if pl_module.model.latents is None:
            raise ValueError(
                "lagging.inner_steps must be 0 without latents: there is no encoder to train ahead"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the batches of extra steps: a ValueError where there are none."""
        assert isinstance(pl_module, DeltaVAEModule)
        pl_module.counts["decoder_updates"] = self._updates
        if self.extra:
            if not isinstance(trainer.train_dataloader, StepLoader):
                raise ValueError("extra must be False but with the batches of DeltaVAEDataModule")
            self._sampler = copy.copy(trainer.train_dataloader.steps)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Do the extra inner steps of this step."""
        if not (self.active and self.extra):
            return
        assert isinstance(pl_module, DeltaVAEModule)
        assert isinstance(trainer.train_dataloader, StepLoader)
        assert self._sampler is not None
        pl_module.on_train_batch_start(batch, batch_idx)  # the learning rate of this step
        # The batches that would follow the last one of the training: no inner step needs a state.
        first = self._sampler.steps + trainer.global_step * self.inner_steps
        self._in_extra = True
        for step in range(first, first + self.inner_steps):
            own = trainer.train_dataloader.dataset[self._sampler.batch(step)]
            _move(trainer, pl_module, trainer.strategy.batch_to_device(own), batch_idx)
        self._in_extra = False

    def on_before_optimizer_step(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Take the gradient from what this step is not to move."""
        assert isinstance(pl_module, DeltaVAEModule)
        if self.active:
            inner = self._in_extra or self.is_inner(trainer.global_step)
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
        step = trainer.global_step
        self._updates += not (self.active and self.is_inner(step - 1))
        pl_module.counts["decoder_updates"] = self._updates
        if not self.active or step % (self._cycle * self.check_every):
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
        """Take an estimate in: the phase ends where it has not risen `patience` times.

        Args:
            information: I(x;z) in nats.
        """
        self._waited += not information > self._best
        self._best = max(self._best, information)
        self.active = self._waited < self.patience

    def state_dict(self) -> dict[str, Any]:
        """Return what a continued run needs."""
        return {
            "active": self.active,
            "best": self._best,
            "waited": self._waited,
            "decoder_updates": self._updates,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state.

        Args:
            state_dict: What `state_dict` returned.
        """
        self.active = state_dict["active"]
        self._best, self._waited = state_dict["best"], state_dict["waited"]
        self._updates = state_dict["decoder_updates"]


def _move(
    trainer: pl.Trainer, pl_module: DeltaVAEModule, batch: Mapping[str, Tensor], batch_idx: int
) -> None:
    # One step of the optimiser that the Trainer does not count; callbacks and clipping as in its.
    optimiser = pl_module.optimizers(use_pl_optimizer=False)
    assert isinstance(optimiser, torch.optim.Optimizer)

    def closure() -> Tensor:
        loss = trainer.strategy.training_step(batch, batch_idx)
        optimiser.zero_grad()
        assert isinstance(loss, Tensor)
        return trainer.strategy.backward(loss, optimiser)

    trainer.strategy.optimizer_step(optimiser, closure, model=pl_module)


def _resting(model: DeltaVAE, inner: bool) -> Iterator[nn.Module]:
    # Of the pairs' own parameters all are the prior's.
    assert model.encoder is not None
    assert model.latents is not None
    yield from (model.decoder, model.latents) if inner else (model.encoder,)
