"""Write docs/results.md from what `deltavae study` left; no figure in it is typed by hand.

python benchmarks/results.py OUT    OUT is the --out of the studies; their tables, figures and the
                                    JSON of their cells are copied to docs/results/STUDY
python benchmarks/results.py        the page again, from what is there

The pages themselves can be made again from that JSON, without the trainings:
deltavae study NAME --budget cpu --out docs/results --tables-only
What is said about the figures stands in benchmarks/results/: introduction.md, and STUDY.md above
a study's tables.
"""

import argparse
import re
import shutil
from pathlib import Path

from deltavae.studies import STUDIES

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "docs" / "results"
NOTES = ROOT / "benchmarks" / "results"
COPIED = (".md", ".csv", ".png", ".svg", ".txt")


def keep(out: Path) -> None:
    """Copy what the studies of a folder wrote, but for the run folders.

    Args:
        out: The --out of `deltavae study`.
    """
    for name in STUDIES:
        source, target = out / name, KEPT / name
        if not (source / "README.md").is_file():
            continue
        shutil.rmtree(target, ignore_errors=True)
        (target / "cells").mkdir(parents=True)
        for file in sorted(source.iterdir()):
            if file.suffix in COPIED:
                shutil.copyfile(file, target / file.name)
        for file in sorted((source / "cells").glob("*.json")):
            shutil.copyfile(file, target / "cells" / file.name)


def section(name: str) -> str:
    """Return a study's part of the page.

    Args:
        name: The study.

    Returns:
        Its page one heading lower, after what is said about it, with links from docs/.
    """
    title, _, body = (KEPT / name / "README.md").read_text().partition("\n")
    note = NOTES / f"{name}.md"
    said = f"\n{note.read_text().strip()}\n" if note.is_file() else ""
    body = re.sub(r"\]\((?!https?:|#|/)([^)]+)\)", rf"](results/{name}/\1)", body)
    body = re.sub(r"^#", "##", body, flags=re.MULTILINE)
    return f"#{title}\n{said}{body}"


def page() -> str:
    """Return docs/results.md."""
    there = [name for name in STUDIES if (KEPT / name / "README.md").is_file()]
    return "\n".join([(NOTES / "introduction.md").read_text(), *map(section, there)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", nargs="?", type=Path, metavar="OUT")
    options = parser.parse_args()
    if options.out is not None:
        keep(options.out)
    (ROOT / "docs" / "results.md").write_text(page())
