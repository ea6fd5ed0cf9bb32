"""The API under requests of every kind that its document allows, and of those that it does not.

Schemathesis makes the requests from the OpenAPI document and holds each answer against it. Half of the ids are those of
things that are there, so that the requests get behind the first look-up. Callers: the short pass of the stack tests,
the long one of the fuzzing.
"""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any

import hypothesis
import schemathesis
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

load_all_checks()
#: What every answer must keep to, whatever was asked.
CHECK_NAMES = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "allow_header_conformance",
)
ALWAYS = [CHECKS.get_one(name) for name in CHECK_NAMES]
#: What the document does not allow is refused.
REJECTED = CHECKS.get_one("negative_data_rejection")


def operations(app: Any) -> dict[str, Any]:
    """Each operation of the document by its id."""
    schema = schemathesis.openapi.from_wsgi("/api/v1/openapi.json", app)
    found = (result.ok() for result in schema.get_all_operations())
    by_id = {operation.definition.raw["operationId"]: operation for operation in found}
    # It says 503 where there is no broker, as it must; here is none.
    del by_id["health"]
    return by_id


class Known:
    """Things that are there; made anew where a request has removed them."""

    def __init__(self, desk: Any) -> None:
        self._desk = desk
        self._ids: dict[str, str] = {}

    def ids(self) -> dict[str, str]:
        """Ids by the name that paths and bodies give them."""
        self._ids = self._ids or self._made()
        return self._ids

    def lost(self) -> None:
        """Something was removed."""
        self._ids = {}

    def _made(self) -> dict[str, str]:
        client_id = self._desk.client()["id"]
        folder_id = self._desk.folder(client_id)
        task = self._desk.call("POST", f"/email/clients/{client_id}/sync").json
        return {
            "client_id": client_id,
            "folder_id": str(folder_id),
            "message_id": self._desk.message(client_id, folder_id=folder_id, raw=b"x"),
            "attachment_id": self._desk.upload()["id"],
            "task_id": task["task_id"],
        }


def aim(case: Any, tenant: str, known: dict[str, str], *, real: bool) -> None:
    """The token's tenant in the path, and ids of things that are there."""
    if "tenant" in (case.path_parameters or {}):
        case.path_parameters["tenant"] = tenant
    if not real:
        return
    for name, value in known.items():
        if name in (case.path_parameters or {}):
            case.path_parameters[name] = value
        if isinstance(case.body, dict) and isinstance(case.body.get(name), str):
            case.body[name] = value
    if isinstance(case.body, dict) and isinstance(case.body.get("message_ids"), list):
        case.body["message_ids"] = [known["message_id"]]


def told_wrong(case: Any) -> bool:
    """Whether body or query are what the document does not allow; tenant and token are ours again by now."""
    parts = {place.value: part.mode for place, part in case.meta.components.items()}
    return GenerationMode.NEGATIVE in (parts.get("query"), parts.get("body"))


def fuzz(operation: Any, desk: Any, *, examples: int, seed: int, mode: GenerationMode) -> Counter[int]:
    """Try one operation; the statuses that came back. Raises where an answer breaks the document."""
    statuses: Counter[int] = Counter()
    known = Known(desk)

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
        report_multiple_bugs=False,
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode), real=st.booleans())
    def one(case: Any, real: Any) -> None:
        aim(case, desk.scope.tenant_id, known.ids(), real=real)
        answer = case.call(headers={"Authorization": f"Bearer {desk.token}"})
        statuses[answer.status_code] += 1
        if answer.status_code == 204:
            known.lost()
        case.validate_response(answer, checks=ALWAYS if real or not told_wrong(case) else [*ALWAYS, REJECTED])

    one()
    return statuses


def odd_requests(known: dict[str, str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """What no document allows, by hand: method, path, and what is sent."""
    half = '{"client_id": "' + known["client_id"] + '", "to": ["a@b.example"], "subject": "\\ud800"}'
    deep = "[" * 50_000
    yield "POST", "/email/send", {"data": half, "content_type": "application/json"}
    yield "POST", "/email/send", {"data": deep, "content_type": "application/json"}
    yield "POST", "/email/send", {"data": b"\xff\xfe\x00", "content_type": "application/json; charset=utf-16"}
    yield "POST", "/email/send", {"data": b"{}", "content_type": "application/json; charset=\xff"}
    yield "POST", "/email/send", {"data": json.dumps({"client_id": 10**400}), "content_type": "application/json"}
    yield "POST", "/email/attachments", {"data": b"--b\r\n", "content_type": "multipart/form-data; boundary=b"}
    yield "POST", "/email/attachments", {"data": b"x", "content_type": "multipart/form-data"}
    yield "POST", "/email/attachments", {"data": _part('filename="a\\r\\nb"'), "content_type": _MULTIPART}
    yield "POST", "/email/attachments", {"data": _part('filename="\x00"'), "content_type": _MULTIPART}
    yield "POST", "/email/attachments", {"data": _part("filename*=utf-8''%00%0d%0a"), "content_type": _MULTIPART}
    yield "POST", "/email/attachments", {"data": _part("filename*=utf-8''%ED%A0%80"), "content_type": _MULTIPART}
    yield "POST", "/email/attachments", {"data": _part('filename="' + "x" * 5000 + '"'), "content_type": _MULTIPART}
    for query in ("limit=%00", "q=%ff%fe", "q=%ED%A0%80", "limit=" + "9" * 5000, "cursor=%00", "q=" + "%25" * 200):
        yield "GET", f"/email/messages?{query}", {}
    for query in ("after=%00", "after=" + "A" * 499, "limit=-1", "after=WzEsMSwxXQ=="):
        yield "GET", f"/tasks?{query}", {}
    for place in ("%00", "%ff", "..", "%2e%2e%2f", str(uuid.UUID(int=0)), "{" + known["client_id"] + "}", "x" * 3000):
        yield "GET", f"/email/clients/{place}", {}
        yield "DELETE", f"/email/attachments/{place}", {}
    yield "GET", f"/email/attachments/{known['attachment_id']}/content", {"headers": {"If-None-Match": "*, \xff"}}


_MULTIPART = "multipart/form-data; boundary=b"


def _part(parameter: str) -> bytes:
    head = f'--b\r\nContent-Disposition: form-data; name="file"; {parameter}\r\n\r\n'
    return head.encode("latin-1") + b"data\r\n--b--\r\n"
