"""One process for all tests here; each begins with one user and nothing else."""

import pytest
from fakemail_harness import PASSWORD, USER, running


@pytest.fixture(scope="session")
def _shared():
    with running("--seed", "7") as fakes:
        yield fakes


@pytest.fixture
def fakes(_shared):
    """One user, nothing else."""
    _shared.control.reset()
    _shared.control.add_user(USER, PASSWORD)
    return _shared
