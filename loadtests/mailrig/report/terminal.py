"""The verdict and a trace in a terminal. Returns text; printing is the caller's.

Text of others is printed as it is, never read as markup, and without control characters.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, Final

from rich import box
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mailrig.report import breakdown, words
from mailrig.report.census import census
from mailrig.report.folder import RunFolder, load_folder, load_spans
from mailrig.report.links import jaeger_url, trace_of
from mailrig.report.tables import details, ordered
from mailrig.report.traces import Candidates, SpanRow, candidates, thin, tree
from mailrig.report.view import DAMAGE
from mailrig.scenario import RigError

_STYLES: Final[Mapping[str, str]] = {
    "pass": "green",
    "fail": "bold red",
    "invalid": "bold dark_orange",
    "unknown": "bold magenta",
    "warn": "yellow",
}
_PARTS: Final[Mapping[str, str]] = {
    "http": "blue",
    "queue": "magenta",
    "smtp": "dark_orange",
    "imap": "cyan",
    "database": "green",
    "broker": "pink3",
    "other": "white",
}
_SPANS_MAX: Final = 200
_NEAREST_MAX: Final = 5
_RUNS_MAX: Final = 12
_GIVEN_CHARS_MAX: Final = 80
_WIDTH_MIN: Final = 40
_TASK_WIDTH_MIN: Final = 110
#: Eighths of a character, for the ends of bars.
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"
_FULL: Final = "█"


# --- verdict ----------------------------------------------------------------------------------------------------------


def verdict_text(verdict: Mapping[str, Any], *, width: int, color: bool, report: Path | None) -> str:
    """All gates, the cases of those that did not pass, the verdict, and where the report is."""
    listed = ordered(verdict)
    parts: list[RenderableType] = []
    for kind in ("validity", "gate"):
        own = [gate for gate in listed if (gate.get("kind") == "validity") == (kind == "validity")]
        if own:
            parts += _gates(kind, own)
    if not listed:
        parts.append(Text("no gates: the run was never judged"))
    parts.append(_conclusion(verdict, listed))
    if report is not None:
        parts.append(Text(f"report: {words.clean(report)}", overflow="fold"))
    return _printed(parts, width=width, color=color)


def _gates(kind: str, listed: Sequence[Mapping[str, Any]]) -> list[RenderableType]:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, expand=True, padding=(0, 1))
    table.add_column("validity" if kind == "validity" else "gate", ratio=5, overflow="fold")
    table.add_column("allowed", ratio=4, overflow="fold")
    table.add_column("observed", justify="right", ratio=3, overflow="fold")
    table.add_column("verdict", width=9, no_wrap=True)
    for gate in listed:
        verdict = words.clean(gate.get("verdict", "unknown"))
        table.add_row(
            Text(words.clean(gate.get("id", "?"))),
            Text(words.clean(gate.get("check", ""))),
            Text(words.observed(gate)),
            Text(f"{words.MARKS.get(verdict, '?')} {verdict}", style=_STYLES.get(verdict, "bold magenta")),
        )
    cases = [line for gate in listed if gate.get("verdict") != "pass" for line in _cases(gate)]
    return [table, *([Text(), *cases] if cases else []), Text()]


def _cases(gate: Mapping[str, Any]) -> list[RenderableType]:
    style = _STYLES.get(str(gate.get("verdict")), "bold magenta")
    head = Text.assemble((f"{words.clean(gate.get('id', '?'))}", style), f" ({words.clean(gate.get('metric', ''))})")
    return [head, *(Padding(Text(f"· {line}", overflow="fold"), (0, 0, 0, 2)) for line in details(gate))]


def _conclusion(verdict: Mapping[str, Any], listed: Sequence[Mapping[str, Any]]) -> Text:
    word = words.clean(verdict.get("verdict", "unknown"))
    bad = [words.clean(gate.get("id")) for gate in listed if gate.get("verdict") not in {"pass", "warn"}]
    warned = [words.clean(gate.get("id")) for gate in listed if gate.get("verdict") == "warn"]
    passed = sum(gate.get("verdict") == "pass" for gate in listed)
    took = verdict.get("duration_s")
    text = Text()
    text.append(f"{words.MARKS.get(word, '?')} {word.upper()}", style=_STYLES.get(word, "bold magenta"))
    text.append(f"  {words.clean(verdict.get('scenario', 'run'))}, seed {words.clean(verdict.get('seed', '?'))}")
    text.append(f", mutant {words.clean(verdict['mutant'])}" if verdict.get("mutant") else "")
    text.append(f", {words.duration(took * 1e9)}" if isinstance(took, int | float) else "")
    text.append(f": {passed} of {words.count(len(listed), 'gate')} pass")
    text.append(f"; not: {', '.join(bad)}" if bad else "")
    text.append(f"; warnings: {', '.join(warned)}" if warned else "")
    return text


def _printed(parts: Iterable[RenderableType], *, width: int, color: bool) -> str:
    out = StringIO()
    # An empty environment: neither NO_COLOR nor COLUMNS of the caller's shell may change what was asked for.
    console = Console(
        file=out,
        width=max(width, _WIDTH_MIN),
        force_terminal=color,
        color_system="256" if color else None,
        no_color=not color,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=False,
        legacy_windows=False,
        _environ={},
    )
    for part in parts:
        console.print(part)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


# --- waterfall --------------------------------------------------------------------------------------------------------


def waterfall_text(run_dir: Path, trace_id: str | None, *, width: int, color: bool) -> str:
    """A trace as a tree with bars; without an id, what is worth a look, and then the slowest send.

    Raises:
        RigError: no trace, task or execution has this id; names the nearest ones. Or the run has no traces.
    """
    folder = load_folder(run_dir)
    parts: list[RenderableType] = []
    if trace_id is None:
        found = _candidates(folder)
        parts += [_list(found, width), Text()]
        chosen = next((group[0].trace_id for group in (found.send, found.sync, found.killed) if group), None)
        if chosen is None:
            raise RigError(f"{run_dir} has no traces: no send or sync was settled, and no execution was killed")
    else:
        chosen = _chosen(folder, trace_id)
    spans, problems = load_spans(run_dir, {chosen})
    rows = tree(spans, chosen)
    parts += [_head(chosen, folder, len(rows)), *_runs(rows)]
    parts += [Text(), _drawn(rows, width)] if rows else [Text("it has no spans: not sampled, or lost")]
    parts += [Text(problem, style="yellow") for problem in problems]
    return _printed(parts, width=width, color=color)


def _head(trace_id: str, folder: RunFolder, spans: int) -> Text:
    url = jaeger_url(folder.run)
    there = f"\n{url}/trace/{trace_id}" if url else ""
    return Text(words.clean(f"trace {trace_id}, {words.count(spans, 'span')}{there}"), overflow="fold")


def _runs(rows: Sequence[SpanRow]) -> list[RenderableType]:
    """A line for each execution: what it was, how long it waited and was held, and the steps of its run."""
    found = list(breakdown.executions(rows))
    listed: list[RenderableType] = [
        Padding(Text.assemble((breakdown.title(row), _outcome_style(row)), f" · {spent.text}"), (0, 0, 0, 2))
        for row, spent in found[:_RUNS_MAX]
    ]
    left = len(found) - _RUNS_MAX
    return [*listed, *([Text(f"  and {words.count(left, 'more execution')}")] if left > 0 else [])]


def _outcome_style(row: SpanRow) -> str:
    return "bold red" if row.error else "bold"


def _candidates(folder: RunFolder) -> Candidates:
    try:
        return candidates(folder)
    except DAMAGE as err:
        raise RigError(f"{folder.path}: traces can't be made out: {type(err).__name__}: {words.clean(err)}") from err


def _chosen(folder: RunFolder, given: str) -> str:
    """The trace with this id, or with the only id that begins so; a task's or an execution's stands for its trace."""
    traces = census(folder.path).sizes
    known = {trace_id: trace_id for trace_id in traces} | trace_of(folder)
    wanted = given.strip().lower()
    said = repr(words.one_line(given, limit=_GIVEN_CHARS_MAX))
    if wanted in known:
        return known[wanted]
    fitting = sorted({trace for key, trace in known.items() if wanted and key.lower().startswith(wanted)})
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        more = f" and {len(fitting) - _NEAREST_MAX} more" if len(fitting) > _NEAREST_MAX else ""
        raise RigError(f"trace {said} could be any of {', '.join(fitting[:_NEAREST_MAX])}{more}")
    near = ", ".join(_nearest(wanted, known if "-" in wanted else traces))
    otherwise = "none is like it" if traces else "none, there are no spans"
    raise RigError(f"no trace, task or execution {said} in {folder.path}; nearest: {near or otherwise}")


def _nearest(wanted: str, known: Iterable[str]) -> list[str]:
    """By the longest common beginning, since ids are typed from their beginning; then by likeness."""
    ids = sorted(known)
    begun = [(len(_common(wanted, key)), key) for key in ids]
    best = [key for length, key in sorted(begun, key=lambda item: (-item[0], item[1])) if length > 1]
    alike = difflib.get_close_matches(wanted, ids[:5000], n=_NEAREST_MAX, cutoff=0.3)
    return list(dict.fromkeys([*best, *alike]))[:_NEAREST_MAX]


def _common(one: str, other: str) -> str:
    length = next(
        (index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
    return one[:length]


def _list(found: Candidates, width: int) -> RenderableType:
    """Whole ids, as they are there to be copied; a narrow terminal has no room for those of tasks."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1))
    table.add_column("worth a look", no_wrap=True)
    table.add_column("took", justify="right", no_wrap=True)
    table.add_column("trace", overflow="fold")
    if width >= _TASK_WIDTH_MIN:
        table.add_column("task", no_wrap=True)
    groups = (("send", found.send), ("sync", found.sync), ("killed", found.killed[:10]))
    for name, group in groups:
        for index, candidate in enumerate(group, start=1):
            what = f"killed: {candidate.what}" if name == "killed" else f"slowest {name} {index}"
            cells = (
                Text(what + " (warm-up)" * candidate.warmup, style="red" if name == "killed" else ""),
                Text(words.duration(candidate.took_ns)),
                Text(words.clean(candidate.trace_id)),
                Text(words.clean(candidate.task_id)),
            )
            table.add_row(*cells[: len(table.columns)])
    return table


