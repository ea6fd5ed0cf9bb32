"""Scenario and contract files: found by name, read, validated, overridden."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from fakemail.faults import FaultError, parse_fault
from mailrig.scenario.errors import ScenarioError, UnknownNameError
from mailrig.scenario.layers import (
    Block,
    at_full_length,
    at_usual_length,
    blocks_of,
    extended,
    gate_ids,
    has_full_length,
    joined,
    replayed,
    without_own_keys,
)
from mailrig.scenario.model import (
    ARRIVALS,
    NEMESIS,
    NEMESIS_ACTIONS,
    OPS,
    QUEUES,
    SEVERITIES,
    Contract,
    Gate,
    Load,
    LoadOp,
    Nemesis,
    Population,
    Scenario,
    Stage,
    System,
)
from mailrig.scenario.table import Origins, Table, parse_toml, read_text

_PACKAGE: Final = Path(__file__).resolve().parents[1]
#: Beside the package in a source tree, inside it when installed (pyproject: force-include).
_ROOTS: Final = (_PACKAGE.parent, _PACKAGE / "data")
#: A steeper one gives all to the first.
_ZIPF_MAX: Final = 5.0
#: What a file that is extended may hold; the first is what stands before any table.
_BASE_TABLES: Final = ("", "system", "population", "drain", "validity", "gate")


def scenario_names() -> list[str]:
    """The scenarios that ship with the rig."""
    return sorted({file.stem for root in _ROOTS for file in (root / "scenarios").glob("*.toml")})


def load_scenario(name_or_path: str | Path, *, full: bool = False) -> Scenario:
    """The scenario of a name, or of a file (anything with a slash or ending in ``.toml``); ``full`` at its full length.

    Raises:
        UnknownNameError: no scenario has that name.
        ScenarioError: its file is wrong, or there is no full length.
    """
    file = _file_of(name_or_path)
    text = read_text(file)
    if not full:
        # A mistake in the other length is said as well, before somebody waits for an hour.
        _ = parse_scenario(text, file, full=True) if has_full_length(blocks_of(text, file)) else None
    return parse_scenario(text, file, full=full)


def full_lengths(name_or_path: str | Path) -> Scenario | None:
    """The scenario at its full length; None when it has but one length."""
    file = _file_of(name_or_path)
    text = read_text(file)
    return parse_scenario(text, file, full=True) if has_full_length(blocks_of(text, file)) else None


def _file_of(name_or_path: str | Path) -> Path:
    name = str(name_or_path)
    if isinstance(name_or_path, Path) or "/" in name or name.endswith(".toml"):
        return Path(name_or_path)
    for root in _ROOTS:
        if (file := root / "scenarios" / f"{name}.toml").is_file():
            return file
    raise UnknownNameError("scenario", name, scenario_names())


def parse_scenario(text: str, file: Path, *, full: bool = False) -> Scenario:
    """The scenario that ``text`` describes; ``file`` is for messages, and what it extends is looked for beside it."""
    whole, origins = _whole(text, file, full=full)
    top = parse_toml(whole, file, origins)
    population = _population(top.table("population"))
    system = top.table("system")
    drain = top.table("drain")
    scenario = Scenario(
        name=top.text("name"),
        description=top.text("description"),
        seed=top.integer("seed"),
        load=_load(top.table("load")),
        population=population,
        system=System(
            time_scale=system.number("time_scale", default=1.0, minimum=0.05, maximum=1),
            concurrency=system.integer("concurrency", default=4, minimum=1),
            trace_sample=system.number("trace_sample", default=1.0, maximum=1),
            environment=system.variables("environment"),
        ),
        faults=tuple(_fault(table) for table in top.tables("fault")),
        nemesis=tuple(action for table in top.tables("nemesis") for action in _nemesis(table)),
        drain_timeout_s=drain.number("timeout_s", minimum=1),
        gates=_gates(top),
        file=file,
        text=whole,
        full=full,
    )
    for table in (system, drain, top):
        table.done()
    return scenario


def _whole(text: str, file: Path, *, full: bool) -> tuple[str, Origins]:
    """The text with what it extends, at one of its lengths; one that does neither stays as it is."""
    top, blocks = parse_toml(text, file), blocks_of(text, file)
    name, without = top.text("extends", default=""), top.strings("without")
    if full and not has_full_length(blocks):
        raise ScenarioError("has one length only", file=file, allowed="[full.load] and the like, for --full")
    if not name and not without and not has_full_length(blocks):
        return text, {}
    blocks = at_full_length(blocks) if full else at_usual_length(blocks)
    base = _base(top, name, file)
    known = gate_ids(base)
    for gate in without:
        if gate not in known:
            raise top.error(f"names {gate!r}", key="without", allowed=f"gates of {name!r}: {', '.join(known)}")
    joined_text, lines = joined(extended(base, without_own_keys(blocks), without=without))
    return joined_text, {number: (line.file, line.number) for number, line in enumerate(lines, start=1)}


def _base(top: Table, name: str, file: Path) -> list[Block]:
    """The blocks of what a scenario extends: a file of that name in a folder ``parts``, beside it or beside ours."""
    if not name:
        return []
    folders = [file.parent / "parts", *(root / "scenarios" / "parts" for root in _ROOTS)]
    found = next((path for folder in folders if (path := folder / f"{name}.toml").is_file()), None)
    if found is None:
        known = sorted({path.stem for folder in folders for path in folder.glob("*.toml")})
        raise top.error(f"= {name!r} is not there", key="extends", allowed=", ".join(known))
    text = read_text(found)
    parse_toml(text, found)
    blocks = blocks_of(text, found)
    for block in blocks:
        if block.path not in _BASE_TABLES:
            line = next(line for line in block.lines if line.text.lstrip().startswith("["))
            raise ScenarioError(
                f"{block.path} can't be inherited", file=found, line=line.number, allowed=", ".join(_BASE_TABLES[1:])
            )
    return blocks


def with_overrides(
    scenario: Scenario,
    *,
    seed: int | None = None,
    nemesis: Sequence[str] = (),
    system: Mapping[str, float] = MappingProxyType({}),
    gates: str = "",
    replay: Mapping[str, Sequence[float]] = MappingProxyType({}),
) -> Scenario:
    """The scenario with another seed, other numbers of the system, more faults (``ACTION@SECONDS``) and gates.

    With ``replay``, seconds by kind of request, arrivals come at those times. Its text says so too.

    Raises:
        ScenarioError: an action is not known, or its time is not a number.
    """
    text = scenario.text
    if seed is not None:
        text = re.sub(r"(?m)^seed\s*=\s*\S+", f"seed = {seed}", text, count=1)
    for key, value in system.items():
        text = re.sub(rf"(?m)^{key}\s*=.*\n", "", text, count=1)
        text = re.sub(r"(?m)^\[system\].*$", f"[system]\n{key} = {value}", text, count=1)
    if replay:
        text, _ = joined(replayed(blocks_of(text, scenario.file), replay))
    for argument in nemesis:
        action, _, at_s = argument.partition("@")
        if action not in NEMESIS_ACTIONS or not re.fullmatch(r"\d+(\.\d+)?", at_s):
            allowed = f"ACTION@SECONDS with {', '.join(NEMESIS_ACTIONS)}"
            raise ScenarioError(f"nemesis {argument!r} is not allowed", file=scenario.file, allowed=allowed)
        text += f'\n[[nemesis]]\nat_s = {at_s}\naction = "{action}"\n'
    return replace(parse_scenario(text + gates, scenario.file), full=scenario.full)


def _load(table: Table) -> Load:
    arrivals = table.text("arrivals", choices=ARRIVALS)
    ops = tuple(_load_op(op, arrivals) for op in table.tables("op"))
    if not ops:
        raise table.error("has no operation", allowed=f"[[load.op]] with f = {' or '.join(OPS)}")
    load = Load(
        arrivals=arrivals,
        warmup_s=table.number("warmup_s", default=0.0),
        duration_s=table.number("duration_s", minimum=1),
        ops=ops,
        stages=tuple(_stage(stage) for stage in table.tables("stage")),
    )
    table.done()
    return load


def _times(table: Table, arrivals: str) -> tuple[float, ...]:
    """Given times are for ``replay``, which needs them."""
    if arrivals != "replay":
        return ()
    return table.numbers("at_s")


def _load_op(table: Table, arrivals: str) -> LoadOp:
    op = LoadOp(
        f=table.text("f", choices=OPS),
        rate_per_s=table.number("rate_per_s", default=0.0 if arrivals == "replay" else None),
        recipients_max=table.integer("recipients_max", default=1, minimum=1),
        cc_share=table.number("cc_share", default=0.0, maximum=1),
        bcc_share=table.number("bcc_share", default=0.0, maximum=1),
        attachment_share=table.number("attachment_share", default=0.0, maximum=1),
        zipf=table.number("zipf", default=0.0, maximum=_ZIPF_MAX),
        at_s=_times(table, arrivals),
    )
    table.done()
    return op


def _stage(table: Table) -> Stage:
    stage = Stage(duration_s=table.number("duration_s"), factor=table.number("factor"))
    table.done()
    return stage


def _population(table: Table) -> Population:
    population = Population(
        tenants=table.integer("tenants", minimum=1),
        mailboxes=table.integer("mailboxes", minimum=1),
        messages_per_mailbox=table.integer("messages_per_mailbox"),
        profile=table.text("profile", default="small"),
    )
    if population.mailboxes < population.tenants:
        raise table.error(
            f"= {population.mailboxes} leaves a tenant without one",
            key="mailboxes",
            allowed=f"a whole number >= tenants ({population.tenants})",
        )
    table.done()
    return population


def _fault(table: Table) -> Mapping[str, Any]:
    """A fault as fakemail reads it: its own parser is the only one, so that nothing is refused in mid-run."""
    fault = table.rest()
    try:
        parse_fault(fault, where="fault")
    except FaultError as err:
        # ``where`` is fault.KEY or fault.KEY.KEY.
        raise table.refuse(str(err), key=[*err.where.split("."), None][1]) from err
    return fault


def _nemesis(table: Table) -> Iterator[Nemesis]:
    """One action, or one every ``every_s`` seconds up to ``until_s``."""
    at_s = until_s = table.number("at_s")
    every_s = 1.0
    if "every_s" in table.keys() or "until_s" in table.keys():  # noqa: SIM118  # a table, not a dict
        every_s, until_s = table.number("every_s", minimum=0.1), table.number("until_s", minimum=at_s)
    action = table.text("action", choices=NEMESIS_ACTIONS)
    options = _options(table, action)
    table.done()
    for turn in range(int((until_s - at_s) / every_s) + 1):
        yield Nemesis(at_s=at_s + turn * every_s, action=action, options=options)


def _options(table: Table, action: str) -> Mapping[str, Any]:
    """What an action is told besides its time; a fault is laid open, as the action takes it."""
    given, options = table.keys(), dict[str, Any]()
    if "queue" in given and "queue" in NEMESIS[action]:
        options["queue"] = table.text("queue", choices=QUEUES)
    if "for_s" in NEMESIS[action] and ("for_s" in given or action == "put-fault"):
        options["for_s"] = table.number("for_s", minimum=0.1)
    if "fault" in NEMESIS[action]:
        options |= _fault(table.table("fault"))
    if "id" in NEMESIS[action]:
        options["id"] = table.text("id")
    return options


def _gates(top: Table) -> tuple[Gate, ...]:
    validity = top.table("validity", optional=True)
    gates = [
        Gate(id=key, kind="validity", metric=key, check=validity.text(key), **_origin(validity, key))
        for key in validity.keys()  # noqa: SIM118  # a table, not a dict
    ]
    for table in top.tables("gate"):
        gate = Gate(
            id=table.text("id"),
            kind="gate",
            metric=table.text("metric"),
            check=table.text("check"),
            severity=table.text("severity", default="fail", choices=SEVERITIES),
            window=table.text("for", default=""),
            min_effect=table.text("min_effect", default=""),
            abort=table.flag("abort"),
            **_origin(table, "id"),
        )
        table.done()
        if gate.id in {other.id for other in gates}:
            raise table.error(f"= {gate.id!r} is there twice", key="id", allowed="an id of its own")
        gates.append(gate)
    return tuple(gates)


def _origin(table: Table, key: str) -> dict[str, Any]:
    file, line = table.origin(key)
    return {"line": line, "file": None if file == table.file else file}


def load_contract(path: Path | None = None) -> Contract:
    """The contract of a file, or the one that ships with the rig."""
    file = path or next((f for root in _ROOTS if (f := root / "contract.toml").is_file()), _ROOTS[0] / "contract.toml")
    text = read_text(file)
    values: dict[str, float | str | tuple[float, ...]] = {}
    top = parse_toml(text, file)
    if top.integer("schema_version") != 1:
        raise top.error("is not one that this version reads", key="schema_version", allowed="1")
    for section in top.rest():
        table = top.table(section)
        for key, value in table.rest().items():
            values[f"{section}.{key}"] = _promise(value, table, key)
    return Contract(values=values, file=file, text=text)


def _promise(value: Any, table: Table, key: str) -> float | str | tuple[float, ...]:
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        return value
    if isinstance(value, list) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in value):
        return tuple(value)
    raise table.error(f"= {value!r} is not allowed", key=key, allowed="a number, a string or a list of numbers")
