"""What the architecture document claims, and what runs have measured of it: ``mailrig claims RUN...``.

Rule 1: a claim is judged as a gate is, by the evidence of a run and the contract that it was made under.
Rule 2: what no run can show says what does instead, and what nobody has measured says that: no claim is passed over,
and no number of the contract that no claim is about. Rule 3: a run that is invalid, or of a mutant, shows nothing.
Called by cli.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from mailrig.checkers import METRICS, GateResult, judge, validate_gates
from mailrig.evidence import load_evidence
from mailrig.report import words
from mailrig.report.markup import Child, Markup, element
from mailrig.report.tables import table
from mailrig.scenario import Contract, Gate, RigError, load_contract, load_scenario
from mailrig.scenario.table import Table, parse_toml, read_text
from mailrig.store import Run

SCHEMA_VERSION: Final = 1
HOLDS, BROKEN, UNMEASURED = "holds", "not so", "not measured"
TITLE: Final = "What the architecture document claims, what was measured"
_PACKAGE: Final = Path(__file__).parent
_FILES: Final = (_PACKAGE.parent / "claims.toml", _PACKAGE / "data" / "claims.toml")
_NEEDS: Final = "/needs"
_PLACEHOLDER: Final = re.compile(r"\{\s*contract\.([\w.]+)\s*\}")
#: The page's tables are of short cells; here there are sentences and names of tests.
_STYLE: Final = ".claims td, .claims th { white-space: normal; overflow-wrap: anywhere; vertical-align: top }"
_BADGES: Final = {HOLDS: "pass", BROKEN: "fail", UNMEASURED: "unknown"}
_HEAD: Final = ("claim", "where", "measure", "measured", "verdict", "what differs, what shows it")


class ClaimsError(RigError):
    """There is nothing to measure by, or nowhere to write."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Something that the document says; ``claims.toml`` tells what each field is."""

    id: str
    says: str
    where: str
    metric: str = ""
    check: str = ""
    needs: str = ""
    only: tuple[str, ...] = ()
    differs: str = ""
    keys: tuple[str, ...] = ()
    by: str = ""
    line: int | None = None

    def gates(self) -> Iterator[Gate]:
        """The check, and what must hold for it to mean something."""
        for suffix, check in (("", self.check), (_NEEDS, self.needs)):
            if check:
                yield Gate(id=self.id + suffix, kind="gate", metric=self.metric, check=check, line=self.line)

    @property
    def promises(self) -> set[str]:
        """Keys of the contract that it is about."""
        return {*self.keys, *_PLACEHOLDER.findall(f"{self.check} {self.needs}")}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """What one run has measured of a claim."""

    run: str
    observed: str
    holds: bool


@dataclass(frozen=True, kw_only=True)
class Row:
    """A claim, with what was measured of it."""

    claim: Claim
    #: The check, with the contract's numbers in it.
    allowed: str
    figures: tuple[Figure, ...]
    #: Why a run measured nothing, where none did.
    reason: str = ""

    @property
    def verdict(self) -> str:
        """One run is enough to show that it is not so."""
        if not self.figures:
            return UNMEASURED
        return HOLDS if all(figure.holds for figure in self.figures) else BROKEN


@dataclass(frozen=True, kw_only=True)
class Page:
    """All claims, and the runs that they were measured by."""

    rows: tuple[Row, ...]
    #: Runs by name, with the commit each is of.
    runs: Mapping[str, str]
    #: Runs that show nothing, with why.
    left_out: Mapping[str, str]

    @property
    def counts(self) -> dict[str, int]:
        """How many claims have which verdict."""
        return {word: sum(row.verdict == word for row in self.rows) for word in (HOLDS, BROKEN, UNMEASURED)}


# --- reading ----------------------------------------------------------------------------------------------------------


def load_claims(path: Path | None = None) -> tuple[Claim, ...]:
    """The claims of a file, or those that ship with the rig.

    Raises:
        ScenarioError: the file is wrong; names the line and what is allowed.
    """
    file = path or next((file for file in _FILES if file.is_file()), _FILES[0])
    top = parse_toml(read_text(file), file)
    if top.integer("schema_version") != SCHEMA_VERSION:
        raise top.error("is not one that this version reads", key="schema_version", allowed=str(SCHEMA_VERSION))
    contract = load_contract()
    claims = tuple(_claim(part, contract) for part in top.tables("claim"))
    top.done()
    validate_gates([gate for claim in claims for gate in claim.gates()], contract, file=file, known=METRICS)
    return claims