def _drawn(rows: Sequence[SpanRow], width: int) -> RenderableType:
    """A line per span: service, name in its tree, bar, duration, and when it began."""
    drawn = thin(rows, _SPANS_MAX)
    start = min(row.start_ns - row.wait_ns for row in rows)
    length = max(max(row.end_ns for row in rows) - start, 1)
    names = [_name(row, branch) for row, branch in zip(drawn, _branches([row.depth for row in drawn]), strict=True)]
    services = [row.service.removeprefix("mail-") for row in drawn]
    name_width = min(max(len(name) for name in names), max(width // 2 - 8, 16))
    bar_width = max(width - name_width - max(map(len, services)) - 26, 8)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), show_header=True, header_style="dim")
    table.add_column("service", no_wrap=True)
    table.add_column("span", width=name_width, no_wrap=True, overflow="ellipsis")
    table.add_column(_ruler(length, bar_width), width=bar_width, no_wrap=True)
    table.add_column("took", justify="right", no_wrap=True, width=11)
    table.add_column("at", justify="right", no_wrap=True, width=11)
    for row, name, service in zip(drawn, names, services, strict=True):
        table.add_row(
            Text(service, style="dim"),
            name,
            _bar(row, start, length, bar_width),
            Text(words.duration(row.duration_ns)),
            Text(words.duration(row.start_ns - start), style="dim"),
        )
    if len(drawn) == len(rows):
        return table
    table.add_row(Text(""), Text(f"{words.count(len(rows) - len(drawn), 'more span')} not drawn", style="dim"))
    return table


