# ruff: noqa: E501, RUF001  # a letter is a line, and look-alikes are what is tested
"""Scoring spam: each rule by what it is for and by what it must leave alone, and all of them by letters."""

import time
from datetime import UTC, datetime

import pytest
from spam_corpus import HAM, LETTERS, SPAM

from email_service.message import parse, spam
from email_service.message.spam.facts import host_of, organisation, read_page
from fakemail.synthesis import synthesise

GOOD = {
    "From": "Bob <bob@example.org>",
    "To": "ann@example.org",
    "Date": "Mon, 03 Jun 2024 10:00:00 +0000",
    "Message-ID": "<1@example.org>",
}


def suspect(text="hello", html=None, subject="Hello", files=(), received=None, **more):
    headers = {**GOOD, "Subject": subject, **{name.replace("_", "-"): value for name, value in more.items()}}
    return spam.Suspect(
        headers=tuple((name, value) for name, value in headers.items() if value is not None),
        subject=subject,
        text=text,
        html=html,
        files=files,
        received=received,
    )


def found(mail):
    return {indicator.name for indicator in spam.score(mail).indicators}


def link(href, shown="here"):
    return f'<p>Some words that say what this is about, and <a href="{href}">{shown}</a> behind them.</p>'


# --- the whole ------------------------------------------------------------------------------------------------------


def verdict(letter):
    parsed = parse(letter.raw())
    assert not parsed.broken
    return spam.score(spam.Suspect.of(parsed))


def test_of_the_letters_nearly_all_spam_is_found_and_nothing_else():
    """Precision is worth more than recall: a letter that is lost costs more than one that annoys."""
    judged = [(letter.spam, verdict(letter).is_spam) for letter in LETTERS]
    right = judged.count((True, True))
    precision, recall = right / (right + judged.count((False, True))), right / len(SPAM)
    assert len(SPAM) >= 30
    assert len(HAM) >= 30
    assert precision == 1.0
    assert recall >= 0.9


def test_letters_of_people_are_far_from_the_threshold():
    assert max(verdict(letter).score for letter in HAM) < spam.THRESHOLD - 1


@pytest.mark.parametrize("folder", ["INBOX", "Archive", "Sent", "Junk"])
def test_of_synthetic_mail_what_is_marked_is_spam_also_without_its_mark_and_nothing_else(folder):
    for uid in range(1, 150):
        raw = synthesise(seed=3, address="ann@a.example", folder=folder, uid=uid)
        parsed = parse(raw)
        marked = any(name == "X-Spam-Flag" for name, _ in parsed.headers)
        mail = spam.Suspect.of(parsed)
        unmarked = tuple(field for field in mail.headers if not field[0].startswith("X-Spam"))
        bare = spam.Suspect(headers=unmarked, subject=mail.subject, text=mail.text, html=mail.html, files=mail.files)
        assert (spam.score(mail).is_spam, spam.score(bare).is_spam) == (marked, marked), parsed.subject


def test_a_verdict_is_the_sum_of_its_indicators_the_weightiest_first():
    mail = suspect(subject="V-I-A-G-R-A!!", files=(("a.pdf.exe", "x/y"),), Message_ID=None)
    verdict = spam.score(mail)
    assert verdict.score == pytest.approx(sum(i.points for i in verdict.indicators))
    assert verdict.is_spam == (verdict.score >= spam.THRESHOLD)
    weights = [abs(i.points) for i in verdict.indicators]
    assert weights == sorted(weights, reverse=True)
    assert all(i.detail and len(i.detail) <= 120 and i.detail.isprintable() for i in verdict.indicators)


def test_a_letter_without_anything_scores_nothing():
    assert spam.score(suspect()) == spam.SpamVerdict(score=0.0, is_spam=False, indicators=())
    # PostgreSQL's driver takes no list of both.
    assert isinstance(spam.score(suspect()).score, float)


