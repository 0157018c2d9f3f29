"""The methods that the studies compare: what each adds to the options of `fit`.

All share data, nets, batches and length (`settings`); a method says which pair of posterior and
prior and which objective. Its target is a number of bits per image where it takes one, or the
weight β of the rate.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deltavae.studies.base import Budget
from deltavae.studies.settings import ANNEALING, CHANNELS, TARGETS, component

DELTA_VAE = "δ-VAE"
BETAS: Mapping[Budget, tuple[float, ...]] = {
    "smoke": (0.3,),
    "cpu": (0.03, 0.1, 0.3, 0.6),
    "paper": (0.1, 0.3, 0.6, 0.9),
}


@dataclass(frozen=True)
class Method:
    """One way of training a latent-variable model, at one target.

    Attributes:
        name: As tables and figures show it.
        slug: The same in the names of files.
        options: What it adds to the options of `fit`.
        target: Bits per image that were asked for, or the weight β; None: nothing to ask for.
        unit: Of the target: "bits", "β" or "".
    """

    name: str
    slug: str
    options: Mapping[str, Any]
    target: float | None = None
    unit: str = ""

    @property
    def label(self) -> str:
        """The slug with the target."""
        return self.slug if self.target is None else f"{self.slug}-{self.target:g}"


def delta_vae(bits: float, channels: int) -> Method:
    """Return the δ-VAE: an AR(1) prior, the posterior in units of the minimiser."""
    options = {
        "latents": component("latents.AR1", minimiser_units=True),
        "delta_bits": bits,
        "latent_channels": channels,
    }
    return Method(DELTA_VAE, "delta-vae", options, bits, "bits")


def without_latents() -> Method:
    """Return the decoder alone."""
    return Method("decoder alone", "decoder", {"latents": "none"})


def rivals(budget: Budget) -> list[Method]:
    """Return the methods with latents other than the δ-VAE, at every target of a budget."""
    methods = _without_target(budget)
    for bits in TARGETS[budget]:
        methods += _aimed_at(bits, CHANNELS[budget], gain=1e-4 if budget == "paper" else 2e-3)
    for beta in BETAS[budget]:
        methods += _weighted(beta, CHANNELS[budget])
    return methods


def _standard(channels: int) -> dict[str, Any]:
    return {"latents": component("latents.Standard"), "latent_channels": channels}


def _without_target(budget: Budget) -> list[Method]:
    base, steps = _standard(CHANNELS[budget]), ANNEALING[budget]
    linear = component("objectives.LinearAnnealing", steps=steps)
    cyclical = component("objectives.CyclicalAnnealing", cycle_steps=max(1, steps // 3), cycles=4)
    lagging = {"inner_steps": 5, "check_every": max(1, steps // 10)}
    return [
        Method("VAE", "vae", base),
        Method("linear annealing", "annealing", {**base, "objective": linear}),
        Method("cyclical annealing", "cyclical", {**base, "objective": cyclical}),
        Method("lagging inference", "lagging", {**base, "lagging": lagging}),
    ]


def _aimed_at(bits: float, channels: int, gain: float) -> list[Method]:
    objectives: dict[str, tuple[str, str, dict[str, Any]]] = {
        "FreeBitsPerExample": ("free bits, per example", "free-bits-example", {}),
        "FreeBitsPerChannel": ("free bits, per channel", "free-bits-channel", {}),
        "ControlVAE": (
            "ControlVAE",
            "controlvae",
            {"k_i": gain},
        ),  # short trainings need a fast one
    }
    pairs = {
        "Independent": ("constrained independent", "independent"),
        "BatchNorm": ("batch-normalised μ", "batch-norm"),
    }
    methods = [
        Method(
            name,
            slug,
            {
                **_standard(channels),
                "objective": component(f"objectives.{cls}", bits=bits, **more),
            },
            bits,
            "bits",
        )
        for cls, (name, slug, more) in objectives.items()
    ]
    for cls, (name, slug) in pairs.items():
        options = {
            "latents": component(f"latents.{cls}"),
            "delta_bits": bits,
            "latent_channels": channels,
        }
        methods.append(Method(name, slug, options, bits, "bits"))
    return methods


def _weighted(beta: float, channels: int) -> list[Method]:
    objective = {"objective": component("objectives.Beta", beta=beta)}
    learned = {"latents": component("latents.LearnedPrior"), "latent_channels": channels}
    return [
        Method("β-VAE", "beta-vae", {**_standard(channels), **objective}, beta, "β"),
        Method("β-VAE, LSTM prior", "beta-vae-lstm", {**learned, **objective}, beta, "β"),
    ]
