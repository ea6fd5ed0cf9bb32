"""fakemail's command line: the servers as a process of their own, and small commands around them.

Owns: the exit code, and how an error is told: one line on standard error. Never does: anything before ``main``, so that
ctrl-C is quiet while the rest is imported.
"""

from __future__ import annotations

import os
import sys

from fakemail import FakemailError


def main(argv: list[str] | None = None) -> int:
    """Run a command, or serve until SIGTERM or SIGINT; answers the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(words)
        sys.stdout.flush()
    except FakemailError as err:
        from fakemail.client import ControlError

        print(f"fakemail: {err}", file=sys.stderr)
        # What a running fakemail answers is no mistake of this command line.
        return 1 if isinstance(err, ControlError) else 2
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:
        # A reader such as head has seen enough; Python's own flush at the end has nowhere to go either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _run(words: list[str]) -> int:
    from fakemail.command_line.commands import COMMANDS

    if words and words[0] in COMMANDS:
        return COMMANDS[words[0]](words[1:])
    if {"-h", "--help"} & set(words):
        from fakemail.command_line.parser import parser

        # At once, without the servers.
        parser().print_help()
        return 0
    from fakemail.command_line.running import serve

    return serve(words)


if __name__ == "__main__":
    sys.exit(main())
