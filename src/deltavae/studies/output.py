"""The page of a study: README.md with tables and figures, each of them in files of its own too.

    README.md  command.txt  TABLE.md  TABLE.csv  FIGURE.png  FIGURE.svg  files.txt

Everything on it is computed from the results; every table says how many cells it lacks. files.txt
lists what was written: of that, what no longer belongs to the page is removed with the next one.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from deltavae.figures import to_png, to_svg
from deltavae.run_folder import write_atomically
from deltavae.studies.base import Findings, Result, Study


def write_page(
    folder: Path,
    study: Study,
    findings: Findings,
    results: Sequence[Result],
    *,
    missing: int,
    command: str,
) -> Path:
    """Write what a study found.

    Args:
        folder: Where to; made if it is not there.
        study: The study.
        findings: Its findings.
        results: What they were drawn from.
        missing: Cells without a result.
        command: The command that makes the page.

    Returns:
        The page, README.md.
    """
    lack = f"{missing} of {len(results) + missing} cells are missing." if missing else ""
    parts = [f"# {study.title}", study.description, findings.text]
    if missing:
        parts.insert(1, f"**Not complete: {lack}**")
    files: dict[str, str | bytes] = {"command.txt": f"{command}\n"}
    for name, table in findings.tables.items():
        shown = replace(table, caption=" ".join(text for text in (table.caption, lack) if text))
        files |= {f"{name}.md": shown.markdown(), f"{name}.csv": shown.csv()}
        parts.append(f"{shown.markdown()}\n([CSV]({name}.csv))")
    for name, figure in findings.figures.items():
        link = f"![{_heading(name)}]({name}.png)"
        files[f"{name}.png"] = to_png(figure)
        if isinstance(figure, Figure):
            files[f"{name}.svg"] = to_svg(figure)
            link += f"\n\n([SVG]({name}.svg))"
        parts.append(link)
    parts += [_origin(results), _commits(results), f"Made by\n\n```sh\n{command}\n```"]
    files["README.md"] = "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"
    _write_all(folder, files)
    return folder / "README.md"


def _write_all(folder: Path, files: Mapping[str, str | bytes]) -> None:
    # The list names old and new files until the old ones are gone: a kill leaves none unlisted.
    listed = folder / "files.txt"
    before = listed.read_text(encoding="utf-8").splitlines() if listed.is_file() else []
    _write(listed, "".join(f"{name}\n" for name in sorted({*before, *files})))
    for name, content in files.items():
        _write(folder / name, content)
    for name in before:
        if name not in files and name == Path(name).name:
            (folder / name).unlink(missing_ok=True)
    _write(listed, "".join(f"{name}\n" for name in sorted(files)))


def _origin(results: Sequence[Result]) -> str:
    # One line: cells, time, machines, versions, commits.
    if not results:
        return ""
    seconds = [float(r.origin.get("train_seconds") or 0) for r in results]
    told = [
        f"{len(results)} cells trained for {sum(seconds) / 3600:.2f} hours in all, "
        f"{statistics.median(seconds) / 60:.1f} minutes in the median"
    ]
    distinct: tuple[tuple[str, Callable[[Result], object]], ...] = (
        ("processor", lambda r: r.origin.get("processor")),
        ("threads", lambda r: r.origin.get("threads")),
        ("deltavae", lambda r: r.origin.get("deltavae")),
        ("torch", lambda r: (r.origin.get("packages") or {}).get("torch")),
        ("commit", lambda r: r.origin.get("commit")),
    )
    for name, of in distinct:
        values = dict.fromkeys(str(of(result)) for result in results if of(result) is not None)
        if values:
            told.append(f"{name} {', '.join(values)}")
    return "; ".join(told) + "."


def _commits(results: Sequence[Result]) -> str:
    commits = {str(result.origin.get("commit")) for result in results}
    if len(commits) < 2:
        return ""
    return f"**The results come from {len(commits)} commits of deltavae.**"


def _heading(name: str) -> str:
    return name.replace("-", " ").replace("_", " ")


def _write(path: Path, content: str | bytes) -> None:
    data = content.encode() if isinstance(content, str) else content
    write_atomically(path, lambda temporary: temporary.write_bytes(data))
