"""Useful floating-point operations, live memory, and where the time goes.

Operations are those of the matrix products, convolutions and attention that the mathematics asks
for, a multiplication and an addition counted as two: causal attention counts the pairs j < i only,
its backward pass twice its forward pass, whatever the kernel computes again. `FlopCounterMode`
counts the rest; it does not know attention on CPUs.

Live memory is that of the tensors that operators have returned and that something still holds,
parameters and inputs not counted, nor what a kernel allocates for itself.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

Shape = tuple[int, ...]


def count_flops(call: Callable[[], object]) -> int:
    """Count the useful operations of a call, of its backward pass too where it has one."""
    aten = torch.ops.aten
    attention = {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    }
    with FlopCounterMode(display=False, custom_mapping=attention) as counter:
        call()
    return counter.get_total_flops()


def _attention(
    q: Shape, k: Shape, v: Shape, dropout: float = 0.0, causal: bool = False, **_: object
) -> int:
    batch, heads, queries, width = q
    pairs = queries * (queries + 1) // 2 if causal else queries * k[2]
    return 2 * batch * heads * pairs * (width + v[3])


def _attention_backward(grad: Shape, q: Shape, k: Shape, v: Shape, *rest: Any, **_: object) -> int:
    _, _, dropout, causal = rest[:4]  # after the output and its log-sum-exp
    return 2 * _attention(q, k, v, dropout, causal)


class LiveMemory(TorchDispatchMode):
    """Follows the memory of tensors while it is entered.

    Attributes:
        live: Bytes held at present.
        peak: Most bytes held at any time so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._bytes: dict[int, tuple[StorageWeakRef, int]] = {}

    @property
    def live(self) -> int:
        """Bytes held at present."""
        self._bytes = {key: kept for key, kept in self._bytes.items() if not kept[0].expired()}
        return sum(size for _, size in self._bytes.values())

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operator and take note of what it allocates."""
        for key, reference, _ in _storages((args, kwargs)):
            self._bytes.setdefault(key, (reference, 0))  # was there before
        result = func(*args, **(kwargs or {}))
        for key, reference, size in _storages(result):
            self._bytes.setdefault(key, (reference, size))
        self.peak = max(self.peak, self.live)
        return result


def _storages(tree: Any) -> Iterator[tuple[int, StorageWeakRef, int]]:
    for leaf in tree_leaves(tree):
        if isinstance(leaf, Tensor):
            storage = leaf.untyped_storage()
            # A weak reference keeps the address from being given to another storage.
            yield storage._cdata, StorageWeakRef(storage), storage.nbytes()


def operators(call: Callable[[], object], calls: int = 3, most: int = 8) -> dict[str, float]:
    """Profile a call.

    Args:
        call: What to run, once more than is counted.
        calls: How many runs are counted.
        most: Number of operators to name.

    Returns:
        Share of each operator in the time spent, the largest first; the rest as "other".
    """
    call()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(calls):
            call()
    times = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
    total = math.fsum(times.values())
    named = [name for name in times if name.startswith(("aten::", "Optimizer.step"))]
    largest = sorted(named, key=times.__getitem__, reverse=True)[:most]
    shares = {name.removeprefix("aten::"): times[name] / total for name in largest}
    return shares | {"other": 1.0 - math.fsum(shares.values())}
