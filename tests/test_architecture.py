"""The shape of the package: imports go one way, and one module knows of bits."""

import ast
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

import deltavae

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
IDS = [str(path.relative_to(ROOT / "src" / "deltavae")) for path in SOURCES]


def test_imports_go_one_way(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert lint_imports(no_cache=True, no_logo=True) == 0, capsys.readouterr().out


def test_public_names_exist_and_are_sorted():
    # Constants, then classes, then functions, as ruff sorts them.
    def rank(name: str) -> tuple[int, str]:
        return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)

    assert deltavae.__all__ == sorted(set(deltavae.__all__), key=rank)
    assert [name for name in deltavae.__all__ if not hasattr(deltavae, name)] == []


@pytest.mark.parametrize("path", SOURCES, ids=IDS)
def test_annotations_are_evaluated(path):
    # jaxtyping checks shapes on annotation objects; the future import turns them into strings.
    futures = [
        node.lineno
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "__future__"
        if any(alias.name == "annotations" for alias in node.names)
    ]
    assert futures == []


def conversions_to_bits(source: str) -> Iterator[int]:
    """Yield the lines that divide by ln 2, multiply by its reciprocal or take log2."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.BinOp(op=ast.Div(), right=right) | ast.AugAssign(op=ast.Div(), value=right):
                found = any(is_number(part, math.log(2.0)) for part in ast.walk(right))
            case ast.Call(func=ast.Attribute(attr="div" | "div_" | "divide"), args=[*_, by]):
                found = any(is_number(part, math.log(2.0)) for part in ast.walk(by))
            case ast.Constant():
                found = is_number(node, 1.0 / math.log(2.0))
            case ast.Attribute(attr="log2" | "log2_") | ast.Name(id="log2"):
                found = True
            case _:
                found = False
        if found:
            yield node.lineno


def is_number(node: ast.AST, number: float) -> bool:
    """Tell whether a node is the number, written out, or its usual spelling (for ln 2)."""
    match node:
        case ast.Constant(value=float(value)):
            return math.isclose(value, number, rel_tol=1e-3)
        case ast.Name(id="LN2" | "LOG2" | "LOG_2") | ast.Attribute(attr="LN2" | "LOG2" | "LOG_2"):
            return math.isclose(number, math.log(2.0))
        case ast.Call(func=ast.Attribute(attr="log") | ast.Name(id="log"), args=[argument]):
            two = any(isinstance(p, ast.Constant) and p.value == 2 for p in ast.walk(argument))
            return two and math.isclose(number, math.log(2.0))
    return False


@pytest.mark.parametrize(
    "source",
    [
        "x / math.log(2)",
        "x / (dims * math.log(2.0))",
        "x / np.log(2.0)",
        "x / torch.log(torch.tensor(2.0))",
        "x / units.LN2",
        "x /= LN2",
        "x / 0.6931",
        "x.div(math.log(2))",
        "x * 1.4427",
        "torch.log2(x)",
    ],
)
def test_conversion_to_bits_is_found(source):
    assert list(conversions_to_bits(source)) == [1]


@pytest.mark.parametrize("source", ["x / 2", "x - math.log(2)", "x * LN2", "x / math.log(3.0)"])
def test_other_arithmetic_is_no_conversion(source):
    assert list(conversions_to_bits(source)) == []


@pytest.mark.parametrize("path", SOURCES, ids=IDS)
def test_only_units_converts_to_bits(path):
    lines = list(conversions_to_bits(path.read_text()))
    assert bool(lines) == (path.name == "units.py"), f"{path}: lines {lines}"
