"""Compiled forward passes for the training step, by torch.compile.

Only what takes the time is compiled: the encoder's forward and the decoder's log p(x|z), network
and likelihood in one graph. Only calls that record gradients run compiled: training has batches of
one size, while evaluation has others, and runs as it is written. Parameters, names and state
dictionaries are untouched, so that weights and checkpoints are the same with it and without it.

Ansel et al., PyTorch 2: Faster Machine Learning Through Dynamic Python Bytecode Transformation and
Graph Compilation, ASPLOS 2024, https://doi.org/10.1145/3620665.3640366
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from deltavae.model import DeltaVAE


@contextmanager
def compiled_training(model: DeltaVAE, device: torch.device) -> Iterator[None]:
    """Compile what a training step calls, when it is first called; undo it afterwards.

    A device without a working compiler is a ValueError.

    Args:
        model: The model.
        device: Where it trains.

    Yields:
        Nothing.
    """
    _check_compiler(device)
    parts: list[tuple[nn.Module, str]] = [(model.decoder, "log_prob")]
    if model.encoder is not None:
        parts.append((model.encoder, "forward"))
    for part, name in parts:
        vars(part)[name] = _in_training(getattr(part, name))  # hides the method of the class
    try:
        yield
    finally:
        for part, name in parts:
            del vars(part)[name]


def _in_training(function: Callable[..., Any]) -> Callable[..., Any]:
    fast = torch.compile(function, dynamic=False)
    return lambda *inputs: (fast if torch.is_grad_enabled() else function)(*inputs)


def _check_compiler(device: torch.device) -> None:
    # By trying: what a machine lacks is known to torch only when it compiles.
    try:
        torch.compile(torch.sin)(torch.zeros(8, device=device))
    except (RuntimeError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"torch.compile does not work here ({reason}): install a C++ compiler, or train "
            "without --compile (in Python compiled=False)"
        ) from error
