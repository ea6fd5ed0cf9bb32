"""What ARCHITECTURE.md says of the architecture document is shown by tests that exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "ARCHITECTURE.md").read_text()
HEADING = "## The architecture document, statement by statement"
VERDICTS = {"as written", "differently", "untrue"}


def _rows():
    section = TEXT.partition(HEADING)[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ") and not line.startswith("| the document")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


@cache
def _names(path):
    tree = ast.parse((ROOT / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_the_table_is_there():
    assert len(_rows()) > 60


@pytest.mark.parametrize("row", _rows(), ids=lambda row: row[0][:60])
def test_each_statement_has_a_verdict_and_is_shown_by_something_that_exists(row):
    assert len(row) == 4
    _, verdict, _, shown = row
    assert verdict in VERDICTS
    references = re.findall(r"`([^`]+)`", shown)
    assert references
    for reference in references:
        path, _, name = reference.partition("::")
        if path.startswith(("tests/", "benchmarks/")):
            assert (ROOT / path).is_file(), reference
            assert not name or name in _names(path), reference
        else:
            assert path.startswith(("make ", "python ", "mailrig ")), reference
