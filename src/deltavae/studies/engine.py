"""From studies to their pages: which cells are missing, who trains them, what was found.

    DIR/cells/KEY/               a run folder per cell, shared by all studies of DIR
    DIR/STUDY/cells/NAME.json    the result of each cell: enough to make the page again
    DIR/STUDY/README.md, …       the page (`output`)

A cell whose result is there, of the same key and the study's version, is not run again. One of
another budget is never overwritten: every budget has a DIR of its own.
"""

import shlex
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeAlias

import torch

from deltavae.studies.analysis import Analysis
from deltavae.studies.base import Budget, Cell, Result, Study
from deltavae.studies.executors import Began, Event, Executor, LocalExecutor
from deltavae.studies.jobs import Ended, Job
from deltavae.studies.output import write_page


@dataclass(frozen=True)
class State:
    """How far the cells are.

    Attributes:
        total: Cells of all studies, those that are shared counted once.
        done: With all results.
        failed: How those ended that failed.
        running: Keys of those that run.
    """

    total: int
    done: int
    failed: tuple[Ended, ...] = ()
    running: tuple[str, ...] = ()

    def after(self, event: Event) -> "State":
        """Return the state after something happened."""
        running = tuple(key for key in self.running if key != event.key)
        if isinstance(event, Began):
            return replace(self, running=(*running, event.key))
        if event.status == "failed":
            return replace(self, running=running, failed=(*self.failed, event))
        return replace(self, running=running, done=self.done + (event.status == "done"))


@dataclass(frozen=True)
class Broken:
    """A study whose page could not be made; the other studies go on.

    Attributes:
        study: Its name.
        error: What is wrong, in one line.
    """

    study: str
    error: str


Watch: TypeAlias = Callable[[State, Event | Broken | None], None]


@dataclass(frozen=True)
class Outcome:
    """What a run of studies came to.

    Attributes:
        pages: The pages written.
        failed: How those cells ended that failed.
        missing: For each study by name, how many of its cells have no result.
        broken: The studies whose pages could not be made.
    """

    pages: list[Path] = field(default_factory=list)
    failed: tuple[Ended, ...] = ()
    missing: dict[str, int] = field(default_factory=dict)
    broken: list[Broken] = field(default_factory=list)


def run_studies(
    studies: Sequence[Study],
    budget: Budget,
    out: Path,
    *,
    executor: Executor | None = None,
    cells: Sequence[str] = ("*",),
    trust: bool = False,
    tables_only: bool = False,
    watch: Watch = lambda state, event: None,
) -> Outcome:
    """Run the cells of studies that have no result yet, then write the studies' pages.

    A page is written as soon as its study's cells have ended, failed ones too: it says how many
    are missing. A study whose findings raise an error has no new page; the others go on.
    Interrupted by Ctrl-C, trainings write their checkpoints; called again, this goes on where it
    stopped. Two cells of one name, a pattern that no cell's name matches, results of another
    budget, or a study whose class is in `__main__`, where the process of its analysis does not
    find it, is a ValueError.

    Args:
        studies: The studies, of different names.
        budget: How much may be spent.
        out: Folder of everything.
        executor: Who runs the cells; None: this machine, one after the other.
        cells: Patterns of names, as `fnmatch.fnmatchcase` takes them: cells whose names match none
            are not run.
        trust: Let cells name classes from outside deltavae.
        tables_only: Write the pages from the results that are there, and run nothing.
        watch: Called at the start, with None, and after every event.

    Returns:
        What was written, and what failed.
    """
    wanted = {study.name: _cells(study, budget, out) for study in studies}
    chosen = _chosen(wanted, cells)
    jobs = [] if tables_only else _jobs(studies, budget, chosen, out, trust)
    keys = {cell.key for of_study in chosen.values() for cell in of_study}
    state = State(total=len(keys), done=len(keys) - len(jobs))
    pages = _Pages(studies, budget, out, wanted, jobs)
    watch(state, None)
    pages.write_finished(state, watch)
    if jobs:
        with closing((executor or LocalExecutor()).run(jobs)) as events:
            for event in events:
                state = state.after(event)
                watch(state, event)
                if isinstance(event, Ended):
                    pages.ended(event.key)
                    pages.write_finished(state, watch)
    missing = {
        study.name: len(wanted[study.name]) - len(_results(study, wanted[study.name], out))
        for study in studies
    }
    return Outcome(pages.written, state.failed, missing, pages.broken)


