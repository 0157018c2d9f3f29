"""What a study is: cells to train, figures to take from each, findings to draw from all.

A cell is one configuration of `fit` with one seed. Its key is a hash of its options: cells of
equal options share one run folder, whatever their names and studies, and a changed option is
another cell. The key knows the options that are given, not what deltavae takes where they say
nothing: a result keeps a hash of the whole configuration, and the commit. A result is what remains
of a cell when its weights are gone: small, JSON, enough for every finding.
"""

import hashlib
import json
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias

from matplotlib.figure import Figure
from PIL import Image

from deltavae.run_folder import RunFolder
from deltavae.studies.tables import Table

Budget: TypeAlias = Literal["smoke", "cpu", "paper"]

_OF_THE_ENGINE = ("run_dir", "resume", "trust", "config")


@dataclass(frozen=True)
class Cell:
    """One training of a study.

    Attributes:
        name: Readable name, also of a file: letters, digits and . _ + - only.
        options: What stands in the file that `fit --config` reads; JSON values.
        labels: What tables and figures group by (method, target, seed, …); JSON values.
    """

    name: str
    options: Mapping[str, Any]
    labels: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w.+-]*", self.name, re.ASCII):
            raise ValueError(f"name must be of letters, digits and . _ + -, got {self.name!r}")
        for option in _OF_THE_ENGINE:
            if option in self.options:
                raise ValueError(f"options must not hold {option}: it is given by the study's run")

    @property
    def key(self) -> str:
        """Twelve hexadecimal digits that follow from the options alone."""
        return fingerprint(self.options)


def fingerprint(options: Mapping[str, Any]) -> str:
    """Return twelve hexadecimal digits that two equal sets of options share.

    Args:
        options: JSON values; the order of a mapping does not matter, and 20 is 20.0.

    Returns:
        The beginning of a SHA-256 hash.
    """
    text = json.dumps(_canonical(options), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _canonical(value: Any) -> Any:
    # 20 and 20.0 are one option; a tuple is written to YAML as a list.
    if isinstance(value, Mapping):
        return {str(name): _canonical(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@dataclass(frozen=True)
class Result:
    """What is kept of a cell.

    Attributes:
        cell: The cell.
        metrics: Its metrics on the test split, as in metrics.json.
        log: Columns of log.csv, thinned to at most 100 rows, one value per row; None where a row
            has no such figure.
        analysis: What `Study.analyse` returned.
        origin: Where it comes from: commit, versions, machine, threads, train_seconds, steps, and
            `config`, the `fingerprint` of the run's whole configuration.
        val: Its metrics on the held-out images, without probes; empty where none are held out.
        budget: The budget that it was made with; None: not told.
        version: The study's version that made the analysis.
    """

    cell: Cell
    metrics: Mapping[str, Any]
    log: Mapping[str, Sequence[float | None]]
    analysis: Mapping[str, Any]
    origin: Mapping[str, Any]
    val: Mapping[str, Any] = field(default_factory=dict)
    budget: Budget | None = None
    version: int = 1

    def to_json(self) -> str:
        """Return the result as JSON text.

        Numbers that are not finite become null, tuples, arrays and tensors lists, keys text.
        """
        return _pretty(plain({"key": self.cell.key, **asdict(self)})) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Result":
        """Read a result.

        Args:
            text: What `to_json` returned.

        Returns:
            The result.

        Raises:
            ValueError: If the text is not such JSON.
        """
        try:
            values = json.loads(text)
            cell = Cell(**values.pop("cell"))
            del values["key"]  # follows from the cell
            return cls(cell=cell, **values)
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not a result of a study: {error}") from error


def plain(value: Any) -> Any:
    """Turn a value into what JSON and YAML hold; see `Result.to_json`."""
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _pretty(value: Any, indent: str = "") -> str:
    # Mappings over several lines, everything else on one: the files are committed and compared.
    if not isinstance(value, Mapping) or not value:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    inner = indent + "  "
    lines = (
        f"{inner}{json.dumps(name, ensure_ascii=False)}: {_pretty(item, inner)}"
        for name, item in value.items()
    )
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


@dataclass(frozen=True)
class Findings:
    """What a study found.

    Attributes:
        tables: Tables by the name of their files.
        figures: Plots and pictures by the name of their files.
        text: Markdown: what is to be said of them, above them.
    """

    tables: Mapping[str, Table] = field(default_factory=dict)
    figures: Mapping[str, Figure | Image.Image] = field(default_factory=dict)
    text: str = ""


class Study(ABC):
    """A table or figure of the paper, as trainings and what is computed from them.

    Attributes:
        name: Its name on the command line and of its folder.
        title: Heading of its page, in a few words.
        description: What is compared and how, in Markdown.
        version: Raised when `analyse` changes: results of another version are taken from their
            runs anew, which are not trained again.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    description: ClassVar[str] = ""
    version: ClassVar[int] = 1

    @abstractmethod
    def cells(self, budget: Budget) -> list[Cell]:
        """Return the cells, the most telling first.

        Args:
            budget: "smoke": all studies in three minutes; "cpu": minutes of one core each;
                "paper": the paper's own size.

        Returns:
            Cells of different names.
        """

    def analyse(self, run: RunFolder, cell: Cell, budget: Budget) -> dict[str, Any]:
        """Take from a finished run what needs its weights; done once, kept in the result.

        Args:
            run: The cell's run folder.
            cell: The cell.
            budget: How much may be spent.

        Returns:
            JSON values; without an own method nothing.
        """
        return {}

    @abstractmethod
    def findings(self, results: Sequence[Result], budget: Budget) -> Findings:
        """Draw tables and figures from the results.

        Args:
            results: What there is, in the order of the cells; some may be missing.
            budget: The budget that they were made with.

        Returns:
            What the study's page shows.
        """


def by_labels(results: Sequence[Result], *labels: str) -> dict[tuple[Any, ...], list[Result]]:
    """Group results by some of their cells' labels.

    Args:
        results: Results.
        *labels: Names of labels; a cell without one counts as None.

    Returns:
        From the labels' values to the results that have them, in the order of their appearance.
    """
    groups: dict[tuple[Any, ...], list[Result]] = {}
    for result in results:
        group = tuple(result.cell.labels.get(label) for label in labels)
        groups.setdefault(group, []).append(result)
    return groups
