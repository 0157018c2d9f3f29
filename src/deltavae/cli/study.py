"""`study`: the cells that are missing, then the pages."""

import signal
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from deltavae.cli import CommandError
from deltavae.cli.console import Options, check_writable, say
from deltavae.cli.explain import nearest
from deltavae.run_folder import import_class
from deltavae.studies import STUDIES, listing
from deltavae.studies.base import Study
from deltavae.studies.engine import Broken, State, run_studies
from deltavae.studies.executors import Began, Event, Executor, LocalExecutor, RayExecutor
from deltavae.studies.jobs import Ended


def study(options: Options) -> int:
    """Run the cells of studies, and write their pages."""
    if options["study"] is None:
        print(listing())
        return 0
    out: Path | None = options["out"]
    if out is None:
        raise ValueError("--out: missing: name the folder of all cells and pages")
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out: must be a folder, {out} is a file")
    check_writable("--out", out)
    studies = _studies(options["study"], options["trust"])
    executor = _executor(options)
    try:
        with _terminated_as_interrupted(), StudyProgress(executor) as progress:
            outcome = run_studies(
                studies,
                options["budget"],
                out,
                executor=executor,
                cells=options["cells"],
                trust=options["trust"],
                tables_only=options["tables_only"],
                watch=progress.show,
            )
    except KeyboardInterrupt:
        say("stopped; the same command goes on where it stopped")
        return 130
    for page in outcome.pages:
        say(f"page: {page}")
    for name, count in outcome.missing.items():
        if count and options["tables_only"]:
            say(f"warning: {name}: {count} cells have no result")
    wrong = []
    if outcome.failed:
        cells = ", ".join(f"{ended.name} ({ended.key})" for ended in outcome.failed)
        wrong.append(
            f"failed cells: {cells}; each has its fit.log in the folder of its key in "
            f"{out / 'cells'}; the same command tries them again"
        )
    if outcome.broken:
        wrong.append(f"no page of {', '.join(broken.study for broken in outcome.broken)}")
    if wrong:
        raise CommandError("; ".join(wrong))
    return 0


def _studies(name: str, trust: bool) -> list[Study]:
    names = list(STUDIES) if name == "all" else [name]
    found = []
    for each in names:
        if each not in STUDIES and "." not in each:
            near = nearest(each, STUDIES) or f": there are {', '.join(STUDIES)}, and all"
            raise ValueError(f"NAME: unknown study {each}{near}")
        cls = import_class(STUDIES[each].class_path if each in STUDIES else each, trust=trust)
        if not issubclass(cls, Study):
            raise ValueError(f"NAME: {each} is not a deltavae.studies.base.Study")
        found.append(cls())
    return found


def _executor(options: Options) -> Executor:
    if options["executor"] == "ray":
        return RayExecutor(options["address"], options["jobs"])
    return LocalExecutor(options["jobs"])


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    # What ends a job of a cluster's queue: then trainings are to write their checkpoints too.
    def interrupt(signum: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class StudyProgress:
    """Shows how many cells are done, run, failed, and when the last will end.

    Args:
        executor: Who runs the cells.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._console = Console(stderr=True, highlight=False)
        self._progress: Progress | None = None
        self._seconds: list[float] = []

    def __enter__(self) -> "StudyProgress":
        if sys.stderr.isatty():
            self._progress = Progress(
                TextColumn("cells {task.completed:.0f}/{task.total:.0f}"),
                BarColumn(bar_width=20),
                TextColumn("{task.fields[told]}"),
                console=self._console,
            )
            self._progress.add_task("cells", total=0, told="")
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def show(self, state: State, event: Event | Broken | None) -> None:
        """Move the line; of a cell that failed show the last lines, of a page that did the error.

        Args:
            state: How far the cells are.
            event: What happened; None at the start.
        """
        if isinstance(event, Broken):
            self._tell(f"{event.study}: {event.error}")
            return
        if isinstance(event, Ended):
            if event.status == "done":
                self._seconds.append(event.seconds)
            self._tell(f"{event.status}: {event.name} ({_span(event.seconds)})")
            if event.tail:
                self._tell(event.tail)
        told = self._told(state)
        if self._progress is not None:
            task = self._progress.task_ids[0]
            self._progress.update(task, completed=state.done, total=state.total, told=told)
        elif state.total and not isinstance(event, Began):
            self._tell(f"cells {state.done}/{state.total}  {told}".rstrip())

    def _tell(self, text: str) -> None:
        if self._progress is None:
            say(text)
        else:
            self._console.print(text, markup=False)

    def _told(self, state: State) -> str:
        parts = []
        if state.running:
            parts.append(f"running {len(state.running)}")
        if state.failed:
            parts.append(f"failed {len(state.failed)}")
        left = state.total - state.done - len(state.failed)
        if self._seconds and left:
            seconds = statistics.median(self._seconds) * left / self._executor.workers
            parts.append(f"about {_span(seconds)} left")
        return "  ".join(parts)


def _span(seconds: float) -> str:
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
