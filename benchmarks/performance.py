"""Measure speed and memory as ratios inside one run, and write docs/performance.md from them.

python benchmarks/performance.py                    everything: about 20 minutes of one core
python benchmarks/performance.py --only NAME ...    some of it; the rest is kept as it was
python benchmarks/performance.py --quick            small sizes, into runs/performance: a minute
python benchmarks/performance.py --page             the page from what is kept, without measuring

One thread, pinned to a core where the system can; random data. What is measured is kept in
benchmarks/performance/ as JSON, every repetition's median with the machine, the date, the versions
and the commit.
"""

import argparse
import dataclasses
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from speed import page, precision
from speed.measured import QUICK, Settings
from speed.recipes import can_compile
from speed.timing import machine, pin

from deltavae.run_folder import provenance, write_atomically

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "benchmarks" / "performance"
QUICKLY = ROOT / "runs" / "performance"


def main() -> None:
    """Measure what was asked for and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = list(page.BENCHMARKS)
    parser.add_argument(
        "--only",
        nargs="+",
        choices=names,
        default=names,
        metavar="NAME",
        help=f"which benchmarks: {', '.join(names)}",
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, kept apart")
    parser.add_argument("--page", action="store_true", help="write the page without measuring")
    options = parser.parse_args()
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # the profiler's own messages
    kept = QUICKLY if options.quick else KEPT
    if not options.page:
        settings = QUICK if options.quick else Settings(compile=can_compile())
        measure(options.only, settings, kept, quick=options.quick)
    write_page(kept, kept if options.quick else ROOT / "docs")


def write_page(kept: Path = KEPT, docs: Path = ROOT / "docs") -> None:
    """Write performance.md and its plots from what is kept."""
    page.write(kept, docs / "performance.md", docs / "assets", precision.section(kept))


def measure(names: list[str], settings: Settings, kept: Path, *, quick: bool) -> None:
    """Run benchmarks and keep what they measured.

    Args:
        names: Which.
        settings: Sizes and patience.
        kept: Folder of the JSON files.
        quick: Whether the sizes are not those that the targets speak of.
    """
    say = Console(stderr=True).print
    core = pin()
    for name in names:
        start = time.monotonic()
        measured = page.BENCHMARKS[name].measure(settings)
        sizes = {"core": core, "settings": dataclasses.asdict(settings), "quick": quick}
        content = {"origin": origin() | sizes, "measured": dataclasses.asdict(measured)}
        text = json.dumps(content, indent=1) + "\n"
        write_atomically(kept / f"{name}.json", lambda path, text=text: path.write_text(text))
        say(f"{name}: {len(measured.seconds)} cases, {time.monotonic() - start:.0f} s")


def origin() -> dict[str, Any]:
    """Describe where figures come from: machine, date, versions, commit."""
    known = provenance(fingerprint="", seed=0, train_seconds=0.0)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "commit": known["commit"],
        "deltavae": known["deltavae"],
        "python": known["python"],
        "torch": known["packages"]["torch"],
    }


if __name__ == "__main__":
    main()
