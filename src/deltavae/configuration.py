"""From what a user chooses to the complete specification of a model.

A specification {class_path, init_args} is what config.yaml keeps and `run_folder.instantiate`
builds. Here the parts get what follows from the data and from each other: the shape of an image,
the number of latent steps and the boxes of pixels that they stand for (one per row, unless the
pair has another arrangement), the channels, the solved prior.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from jaxtyping import Float64
from torch import Tensor

from deltavae.latents import AR1, ConditionalNormal, Latents, LearnableAR1, LearnedPrior, Standard
from deltavae.likelihoods import default_likelihood
from deltavae.nn.boxes import pixel_boxes, row_boxes
from deltavae.rates import fewest_channels, ladder, solve_alpha
from deltavae.run_folder import import_class, specification
from deltavae.units import bits_to_nats

DEFAULT_RATE_BITS = 20.0
DEFAULT_CHANNELS = 8  # where `fewest_channels` does not say

ENCODERS = {
    "anti-causal": "deltavae.encoders.AntiCausalEncoder",
    "non-causal": "deltavae.encoders.NonCausalEncoder",
}

# With these every pixel may see every latent: z_t is made from the whole image anyway.
WHOLE_IMAGE = ("NonCausalEncoder", "NonCausalPixelSNAIL")

NO_FLOOR: tuple[type[Latents], ...] = (Standard, LearnedPrior)  # pairs that commit no rate

# In the place of a pair: the decoder alone; the decoder with its attention, to z = 0.
WITHOUT_LATENTS = ("none", "zero")

Spec = Mapping[str, Any]


def parse_alpha(text: str) -> tuple[float, float]:
    """Read "A" or "LO:HI".

    Args:
        text: One number, or the two ends of a ladder.

    Returns:
        The lowest and the highest α.

    Raises:
        ValueError: If the text is not of that form, |α| is not below 1, or LO is above HI.
    """
    try:
        values = [float(part) for part in str(text).split(":")]
    except ValueError:
        values = []
    if len(values) not in (1, 2) or not -1 < values[0] <= values[-1] < 1:
        raise ValueError(f"alpha must be A or LO:HI with every |alpha| < 1, LO ≤ HI, got {text}")
    return values[0], values[-1]


def ladder_rate(
    n: int,
    d: int | None = None,
    *,
    delta_bits: float | None = None,
    delta_nats: float | None = None,
    alpha: str | None = None,
) -> Float64[Tensor, " d"]:
    """Find the AR(1) prior's coefficients from a committed rate, a ladder, or both.

    Args:
        n: Latent steps.
        d: Latent channels; None: without alpha as few as `rates.fewest_channels` says, with it 8.
        delta_bits: Committed rate in bits per example.
        delta_nats: The same in nats; not together with delta_bits.
        alpha: "A" or "LO:HI"; with a rate the ladder is scaled to hit it.

    Returns:
        α of every channel.

    Raises:
        ValueError: If nothing or too much is given, or a value is out of its range.
    """
    for name, value in (("n", n), ("d", d)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if delta_bits is not None and delta_nats is not None:
        raise ValueError("delta_bits and delta_nats: give one of them")
    for name, rate in (("delta_bits", delta_bits), ("delta_nats", delta_nats)):
        if rate is not None and not rate > 0:
            raise ValueError(f"{name} must be above 0, got {rate}")
    bounds = None if alpha is None else parse_alpha(alpha)
    nats = delta_nats if delta_bits is None else bits_to_nats(delta_bits)
    if nats is not None:
        asked = f"delta_nats={nats}" if delta_bits is None else f"delta_bits={delta_bits}"
        with _asked(asked):
            if d is None:
                d = fewest_channels(nats, n) if bounds is None else DEFAULT_CHANNELS
            return solve_alpha(nats, n=n, d=d, bounds=bounds)
    if bounds is None:
        raise ValueError("give delta_bits, delta_nats or alpha")
    return ladder(*bounds, DEFAULT_CHANNELS if d is None else d)


@contextmanager
def _asked(what: str) -> Iterator[None]:
    # In an error about the rate what the user gave, before what it is in nats.
    try:
        yield
    except ValueError as error:
        if not str(error).startswith("delta"):
            raise
        raise ValueError(f"{what}: {error}") from error


def build_latents(
    spec: Spec,
    *,
    n: int,
    d: int | None = None,
    delta_bits: float | None = None,
    alpha: str | None = None,
    trust: bool = False,
) -> Latents:
    """Build a posterior–prior pair of a given committed rate.

    Args:
        spec: Class and options of the pair.
        n: Rows of an event: so many latent steps, unless the pair has another arrangement
            (`Latents.steps`).
        d: Latent channels; None: of AR1 and LearnableAR1 as `ladder_rate` says, otherwise 8.
        delta_bits: Committed rate in bits per example; None: 20, or what alpha says.
        alpha: For AR1 and LearnableAR1 "A" or "LO:HI": the prior's coefficients, or the least;
            with delta_bits the ladder is scaled to hit it.
        trust: Take classes from outside deltavae too.

    Returns:
        The pair.

    Raises:
        ValueError: If an argument is out of its range or does not apply to the pair.
    """
    cls = import_class(spec["class_path"], trust=trust)
    options = dict(spec.get("init_args") or {})
    if not issubclass(cls, Latents):
        raise ValueError(f'latents must be a Latents, got "{spec["class_path"]}"')
    if delta_bits is not None and not delta_bits > 0:
        raise ValueError(f"delta_bits must be above 0, got {delta_bits}")
    n = cls.steps(n, **options)
    if issubclass(cls, AR1 | LearnableAR1):
        if delta_bits is None and alpha is None:
            delta_bits = DEFAULT_RATE_BITS
        return cls(n, ladder_rate(n, d, delta_bits=delta_bits, alpha=alpha).tolist(), **options)
    if alpha is not None:
        raise ValueError(f"alpha applies to AR1 and LearnableAR1 only, got it with {cls.__name__}")
    channels = DEFAULT_CHANNELS if d is None else d
    if cls in NO_FLOOR and delta_bits is None:
        return cls.from_rate(0.0, n, channels, **options)
    bits = DEFAULT_RATE_BITS if delta_bits is None else delta_bits
    with _asked(f"delta_bits={bits}"):
        return cls.from_rate(bits_to_nats(bits), n, channels, **options)


def model_specification(
    shape: tuple[int, int, int],
    levels: int,
    *,
    decoder: Spec,
    encoder: Spec | None = None,
    latents: Latents | None = None,
    likelihood: Spec | None = None,
    aux_hidden: int = 64,
    zero_channels: int = 0,
) -> dict[str, Any]:
    """Return the complete specification of an image model.

    Latents that stand for parts of pixels are a ValueError of `pixel_boxes`.

    Args:
        shape: Channels, rows and columns (C, H, W) of an image.
        levels: Number of levels of a pixel.
        decoder: Class and options of the decoder.
        encoder: Class and options of the encoder; not used without latents.
        latents: The pair; None for the decoder alone.
        likelihood: Class and options; None: the default for the levels.
        aux_hidden: LSTM units of the auxiliary prior.
        zero_channels: Without latents, channels of the z = 0 that the decoder reads, which then
            keeps its attention; 0: the decoder alone.

    Returns:
        What `run_folder.instantiate` builds a `DeltaVAE` from.
    """
    if likelihood is None:
        chosen = default_likelihood(shape[0], levels)
        pixel = specification(chosen, **chosen.config())
    else:
        known = {"channels": shape[0], "levels": levels}
        if likelihood["class_path"] == "deltavae.likelihoods.Bernoulli":
            del known["levels"]  # always two
        pixel = _with(likelihood, **known)
    latent_shape = [shape[1], zero_channels] if zero_channels else None
    if latents is not None:
        latent_shape = [latents.n, latents.d]
    arguments: dict[str, Any] = {
        "decoder": _with(
            decoder,
            image_shape=list(shape),
            likelihood=pixel,
            latent_shape=latent_shape,
            **_boxes(latents, *shape[1:]),
        )
    }
    if latents is not None and encoder is not None:
        arguments["encoder"] = _with(
            encoder,
            image_shape=list(shape),
            levels=levels,
            params_per_step=latents.params_per_step,
            **_boxes(latents, *shape[1:]),
        )
        package, _, name = encoder["class_path"].rpartition(".")
        if package.split(".")[0] == "deltavae" and name in WHOLE_IMAGE:
            arguments["decoder"]["init_args"]["latent_view"] = "all"
        arguments["latents"] = specification(latents, **latents.config())
        arguments["aux_prior"] = prior_specification(latents, aux_hidden)
    return {"class_path": "deltavae.model.DeltaVAE", "init_args": arguments}


def prior_specification(latents: Latents, hidden: int) -> dict[str, Any]:
    """Return the specification of an auxiliary prior over a pair's latents.

    Args:
        latents: The pair.
        hidden: LSTM units.

    Returns:
        What `run_folder.instantiate` builds an `AuxiliaryPrior` from.
    """
    arguments: dict[str, Any] = {"n": latents.n, "d": latents.d, "hidden": hidden}
    kind = latents.conditional
    if not isinstance(kind, ConditionalNormal):
        arguments["conditional"] = specification(kind, **kind.config())
    return {"class_path": "deltavae.aux_prior.AuxiliaryPrior", "init_args": arguments}


def _boxes(latents: Latents | None, height: int, width: int) -> dict[str, Any]:
    # What encoder and decoder are told of other parts of an image than its rows.
    if latents is None:
        return {}
    boxes = pixel_boxes(latents.extents(), height, width)
    return {} if boxes == row_boxes(height, width) else {"boxes": boxes}


def _with(spec: Spec, **known: Any) -> dict[str, Any]:
    return {
        "class_path": spec["class_path"],
        "init_args": {**known, **(spec.get("init_args") or {})},
    }