class _Pages:
    # The pages, each of which is due when no cell of its study is to come.

    def __init__(
        self,
        studies: Sequence[Study],
        budget: Budget,
        out: Path,
        wanted: Mapping[str, Sequence[Cell]],
        jobs: Sequence[Job],
    ) -> None:
        self._budget, self._out, self._wanted = budget, out, wanted
        self._due = {
            study: {job.key for job in jobs if any(a.study is study for a in job.wanted)}
            for study in studies
        }
        self.written: list[Path] = []
        self.broken: list[Broken] = []

    def ended(self, key: str) -> None:
        for keys in self._due.values():
            keys.discard(key)

    def write_finished(self, state: State, watch: Watch) -> None:
        for study in [study for study, keys in self._due.items() if not keys]:
            del self._due[study]
            try:
                page = _write(study, self._budget, self._wanted[study.name], self._out)
                self.written.append(page)
            except Exception as error:  # of this study alone: trainings go on
                self.broken.append(Broken(study.name, _told(error)))
                watch(state, self.broken[-1])


def _told(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"


def _cells(study: Study, budget: Budget, out: Path) -> list[Cell]:
    if type(study).__module__ == "__main__":
        raise ValueError(f"study {study.name}: its class must be in a module that can be imported")
    cells = study.cells(budget)
    names = [cell.name for cell in cells]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"study {study.name}: several cells are named {', '.join(sorted(twice))}")
    for cell in cells:
        found = _read(study, cell, out)
        if found is not None and found.budget not in (None, budget):
            raise ValueError(
                f"out: {_file(study, cell, out)} is a result of the budget {found.budget}, got "
                f"the budget {budget}: every budget needs a folder of its own"
            )
    return cells


def _chosen(
    wanted: Mapping[str, Sequence[Cell]], patterns: Sequence[str]
) -> dict[str, list[Cell]]:
    names = [cell.name for of_study in wanted.values() for cell in of_study]
    for pattern in patterns:
        if names and not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(
                f"cells: no cell is named {pattern}; the first of {len(names)} is {names[0]}"
            )
    return {
        study: [cell for cell in of_study if any(fnmatchcase(cell.name, p) for p in patterns)]
        for study, of_study in wanted.items()
    }


def _file(study: Study, cell: Cell, out: Path) -> Path:
    return out / study.name / "cells" / f"{cell.name}.json"


def _read(study: Study, cell: Cell, out: Path) -> Result | None:
    # A damaged one is none.
    try:
        return Result.from_json(_file(study, cell, out).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _result(study: Study, cell: Cell, out: Path) -> Result | None:
    # Of another key or version it is none. Labels are those of today.
    result = _read(study, cell, out)
    if result is None or (result.cell.key, result.version) != (cell.key, study.version):
        return None
    return replace(result, cell=cell)


def _results(study: Study, cells: Sequence[Cell], out: Path) -> list[Result]:
    found = (_result(study, cell, out) for cell in cells)
    return [result for result in found if result is not None]


def _jobs(
    studies: Sequence[Study],
    budget: Budget,
    wanted: Mapping[str, Sequence[Cell]],
    out: Path,
    trust: bool,
) -> list[Job]:
    analyses: dict[str, list[Analysis]] = {}
    for study in studies:
        for cell in wanted[study.name]:
            if _result(study, cell, out) is None:
                run = (out / "cells" / cell.key).absolute()
                file = _file(study, cell, out).absolute()
                analyses.setdefault(cell.key, []).append(Analysis(study, cell, run, file, budget))
    return [Job(key, asked[0].run, tuple(asked), trust) for key, asked in analyses.items()]


def _write(study: Study, budget: Budget, cells: Sequence[Cell], out: Path) -> Path:
    results = _results(study, cells, out)
    command = ["deltavae", "study", study.name, "--budget", budget, "--out", str(out)]
    with _one_thread():  # the cores are the trainings'
        return write_page(
            out / study.name,
            study,
            study.findings(results, budget),
            results,
            missing=len(cells) - len(results),
            command=shlex.join(command),
        )


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
