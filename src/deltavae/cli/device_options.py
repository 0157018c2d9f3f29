"""The options of `fit` that Lightning's Trainer reads: devices, processes, diagnosis."""

from typing import Any, Literal

from deltavae.cli.ranges import whole


def add_device(group: Any) -> None:
    """Add the options of the Trainer."""
    group.add_argument(
        "--trainer.accelerator",
        type=Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"],
        default="auto",
        help="auto takes a GPU where there is one",
    )
    group.add_argument(
        "--trainer.devices",
        type=int | str,
        default=1,
        metavar="N",
        help="number of devices or, on a CPU, of processes; every batch is shared among them",
    )
    group.add_argument(
        "--trainer.strategy",
        type=str,
        default="auto",
        metavar="NAME",
        help="how several devices work together, for example ddp",
    )
    group.add_argument(
        "--trainer.num_nodes", type=whole(1), default=1, metavar="N", help="number of machines"
    )
    group.add_argument(
        "--trainer.deterministic",
        type=bool,
        default=False,
        help="refuse operations whose result may differ from run to run (on a GPU)",
    )
    group.add_argument(
        "--trainer.benchmark",
        type=bool,
        default=False,
        help="let cuDNN choose the fastest convolutions",
    )
    group.add_argument(
        "--trainer.detect_anomaly",
        type=bool,
        default=False,
        help="name the operation that made a NaN (slow)",
    )
    group.add_argument(
        "--trainer.profiler",
        type=Literal["simple", "advanced", "pytorch"] | None,
        metavar="{simple,advanced,pytorch}",
        help="print where the time goes",
    )
