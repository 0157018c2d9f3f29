"""Waiting for, and finding, the processes that a study has started."""

import time
from collections.abc import Callable
from pathlib import Path


def wait_for(condition: Callable[[], bool], seconds: float = 240.0) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def training_in(folder: Path) -> int:
    """The process of the training in a run folder."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode().split("\0")
            except OSError:  # it has ended
                continue
            if "fit" in words and str(folder) in words:
                return int(entry.name)
    raise AssertionError(f"no training in {folder}")


def parent_of(process: int) -> int:
    """The process that started a process."""
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