def test_no_rule_but_the_server_s_verdict_decides_alone():
    for rule in spam.RULES:
        assert rule.points < spam.THRESHOLD or rule.name == "marked-by-server"
        assert rule.why
    assert len({rule.name for rule in spam.RULES}) == len(spam.RULES)


# --- each rule ------------------------------------------------------------------------------------------------------

_RECEIVED = "from a by b; Mon, 03 Jun 2024 10:00:00 +0000"
MET = {
    "marked-by-server": [suspect(X_Spam_Flag="YES"), suspect(X_Spam_Status="Yes, score=9"),
                         suspect(X_MS_Exchange_Organization_SCL="7")],
    "no-message-id": [suspect(Message_ID=None)],
    "no-date": [suspect(Date=None), suspect(Date="yesterday")],
    "no-author": [suspect(From=None), suspect(From="Bob"), suspect(From="<@>")],
    "field-twice": [spam.Suspect(headers=(*GOOD.items(), ("from", "x@y.org")), subject="", text="", html=None)],
    "reply-elsewhere": [suspect(Reply_To="x@elsewhere.test")],
    "reply-to-free-mail": [suspect(Reply_To="x@gmail.com")],
    "name-shows-address": [suspect(From='"ceo@bank.example" <x@y.example>'), suspect(From="ceo@bank.example <x@y.example>")],
    "brand-elsewhere": [suspect(From="PayPaI Support <x@y.example>"), suspect(From="=?utf-8?q?PayPal?= <x@y.example>")],
    "author-lookalike": [suspect(From="x@paypa1.com"), suspect(From="x@rnicrosoft.com")],
    "spf-fail": [suspect(Authentication_Results="mx; spf=fail"), suspect(Received_SPF="softfail (x)")],
    "dkim-fail": [suspect(Authentication_Results="mx; dkim=fail; dmarc=none")],
    "dmarc-fail": [suspect(Authentication_Results="mx; dmarc=fail (p=none)")],
    "authentic": [suspect(Authentication_Results="mx; dmarc=pass")],
    "date-ahead": [suspect(Received=_RECEIVED, Date="Thu, 06 Jun 2024 10:00:00 +0000"),
                   suspect(received=datetime(2024, 6, 1, tzinfo=UTC))],
    "date-behind": [suspect(Received=_RECEIVED, Date="Mon, 01 Apr 2024 10:00:00 +0000")],
    "subject-shouts": [suspect(subject="THIS IS FOR YOU"), suspect(subject="ÄRGER MIT DEM KONTO")],
    "subject-marks": [suspect(subject="now!!"), suspect(subject="$$$")],
    "subject-spaced": [suspect(subject="V I A G R A"), suspect(subject="c.i.a.l.i.s")],
    "subject-encoded": [spam.Suspect(headers=(*GOOD.items(), ("Subject", "=?utf-8?b?aGVsbG8=?=")), subject="hello", text="",
                                     html=None)],
    "subject-answers-nothing": [suspect(subject="Re: your order"), suspect(subject="AW: Rechnung")],
    "hidden-recipients": [suspect(To=None), suspect(To="undisclosed-recipients:;")],
    "many-recipients": [suspect(To=", ".join(["a@b.example"] * 60))],
    "list-mail": [suspect(List_Unsubscribe="<mailto:x@y.example>")],
    "answer": [suspect(In_Reply_To="<1@x>", References="<1@x>")],
    "says-money": [suspect(text="you have\nwon"), suspect(subject="Lottery"), suspect(text="", html="<b>next</b> of\nkin")],
    "says-account": [suspect(text="Bitte bestätigen Sie Ihre Daten"), suspect(text="确认账户异常")],
    "says-goods": [suspect(text="Купить: казино.")],
    "says-threats": [suspect(text="pay in “bitcoin”")],
    "says-letters": [suspect(text="Dear   friend,")],
    "presses": [suspect(text="Act now, you won")],
    "html-alone": [suspect(text="", html="<p>words</p>")],
    "pictures-alone": [suspect(text=" ", html="<img src=a>")],
    "hidden-text": [suspect(html='<span style="display: none">' + "words of a book " * 40 + "</span>seen")],
    "form": [suspect(html="<form><input class=x type='password'></form>")],
    "script": [suspect(html="<script>x</script>")],
    "link-disguised": [suspect(html=link("http://evil.example/x", "https://www.bank.test/login"))],
    "link-to-number": [suspect(html=link("http://192.0.2.1/x")), suspect(text="see http://3232235777/"),
                       suspect(text="http://[2001:db8::1]/x")],
    "link-shortened": [suspect(text="https://bit.ly/2xy")],
    "link-with-user": [suspect(html=link("http://www.bank.test@evil.example/"))],
    "link-lookalike": [suspect(html=link("http://paypa1.com/")), suspect(html=link("http://xn--80ak6aa92e.com/"))],
    "link-data": [suspect(html=link("javascript:alert(1)"))],
    "link-alone": [suspect(text="https://short.example/x")],
    "zero-width": [suspect(text="vi\u200bag\u200bra ci\u200dalis")],
    "mixed-letters": [suspect(text="Аррlе pаyрal"), suspect(From="Раурal <x@y.example>")],
    "fancy-letters": [suspect(text="\U0001d406\U0001d422\U0001d41f\U0001d42d\U0001d42d")],
    "program-attached": [suspect(files=(("a.exe", "x/y"),)), suspect(files=(("A.JS", "x/y"),))],
    "macros-attached": [suspect(files=(("a.docm", "x/y"),))],
    "page-attached": [suspect(files=(("a.htm", "text/html"),))],
    "two-endings": [suspect(files=(("a.pdf.exe", "x/y"),)), suspect(files=(("a\u202efdp.exe", "x/y"),))],
    "other-type": [suspect(files=(("a.pdf", "text/html"),))],
    "archive-locked": [suspect(text="Password: 1", files=(("a.zip", "x/y"),))],
}  # fmt: skip


