"""Mutants: defects that ship with the rig, each of which must turn named gates of its scenario red."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from mailrig.scenario.errors import MutantError, UnknownNameError
from mailrig.scenario.model import PARTS, Mutant, Patch
from mailrig.scenario.table import Table, parse_toml, read_text

_MUTANTS: Final = Path(__file__).resolve().parents[1] / "mutants"


def mutant_names() -> list[str]:
    """The mutants that ship with the rig."""
    return sorted(file.stem for file in _MUTANTS.glob("*.toml"))


def load_mutant(name: str) -> Mutant:
    """The mutant of a name.

    Raises:
        UnknownNameError: there is none.
        ScenarioError: its file is wrong.
    """
    if name not in mutant_names():
        raise UnknownNameError("mutant", name, mutant_names())
    file = _MUTANTS / f"{name}.toml"
    top = parse_toml(read_text(file), file)
    stack = top.table("stack", optional=True)
    environment = top.table("environment", optional=True)
    mutant = Mutant(
        name=top.text("name", choices=(name,)),
        description=top.text("description"),
        scenario=top.text("scenario"),
        expected_gates=top.words("expected_gates"),
        environment={key: environment.text(key, default="") for key in environment.keys()},  # noqa: SIM118  # a table
        without=stack.strings("without", choices=PARTS),
        patches=tuple(_patch(table) for table in top.tables("patch")),
    )
    for table in (stack, top):
        table.done()
    if not (mutant.environment or mutant.without or mutant.patches):
        raise top.error("changes nothing", allowed="[environment], [stack] without = [...], [[patch]]")
    return mutant


def _patch(table: Table) -> Patch:
    patch = Patch(file=table.text("file"), old=table.text("old"), new=table.text("new", default=""))
    table.done()
    return patch


def apply_patches(mutant: Mutant, source: Path, target: Path) -> None:
    """Copy the package ``source`` to ``target``, which must not exist, with the mutant's patches in it.

    Raises:
        MutantError: a file is missing, or a patch's text is not there exactly once; nothing is copied then.
    """
    patched = _patched(mutant, source)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in patched.items():
        (target / name).write_text(text, encoding="utf-8")


def check_patches(mutant: Mutant, source: Path) -> None:
    """See whether the patches apply; copies nothing.

    Raises:
        MutantError: as ``apply_patches``.
    """
    _patched(mutant, source)


def _patched(mutant: Mutant, source: Path) -> dict[str, str]:
    patched: dict[str, str] = {}
    for patch in mutant.patches:
        file = source / patch.file
        if patch.file not in patched and not file.is_file():
            raise MutantError(f"mutant {mutant.name}: {patch.file} is not in {source}")
        text = patched.get(patch.file) or file.read_text(encoding="utf-8")
        if (count := text.count(patch.old)) != 1:
            raise MutantError(f"mutant {mutant.name}: {patch.old!r} is {count} times in {patch.file}, not once")
        patched[patch.file] = text.replace(patch.old, patch.new)
    return patched