def _name(row: SpanRow, branch: str) -> Text:
    text = Text(branch, style="dim")
    # A bar's colour tells an error, and so does this mark where there is no colour.
    text.append(f"{words.MARKS['fail']} " if row.error else "", style="bold red")
    text.append(row.name, style="red" if row.error else _PARTS[row.part])
    text.append(f" [{', '.join(row.notes)}]" if row.notes else "", style="red" if row.error else "yellow")
    return text


def _branches(depths: Sequence[int]) -> list[str]:
    """The lines of the tree left of each name."""
    found = []
    open_below: dict[int, bool] = {}
    for depth in reversed(depths):
        # Read from below: a sibling further down keeps this level's line going.
        lines = "".join("│ " if open_below.get(level) else "  " for level in range(1, depth))
        found.append(lines + (("├─" if open_below.get(depth) else "└─") if depth else ""))
        open_below = {level: True for level in open_below if level < depth and open_below[level]} | {depth: True}
    return found[::-1]


def _ruler(length: int, width: int) -> Text:
    end = words.duration(length)
    return Text("0" + end.rjust(width - 1))


def _bar(row: SpanRow, start: int, length: int, width: int) -> Text:
    """The queue wait as a thin line, the worker's hold as a coarser one, then the block; the shortest is a sliver."""
    begin, cells = width * (row.start_ns - start) / length, width * row.duration_ns / length
    first = min(int(begin), width - 1)
    blank = min(int(width * (row.start_ns - row.wait_ns - start) / length), first)
    taken = min(max(round(width * (row.start_ns - row.held_ns - start) / length), blank), first)
    # A span shorter than a cell is drawn by its length alone: where in the cell it began can't be shown.
    full, eighths = divmod(round(8 * (begin + cells - first if cells >= 1 else max(cells, 0.125))), 8)
    block = _FULL * full + _EIGHTHS[eighths].strip()
    text = Text(" " * blank + "┄" * (taken - blank), style="dim")
    text.append("╌" * (first - taken), style="yellow")
    shape = "░" * len(block) if row.synthesised else block
    text.append(shape[: width - first], style="red" if row.error else _PARTS[row.part])
    return text
