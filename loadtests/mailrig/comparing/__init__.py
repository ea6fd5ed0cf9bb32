"""Two stored runs beside each other: what was measured differently, which gates changed, and what was not the same.

    figures   percentiles of both, the interval of their ratio, and whether that is more than noise; pure
    facts     what differs in how they were made; pure
    text      for a person, as Markdown and as JSON
    command   the arguments of ``mailrig diff``

Two runs alone can't tell a change from a bad minute of the machine, and it says so: ``ab`` can. Called by cli.
"""

from __future__ import annotations

from mailrig.comparing.command import act, add_arguments

__all__ = ["act", "add_arguments"]
