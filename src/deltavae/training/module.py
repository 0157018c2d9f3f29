"""The Lightning module: one optimiser, two groups of parameters, one backward pass.

The auxiliary prior is trained on detached posteriors in the model's own backward pass; its
parameters are a group of their own in AdamW, whose moments are per parameter, and are clipped
apart. So the model's weights are the same bits with and without it. Posterior noise, augmentation
and, without a time limit, the learning rate are functions of (seed, step, example). Between two
log entries no step waits for the device.

Loshchilov & Hutter, Decoupled Weight Decay Regularization, ICLR 2019,
https://arxiv.org/abs/1711.05101
"""

import math
import time
from collections.abc import Mapping
from typing import Any, Literal, final

import lightning.pytorch as pl
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from deltavae.model import DeltaVAE
from deltavae.noise import counter_coin, counter_normal
from deltavae.objectives import ELBO, Objective
from deltavae.training.floors import FloorWatch
from deltavae.training.log import CSVLog
from deltavae.training.random_states import random_states, restore_random_states
from deltavae.units import nats_to_bits, nats_to_bpd


class TrainingDivergedError(RuntimeError):
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
        max_minutes: Time at which the cosine reaches zero, whatever the step; None: no limit.
        seed: Seed of the posterior noise.
        log_every: Steps between two entries of the log, where finiteness is checked too, and the
            floor (`floors`).
        augment: "flip" mirrors every training image left to right with probability ½; None: no
            augmentation. Evaluation never flips.

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
        augment: Literal["flip"] | None = None,
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
        self.objective = ELBO() if objective is None else objective
        latents = model.latents
        if latents is not None and latents.constant_rate and self.objective.steers_rate:
            raise ValueError(
                f"objective must be ELBO with {type(latents).__name__}, whose rate is constant: "
                f"{type(self.objective).__name__} would do nothing else"
            )
        if augment not in (None, "flip"):
            raise ValueError(f'augment must be "flip" or None, got "{augment}"')
        if augment is not None and len(model.decoder.event_shape) != 3:
            raise ValueError(
                f"augment must be None where events are no images (C, H, W), got {augment}"
            )
        self.model = model
        self.steps, self.warmup_steps = steps, warmup_steps
        self.learning_rate, self.aux_learning_rate = learning_rate, aux_learning_rate
        self.weight_decay, self.clip_norm = weight_decay, clip_norm
        self.max_seconds = math.inf if max_minutes is None else 60.0 * max_minutes
        self.seed, self.log_every, self.augment = seed, log_every, augment
        self.seconds = 0.0  # wall time of the training, interruptions not counted
        self.measured: dict[str, float] = {}  # on held-out images at this step, for the log
        self.counts: dict[str, float] = {}  # what else every row of the log is to show
        self._clock: float | None = None
        self._closed = 0  # the last step that `close_step` has seen
        self._sums = torch.zeros(4)  # distortion, rate, aux_rate, steps since the last log entry
        # Step and figures of that entry; None: an older checkpoint did not say.
        self._entry: tuple[int, dict[str, float]] | None = (0, {})

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
        # One kernel for all parameters. Not with float16: there the fused step undoes the scaling
        # of the gradients itself, after they would have been clipped.
        fused = self.device.type in ("cpu", "cuda") and self.trainer.precision != "16-mixed"
        return torch.optim.AdamW(groups, lr=self.learning_rate, betas=(0.9, 0.99), fused=fused)

    def configure_callbacks(self) -> list[pl.Callback]:
        """Return what checks at log steps that the floor holds."""
        return [FloorWatch(self.model, self.log_every, self.steps)]

    def rate_factor(self, step: int) -> float:
        """Return the learning rate of a step relative to its peak: warm-up, then a cosine."""
        progress = min(1.0, max(step / self.steps, self.seconds / self.max_seconds))
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        return warm * 0.5 * (1.0 + math.cos(math.pi * progress))

    def on_train_start(self) -> None:
        """Start the clock; drop what the log has from after the checkpoint."""
        self._clock = time.monotonic()
        self._sums = self._sums.to(self.device)
        if self.global_step == 0:
            self._entry = (0, {})
        for logger in self.trainer.loggers:
            if isinstance(logger, CSVLog) and self._entry is not None:
                logger.rewind(*self._entry)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the learning rate of this step; a second call in one step sets the same."""
        if math.isfinite(self.max_seconds) and self.trainer.world_size > 1:
            self.seconds = self.trainer.strategy.broadcast(self.seconds)  # one schedule for all
        optimiser = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimiser, torch.optim.Optimizer)
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * self.rate_factor(self.global_step)

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Float[Tensor, ""]:
        """Return the loss of a batch: {"x": events, "index": their positions in the data set}."""
        x, index = self.augmented(batch["x"], batch["index"]), batch["index"]
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

    def augmented(
        self, x: UInt8[Tensor, "b ..."], index: Int64[Tensor, " b"]
    ) -> UInt8[Tensor, "b ..."]:
        """Return the events as this step is to see them.

        Args:
            x: Events of the data set.
            index: Their positions in it.

        Returns:
            Each image mirrored or not, a function of (seed, step, position); without augmentation
            the events themselves.
        """
        if self.augment is None:
            return x
        flip = counter_coin(self.seed, self.global_step, index)
        return torch.where(flip[:, None, None, None], x.flip(3), x)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Close the step, unless a callback that saves has done so."""
        self.close_step()

    def close_step(self) -> None:
        """Advance the clock; write the log at log steps. A second call in one step does nothing.

        Whoever saves a checkpoint in `on_train_batch_end`, which callbacks have before the module,
        calls this first: so the checkpoint does not repeat what the log has.
        """
        if self._closed == self.global_step:
            return
        self._closed = self.global_step
        now = time.monotonic()
        self.seconds += now - (self._clock or now)
        self._clock = now
        due = self.global_step % self.log_every == 0 or self.global_step == self.steps
        if due or self.measured:
            self._log_means()

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of each parameter group apart, on the device; NaN shows at log steps."""
        for group in optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], self.clip_norm, error_if_nonfinite=False)

    def check_finite(self) -> tuple[float, float, float]:
        """Return distortion, rate and aux_rate in nats, averaged since the last log entry.

        Returns:
            The three means.

        Raises:
            TrainingDivergedError: If they are not finite.
        """
        *means, steps = self._sums.tolist()
        distortion, rate, aux_rate = (mean / max(1.0, steps) for mean in means)
        if not math.isfinite(distortion + rate + aux_rate):
            raise TrainingDivergedError(
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
            "entry": self._entry,
            **random_states(self),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what `on_save_checkpoint` added."""
        state = checkpoint["deltavae"]
        self.seconds, self._sums = state["seconds"], state["sums"]
        self._entry = state.get("entry")
        restore_random_states(state, self.global_rank)

    def close_training(self, measured: Mapping[str, float]) -> None:
        """Write figures of the last step into the log, after the last checkpoint.

        They go into the row of this step, where it has one, or else into one of its own.

        Args:
            measured: The figures.
        """
        step, row = self._entry or (0, {})
        self._write({**(row if step == self.global_step else self._means()), **measured})

    def _log_means(self) -> None:
        values = {**self._means(), **self.measured}
        # As tensors of the CPU: Lightning reads what it shows in every step.
        shown = {
            k: torch.tensor(v)
            for k, v in values.items()
            if k.endswith("_bits") or k in self.measured
        }
        self.log_dict(shown, prog_bar=True, logger=False)
        self._write(values)
        self._sums.zero_()
        self.measured = {}

    def _means(self) -> dict[str, float]:
        distortion, rate, aux_rate = self.check_finite()
        dims = math.prod(self.model.decoder.event_shape)
        bits = {"distortion_bits": nats_to_bits(distortion)}
        if self.model.latents is not None:
            bits["rate_bits"] = nats_to_bits(rate)
            bits["committed_rate_bits"] = nats_to_bits(self.model.latents.committed_rate)
            current = self.model.latents.current_committed_rate
            if current is not None:
                bits["current_committed_rate_bits"] = nats_to_bits(current)
            if self.model.aux_prior is not None:
                bits["aux_rate_bits"] = nats_to_bits(aux_rate)
        return {
            **bits,
            "elbo_bpd": nats_to_bpd(distortion + rate, dims),
            "learning_rate": self.learning_rate * self.rate_factor(self.global_step - 1),
            "seconds": self.seconds,
            **self.counts,
        }

    def _write(self, values: dict[str, float]) -> None:
        self._entry = (self.global_step, values)
        for logger in self.trainer.loggers:
            logger.log_metrics(values, self.global_step)
