"""Messages and attachments at the API: listed, searched, read and downloaded; over real rows."""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from http_desk import Desk, application
from sqlalchemy import text
from sqlalchemy.event import listen

from email_service.api.messages import disposition
from email_service.models import EmailAttachment

DAY = datetime(2026, 1, 24, 12, tzinfo=UTC)


@pytest.fixture
def desk(postgres, app_rows, system_rows, tenant, tmp_path):
    app, hands = application(postgres, app_rows, system_rows, tmp_path)
    return Desk.open(app, hands, tenant)


@pytest.fixture
def box(desk):
    """A mailbox with an inbox: client id and folder id."""
    client_id = desk.client()["id"]
    return client_id, desk.folder(client_id)


def ids(desk, query=""):
    answer = desk.call("GET", f"/email/messages{query}")
    assert answer.status == 200, answer.data
    return [message["id"] for message in answer.json["messages"]]


def pages(desk, limit):
    found, cursor = [], ""
    while cursor is not None:
        page = desk.call("GET", f"/email/messages?limit={limit}{cursor and '&cursor=' + cursor}").json
        assert len(page["messages"]) <= limit
        found.append([message["id"] for message in page["messages"]])
        cursor = page["cursor"]
    return found


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 7, 8])
def test_pages_show_each_message_once_and_the_newest_first(desk, box, limit):
    """Two share a moment, and three have none: they come last."""
    client_id, folder_id = box
    moments = [None, DAY, DAY, DAY + timedelta(microseconds=1), None, DAY - timedelta(days=1), None]
    made = [(moment, desk.message(client_id, folder_id=folder_id, internal_date=moment)) for moment in moments]
    earliest = datetime.min.replace(tzinfo=UTC)
    wanted = [m for _, m in sorted(made, key=lambda row: (row[0] or earliest, uuid.UUID(row[1])), reverse=True)]
    found = pages(desk, limit)
    assert [message for page in found for message in page] == wanted
    assert all(found), "an empty page was shown"


def test_a_message_that_arrives_between_two_pages_moves_none(desk, box):
    client_id, folder_id = box
    made = [desk.message(client_id, folder_id=folder_id, internal_date=DAY + timedelta(hours=h)) for h in range(4)]
    page = desk.call("GET", "/email/messages?limit=2").json
    desk.message(client_id, folder_id=folder_id, internal_date=DAY + timedelta(hours=9))
    rest = desk.call("GET", f"/email/messages?limit=2&cursor={page['cursor']}").json
    assert [m["id"] for m in page["messages"] + rest["messages"]] == made[::-1]


@pytest.mark.parametrize(
    ("query", "columns"),
    [
        ("unseen=false", {"flags": ["\\Seen", "\\Answered"]}),
        ("spam=true", {"is_spam": True}),
        ("has_attachments=true", {"attachment_count": 2}),
        ("q=INVOICE", {"subject": "Your invoice 100%"}),
        ("q=0%25", {"subject": "Your invoice 100%"}),
        ("q=carol", {"sender": "Carol@example.test"}),
        ("q=a_c", {"subject": "a_c"}),
        ("q=%5C", {"subject": "back\\slash"}),
    ],
)
def test_a_filter_finds_what_fits_and_nothing_else(desk, box, query, columns):
    client_id, folder_id = box
    desk.message(client_id, folder_id=folder_id, subject="abc", sender="bob@example.test")
    wanted = desk.message(client_id, folder_id=folder_id, **columns)
    assert ids(desk, f"?{query}") == [wanted]


def test_filters_go_together_with_client_and_folder(desk, box):
    client_id, folder_id = box
    other_id = desk.client()["id"]
    other_folder = desk.folder(other_id)
    mine = desk.message(client_id, folder_id=folder_id)
    desk.message(other_id, folder_id=other_folder)
    assert ids(desk, f"?client_id={client_id}&folder_id={folder_id}&unseen=true") == [mine]
    assert ids(desk, f"?client_id={client_id}&folder_id={other_folder}") == []


def test_a_list_shows_a_preview_and_no_body(desk, box):
    client_id, folder_id = box
    desk.message(client_id, folder_id=folder_id, body_text="ü" * 5000, body_html="<p>canary</p>")
    (message,) = desk.call("GET", "/email/messages").json["messages"]
    assert message["preview"] == "ü" * 200
    assert "html" not in message


