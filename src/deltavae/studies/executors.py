"""Who runs the jobs: threads of this process, each with one job's processes at a time, or Ray.

Ray (https://docs.ray.io) spreads the jobs over machines. They must share the folder, since run
folders and results are files in it, and have deltavae installed. A job whose worker is lost is
given to another one, where its training goes on from the checkpoint. Ray is an optional extra and
is imported only here, when it is asked for.
"""

import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeAlias, final

from deltavae.studies.jobs import GRACE_SECONDS, RETRIES, TAIL_LINES, Ended, Job, Stop, run_job


@dataclass(frozen=True)
class Began:
    """A job began.

    Attributes:
        key: Key of its cell.
    """

    key: str


Event: TypeAlias = Began | Ended


class Executor(ABC):
    """Runs jobs side by side.

    Attributes:
        workers: Jobs that run at one time.
    """

    workers: int

    @abstractmethod
    def run(self, jobs: Sequence[Job]) -> Generator[Event, None, None]:
        """Run jobs, the first first.

        Args:
            jobs: The jobs.

        Yields:
            What happens, as it happens. Closed early, or interrupted by Ctrl-C, the jobs at work
            write their checkpoints and end before this returns.
        """


@final
class LocalExecutor(Executor):
    """Runs jobs on this machine, each on a core of its own where the system can bind to one.

    Args:
        workers: Jobs at one time, at least 1.

    Raises:
        ValueError: If workers is below 1.
    """

    def __init__(self, workers: int = 1) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, got {workers}")
        self.workers = workers

    def run(self, jobs: Sequence[Job]) -> Generator[Event, None, None]:
        """Run jobs; see `Executor.run`.

        Args:
            jobs: The jobs.

        Yields:
            What happens, as it happens.
        """
        stop, events, pending = Stop(), SimpleQueue[Event](), iter(jobs)

        def work(core: int | None) -> None:
            for job in pending:  # shared by the threads: each takes the next
                events.put(Began(job.key))
                events.put(run_job(job, stop, core))
                if stop.asked.is_set():
                    break

        threads = [Thread(target=work, args=(core,)) for core in self._cores(len(jobs))]
        for thread in threads:
            thread.start()
        try:
            for _ in range(2 * len(jobs)):
                yield events.get()
        finally:
            stop.asked.set()
            _join(threads, stop)

    def _cores(self, jobs: int) -> list[int | None]:
        count = min(self.workers, jobs)
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        return list(cores[:count]) if count <= len(cores) else [None] * count


def _join(threads: Sequence[Thread], stop: Stop) -> None:
    interrupted = False
    for thread in threads:
        while thread.is_alive():
            try:
                thread.join()
            except KeyboardInterrupt:  # a second Ctrl-C
                interrupted = True
                stop.at_once.set()
    if interrupted:
        raise KeyboardInterrupt


@final
class RayExecutor(Executor):
    """Runs jobs on a Ray cluster, one per CPU.

    Args:
        address: "local": a cluster on this machine for the time of the run; "auto": the one that
            runs here; or the address of another.
        workers: Jobs at one time on a local cluster; elsewhere as many as the cluster has CPUs.

    Raises:
        ValueError: If Ray is not installed.
    """

    def __init__(self, address: str = "auto", workers: int = 1) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent home
        try:
            self._ray: Any = importlib.import_module("ray")
        except ImportError as error:
            raise ValueError(
                "executor ray needs the package ray: pip install 'deltavae[ray]'"
            ) from error
        self.address, self.workers = address, workers

    def run(self, jobs: Sequence[Job]) -> Generator[Event, None, None]:
        """Run jobs; see `Executor.run`. No cluster at the address is a ValueError.

        Args:
            jobs: The jobs.

        Yields:
            How jobs ended; Ray does not tell when one begins.
        """
        ray = self._ray
        self._connect()
        remote = ray.remote(num_cpus=1, max_retries=RETRIES)(run_job)
        waiting = {remote.remote(job): job for job in jobs}
        try:
            while waiting:
                (done,), _ = ray.wait(list(waiting), num_returns=1)
                yield self._ended(done, waiting.pop(done))
        finally:
            for task in waiting:
                ray.cancel(task)  # a KeyboardInterrupt in the worker
            with suppress(KeyboardInterrupt):
                ray.wait(list(waiting), num_returns=len(waiting), timeout=GRACE_SECONDS)
            ray.shutdown()

    def _connect(self) -> None:
        local = {"num_cpus": self.workers, "include_dashboard": False}
        own = local if self.address == "local" else {}
        try:
            self._ray.init(self.address, log_to_driver=False, logging_level="ERROR", **own)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ValueError(f"address {self.address}: {error}") from error
        self.workers = max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def _ended(self, task: Any, job: Job) -> Ended:
        try:
            ended: Ended = self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            told = str(error).strip().splitlines()[-TAIL_LINES:]
            return Ended(job.key, job.name, "failed", 0.0, "\n".join(told))
        return ended
