"""Pairs of posterior and prior, one per file: raw output → q(z|x), its rate, its floor δ."""

from deltavae.latents.ar1 import AR1, AR1Prior
from deltavae.latents.base import Latents
from deltavae.latents.batch_norm import BatchNorm
from deltavae.latents.conditional import Conditional, ConditionalNormal
from deltavae.latents.independent import Independent
from deltavae.latents.learned_prior import LearnedPrior
from deltavae.latents.posterior import MeanFieldNormal, Posterior
from deltavae.latents.standard import Standard

__all__ = [
    "AR1",
    "AR1Prior",
    "BatchNorm",
    "Conditional",
    "ConditionalNormal",
    "Independent",
    "Latents",
    "LearnedPrior",
    "MeanFieldNormal",
    "Posterior",
    "Standard",
]
