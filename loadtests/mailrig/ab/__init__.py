"""Two revisions of the service, or two settings, run in turn on one seed: is the second one slower?

    figures    what is compared, and what a run says of it
    decision   from blocks of runs to a verdict, and how often that errs; pure
    sides      copies of the service as it was at a revision, with what is planted in it
    book       what was run so far: a comparison that was cut off goes on
    table      what a person reads
    course     the runs themselves, in the order ABBA, BAAB, ...
    command    its arguments, and what it answers

A and B are interleaved so that what the machine does beside them meets both. Called by cli.
"""

from __future__ import annotations

from mailrig.ab.command import act, add_arguments

__all__ = ["act", "add_arguments"]
