"""Scripts by which bash, zsh and fish complete ``mailrig``: made from the parser, so that they know what it knows.

Pure: a parser and the names that its words may have in, a text out. Runs are looked up by the script itself, in the
folder where it is used. Called by cli.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: What a word may be that is not one of a list: nothing that we know, a file, a run.
ANY, FILE, RUN = "any", "file", "run"
#: Where runs are kept unless the command line says otherwise.
_RUNS: Final = "runs"
_HELP_CHARS_MAX: Final = 70


@dataclass(frozen=True, kw_only=True)
class Word:
    """What a word of the command line may be."""

    #: ``ANY``, ``FILE`` or ``RUN``.
    kind: str = ANY
    #: Names that it may have besides.
    names: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Option:
    """An option of a command."""

    #: How it is written, such as ``-o`` and ``--output``.
    flags: tuple[str, ...]
    help: str
    #: What follows it; None for a switch.
    value: Word | None


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command, with all that may follow it."""

    name: str
    help: str
    options: tuple[Option, ...]
    #: What stands without an option; the last one goes on.
    places: tuple[Word, ...]


def script(parser: argparse.ArgumentParser, shell: str, names: Mapping[str, Sequence[str]]) -> str:
    """The script for one of ``SHELLS``; ``names`` has the words of an argument by its ``dest``."""
    return SHELLS[shell](parser.prog, [*commands_of(parser, names)])


def commands_of(parser: argparse.ArgumentParser, names: Mapping[str, Sequence[str]]) -> Iterator[Command]:
    """The commands of a parser, in their order."""
    for group in _actions(parser):
        if not isinstance(group, argparse._SubParsersAction):  # noqa: SLF001  # argparse shows its parts in no other way
            continue
        helps = {choice.dest: choice.help for choice in group._choices_actions}  # noqa: SLF001  # as above
        for name, command in group.choices.items():
            found = _actions(command)
            yield Command(
                name=name,
                help=_short(helps.get(name)),
                options=tuple(_option(action, names) for action in found if action.option_strings),
                places=tuple(_word(action, names) for action in found if not action.option_strings),
            )


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return parser._actions  # noqa: SLF001  # as above


def _option(action: argparse.Action, names: Mapping[str, Sequence[str]]) -> Option:
    value = None if action.nargs == 0 else _word(action, names)
    return Option(flags=tuple(action.option_strings), help=_short(action.help), value=value)


def _word(action: argparse.Action, names: Mapping[str, Sequence[str]]) -> Word:
    words = tuple(str(choice) for choice in action.choices or names.get(action.dest, ()))
    is_file = action.type is Path or action.metavar == "FILE" or " file" in (action.help or "")
    return Word(kind=RUN if action.metavar == "RUN" else FILE if is_file else ANY, names=words)


def _short(text: str | None) -> str:
    """One line; what stands in brackets is for the help."""
    plain = re.sub(r"\s*\(.*", "", (text or "").partition(";")[0], flags=re.DOTALL)
    return " ".join(plain.replace("%%", "%").split())[:_HELP_CHARS_MAX]


def _flags(command: Command) -> str:
    return " ".join(flag for option in command.options for flag in option.flags)


# --- bash -------------------------------------------------------------------------------------------------------------

_BASH: Final = """\
# bash completion for {prog}: source <({prog} completion bash)
_{prog}() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} command=${{COMP_WORDS[1]}} names= kind=any
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{commands} --help" -- "$word"))
    return
  fi
  case "$command $before" in
{values}
    *)
      case "$command" in
{places}
      esac
      ;;
  esac
  if [ "$kind" = run ]; then
    names="$names $(command ls {runs} 2>/dev/null)"
    kind=file
  fi
  COMPREPLY=($(compgen -W "$names" -- "$word"))
  if [ "$kind" = file ]; then
    COMPREPLY+=($(compgen -f -- "$word"))
  fi
}}
complete -o filenames -F _{prog} {prog}
"""


def _bash(prog: str, commands: Sequence[Command]) -> str:
    values = (
        f"    {' | '.join(_quoted(f'{c.name} {flag}') for flag in o.flags)}) {_bash_word(o.value)} ;;"
        for c in commands
        for o in c.options
        if o.value is not None
    )
    places = (
        f"        {c.name}) case \"$word\" in -*) names='{_flags(c)}' ;; *) {_bash_word(_union(c.places))} ;; esac ;;"
        for c in commands
    )
    listed = " ".join(c.name for c in commands)
    return _BASH.format(prog=prog, commands=listed, values="\n".join(values), places="\n".join(places), runs=_RUNS)


