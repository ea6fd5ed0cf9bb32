"""The runs of a comparison, one after the other; what they say is read at once and written down.

A run that measured the rig and not the system (``invalid``, ``unknown``) does not count and is made again, a few times.
A gate that fails does not end a comparison: it is told. Called by cli.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from mailrig import runner
from mailrig.ab.book import Book, Turn, order
from mailrig.ab.decision import BLOCKS_MIN, CONFIDENCE, Block, Decision, Errors, decide, error_rates, share_of
from mailrig.ab.figures import FIGURES, Figure, read_figure
from mailrig.ab.sides import HERE, Side, make_side
from mailrig.checkers import Verdict
from mailrig.evidence import load_evidence
from mailrig.runner.scratch import scratch_folder
from mailrig.scenario import RigError, Scenario, load_contract, load_scenario
from mailrig.store import Run

#: On two cores that much else loads too, so many find 30 % of CPU time in nine of ten comparisons (measured).
BLOCKS: Final = 5
#: A run that does not count is made again so often, for the machine has bad minutes.
ATTEMPTS: Final = 3


class CompareError(RigError):
    """The comparison could not be made."""

    exit_code = 4


@dataclass(frozen=True, kw_only=True)
class Options:
    """What ``mailrig ab`` was asked for."""

    base: str = HERE
    head: str = HERE
    scenario: str = "smoke"
    seed: int | None = None
    blocks: int = BLOCKS
    #: Of the second side alone.
    settings: Mapping[str, str] = field(default_factory=dict)
    mutant: str | None = None
    plant_percent: int = 0
    figures: Sequence[Figure] = FIGURES
    runs_dir: Path = Path("runs")
    resume: bool = False
    attempts: int = ATTEMPTS


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What came of it."""

    folder: Path
    scenario: str
    seed: int
    base: str
    head: str
    blocks: int
    decisions: tuple[Decision, ...]
    errors: Errors | None
    #: By side: how many runs broke a gate, by gate.
    broken: Mapping[str, Mapping[str, int]]
    #: Runs that did not count.
    repeated: int

    @property
    def slower(self) -> bool:
        """Whether any figure is worse beyond its margin and its floor."""
        return any(decision.slower for decision in self.decisions)

    @property
    def exit_code(self) -> int:
        """1 when B is slower."""
        return int(self.slower)


Runs = Callable[[runner.RunOptions], tuple[Run, Verdict]]


def compare(options: Options, *, run: Runs = runner.run, say: Callable[[str], None] = lambda _: None) -> Comparison:
    """Run both sides in turn and compare them.

    Raises:
        RigError: it could not be made; what was run is kept, and ``resume`` goes on.
    """
    scenario = load_scenario(options.scenario)
    seed = scenario.seed if options.seed is None else options.seed
    with scratch_folder(runner.STATE_DIR) as scratch:
        sides = {
            "base": make_side(options.base, scratch / "base"),
            "head": make_side(
                options.head,
                scratch / "head",
                settings=options.settings,
                mutant=options.mutant,
                plant_percent=options.plant_percent,
            ),
        }
        book = _book(options, scenario, seed, sides)
        say(f"its runs are kept in {book.path}; after a stop: --resume")
        turns = order(options.blocks)
        for turn in book.left(turns):
            side = sides[turn.side]
            say(f"block {turn.block + 1} of {options.blocks}, run {turn.place + 1} of 4: {turn.side}, {side.label}")
            _count_on(turn, book, options, seed=seed, side=side, run=run)
    return conclude(book, options, scenario=scenario, seed=seed, labels={name: s.label for name, s in sides.items()})


def _book(options: Options, scenario: Scenario, seed: int, sides: Mapping[str, Side]) -> Book:
    plan = {
        "base": sides["base"].identity,
        "head": sides["head"].identity,
        "scenario": scenario.text,
        "seed": seed,
        "figures": [str(figure) for figure in options.figures],
    }
    folder = options.runs_dir / "ab"
    return Book.go_on(folder, plan) if options.resume else Book.begin(folder, plan)