@pytest.mark.parametrize("name", MET)
def test_a_rule_finds_what_it_is_for(name):
    for mail in MET[name]:
        assert name in found(mail), mail


def test_every_rule_is_tried():
    often = {rule.name for rule in spam.RULES if rule.name.endswith("-often")}
    assert set(MET) | often | {"says-offers"} == {rule.name for rule in spam.RULES}


LEFT_ALONE = {
    "reply-elsewhere": suspect(From="x@mail.shop.co.uk", Reply_To="y@shop.co.uk"),
    "brand-elsewhere": suspect(From="Pineapple Ltd <x@pineapple.example>"),
    "author-lookalike": suspect(From="x@paypal.com"),
    "dkim-fail": suspect(Authentication_Results="mx; dkim=fail; dkim=pass"),
    "spf-fail": suspect(Authentication_Results="mx; spf=pass"),
    "subject-shouts": suspect(subject="NASA and ESA"),
    "subject-encoded": spam.Suspect(headers=(("Subject", "=?utf-8?b?w6Q=?="),), subject="ä", text="", html=None),
    "date-behind": suspect(received=datetime(2030, 1, 1, tzinfo=UTC)),
    "date-ahead": suspect(Received=_RECEIVED, Date="Mon, 03 Jun 2024 23:00:00 +0000"),
    "link-disguised": suspect(html=link("https://login.bank.test/x", "www.bank.test")),
    "link-lookalike": suspect(html=link("https://xn--mller-kva.example/")),
    "hidden-text": suspect(html='<div style="display:none">a line for the preview</div>text'),
    # Persian joins and parts its letters with it, and families of emoji are joined with it.
    "zero-width": suspect(text="می\u200cشود می\u200cتوانید \U0001f468\u200d\U0001f469\u200d\U0001f467 می\u200cخواهم"),
    "mixed-letters": suspect(text="Привет, Bob. See you, пока."),
    "fancy-letters": suspect(text="ＡＢＣ会議室ＤＥＦ"),
    "program-attached": suspect(files=(("example.com notes.pdf", "application/pdf"),)),
    "two-endings": suspect(files=(("report.v2.pdf", "application/pdf"),)),
    "says-money": suspect(text="The lotteryman's skin of kings"),
}


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_a_rule_leaves_alone_what_only_looks_so(name):
    assert name not in found(LEFT_ALONE[name])


