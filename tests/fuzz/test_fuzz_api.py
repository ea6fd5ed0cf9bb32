"""The API under requests that are made from its own document: no defect, and every answer is what the document says.

Another short pass with a fixed seed is among the stack tests, which share one database.
"""

from __future__ import annotations

import os
import time
from collections import Counter

import pytest
from api_fuzz import GenerationMode, fuzz, operations
from database_server import database_server
from fuzz_campaign import SHARES, say, seconds, seed
from http_desk import Desk, application
from sqlalchemy import text

from email_service.config import database_url
from email_service.tenancy import SYSTEM, Database

#: Examples of one operation in one round; every run has one round at least.
EXAMPLES = 25 if "FUZZ_SECONDS" in os.environ else 2


def rows(url):
    return Database(
        database_url({"DATABASE_URL": url}, "DATABASE_URL"), pool_size=2, max_overflow=2, application_name="fuzz"
    )


@pytest.fixture
def desk(tmp_path):
    with database_server(tmp_path) as urls:
        app_rows, system_rows = rows(urls.app), rows(urls.system)
        with system_rows.session(SYSTEM) as session:
            session.execute(text("INSERT INTO tenants (id) VALUES ('fuzz')"))
            session.commit()
        app, hands = application(urls, app_rows, system_rows, tmp_path)
        yield Desk.open(app, hands, "fuzz")
        app_rows.dispose()
        system_rows.dispose()


@pytest.mark.timeout(seconds() + 100)
def test_fuzz_api_answers_what_its_document_says(desk):
    say(f"\nfuzz api: FUZZ_SEED={seed()}, {seconds() * SHARES['api']:.0f} s")
    deadline, round_number, told = time.monotonic() + seconds() * SHARES["api"], 0, Counter()
    found = operations(desk.app)
    while not round_number or time.monotonic() < deadline:
        for name, operation in found.items():
            for mode in GenerationMode.POSITIVE, GenerationMode.NEGATIVE:
                number = seed() * 1000 + round_number
                say_of = fuzz(operation, desk, examples=EXAMPLES, seed=number, mode=mode)
                told.update({(name, status): count for status, count in say_of.items()})
        round_number += 1
    say("\n".join(f"{name:24} {status} {count}" for (name, status), count in sorted(told.items())))
    assert any(status < 300 for _, status in told), "nothing was ever accepted: the requests don't reach it"