def _count_on(turn: Turn, book: Book, options: Options, *, seed: int, side: Side, run: Runs) -> None:
    """Run until a run counts."""
    asked = runner.RunOptions(
        scenario=options.scenario,
        seed=seed,
        mutant=side.mutant,
        runs_dir=book.path,
        service=side.folder,
        service_name=f"{side.label} ({side.digest})",
        settings=side.settings,
    )
    why = ""
    for _ in range(options.attempts):
        folder, verdict = run(asked)
        found = _read(folder, verdict, options.figures)
        book.add(turn, found)
        if found["counts"]:
            return
        why = found["why"]
    raise CompareError(
        f"block {turn.block + 1}, {turn.side}: {options.attempts} runs did not count, the last because {why}; "
        f"what there is is in {book.path}, and --resume goes on"
    )


def _read(folder: Run, verdict: Verdict, figures: Sequence[Figure]) -> dict[str, Any]:
    """What is kept of a run; the rest is in its folder."""
    found: dict[str, Any] = {
        "run": folder.path.name,
        "verdict": verdict.verdict,
        "broken": [gate.id for gate in verdict.gates if gate.verdict in {"fail", "warn", "invalid"}],
        "counts": verdict.verdict in {"pass", "fail"},
        "why": f"it is {verdict.verdict} ({', '.join(verdict.failed) or 'nothing could be judged'})",
    }
    if found["counts"]:
        evidence, contract = load_evidence(folder.path), load_contract(folder.path / "contract.toml")
        scenario = load_scenario(folder.path / "scenario.toml")
        found["figures"] = {str(figure): read_figure(figure, evidence, contract, scenario) for figure in figures}
        found["why"] = ""
    return found


def conclude(book: Book, options: Options, *, scenario: Scenario, seed: int, labels: Mapping[str, str]) -> Comparison:
    """What the runs in the book say; blocks that are not whole are left out.

    Raises:
        CompareError: there are too few.
    """
    whole = _whole_blocks([run for run in book.runs if run["counts"]], options.blocks)
    if len(whole) < BLOCKS_MIN:
        raise CompareError(f"{len(whole)} whole blocks: at least {BLOCKS_MIN} are needed")
    found = [(figure, *_blocks_of(figure, whole)) for figure in options.figures]
    each = share_of(CONFIDENCE, len(found))
    return Comparison(
        folder=book.path,
        scenario=scenario.name,
        seed=seed,
        base=labels["base"],
        head=labels["head"],
        blocks=len(whole),
        decisions=tuple(decide(figure, kind, blocks, confidence=each, seed=seed) for figure, kind, blocks in found),
        errors=error_rates(found, seed=seed),
        broken={side: _broken(book.runs, side) for side in ("base", "head")},
        repeated=sum(not run["counts"] for run in book.runs),
    )


def _whole_blocks(runs: Sequence[Mapping[str, Any]], blocks: int) -> list[list[Mapping[str, Any]]]:
    found = [[run for run in runs if run["block"] == block] for block in range(blocks)]
    return [block for block in found if len({run["place"] for run in block}) == len(order(1))]


def _blocks_of(figure: Figure, whole: Sequence[Sequence[Mapping[str, Any]]]) -> tuple[str, list[Block]]:
    name = str(figure)
    values = [
        {side: tuple(run["figures"][name][0] for run in block if run["side"] == side) for side in ("base", "head")}
        for block in whole
    ]
    return whole[0][0]["figures"][name][1], [Block(base=each["base"], head=each["head"]) for each in values]


def _broken(runs: Sequence[Mapping[str, Any]], side: str) -> dict[str, int]:
    gates = [gate for run in runs if run["side"] == side for gate in run["broken"]]
    return {gate: gates.count(gate) for gate in sorted(set(gates))}
