"""How much memory a worker needs: the limit to set for a concurrency and a task mix, and the other way round.

estimate   what a run's samples and executions say
asking     the question and the answer of ``mailrig budget``
"""

from mailrig.budget.asking import add_arguments, answer, own_mix, parse_mix
from mailrig.budget.estimate import MIB, Budget, BudgetError, estimate, read_budget

__all__ = [
    "MIB",
    "Budget",
    "BudgetError",
    "add_arguments",
    "answer",
    "estimate",
    "own_mix",
    "parse_mix",
    "read_budget",
]
