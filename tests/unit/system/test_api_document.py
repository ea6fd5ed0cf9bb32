"""The OpenAPI document is valid, and it is the routes: no more, no fewer."""

from __future__ import annotations

import json
import re

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from test_api_door import application

from email_service import __main__ as command
from email_service.api import answers, document, openapi, schemas
from email_service.api.app import ROUTES

DOCUMENT = document(ROUTES)


def test_the_document_is_valid():
    assert [str(error) for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()] == []


def test_every_route_is_in_the_document_and_the_other_way_round(tmp_path):
    served = {
        (method, re.sub(r"<(\w+)>", r"{\1}", rule.rule))
        for rule in application(tmp_path).url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }
    told = {(method.upper(), path) for path, item in DOCUMENT["paths"].items() for method in item}
    assert told == served


def test_the_document_is_served_without_a_token(tmp_path):
    answer = application(tmp_path).test_client().get("/api/v1/openapi.json")
    assert (answer.status_code, answer.json) == (200, json.loads(openapi.text(ROUTES)))


def test_the_document_is_printed(capsys):
    assert command.main(["openapi"]) == 0
    assert json.loads(capsys.readouterr().out) == DOCUMENT


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_a_route_says_what_it_is_and_what_can_go_wrong(route):
    operation = DOCUMENT["paths"][f"/api/v1/{{tenant}}{route.path}"][route.method.lower()]
    assert operation["summary"]
    assert not operation["summary"].endswith(".")
    assert {"401", "403", "429", "503"} < set(operation["responses"])
    names = {parameter["name"] for parameter in operation["parameters"]}
    assert set(route.ids) <= names
    makes_work = route.method == "POST" and route.status == 202
    assert route.idempotent == ("Idempotency-Key" in names) == makes_work


def test_secrets_go_in_and_never_come_out():
    shapes = DOCUMENT["components"]["schemas"]
    for name in ("NewClient", "ClientChange"):
        properties = shapes[name]["properties"]
        for secret in ("password", "token"):
            assert '"writeOnly": true' in json.dumps(properties[secret])
    assert not {"password", "token", "credential_id"} & set(shapes["Client"]["properties"])


def test_every_object_is_closed():
    shapes = DOCUMENT["components"]["schemas"]
    open_ones = [
        n for n, s in shapes.items() if s.get("type") == "object" and s.get("additionalProperties") is not False
    ]
    assert open_ones == []


def test_every_model_of_an_answer_is_used():
    told = set(DOCUMENT["components"]["schemas"])
    models = {
        name
        for module in (answers, schemas)
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, schemas.Model) and not name.startswith("_")
    }
    assert models - told == {"Model", "Body", "Nothing", "Page", "MessagePage", "FeedPage"}
