"""deltavae: latent-variable models with strong autoregressive decoders that cannot collapse.

Public names are imported when they are first used, so that ``deltavae --help`` answers at once.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from deltavae.latents import (
        AR1,
        AR1Prior,
        Independent,
        Latents,
        MeanFieldNormal,
        Posterior,
        Standard,
    )
    from deltavae.model import DeltaVAE
    from deltavae.rates import committed_rate, solve_alpha
    from deltavae.run_folder import load

_HOMES = {
    "AR1": "deltavae.latents",
    "AR1Prior": "deltavae.latents",
    "DeltaVAE": "deltavae.model",
    "Independent": "deltavae.latents",
    "Latents": "deltavae.latents",
    "MeanFieldNormal": "deltavae.latents",
    "Posterior": "deltavae.latents",
    "Standard": "deltavae.latents",
    "committed_rate": "deltavae.rates",
    "load": "deltavae.run_folder",
    "solve_alpha": "deltavae.rates",
}

__all__ = [
    "AR1",
    "AR1Prior",
    "DeltaVAE",
    "Independent",
    "Latents",
    "MeanFieldNormal",
    "Posterior",
    "Standard",
    "__version__",
    "committed_rate",
    "load",
    "solve_alpha",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'deltavae' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