def _claim(part: Table, contract: Contract) -> Claim:
    names = ("metric", "check", "needs", "differs", "by")
    claim = Claim(
        id=part.text("id"),
        says=part.text("says"),
        where=part.text("where"),
        only=part.strings("only"),
        keys=part.strings("keys"),
        line=part.line("id"),
        **{name: part.text(name, default="") for name in names},
    )
    part.done()
    if bool(claim.metric) != bool(claim.check) or bool(claim.metric) == bool(claim.by):
        raise part.error("has no measure", allowed="metric and check, or by")
    if unknown := sorted(claim.promises - contract.values.keys()):
        raise part.error(f"= {unknown[0]!r} is not in the contract", key="keys", allowed="keys of contract.toml")
    return claim


# --- measuring --------------------------------------------------------------------------------------------------------


def measure(claims: Sequence[Claim], runs: Iterable[Run]) -> Page:
    """Judge every claim by every run.

    Raises:
        ClaimsError: none of the runs can show anything.
    """
    measured: dict[str, dict[str, GateResult]] = {}
    commits: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for run in runs:
        name = f"{run.path.parent.name}/{run.path.name}"
        results, commit, why = _results(claims, run)
        if why:
            left_out[name] = why
        else:
            measured[name], commits[name] = results, commit
    if not measured:
        told = "; ".join(f"{name} is {why}" for name, why in left_out.items())
        raise ClaimsError(f"no run can show anything: {told or 'none was named'}")
    rows = [_row(claim, measured) for claim in claims]
    return Page(rows=(*rows, *_unclaimed(claims, load_contract())), runs=commits, left_out=left_out)


def _results(claims: Sequence[Claim], run: Run) -> tuple[dict[str, GateResult], str, str]:
    """The results by the gates' ids, the commit, and why the run shows nothing, if so."""
    scenario, contract = load_scenario(run.path / "scenario.toml"), load_contract(run.path / "contract.toml")
    evidence = load_evidence(run.path)
    if mutant := evidence.run.get("mutant"):
        return {}, "", f"of the mutant {mutant}"
    own = judge(scenario, contract, evidence)
    if own.verdict == "invalid":
        return {}, "", f"invalid: {', '.join(own.failed) or 'its validity is unknown'}"
    wanted = [claim for claim in claims if not claim.only or scenario.name in claim.only]
    gates = tuple(gate for claim in wanted for gate in claim.gates())
    judged = judge(replace(scenario, gates=gates), contract, evidence)
    return {gate.id: gate for gate in judged.gates}, words.commit(evidence.run), ""


def _row(claim: Claim, measured: Mapping[str, Mapping[str, GateResult]]) -> Row:
    figures, reasons, allowed = [], [], ""
    if claim.only and not any(claim.id in results for results in measured.values()):
        reasons.append(f"no run of {' or '.join(claim.only)}")
    for run, results in measured.items():
        result, needed = results.get(claim.id), results.get(claim.id + _NEEDS)
        if result is None:
            continue
        allowed = result.check
        if result.observed is None:
            reasons.append("; ".join(result.detail))
        elif needed is not None and needed.verdict != "pass" and result.verdict == "pass":
            reasons.append(f"{needed.check} was not seen, but {needed.observed_text}")
        else:
            figures.append(Figure(run=run, observed=result.observed_text, holds=result.verdict == "pass"))
    return Row(claim=claim, allowed=allowed, figures=tuple(figures), reason=reasons[0] if reasons else "")


def _unclaimed(claims: Sequence[Claim], contract: Contract) -> Iterator[Row]:
    """Numbers of the contract that no claim is about."""
    known = {key for claim in claims for key in claim.promises}
    for key in sorted(contract.values.keys() - known):
        says = f"{key} = {contract.values[key]}"
        yield Row(claim=Claim(id=key, says=says, where="contract.toml"), allowed="", figures=())


# --- pages ------------------------------------------------------------------------------------------------------------


