"""The runbook's queries are asked as the role that it names, of the views as they are."""

import re
from pathlib import Path

import psycopg
import pytest

RUNBOOK = (Path(__file__).parents[2] / "dashboards" / "RUNBOOK.md").read_text()
QUERIES = [*re.findall(r"```sql\n(.*?)\n```", RUNBOOK, re.DOTALL), *re.findall(r"`(SELECT [^`]+)`", RUNBOOK)]


def test_the_runbook_has_queries():
    assert len(QUERIES) >= 4


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_of_the_runbook_is_answered(query, postgres):
    with psycopg.connect(postgres.audit) as connection:
        assert connection.execute(query).description