def test_only_the_topmost_results_are_the_server_s_own():
    fields = (*GOOD.items(), ("Authentication-Results", "mx; spf=fail"), ("Authentication-Results", "evil; spf=pass"))
    assert "spf-fail" in found(spam.Suspect(headers=fields, subject="", text="x", html=None))


# --- what the rules go by -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("domain", "owner"),
    [
        ("a.b.example.org", "example.org"),
        ("www.bbc.co.uk", "bbc.co.uk"),
        ("example.org.", "example.org"),
        ("x", "x"),
        ("", ""),
    ],
)
def test_an_organisation_is_what_was_registered(domain, owner):
    assert organisation(domain) == owner


@pytest.mark.parametrize(
    ("target", "host"),
    [
        ("https://a.example:8443/x", "a.example"),
        ("http://user:pw@b.example", "b.example"),
        ("http:///c.example/x", "c.example"),
        ("mailto:x@y.example", ""),
        ("/relative", ""),
    ],
)
def test_the_host_of_a_link_is_the_one_it_leads_to(target, host):
    assert host_of(target) == host


def test_a_page_is_what_its_reader_sees():
    page = read_page(
        "<title>no</title><style>p{}</style><p>one &amp; two</p><script>if (a<b) x</script>"
        '<p style="font-size:0">secret</p><a href="http://a.example/?x&amp;y">th<b>re</b>e</a>'
    )
    assert page.shown.split() == ["one", "&", "two", "th", "re", "e"]
    assert page.hidden == 6
    assert [(each.target, each.host, each.shown) for each in page.links] == [
        ("http://a.example/?x&y", "a.example", "th re e")
    ]


# --- hostile mail ---------------------------------------------------------------------------------------------------

_UNITS = (
    "<", "<a ", "<a href=x>", '<a href="', "<p style=", '<p style="display:none">x', "<script>", "</script", "&amp;", "&#1", "http://",
    "http://a", "a.", "aа", "a\u200b", "\U0001d400", "中", "dear ", "password ", "<img>", "a@", "a b ", "re:", "=?a?b?", "a.b.", "[",
    '<a href="http://xn--a9999999999999999999999999.x">www.b.c</a>', '<a href="http://a.b">a.a.a.a.a.a.a.a</a>', "<input ", "$!",
)  # fmt: skip
_FIELDS = ("From", "To", "Reply_To", "Authentication_Results", "Received", "Date", "References", "Received_SPF")


def cpu_s(mail):
    begun = time.process_time()
    spam.score(mail)
    return time.process_time() - begun


@pytest.mark.parametrize("unit", _UNITS)
def test_a_hostile_message_costs_no_more_than_its_bounded_part(unit):
    """Twenty times the message is no more work, as only its beginning is judged; a ratio, so no machine matters."""

    def hostile(size):
        body = unit * (size // len(unit))
        return suspect(text=body, html=body, subject=body, files=((body[:255], "a/b"),), **dict.fromkeys(_FIELDS, body))

    unit_s = max(min(cpu_s(hostile(30_000)) for _ in range(3)), 0.002)
    assert min(cpu_s(hostile(600_000)) for _ in range(3)) < 5 * unit_s


@pytest.mark.parametrize("unit", _UNITS)
def test_within_the_bounds_the_work_grows_with_the_message(unit):
    def hostile(size):
        body = unit * (size // len(unit))
        return suspect(text=body, html=body, subject=body[:4000], **dict.fromkeys(_FIELDS, body[:4000]))

    unit_s = max(min(cpu_s(hostile(750)) for _ in range(3)), 0.001)
    assert min(cpu_s(hostile(6000)) for _ in range(3)) < 24 * unit_s
