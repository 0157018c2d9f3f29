"""One cell from its options to its results: a process that trains, then makes the results.

A job can be begun as often as one likes. What is there is not done again: a finished run is not
trained, an unfinished one goes on from its checkpoint. A lock in the run folder is held by the job
and by its training: two commands may share cells, and when a command is killed its training is
waited for, not doubled. A process that a signal has killed (want of memory, a lost worker) is
begun again up to RETRIES times. The run folder is named by the cell's key; its names.txt says
which cells of which studies it stands for.
"""

import fcntl
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import IO, Literal

import yaml

from deltavae.run_folder import RunFolder, write_atomically
from deltavae.studies.analysis import Analysis
from deltavae.studies.base import plain

RETRIES = 2
GRACE_SECONDS = 120.0  # from Ctrl-C to the end of a training: a step and a checkpoint
TAIL_LINES = 8
_POLL_SECONDS = 0.2
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Job:
    """A run folder and the results that are wanted of it.

    Attributes:
        key: Key of the cell; all of `wanted` have the same.
        folder: The run folder.
        wanted: For every study that asks for the cell, what it takes from the run.
        trust: Let options name classes from outside deltavae.
    """

    key: str
    folder: Path
    wanted: tuple[Analysis, ...]
    trust: bool = False

    @property
    def name(self) -> str:
        """The name of the cell; all of them, where studies call it differently."""
        return ", ".join(dict.fromkeys(analysis.cell.name for analysis in self.wanted))


@dataclass(frozen=True)
class Ended:
    """How a job ended.

    Attributes:
        key: Key of its cell.
        name: Name of its cell.
        status: done, failed, or interrupted: to go on with.
        seconds: Wall time.
        tail: The last lines that were written, where it failed.
    """

    key: str
    name: str
    status: Literal["done", "failed", "interrupted"]
    seconds: float
    tail: str = ""


@dataclass(frozen=True)
class Stop:
    """How a thread is told to end its job.

    Attributes:
        asked: Set at the first Ctrl-C: the training writes its checkpoint and ends.
        at_once: Set at the second: it is killed.
    """

    asked: Event = field(default_factory=Event)
    at_once: Event = field(default_factory=Event)


class _FailedError(Exception):
    """A process failed; its text is the process's last lines."""


def is_trained(run: RunFolder) -> bool:
    """Whether a run has its weights, and was measured on the test split."""
    return run.weights.is_file() and "test" in run.read_json(run.metrics)


def run_job(job: Job, stop: Stop | None = None, core: int | None = None) -> Ended:
    """Train a cell unless that is done, and write its results.

    Args:
        job: What to do.
        stop: Looked at several times a second; None: nobody asks for an end.
        core: Core for the job's processes; None: any.

    Returns:
        How it ended; KeyboardInterrupt, where it reaches this thread, is passed on when the
        training has written its checkpoint.
    """
    began, stop = time.monotonic(), stop or Stop()

    def ended(status: Literal["done", "failed", "interrupted"], tail: str = "") -> Ended:
        return Ended(job.key, job.name, status, time.monotonic() - began, tail)

    try:
        with _locked(job.folder, stop) as lock:
            _tell_names(job)
            _work(job, stop, core, lock)
    except InterruptedError:
        return ended("interrupted")
    except _FailedError as error:
        return ended("failed", str(error))
    except Exception as error:  # of this cell alone: the others go on
        return ended("failed", f"{type(error).__name__}: {error}")
    return ended("done")


@contextmanager
def _locked(folder: Path, stop: Stop) -> Iterator[int]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if stop.asked.wait(_POLL_SECONDS):
                    raise InterruptedError from None
        yield file.fileno()


def _tell_names(job: Job) -> None:
    file = job.folder / "names.txt"
    before = set(file.read_text(encoding="utf-8").splitlines()) if file.is_file() else set()
    names = before | {f"{analysis.study.name}/{analysis.cell.name}" for analysis in job.wanted}
    if names != before:
        text = "".join(f"{name}\n" for name in sorted(names))
        write_atomically(file, lambda path: path.write_text(text, encoding="utf-8"))


def _work(job: Job, stop: Stop, core: int | None, lock: int) -> None:
    run, log = RunFolder(job.folder), job.folder / "fit.log"
    given = pickle.dumps((job.wanted, job.trust))
    for _ in range(1 + RETRIES):
        words = [] if is_trained(run) else _fit(job)
        status = _process(["deltavae.studies.analysis", *words], log, stop, core, lock, given)
        if status >= 0:
            break
    if status != 0:
        raise _FailedError(_tail(log) or f"its process ended with status {status}, and no word")


def _fit(job: Job) -> list[str]:
    words = ["fit", "--run-dir", str(job.folder), *(["--trust"] if job.trust else [])]
    if RunFolder(job.folder).config.is_file():
        return [*words, "--resume"]
    return [*words, "--config", str(_write_options(job))]


def _write_options(job: Job) -> Path:
    file = job.folder / "cell.yaml"
    text = yaml.safe_dump(plain(job.wanted[0].cell.options), sort_keys=False, allow_unicode=True)
    write_atomically(file, lambda path: path.write_text(text, encoding="utf-8"))
    return file


def _process(
    words: list[str],
    log: Path,
    stop: Stop,
    core: int | None,
    lock: int,
    given: bytes,
) -> int:
    # In a session of its own: of a Ctrl-C it hears from here, once; a second would end it at once.
    places = os.pathsep.join(path for path in sys.path if path)
    one_thread = dict.fromkeys(_THREADS, "1")
    with log.open("ab") as file, _hearing_interrupts():
        child = subprocess.Popen(
            [sys.executable, "-m", *words],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **one_thread, "PYTHONPATH": places},
            pass_fds=(lock,),
            start_new_session=True,
        )
    if core is not None:
        with suppress(OSError):  # it has ended
            os.sched_setaffinity(child.pid, {core})
    assert child.stdin is not None
    _feed(child.stdin, given)
    return _wait(child, stop)


@contextmanager
def _hearing_interrupts() -> Iterator[None]:
    # A process inherits what is blocked; Ray's workers block SIGINT.
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _feed(pipe: IO[bytes], given: bytes) -> None:
    with suppress(BrokenPipeError), pipe:
        pipe.write(given)


def _wait(child: subprocess.Popen[bytes], stop: Stop) -> int:
    try:
        while not stop.asked.is_set():
            with suppress(subprocess.TimeoutExpired):
                return child.wait(_POLL_SECONDS)
        _end(child, stop)
    except KeyboardInterrupt:
        _end(child, stop)
        raise
    raise InterruptedError


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(line for line in lines[-TAIL_LINES:] if line.strip())


def _end(child: subprocess.Popen[bytes], stop: Stop) -> None:
    child.send_signal(signal.SIGINT)
    deadline = time.monotonic() + GRACE_SECONDS
    while child.poll() is None:
        if stop.at_once.wait(_POLL_SECONDS) or time.monotonic() > deadline:
            child.kill()
            child.wait()
