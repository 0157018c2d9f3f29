"""From the options of `fit` to the specification of a model; `describe` shares it."""

from typing import Any

from deltavae.configuration import ENCODERS, WITHOUT_LATENTS, build_latents, model_specification

Options = dict[str, Any]


def specified_model(options: Options, shape: tuple[int, int, int], levels: int) -> Options:
    """Return the complete specification of the model that options describe.

    Args:
        options: As `parsing.parse` returns them for fit.
        shape: Channels, rows and columns (C, H, W) of an image.
        levels: Number of levels of a pixel.

    Returns:
        The complete model of a configuration that holds one, else what the options add up to.

    Raises:
        ValueError: If options contradict each other, or a value is out of its range.
    """
    if options["model"] is not None:
        check_complete(options)
        return dict(options["model"])
    latents = None
    encoder = options["encoder"]
    if isinstance(encoder, str):
        encoder = {"class_path": ENCODERS[encoder]}
    if options["latents"] not in WITHOUT_LATENTS:
        latents = build_latents(
            options["latents"],
            n=shape[1],
            d=options["latent_channels"],
            delta_bits=options["delta_bits"],
            alpha=options["alpha"],
            trust=options["trust"],
        )
    elif options["delta_bits"] is not None or options["alpha"] is not None:
        raise ValueError("--delta-bits, --alpha: without latents there is no rate to commit")
    return model_specification(
        shape,
        levels,
        decoder=options["decoder"],
        encoder=encoder,
        latents=latents,
        likelihood=options["likelihood"],
        aux_hidden=options["aux_hidden"],
        zero_channels=(options["latent_channels"] or 1) if options["latents"] == "zero" else 0,
    )


def check_complete(options: Options) -> None:
    """Refuse options that shape a model beside one that is complete already.

    Args:
        options: As `parsing.parse` returns them for fit, with a model.

    Raises:
        ValueError: If there are any.
    """
    if options["given"]:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in options["given"])
        raise ValueError(f"{names}: without effect, the configuration holds a complete model")
