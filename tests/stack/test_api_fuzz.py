"""A short pass of requests that were made from the API's document; the long one is ``make fuzz``."""

from __future__ import annotations

import sys

import pytest
from api_fuzz import GenerationMode, Known, fuzz, odd_requests, operations
from http_desk import Desk, application

from email_service.api.app import ROUTES

SEED = 7
EXAMPLES = 4


@pytest.fixture
def desk(postgres, app_rows, system_rows, tenant, tmp_path):
    app, hands = application(postgres, app_rows, system_rows, tmp_path)
    return Desk.open(app, hands, tenant)


def test_answers_are_what_the_document_says(desk):
    sys.stdout.write(f"seed {SEED}\n")
    found = operations(desk.app)
    assert {route.name for route in ROUTES} <= set(found)
    for operation in found.values():
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            fuzz(operation, desk, examples=EXAMPLES, seed=SEED, mode=mode)


def test_what_no_document_allows_is_a_problem_and_never_a_defect(desk):
    known = Known(desk).ids()
    for method, path, options in odd_requests(known):
        answer = desk.call(method, path, **options)
        assert answer.status < 500, (method, path[:200], answer.data[:500])
        if answer.status >= 400:
            assert answer.headers["Content-Type"] == "application/problem+json", (method, path[:200])
