"""A fakemail process on free ports."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from fakes_process import start, stop

from fakemail.client import FakeMail


@dataclass(frozen=True, kw_only=True)
class Running:
    smtp: tuple[str, int]
    imap: tuple[str, int]
    imaps: tuple[str, int]
    control: FakeMail


def where(facts, name):
    return facts[name]["host"], facts[name]["port"]


@pytest.fixture(scope="module")
def fakes(tmp_path_factory) -> Iterator[Running]:
    process, facts = start(tmp_path_factory.mktemp("fakes"))
    yield Running(
        smtp=where(facts, "smtp"),
        imap=where(facts, "imap"),
        imaps=where(facts, "imaps"),
        control=FakeMail(facts["control"]),
    )
    stop(process)


@pytest.fixture
def clean(fakes) -> Iterator[Running]:
    """The same process, forgetful."""
    fakes.control.reset()
    yield fakes
    fakes.control.reset()
