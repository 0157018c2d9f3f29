"""The methods that the studies compare: what each adds to the options of `fit`.

All share data, nets, batches, length and learning rate (`settings`); a method says which pair of
posterior and prior and which objective. Its target is a number of bits per image where it takes
one, or the weight β of the rate. The δ-VAE comes twice, with the same channels: in the budgets
"smoke" and "cpu" as few as commit δ with α ≤ 0.8, the default of `fit` (`rates.fewest_channels`;
the study `information` shows why), in "paper" those of the recipe, with its ladder:

    δ-VAE               the posterior's mean by innovations, z/σ* to the decoder: this project's
    δ-VAE, plain units  the posterior as it is, z to the decoder: the paper's

Lagging inference gets its inner steps on top: as many updates of the decoder as all methods.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deltavae.rates import fewest_channels
from deltavae.studies.base import Budget
from deltavae.studies.settings import (
    ANNEALING,
    CHANNELS,
    DATA,
    GAINS,
    LADDER,
    TARGETS,
    component,
    rows,
    steps,
)
from deltavae.units import bits_to_nats

DELTA_VAE, PLAIN = "δ-VAE", "δ-VAE, plain units"
ABOUT_UNITS = (
    "The δ-VAE's mean is given by innovations, and the decoder reads z/σ*, unless plain units, "
    "the paper's, are named; δ is spread over as few channels as carry it with α ≤ 0.8, "
    "in the budget paper over the paper's ladder."
)
ABOUT_RATE = "All share one learning rate, tuned for none."
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


def channels_for(budget: Budget, data: str, bits: float) -> int:
    """Count the δ-VAE's latent channels.

    Args:
        budget: The budget.
        data: One of its DATA.
        bits: Committed rate δ.

    Returns:
        d.
    """
    if LADDER[budget] is None:
        return fewest_channels(bits_to_nats(bits), rows(budget, data))
    return CHANNELS[budget]


def delta_vae(budget: Budget, data: str, bits: float, *, plain: bool = False) -> Method:
    """Return the δ-VAE: a mean-field Gaussian and an AR(1) prior.

    Args:
        budget: The budget.
        data: One of its DATA.
        bits: Committed rate δ.
        plain: Whether the mean is given as it is and the decoder reads z, as in the paper.

    Returns:
        The method.
    """
    options = {
        "latents": component("latents.AR1", minimiser_units=not plain, innovations=not plain),
        "delta_bits": bits,
        "latent_channels": channels_for(budget, data, bits),
    }
    if LADDER[budget] is not None:
        options["alpha"] = LADDER[budget]
    name, slug = (PLAIN, "delta-vae-plain") if plain else (DELTA_VAE, "delta-vae")
    return Method(name, slug, options, bits, "bits")


def without_latents() -> Method:
    """Return the decoder without latents: its attention to them is there, and reads z = 0."""
    return Method("z = 0", "z-0", {"latents": "zero", "latent_channels": 1})


def rivals(budget: Budget) -> list[Method]:
    """Return the methods with latents but the δ-VAE of this project, at a budget's targets."""
    data = DATA[budget][0]
    methods = [delta_vae(budget, data, bits, plain=True) for bits in TARGETS[budget]]
    methods += _without_target(budget)
    for bits in TARGETS[budget]:
        methods += _aimed_at(bits, CHANNELS[budget], GAINS[budget])
    for beta in BETAS[budget]:
        methods += _weighted(beta, CHANNELS[budget])
    return methods


def _standard(channels: int) -> dict[str, Any]:
    return {"latents": component("latents.Standard"), "latent_channels": channels}


def lagging(budget: Budget) -> dict[str, Any]:
    """Return the options of lagging inference: a check in every fortieth of the training."""
    check_every = max(1, steps(budget, DATA[budget][0]) // 40)
    return {"inner_steps": 5, "check_every": check_every, "extra": True}


def _without_target(budget: Budget) -> list[Method]:
    base = _standard(CHANNELS[budget])
    rise = max(1, round(ANNEALING * steps(budget, DATA[budget][0])))
    linear = component("objectives.LinearAnnealing", steps=rise)
    cyclical = component("objectives.CyclicalAnnealing", cycle_steps=rise, cycles=4)
    return [
        Method("VAE", "vae", base),
        Method("linear annealing", "annealing", {**base, "objective": linear}),
        Method("cyclical annealing", "cyclical", {**base, "objective": cyclical}),
        Method("lagging inference", "lagging", {**base, "lagging": lagging(budget)}),
    ]


def _aimed_at(bits: float, channels: int, gain: float) -> list[Method]:
    objectives: dict[str, tuple[str, str, dict[str, Any]]] = {
        "FreeBitsPerExample": ("free bits, per example", "free-bits-example", {}),
        "FreeBitsPerChannel": ("free bits, per channel", "free-bits-channel", {}),
        "ControlVAE": ("ControlVAE", "controlvae", {"k_i": gain}),
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
