"""The search for secrets: every form is found, nothing is found by chance, and no secret is in what it writes down."""

import base64
import json
import secrets
from dataclasses import replace
from urllib.parse import quote

import pytest

from mailrig.checkers.leaks import SINKS, secrets_leaked
from mailrig.evidence import Evidence
from mailrig.leaks import Searcher, file_pieces, forms
from mailrig.runner.leaking import LeakSearch, known_secrets

SECRET = 'canary-"quoted"/and+slashed=5f2a'
KEY = bytes(range(200, 232))


def spellings(secret):
    raw = secret if isinstance(secret, bytes) else secret.encode()
    yield raw
    for size in range(4):
        yield base64.b64encode(b"\0" * size + raw + b"\0tail")
        yield base64.urlsafe_b64encode(b"u" * size + raw)
    yield base64.b64encode(b"\0ann@acme.example\0" + raw)
    yield base64.b64encode(b"user=ann\1auth=Bearer " + raw + b"\1\1")
    yield raw.hex().encode()
    yield raw.hex().upper().encode()
    yield quote(raw, safe="").encode()
    yield quote(raw).encode()
    yield repr(raw).encode()
    if isinstance(secret, str):
        yield json.dumps({"password": secret}).encode()


@pytest.mark.parametrize("secret", [SECRET, KEY], ids=["text", "bytes"])
def test_a_secret_is_found_in_every_form(secret):
    searcher = Searcher({"it": secret})
    for number, spelling in enumerate(spellings(secret)):
        assert searcher.found_in([("here", b"before " + spelling + b" after")]) == ["it in here"], number


def test_a_secret_is_found_across_the_pieces_of_a_place_and_counted_once():
    searcher, text = Searcher({"it": SECRET}), b"x" * 50 + SECRET.encode() + b"y" * 50
    for size in (1, 7, 31, 64):
        row = searcher.search("s", (("here", text[k : k + size]) for k in range(0, len(text), size)))
        assert [(hit["where"], hit["count"]) for hit in row["hits"]] == [("here", 1)], size
        assert (row["bytes"], row["places"]) == (len(text), 1)


@pytest.mark.parametrize("size", [1, 5, 40, 4000])
def test_a_hit_names_the_line_that_it_is_first_on(size):
    text = b"one\n" * 41 + b"two " + SECRET.encode() + b" three\n" * 9 + SECRET.encode()
    row = Searcher({"it": SECRET}).search("s", (("here", text[k : k + size]) for k in range(0, len(text), size)))
    assert [(hit["line"], hit["count"]) for hit in row["hits"]] == [(42, 2)]


def test_the_end_of_one_place_and_the_beginning_of_the_next_are_no_secret():
    half = len(SECRET) // 2
    pieces = [("one", SECRET[:half].encode()), ("two", SECRET[half:].encode())]
    assert Searcher({"it": SECRET}).found_in(pieces) == []


def test_nothing_is_found_in_what_holds_none():
    searcher = Searcher({f"s{n}": secrets.token_hex(12) for n in range(20)})
    assert (
        searcher.found_in([("noise", secrets.token_bytes(200_000)), ("hex", secrets.token_hex(100_000).encode())]) == []
    )


def test_a_row_says_what_was_searched_and_never_a_secret():
    row = Searcher({"password of ann": SECRET}).search("logs", [("a.log", SECRET.encode() * 3), ("b.log", b"clean")])
    assert (row["sink"], row["places"], row["secrets_searched"], row["error"]) == ("logs", 2, 1, None)
    (hit,) = row["hits"]
    assert (hit["secret"], hit["where"], hit["count"]) == ("password of ann", "a.log", 3)
    assert len(hit["sha256"]) == 8
    written = json.dumps(row).encode()
    assert not any(form in written for form in forms(SECRET))


def test_a_place_that_can_not_be_read_is_told_by_the_kind_of_error_alone():
    def pieces():
        yield "a", b"clean"
        raise ConnectionError(SECRET)

    row = Searcher({"it": SECRET}).search("redis", pieces())
    assert row["error"] == "ConnectionError"
    assert SECRET not in json.dumps(row)


def test_a_secret_too_short_to_be_told_from_chance_is_not_counted_as_searched():
    assert Searcher({"short": "abc", "long": SECRET}).search("s", [])["secrets_searched"] == 1


def test_the_secrets_of_a_run_are_those_it_was_told_and_its_users(account):
    key = base64.b64encode(KEY).decode()
    told = {
        "DATABASE_URL": "postgresql://mail_app:pass%2Fword-of-the-app@h/d",
        "REDIS_URL": "redis://h:1",
        "DATABASE_AUDIT_URL": "postgresql://mail_audit:word@h/d",
        "MAIL_TOKEN_SECRET": "t" * 40,
        "CREDENTIAL_ENCRYPTION_KEY": key,
        "MAIL_TIME_SCALE": "0.1",
    }
    found = known_secrets(told, [account])
    assert found == {
        "password in DATABASE_URL": "pass/word-of-the-app",
        "MAIL_TOKEN_SECRET": "t" * 40,
        "CREDENTIAL_ENCRYPTION_KEY": key,
        "CREDENTIAL_ENCRYPTION_KEY, decoded": KEY,
        "bearer token of acme": account.token,
        "password of ann@acme.example": SECRET,
    }


