"""The settings of the study `information`: many ways to commit one rate, with what, how often.

    channels d     few channels with high α: a slow signal costs little and is seen n times;
                   many with low α: little noise to overcome in each; in closed form the first
                   bit above δ buys more, the higher α is (`rates.marginal_information`)
    ladder         α of the channels spread out, at the same δ
    plain units    the posterior in its own units, z to the decoder, in place of the minimiser's
    innovations    the posterior's mean by innovations, in which every direction costs the same;
                   in plain units z to the decoder, else z/σ*
    attention      from every pixel to the latents after every layer, with more heads
    lagging        the encoder ahead of the decoder at first
    z = 0          no latents, but the decoder's attention to them: what its layers are worth
    decoders       PixelSNAIL, and with dropout, which weakens it: the last resort; for each kind
                   of decoder a reference and the decoder alone, compared within the kind; on the
                   first data set only

Whether z is used at all differs from seed to seed, most on CIFAR-10: there the numbers of channels
have twice the seeds (declared after the first three of all).

Razavi et al., Preventing Posterior Collapse with δ-VAEs, ICLR 2019, section 3,
https://arxiv.org/abs/1901.03416; He et al. 2019, https://arxiv.org/abs/1901.05534
"""

from collections.abc import Mapping
from typing import Any

from deltavae.studies.base import Budget
from deltavae.studies.density import DECODERS
from deltavae.studies.methods import channels_for, lagging
from deltavae.studies.settings import (
    CHANNELS,
    DATA,
    SEEDS,
    component,
    nets,
    training,
    with_decoder,
)

RATE: Mapping[Budget, float] = {"smoke": 5.0, "cpu": 10.0, "paper": 20.0}  # δ in bits
ALONE, ZERO = "decoder alone", "z = 0"


def kinds(budget: Budget) -> dict[str, dict[str, Any]]:
    """Return the decoders of a budget by kind: name of the class and, apart, with dropout."""
    if budget == "smoke":
        return {DECODERS[0]: nets(budget)["decoder"]}
    gated, snail = (with_decoder(budget, kind)["decoder"] for kind in DECODERS)
    sizes = {name: value for name, value in snail["init_args"].items() if name != "dropout"}
    dropped = {"dropout": snail["init_args"].get("dropout", 0.3), **sizes}
    return {
        DECODERS[0]: gated,
        DECODERS[1]: {**snail, "init_args": sizes},
        f"{DECODERS[1]}, dropout": {**snail, "init_args": dropped},
    }


def main_kind(budget: Budget) -> str:
    """Return the kind of decoder with which the settings are tried: the budget's own."""
    own = nets(budget)["decoder"]
    return next(kind for kind, decoder in kinds(budget).items() if decoder == own)


def reference(budget: Budget) -> str:
    """Return the setting that the others are compared with."""
    return _channels(CHANNELS[budget])


def default(budget: Budget, data: str) -> str:
    """Return the setting that the other studies take for the δ-VAE."""
    return _innovations(channels_for(budget, data, RATE[budget]))


def _plain(setting: str) -> str:
    return f"{setting}, plain units"


def again(budget: Budget) -> set[tuple[str, str, str]]:
    """Return data, decoder and setting of what has twice the seeds."""
    d, own = CHANNELS[budget], main_kind(budget)
    if budget != "cpu":
        return set()
    few = _channels(d // 2), _innovations(d // 2)
    names = {ALONE, ZERO, _channels(1), _channels(d), _channels(2 * d), _ladder(d)}
    names |= {*few, *map(_plain, few)}
    return {("cifar10", own, name) for name in names}


def seeds(budget: Budget, data: str, kind: str, setting: str) -> int:
    """Count the seeds of a setting."""
    return SEEDS[budget] * (2 if (data, kind, setting) in again(budget) else 1)


def _channels(d: int) -> str:
    return "1 channel" if d == 1 else f"{d} channels"


def _ladder(d: int) -> str:
    return f"{d} channels, ladder"


def _innovations(d: int) -> str:
    return f"{_channels(d)}, innovations"


def settings(budget: Budget, data: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the options by kind of decoder and setting; without latents too.

    Args:
        budget: The budget.
        data: One of its DATA; only on the first there are kinds of decoder but its own.

    Returns:
        Options of `fit`.
    """
    d, bits = CHANNELS[budget], RATE[budget]

    def committed(
        channels: int, units: bool = True, innovations: bool = False, **options: Any
    ) -> dict[str, Any]:
        latents = component("latents.AR1", minimiser_units=units, innovations=innovations)
        return {"delta_bits": bits, "latent_channels": channels, "latents": latents, **options}

    own = main_kind(budget)
    decoder = kinds(budget)[own]
    close = {**decoder, "init_args": {**decoder["init_args"], "attend_every": 1, "heads": 4}}
    tried = {
        reference(budget): committed(d),
        ALONE: {"latents": "none"},
        ZERO: {"latents": "zero", "latent_channels": d},
        "plain units": committed(d, units=False),
        _channels(2 * d): committed(2 * d),
        _channels(1): committed(1),
        _ladder(d): committed(d, alpha="0.3:0.95"),
        default(budget, data): committed(
            channels_for(budget, data, RATE[budget]), innovations=True
        ),
    }
    if budget != "smoke":
        tried |= {
            _channels(d // 2): committed(d // 2),
            _plain(_channels(d // 2)): committed(d // 2, units=False),
            _plain(_innovations(d // 2)): committed(d // 2, units=False, innovations=True),
            "attention after every layer": committed(d, decoder=close),
            "lagging inference": committed(d, lagging=lagging(budget)),
        }
    chosen = {(own, setting): options for setting, options in tried.items()}
    for kind, other in kinds(budget).items():
        if kind != own and data == DATA[budget][0]:
            chosen[kind, reference(budget)] = committed(d, decoder=other)
            chosen[kind, ALONE] = {"latents": "none", "decoder": other}
    return chosen


def setting_options(budget: Budget, data: str, kind: str, setting: str) -> dict[str, Any]:
    """Return all options of `fit` of a setting.

    Args:
        budget: The budget.
        data: One of its DATA.
        kind: Kind of decoder.
        setting: Of `settings`, one of that kind.

    Returns:
        The options, but for the seed.
    """
    chosen = settings(budget, data)[kind, setting]
    return {**training(budget, data), **nets(budget), **chosen}