def _bash_word(word: Word) -> str:
    return f"names={_quoted(' '.join(word.names))} kind={word.kind}"


def _union(words: Iterable[Word]) -> Word:
    """Bash is not told which place it is: any of them."""
    listed = [*words]
    kinds = {word.kind for word in listed}
    kind = RUN if RUN in kinds else FILE if FILE in kinds else ANY
    return Word(kind=kind, names=tuple(name for word in listed for name in word.names))


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


# --- zsh --------------------------------------------------------------------------------------------------------------

_ZSH: Final = """\
#compdef {prog}
# zsh completion for {prog}: source <({prog} completion zsh), or a file _{prog} in a folder of $fpath
_{prog}_runs() {{ _alternative 'runs:run:(${{(f)"$(command ls {runs} 2>/dev/null)"}})' 'files:file:_files' }}
_{prog}() {{
  local context state state_descr line
  typeset -A opt_args
  _arguments -C '(-h --help)'{{-h,--help}}'[show the help]' '1: :->command' '*:: :->rest'
  case $state in
    command)
      local -a listed
      listed=(
{commands}
      )
      _describe command listed
      ;;
    rest)
      case $words[1] in
{cases}
      esac
      ;;
  esac
}}
if [ "$funcstack[1]" = _{prog} ]; then _{prog} "$@"; else compdef _{prog} {prog}; fi
"""


def _zsh(prog: str, commands: Sequence[Command]) -> str:
    listed = (f"        {_quoted(f'{c.name}:{_colons(c.help)}')}" for c in commands)
    cases = (f"        {c.name}) _arguments {' '.join(_zsh_specs(prog, c))} ;;" for c in commands)
    return _ZSH.format(prog=prog, commands="\n".join(listed), cases="\n".join(cases), runs=_RUNS)


def _zsh_specs(prog: str, command: Command) -> Iterator[str]:
    for option in command.options:
        text = re.sub(r"([\[\]])", r"\\\1", _colons(option.help))
        value = "" if option.value is None else f":{_zsh_word(prog, option.value)}"
        yield from (_quoted(f"*{flag}[{text}]{value}") for flag in option.flags)
    for position, place in enumerate(command.places, start=1):
        last = position == len(command.places)
        yield _quoted(f"{'*' if last else position}:{_zsh_word(prog, place)}")


def _zsh_word(prog: str, word: Word) -> str:
    names = f"({' '.join(word.names)})" if word.names else ""
    if word.kind == RUN:
        return f"run:_{prog}_runs"
    if word.kind == FILE and not names:
        return "file:_files"
    return f"name:{names or ' '}"


def _colons(text: str) -> str:
    return text.replace("\\", "\\\\").replace(":", "\\:")


# --- fish -------------------------------------------------------------------------------------------------------------

_FISH: Final = """\
# fish completion for {prog}: {prog} completion fish | source
complete -c {prog} -f
{lines}
"""


def _fish(prog: str, commands: Sequence[Command]) -> str:
    lines = [
        f"complete -c {prog} -n __fish_use_subcommand -a {c.name} -d {_fish_quoted(c.help)}" for c in commands
    ]  # fmt: skip
    for command in commands:
        here = f"complete -c {prog} -n '__fish_seen_subcommand_from {command.name}'"
        lines += [f"{here} {_fish_option(option)}" for option in command.options]
        lines += [f"{here} {text}" for place in command.places if (text := _fish_word(place))]
    return _FISH.format(prog=prog, lines="\n".join(lines))


def _fish_option(option: Option) -> str:
    flags = " ".join(f"-l {f[2:]}" if f.startswith("--") else f"-s {f[1:]}" for f in option.flags)
    # -r: a word follows; without -f in the option's own line files are offered as well.
    value = "" if option.value is None else f" -r {_fish_word(option.value) or '-f'}"
    return f"{flags} -d {_fish_quoted(option.help)}{value}"


def _fish_word(word: Word) -> str:
    names = " ".join(word.names) + (f" (command ls {_RUNS} 2>/dev/null)" if word.kind == RUN else "")
    files = "-F" if word.kind in {FILE, RUN} else "-f" if names.strip() else ""
    return " ".join(part for part in (files, f"-a {_fish_quoted(names.strip())}" if names.strip() else "") if part)


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SHELLS: Final[Mapping[str, Callable[[str, Sequence[Command]], str]]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
