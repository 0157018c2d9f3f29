"""Batches as a pure function of (seed, step): what makes resumption and several processes exact.

Epoch e visits the examples in the order of a permutation drawn from (seed, e); step s takes the
next `batch_size` of them. With `world_size` processes each takes an equal, interleaved share of
every batch, so that all of them together see what one process alone would see.
"""

from collections.abc import Iterator
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from deltavae.data.dataset import Split


class Examples(Dataset[dict[str, Tensor]]):
    """Images held in memory, or in a mapped file, as uint8, fetched a batch at a time.

    Args:
        split: The images.
    """

    def __init__(self, split: Split) -> None:
        self.images = torch.from_numpy(split.images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: Int64[Tensor, " b"]) -> dict[str, Tensor]:
        # Copies image by image; indexing gathers pixel by pixel and takes twenty times as long.
        return {"x": self.images.index_select(0, index), "index": index}


@final
class StepSampler(Sampler[Tensor]):
    """Yields the example indices of one step after the other.

    Args:
        examples: Number of examples, at least 1.
        steps: Number of steps of the whole training, at least 1.
        batch_size: Examples per step over all processes; at most `examples` are taken.
        seed: Seed of the order.
        rank: This process.
        world_size: Number of processes; must divide the batch.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self,
        examples: int,
        steps: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        for name, value in (("examples", examples), ("steps", steps), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.batch_size = min(batch_size, examples)
        if self.batch_size % world_size:
            raise ValueError(
                f"batch_size must be a multiple of the {world_size} processes, "
                f"got {self.batch_size}"
            )
        self.examples, self.steps, self.seed = examples, steps, seed
        self.rank, self.world_size = rank, world_size
        self.step = 0
        self._epoch = -1
        self._order = np.empty(0, np.int64)  # of that epoch

    def __len__(self) -> int:
        return self.steps

    def batch(self, step: int) -> Int64[Tensor, " b"]:
        """Return the indices that this process takes at a step.

        Args:
            step: Optimiser step, from 0.

        Returns:
            Example indices; the processes' shares are disjoint and of equal size.
        """
        per_epoch = self.examples // self.batch_size
        epoch, place = divmod(step, per_epoch)
        if epoch != self._epoch:  # a million examples take 20 ms: once an epoch, not in every step
            self._epoch = epoch
            self._order = np.random.default_rng([self.seed, epoch]).permutation(self.examples)
        batch = self._order[place * self.batch_size : (place + 1) * self.batch_size]
        return torch.from_numpy(batch[self.rank :: self.world_size].copy())

    def __iter__(self) -> Iterator[Tensor]:
        """Yield from the current step to the last; a new iteration after the last starts anew."""
        while self.step < self.steps:
            batch = self.batch(self.step)
            self.step += 1
            yield batch
        self.step = 0


class StepLoader(DataLoader[dict[str, Tensor]]):
    """A DataLoader over the steps of a training that can be saved and continued.

    Args:
        split: The images.
        sampler: Which examples each step takes.
    """

    def __init__(self, split: Split, sampler: StepSampler) -> None:
        # One item is a whole batch: the sampler yields index vectors and no collation is needed.
        # From pinned memory a GPU fetches the next batch while it still computes.
        pin_memory = torch.cuda.is_available()
        super().__init__(
            Examples(split),
            batch_size=None,
            sampler=sampler,
            pin_memory=pin_memory,
            generator=torch.Generator(),  # an iterator draws a seed: not from dropout's numbers
        )
        self.steps = sampler

    def state_dict(self) -> dict[str, Any]:
        """Return the next step."""
        return {"step": self.steps.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the step of a saved state."""
        self.steps.step = state["step"]