def test_html_is_data(desk, box):
    client_id, folder_id = box
    html = '<script>alert("x")</script>'
    made = desk.message(client_id, folder_id=folder_id, body_html=html, headers=[["Subject", "s"]])
    answer = desk.call("GET", f"/email/messages/{made}")
    assert (answer.json["html"], answer.json["headers"]) == (html, [["Subject", "s"]])
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_message_tells_why_it_is_spam(desk, box):
    client_id, folder_id = box
    why = [{"name": "caps", "points": 1.5, "detail": "SUBJECT"}]
    made = desk.message(
        client_id, folder_id=folder_id, is_spam=True, spam_score=5.5, spam_indicators=why, spam_checked_at=DAY
    )
    message = desk.call("GET", f"/email/messages/{made}").json
    assert (message["spam_score"], message["spam_indicators"]) == (5.5, why)
    assert message["spam_checked_at"] == "2026-01-24T12:00:00Z"


def test_raw_bytes_are_what_came_or_are_not_there(desk, box):
    client_id, folder_id = box
    raw = b"Subject: \x00\xff\r\n\r\nx"
    kept = desk.message(client_id, folder_id=folder_id, raw=raw)
    answer = desk.call("GET", f"/email/messages/{kept}/raw")
    assert (answer.data, answer.headers["Content-Type"]) == (raw, "message/rfc822")
    assert answer.headers["Content-Disposition"].startswith("attachment;")
    other = desk.message(client_id, folder_id=folder_id)
    assert desk.call("GET", f"/email/messages/{other}/raw").status == 404


def attach(desk, message_id, data, **columns):
    ref = desk.tools.blobs.put(desk.scope.tenant_id, data)
    row = {
        "id": uuid.uuid4(), "tenant_id": desk.scope.tenant_id, "user_id": desk.scope.user_id, "blob_key": ref.key,
        "message_id": uuid.UUID(message_id), "filename": "a.png", "content_type": "image/png",
        "size_bytes": len(data), "sha256": bytes.fromhex(ref.sha256),
    } | columns  # fmt: skip
    with desk.session() as session:
        session.add(EmailAttachment(**row))
        session.commit()
    return str(row["id"])


def test_an_attachment_is_downloaded_and_never_shown(desk, box):
    client_id, folder_id = box
    message_id = desk.message(client_id, folder_id=folder_id)
    data = b"<script>alert(1)</script>"
    made = attach(desk, message_id, data, filename='Über "uns".html', content_type="text/html", content_id="c1")
    (shown,) = desk.call("GET", f"/email/messages/{message_id}/attachments").json["attachments"]
    assert shown == desk.call("GET", f"/email/attachments/{made}").json
    assert (shown["sha256"], shown["content_id"]) == (hashlib.sha256(data).hexdigest(), "c1")
    answer = desk.call("GET", f"/email/attachments/{made}/content")
    assert (answer.data, answer.headers["Content-Type"]) == (data, "text/html")
    assert answer.headers["Content-Disposition"].startswith("attachment; ")
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_who_has_the_bytes_gets_none(desk):
    made = desk.upload()
    path = f"/email/attachments/{made['id']}/content"
    etag = desk.call("GET", path).headers["ETag"]
    assert etag == f'"{made["sha256"]}"'
    again = desk.call("GET", path, headers={"If-None-Match": f'"other", W/{etag}'})
    assert (again.status, again.data, again.headers["ETag"]) == (304, b"", etag)


@pytest.mark.parametrize("content_type", ["", "text/html\r\nX: y", "nonsense", "text/html; charset=utf-7", "ä/ü"])
def test_a_type_that_could_harm_a_header_is_bytes(desk, box, content_type):
    client_id, folder_id = box
    made = attach(desk, desk.message(client_id, folder_id=folder_id), b"x", content_type=content_type)
    answer = desk.call("GET", f"/email/attachments/{made}/content")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/octet-stream")


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("report.pdf", 'attachment; filename="report.pdf"'),
        ("a b.pdf", 'attachment; filename="a b.pdf"'),
        ("Über.pdf", "attachment; filename=\"_ber.pdf\"; filename*=UTF-8''%C3%9Cber.pdf"),
        ('a"b\\c.pdf', "attachment; filename=\"a_b_c.pdf\"; filename*=UTF-8''a%22b%5Cc.pdf"),
        ("a\r\nX-Y: z", "attachment; filename=\"a__X-Y: z\"; filename*=UTF-8''a%0D%0AX-Y%3A%20z"),
        ("100%25.txt", "attachment; filename=\"100_25.txt\"; filename*=UTF-8''100%2525.txt"),
    ],
)
def test_a_file_name_is_told_to_old_and_new_readers(name, header):
    assert disposition(name) == header


