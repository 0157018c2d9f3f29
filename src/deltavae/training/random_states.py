"""The states of torch's own random numbers, which dropout draws from, in a checkpoint.

Every process has a state of its own: all are saved, one row each.
"""

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from jaxtyping import UInt8
from torch import Tensor


def random_states(module: pl.LightningModule) -> dict[str, UInt8[Tensor, "w s"] | None]:
    """Collect the states of all processes.

    Args:
        module: A module of a running Trainer.

    Returns:
        rng of the CPU, cuda_rng of the present GPU; None without one.
    """
    on_gpu = torch.cuda.is_available()
    return {
        "rng": _of_all(module, torch.get_rng_state()),
        "cuda_rng": _of_all(module, torch.cuda.get_rng_state()) if on_gpu else None,
    }


def restore_random_states(saved: Mapping[str, Any], rank: int) -> None:
    """Go on from a process's own states; one that had none until now keeps those that it has.

    Args:
        saved: What `random_states` returned.
        rank: The process.
    """
    for own in _own(saved["rng"], rank):
        torch.set_rng_state(own)
    if saved["cuda_rng"] is not None and torch.cuda.is_available():
        for own in _own(saved["cuda_rng"], rank):
            torch.cuda.set_rng_state(own)


def _of_all(module: pl.LightningModule, state: UInt8[Tensor, " s"]) -> UInt8[Tensor, "w s"]:
    if module.trainer.world_size == 1:
        return state[None]
    states = module.all_gather(state)
    assert isinstance(states, Tensor)
    return states.cpu()


def _own(states: UInt8[Tensor, "..."], rank: int) -> UInt8[Tensor, "_w s"]:
    # One row or none; an older checkpoint has a single state, that of the first process.
    # A copy: torch reads a state from the beginning of its storage.
    return states.reshape(-1, states.shape[-1])[rank : rank + 1].clone()
