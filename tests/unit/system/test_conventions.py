"""Names of attributes against the conventions' own model, as the package of that name generates it."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import pytest
from opentelemetry.semconv import attributes as stable
from opentelemetry.semconv._incubating import attributes as incubating
from opentelemetry.semconv._incubating.attributes.db_attributes import DbSystemNameValues
from opentelemetry.semconv._incubating.attributes.messaging_attributes import MessagingOperationTypeValues
from opentelemetry.semconv.schemas import Schemas

import email_service
from email_service import signals

NAME = re.compile(r"[a-z]+(\.[a-z_]+)+")
OURS = {
    constant: value
    for constant, value in vars(signals).items()
    if isinstance(value, str) and NAME.fullmatch(value) and not value.startswith("mail.")
}
#: No convention has mail, and the conventions' list of messaging systems is open: these are ours to choose.
OPEN = {"redis"}
MESSAGING = Path(email_service.__file__).parent / "telemetry" / "messaging.py"


CONSTANT = re.compile(r'^[A-Z_0-9]+: Final = "([^"]+)"\n(?:"""(.*?)""")?', re.MULTILINE | re.DOTALL)


def read_model(*packages):
    """Each attribute's name with the text below its constant, where a deprecation is told; the last package wins."""
    modules = [f"{package.__name__}.{m.name}" for package in packages for m in pkgutil.iter_modules(package.__path__)]
    sources = [Path(importlib.import_module(name).__file__).read_text() for name in modules]
    return {name: doc for source in sources for name, doc in CONSTANT.findall(source)}


#: What is stable stands in the other package too, as deprecated in favour of its stable constant.
MODEL = read_model(incubating, stable)


def test_the_model_tells_what_is_deprecated():
    """Or the tests below could not fail."""
    assert len(MODEL) > 500
    assert "Deprecated" in MODEL["http.method"]
    assert "Deprecated" not in MODEL["http.request.method"]


@pytest.mark.parametrize("constant", OURS)
def test_a_name_that_is_not_ours_is_one_of_the_conventions_and_not_deprecated(constant):
    assert OURS[constant] in MODEL
    assert "Deprecated" not in MODEL[OURS[constant]]


def test_what_is_done_with_a_message_is_of_a_type_that_the_conventions_know():
    said = set(re.findall(r'_messaging\("(\w+)", "(\w+)"', MESSAGING.read_text()))
    known = {value.value for value in MessagingOperationTypeValues} - {"deliver", "publish"}
    assert {operation for operation, _ in said} == {"send", "process", "settle"}
    assert {kind for _, kind in said} <= known


def test_the_name_of_a_span_begins_with_its_operation():
    for name in (signals.SPAN_SEND, signals.SPAN_PROCESS, signals.SPAN_SETTLE):
        assert re.fullmatch(r"(send|process|settle) \{queue\}", name)


def test_the_systems_are_spelt_as_the_conventions_have_them():
    assert {signals.SYSTEM_REDIS, "postgresql"} <= {value.value for value in DbSystemNameValues} | OPEN


def test_the_version_that_is_claimed_is_the_one_that_the_names_were_held_against():
    assert Schemas(signals.SCHEMA_URL) is list(Schemas)[-1]
    assert signals.SCHEMA_URL.rpartition("/")[2].startswith("1.44")
    assert "semantic conventions 1.44" in (signals.__doc__ or "")