def writer(path: Path) -> Callable[[Page], str]:
    """What makes the text of a file, by its ending.

    Raises:
        ClaimsError: there is no such format.
    """
    if path.suffix not in FORMATS:
        raise ClaimsError(f"{path}: {path.suffix or 'no ending'} is no format; allowed: {', '.join(FORMATS)}")
    return FORMATS[path.suffix]


def to_json(page: Page) -> str:
    """For a machine."""
    rows = [
        {**asdict(row.claim), "allowed": row.allowed, "verdict": row.verdict, "reason": row.reason}
        | {"figures": [asdict(figure) for figure in row.figures]}
        for row in page.rows
    ]
    facts = {"counts": page.counts, "runs": dict(page.runs), "left_out": dict(page.left_out)}
    return json.dumps({"schema_version": SCHEMA_VERSION, **facts, "claims": rows}, indent=2) + "\n"


def markdown(page: Page) -> str:
    """For a pull request or a repository."""
    rule = "|".join(["---"] * len(_HEAD))
    lines = [f"# {TITLE}", "", _sentence(page), "", f"| {' | '.join(_HEAD)} |", f"|{rule}|"]
    lines += [f"| {' | '.join(map(_escaped, _cells(row, page.runs)))} |" for row in page.rows]
    return "\n".join([*lines, "", "## Runs", "", *(f"- {_escaped(line)}" for line in _runs(page)), ""])


def html(page: Page) -> str:
    """One page that needs nothing but itself."""
    style = (_PACKAGE / "report" / "page.css").read_text(encoding="utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content="default-src 'none'; style-src 'unsafe-inline'"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", TITLE),
        element("style", Markup(style + _STYLE)),
    )
    rows = table([(title, "") for title in _HEAD], (_html_cells(row, page.runs) for row in page.rows), class_="claims")
    runs = element("ul", [element("li", line) for line in _runs(page)])
    body = element("main", element("h1", TITLE), element("p", _sentence(page)), rows, element("h2", "Runs"), runs)
    return f"<!doctype html>\n{element('html', head, element('body', body), lang='en')}\n"


def _sentence(page: Page) -> str:
    told = ", ".join(f"{word}: {count}" for word, count in page.counts.items())
    return f"{len(page.rows)} claims, measured by {words.count(len(page.runs), 'run')}. {told.capitalize()}."


def _html_cells(row: Row, runs: Collection[str]) -> list[Child]:
    *cells, verdict, notes = _cells(row, runs)
    badge = element("span", verdict, class_=f"badge v-{_BADGES[row.verdict]}")
    return [*cells, badge, notes]


def _figures(row: Row, runs: Collection[str]) -> str:
    """What was observed, and by which runs: a scenario's name is enough where there is one run of it."""
    times = Counter(run.partition("/")[0] for run in runs)
    by_figure: dict[str, list[str]] = {}
    for figure in row.figures:
        scenario = figure.run.partition("/")[0]
        by_figure.setdefault(figure.observed, []).append(scenario if times[scenario] == 1 else figure.run)
    return "; ".join(f"{observed} ({', '.join(names)})" for observed, names in by_figure.items())


def _cells(row: Row, runs: Collection[str]) -> tuple[str, ...]:
    claim, figures = row.claim, _figures(row, runs)
    missing = row.reason or ("no run can show it" if claim.by else "nobody measures it")
    notes = [claim.differs, f"shown by {claim.by}" if claim.by else ""]
    return (
        claim.says,
        claim.where,
        f"{claim.metric} {row.allowed or claim.check}".strip() or words.NOTHING,
        figures or missing,
        row.verdict,
        "; ".join(note for note in notes if note) or words.NOTHING,
    )


def _runs(page: Page) -> list[str]:
    used = [f"{name}, commit {commit}" for name, commit in page.runs.items()]
    return [*used, *(f"left out: {name} is {why}" for name, why in page.left_out.items())]


def _escaped(text: str) -> str:
    """Text as it is in a table's cell: no Markdown, no HTML, no line end."""
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", words.one_line(text))


#: By the ending of a file.
FORMATS: Final[Mapping[str, Callable[[Page], str]]] = {".md": markdown, ".html": html, ".json": to_json}
