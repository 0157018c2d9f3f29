"""Measuring the averaged weights on held-out images while a model trains.

The figures are those of `evaluation.evaluate` at the same seed: every measurement uses the same
images and the same draws of z, so that two points of the curve differ by the weights alone.
A BN-VAE's running moments are those of the raw weights: for the measurement they are taken from
training images with the averaged ones. Nothing here touches the state of the training.
"""

from typing import Any, final

import lightning.pytorch as pl
import torch

from deltavae.data import Split
from deltavae.evaluation import (
    active_units,
    draw_terms,
    encode_images,
    mutual_information,
)
from deltavae.model import DeltaVAE
from deltavae.terms import Terms
from deltavae.training.averaging import WeightAverage
from deltavae.training.module import DeltaVAEModule
from deltavae.training.moments import moments_of
from deltavae.units import nats_to_bits, nats_to_bpd

_MOMENTS = 2000  # training images that a BN-VAE's moments are taken from


@final
class Validation(pl.Callback):
    """Measures distortion and rates on held-out images every so many steps, and at the last step.

    A training that ends before, by Ctrl-C or by its time limit, is measured after its checkpoint:
    a run that goes on from there drops this measurement, and is the one that never stopped.
    Every process measures the same images: none waits for another.

    Args:
        average: The averaged weights.
        split: The held-out images.
        every: Steps between two measurements, at least 1.
        examples: Images at most, the first ones, at least 1.
        seed: Seed of the draws of z.
        train: Training images, which a BN-VAE's moments are taken from; None: the held-out ones.

    Raises:
        ValueError: If every or examples is below 1.
    """

    def __init__(
        self,
        average: WeightAverage,
        split: Split,
        *,
        every: int = 1000,
        examples: int = 1000,
        seed: int = 0,
        train: Split | None = None,
    ) -> None:
        for name, value in (("val_every", every), ("val_examples", examples)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.average, self.every, self.seed = average, every, seed
        self.images = split.images[:examples]
        self._moments = (split if train is None else train).images[:_MOMENTS]
        self._last = 0  # the last step that was measured

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Measure where it is time to; the module writes the figures into the log."""
        assert isinstance(pl_module, DeltaVAEModule)
        if trainer.global_step % self.every == 0 or trainer.global_step == pl_module.steps:
            pl_module.measured = self._measure(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Measure the last step of a training that ended early."""
        assert isinstance(pl_module, DeltaVAEModule)
        if trainer.global_step != self._last:
            pl_module.close_training(self._measure(trainer, pl_module))

    def _measure(self, trainer: pl.Trainer, pl_module: DeltaVAEModule) -> dict[str, float]:
        self._last = trainer.global_step
        model = pl_module.model
        with self.average.applied(pl_module), moments_of(model, self._moments):
            return self.measure(model)

    def measure(self, model: DeltaVAE) -> dict[str, float]:
        """Measure a model on the held-out images.

        Args:
            model: The model.

        Returns:
            val_elbo_bpd, val_distortion_bits; with latents val_rate_bits, val_active_units and
            val_mutual_information_bits, a lower bound of at most log₂ images; with an auxiliary
            prior val_aux_rate_bits.
        """
        generator = torch.Generator().manual_seed(self.seed)
        q = None if model.latents is None else encode_images(model, self.images)
        terms: Terms = draw_terms(model, self.images, q, generator=generator)
        bound = float(terms.neg_elbo.mean())
        figures = {
            "val_elbo_bpd": nats_to_bpd(bound, self.images[0].size),
            "val_distortion_bits": nats_to_bits(float(terms.distortion.mean())),
        }
        if q is not None:
            assert model.latents is not None
            information = mutual_information(q, generator).mean()
            figures["val_rate_bits"] = nats_to_bits(float(terms.rate.mean()))
            figures["val_mutual_information_bits"] = nats_to_bits(float(information))
            units = active_units(q.mu, model.latents.sigma_star.cpu())
            figures["val_active_units"] = float(units)
        if terms.aux_rate is not None:
            figures["val_aux_rate_bits"] = nats_to_bits(float(terms.aux_rate.mean()))
        return figures