def test_an_upload_comes_back_as_it_was(desk):
    made = desk.upload(b"\x00\xff" * 1000, filename="Bericht ü.bin", content_type="application/x-thing")
    assert (made["filename"], made["content_type"], made["size_bytes"]) == (
        "Bericht ü.bin",
        "application/x-thing",
        2000,
    )
    assert desk.call("GET", f"/email/attachments/{made['id']}/content").data == b"\x00\xff" * 1000


def test_an_upload_goes_unless_a_send_needs_it(desk):
    client_id, taken, free = desk.client()["id"], desk.upload(b"1"), desk.upload(b"2")
    body = {"client_id": client_id, "to": ["x@y.example"], "html": "<img src=cid:i>"}
    inline = [{"attachment_id": taken["id"], "content_id": "i"}]
    task_id = desk.call("POST", "/email/send", json=body | {"inline": inline}).json["task_id"]
    answer = desk.call("DELETE", f"/email/attachments/{taken['id']}")
    assert (answer.status, task_id in answer.json["detail"]) == (409, True)
    assert desk.call("DELETE", f"/email/attachments/{free['id']}").status == 204
    assert desk.call("DELETE", f"/email/attachments/{free['id']}").status == 404


def test_the_attachment_of_a_message_is_no_upload(desk, box):
    client_id, folder_id = box
    made = attach(desk, desk.message(client_id, folder_id=folder_id), b"x")
    assert desk.call("DELETE", f"/email/attachments/{made}").status == 404
    body = {"client_id": client_id, "to": ["x@y.example"], "attachment_ids": [made]}
    assert desk.call("POST", "/email/send", json=body).status == 400


def test_nobody_else_reads_them(desk, box):
    client_id, folder_id = box
    message_id = desk.message(client_id, folder_id=folder_id, raw=b"x")
    made = attach(desk, message_id, b"x")
    other = Desk.open(desk.app, desk.tools, desk.scope.tenant_id, user="another")
    assert ids(other) == []
    for path in (
        f"/email/messages/{message_id}",
        f"/email/messages/{message_id}/raw",
        f"/email/messages/{message_id}/attachments",
        f"/email/attachments/{made}",
        f"/email/attachments/{made}/content",
    ):
        assert desk.call("GET", path).status == 200
        assert other.call("GET", path).status == 404
    for verb in ("delete", "spam"):
        assert other.call("POST", f"/email/{verb}", json={"message_ids": [message_id]}).status == 404


@pytest.mark.parametrize("query", ["limit=2", "limit=2&folder_id={}"])
def test_a_page_reads_an_index_from_where_the_last_one_ended(desk, box, query):
    """Deep pages cost what the first one costs: the position is a condition of the index, not a filter."""
    client_id, folder_id = box
    for hour in range(3):
        desk.message(client_id, folder_id=folder_id, internal_date=DAY + timedelta(hours=hour))
    query = query.format(folder_id)
    cursor = desk.call("GET", f"/email/messages?{query}").json["cursor"]
    asked = []
    engine = desk.tools.database.engine
    listen(engine, "before_cursor_execute", lambda _c, _u, sql, values, *_: asked.append((sql, values)))
    desk.call("GET", f"/email/messages?{query}&cursor={cursor}")
    (sql, values), *_ = asked
    with desk.session() as session:
        for setting in ("enable_seqscan", "enable_sort", "enable_bitmapscan"):
            session.execute(text(f"SET LOCAL {setting} = off"))
        plan = [row[0] for row in session.connection().exec_driver_sql(f"EXPLAIN {sql}", values)]
    condition = next(line for line in plan if "Index Cond" in line)
    assert "ROW(internal_date, id) <" in condition, plan
