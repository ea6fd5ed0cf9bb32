"""Does each gate see the defect that it is there for? Mutants are run, and a matrix says which gate turned red.

Rule 1: a mutant is killed by the gates that it names, each of them; another gate that turns red does not count.
Rule 2: a gate that is red for the healthy service too says nothing of a mutant. Rule 3: a run in which nothing can be
trusted or that was not made leaves a mutant unjudged, which is no kill and no survival.

    matrix      what runs say of mutants and gates: pure
    results     trials as lines of a file that a campaign goes on from
    campaign    which runs are made, in which order
    views       the matrix as text, Markdown and JSON: pure

Called by cli.
"""

from __future__ import annotations

from mailrig.mutation.campaign import Campaign, RunOne, chosen, without_mutant
from mailrig.mutation.matrix import Matrix, Row, Trial, judge, matrix_of, unguarded
from mailrig.mutation.results import Results
from mailrig.mutation.views import as_json, as_markdown, as_text, listing

__all__ = [
    "Campaign",
    "Matrix",
    "Results",
    "Row",
    "RunOne",
    "Trial",
    "as_json",
    "as_markdown",
    "as_text",
    "chosen",
    "judge",
    "listing",
    "matrix_of",
    "unguarded",
    "without_mutant",
]
