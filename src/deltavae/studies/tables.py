"""A table, written twice: rounded in Markdown, to be read; exact in CSV, to be computed with."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from deltavae.studies.statistics import Interval

MISSING = "–"


@dataclass(frozen=True)
class Table:
    """Named columns of values.

    A value is text, a number, None for what is missing, or an `Interval`, which is shown as
    value ± standard error and takes two columns in CSV.

    Attributes:
        columns: Names of the columns, all different.
        rows: One value per column.
        caption: What the table shows, in a sentence or two.
        digits: Digits after the point in Markdown, by column; 3 for a column that is not named.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    digits: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(set(self.columns)) != len(self.columns):
            raise ValueError(f"columns must be different from each other, got {self.columns}")
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"rows must have {len(self.columns)} values each, got {len(row)}: {row}"
                )
        unknown = set(self.digits).difference(self.columns)
        if unknown:
            raise ValueError(f"digits must name columns, got {sorted(unknown)}")

    def markdown(self) -> str:
        """Return the table in Markdown, the caption below it."""
        numbers = [self._is_number(j) for j in range(len(self.columns))]
        lines = [
            [_escape(name) for name in self.columns],
            ["--:" if number else "---" for number in numbers],
            *(
                [self._text(name, value) for name, value in zip(self.columns, row, strict=True)]
                for row in self.rows
            ),
        ]
        text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
        return text + (f"\n{self.caption}\n" if self.caption else "")

    def csv(self) -> str:
        """Return the table as CSV, numbers in full; a column of intervals has NAME and NAME_se."""
        intervals = [
            any(isinstance(row[j], Interval) for row in self.rows)
            for j in range(len(self.columns))
        ]
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        names = zip(self.columns, intervals, strict=True)
        writer.writerow([n for name, both in names for n in ((name, f"{name}_se")[: 1 + both])])
        for row in self.rows:
            values = zip(row, intervals, strict=True)
            writer.writerow([v for value, both in values for v in _exact(value)[: 1 + both]])
        return buffer.getvalue()

    def _is_number(self, column: int) -> bool:
        values = [row[column] for row in self.rows if row[column] is not None]
        return bool(values) and all(isinstance(v, int | float | Interval) for v in values)

    def _text(self, column: str, value: Any) -> str:
        digits = self.digits.get(column, 3)
        match value:
            case Interval():
                error = "" if math.isnan(value.error) else f" ± {_number(value.error, digits)}"
                return _number(value.value, digits) + error
            case None:
                return MISSING
            case float():
                return _number(value, digits)
        return _escape(str(value))


def _number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}" if math.isfinite(value) else MISSING


def _exact(value: Any) -> tuple[Any, Any]:
    match value:
        case Interval():
            return value.value, "" if math.isnan(value.error) else value.error
        case float() if not math.isfinite(value):
            return "", ""
    return "" if value is None else value, ""


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
