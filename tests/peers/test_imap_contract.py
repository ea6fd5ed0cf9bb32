"""One IMAP contract for fakemail, Dovecot and GreenMail: the fake is held to what the real servers are.

A case that a server can't do stands in ``contract/lacks.py``; when it can, the test says so by failing.
"""

from __future__ import annotations

import re

import pytest
from contract.box import Box
from contract.cases import AREAS, CASES
from contract.lacks import LACKS, PEERS
from raw_imap import RawImapError


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_client_may_rely_on(peer, case, request):
    if lack := LACKS[peer.name].get(case.name):
        known = (AssertionError, RawImapError)
        request.applymarker(pytest.mark.xfail(strict=True, raises=known, reason=lack))
    with Box(peer) as box:
        case.ask(box)


def test_every_lack_is_of_a_case_that_is_there():
    assert set(LACKS) == set(PEERS)
    for peer, lacks in LACKS.items():
        assert set(lacks) <= set(CASES), peer


def test_a_lack_of_a_capability_is_told_of_cases_that_need_it():
    for lacks in LACKS.values():
        for name, lack in lacks.items():
            if found := re.fullmatch(r"no ([A-Z][A-Z0-9=-]+)", lack):
                assert found[1] in CASES[name].needs, name


def test_fakemail_lacks_nothing():
    assert LACKS["fakemail"] == {}


def test_every_area_has_cases():
    assert {case.area for case in CASES.values()} == set(AREAS)
    assert len(CASES) >= 60