@pytest.fixture
def account():
    from mailrig.clients import Account  # noqa: PLC0415

    return Account(
        tenant="acme",
        user="alice",
        token="eyJ.token.of-alice",
        clients=(("1", "ann@acme.example"),),
        attachment_ids=(),
        passwords={"password of ann@acme.example": SECRET},
    )


def test_an_account_shows_no_password_of_its_own(account):
    assert SECRET not in repr(account)
    assert account.token not in repr(account)


def test_what_a_run_has_left_is_searched_file_by_file_and_its_reports_after_the_judgement(tmp_path):
    run, spans = tmp_path / "run", tmp_path / "spans"
    for folder in (run / "evidence", run / "logs", spans):
        folder.mkdir(parents=True)
    (run / "logs" / "worker.log").write_text(f"line\nopened {SECRET}\n")
    (run / "evidence" / "spans.jsonl").write_text("{}\n")
    (run / "run.json").write_text("{}")
    (spans / "torn.jsonl").write_bytes(base64.b64encode(b"\0ann\0" + SECRET.encode())[:-3])
    search = LeakSearch(run)
    search._searcher = Searcher({"it": SECRET})
    search.left(spans)
    rows = {row["sink"]: row for row in map(json.loads, (run / "evidence" / "leaks.jsonl").read_text().splitlines())}
    assert {sink: [h["where"] for h in row["hits"]] for sink, row in rows.items()} == {
        "logs": ["worker.log"],
        "spans": ["torn.jsonl"],
        "run": [],
    }
    (run / "report.html").write_text("fine")
    assert search.reports() is False
    (run / "report.html").write_text(quote(SECRET, safe=""))
    assert search.reports() is True
    assert "report.html" in (run / "evidence" / "leaks.jsonl").read_text().splitlines()[-1]


def test_links_are_not_followed_out_of_the_folder(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").write_text(SECRET)
    (tmp_path / "in" / "link").symlink_to(tmp_path / "out")
    assert list(file_pieces(tmp_path / "in")) == []


# --- the judge

CLEAN = {"bytes": 10, "places": 1, "secrets_searched": 15, "hits": [], "hits_total": 0, "error": None, "unseen": ""}
HIT = {"secret": "password of ann", "sha256": "5f2ab6c1", "where": "worker.log", "line": 7, "count": 3}


def judged(*changed, without=()):
    rows = {sink: {"sink": sink, **CLEAN} for sink in SINKS if sink not in without}
    for row in changed:
        rows[row["sink"]] = {**rows.get(row["sink"], CLEAN), **row}
    return secrets_leaked(replace(Evidence(), leaks=tuple(rows.values())), None, None)


def test_no_hit_in_any_sink_is_zero():
    measured = judged()
    assert [sample.value for sample in measured.samples] == [0]


def test_each_hit_is_told_with_its_place_and_how_often():
    measured = judged({"sink": "logs", "hits": [HIT], "hits_total": 1})
    assert [sample.value for sample in measured.samples] == [1]
    assert measured.examples == ("password of ann (SHA-256 5f2ab6c1...) is in logs: worker.log:7, 3 times",)


def test_hits_beyond_those_that_are_shown_count_too():
    assert judged({"sink": "logs", "hits": [HIT], "hits_total": 80}).samples[0].value == 80


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"sink": "redis", "error": "ConnectionError"}, "redis (ConnectionError)"),
        ({"sink": "logs", "bytes": 0}, "logs (0 bytes, 15 secrets)"),
        ({"sink": "rows", "secrets_searched": 0}, "rows (10 bytes, 0 secrets)"),
        ({"sink": "reports", "error": "OSError"}, "reports (OSError)"),
    ],
)
def test_what_was_not_searched_is_unknown_and_named(changed, told):
    measured = judged(changed)
    assert measured.samples == ()
    assert told in measured.reason


@pytest.mark.parametrize("sink", SINKS)
def test_a_sink_that_nobody_looked_at_is_unknown(sink):
    measured = judged(without=(sink,))
    assert measured.samples == ()
    assert f"{sink} (never looked at)" in measured.reason


def test_a_hit_is_a_hit_though_another_sink_was_not_searched():
    measured = judged({"sink": "logs", "hits": [HIT], "hits_total": 1}, without=("redis",))
    assert [sample.value for sample in measured.samples] == [1]
