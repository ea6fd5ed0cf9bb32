"""Mail with rules of its own: forwarded mail, digests, invitations, reports, signed mail, spam.

Each of these has subjects of its own, and none of it is answered. Called by: plans.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Final

from fakemail.synthesis.bodies import Builder, Kit
from fakemail.synthesis.draws import name_hash
from fakemail.synthesis.encodings import base64_lines, encoded_words
from fakemail.synthesis.headers import DAY, Subject, sixteen, subject
from fakemail.synthesis.parts import Entity, Gap, Plan, multipart, plan
from fakemail.synthesis.people import mailbox
from fakemail.synthesis.words import SPAM_SUBJECTS


def _own(kit: Kit, texts: Sequence[str]) -> tuple[Subject, ...]:
    """Subjects of this structure alone; they get no number, since the body repeats them."""
    return sixteen([subject(text, charset=kit.variant.charset, at=2 * at) for at, text in enumerate(texts)])


def _literal(fields: str, text: str) -> Entity:
    return Entity(fields=fields.replace("\n", "\r\n").encode("ascii"), body=(_crlf(text),))


def _crlf(text: str) -> bytes:
    return textwrap.dedent(text).lstrip("\n").replace("\n", "\r\n").encode()


def _shown(kit: Kit, text: str) -> bytes:
    return text.encode("ascii") if text.isascii() else encoded_words(text, charset=kit.variant.charset)


# --- forwarded --------------------------------------------------------------------------------------------------------


def _forward(kit: Kit, *, with_file: bool) -> Plan:
    text = kit.short_subjects()[kit.at % 3]
    person = kit.variant.language.people[0]
    header = (
        b"Received: from relay3.example.org (relay3.example.org [192.0.2.33]) by mx.fakemail.test with ESMTP;\r\n"
        b"\tSun, 31 Dec 2023 17:04:31 +0000\r\nFrom: %b@example.org\r\nTo: office@team.example\r\nSubject: %b\r\n"
        b"Date: Sun, 31 Dec 2023 18:04:30 +0100\r\nMessage-ID: <%b@example.org>\r\nMIME-Version: 1.0\r\n"
    ) % (
        person[1].encode("ascii"),
        _shown(kit, text),
        name_hash("forwarded", kit.structure, kit.at, size=12).hex().encode("ascii"),
    )
    inner = kit.text(share=160)
    if with_file:
        inner = multipart("mixed", [inner, kit.file()], mark=kit.mark(9))
    message = Entity(
        fields=b"Content-Type: message/rfc822\r\nContent-Disposition: attachment; filename=forwarded.eml\r\n",
        body=(header + inner.fields + b"\r\n", *inner.body),
    )
    return plan(kit.mixed(kit.text(share=96), message), people=kit.people, subjects=_own(kit, [f"Fwd: {text}"]))


def _digest(kit: Kit) -> Plan:
    """What a list said since yesterday; its parts needn't say that they are messages (RFC 2046 section 5.1.5)."""
    language = kit.variant.language
    messages = []
    for at, text in enumerate(kit.short_subjects()[:4]):
        inner = kit.text(share=256 // 5)
        person = language.people[at % len(language.people)]
        header = (
            b"From: %b\r\nSubject: %b\r\nDate: Sun, 31 Dec 2023 1%d:04:30 +0000\r\nMessage-ID: <%b@example.org>\r\n"
            % (
                mailbox(person[0], f"{person[1]}@example.org"),
                _shown(kit, text),
                at,
                name_hash("digest", kit.at, at, size=12).hex().encode("ascii"),
            )
        )
        said = b"Content-Type: message/rfc822\r\n" if at % 2 else b""
        messages.append(Entity(fields=said, body=(header + inner.fields + b"\r\n", *inner.body)))
    contents = Entity(
        fields=b"Content-Type: text/plain; charset=us-ascii\r\n", body=(b"Messages since yesterday are below.\r\n",)
    )
    digest = multipart("digest", messages, mark=kit.mark(2))
    subjects = _own(kit, [f"Digest, Vol {volume}, Issue {issue}" for volume in (11, 12) for issue in range(1, 9)])
    return plan(kit.mixed(contents, digest), people=kit.people, subjects=subjects)


# --- invitations ------------------------------------------------------------------------------------------------------


def _calendar(kit: Kit) -> Plan:
    """An invitation as RFC 6047 section 2.4 has it: an alternative, and once more as a file."""
    title = kit.short_subjects()[0]
    event = _folded(
        f"""
        BEGIN:VCALENDAR
        PRODID:-//fakemail//synthesis//EN
        VERSION:2.0
        METHOD:REQUEST
        BEGIN:VEVENT
        UID:{name_hash("event", kit.at, size=12).hex()}@fakemail.test
        DTSTAMP:20240105T090000Z
        DTSTART;TZID=Europe/Berlin:202402{10 + kit.at:02}T100000
        DTEND;TZID=Europe/Berlin:202402{10 + kit.at:02}T113000
        RRULE:FREQ=WEEKLY;COUNT=4;BYDAY=TU
        SUMMARY:{title}
        ORGANIZER;CN=Office:mailto:office@team.example
        ATTENDEE;PARTSTAT=NEEDS-ACTION;RSVP=TRUE;CN=Ada Byron:mailto:ada.byron@example.com
        LOCATION:{kit.variant.language.subjects[-1]}
        STATUS:CONFIRMED
        SEQUENCE:0
        END:VEVENT
        END:VCALENDAR
        """
    )
    invitation = Entity(
        fields=b"Content-Type: text/calendar; charset=utf-8; method=REQUEST\r\nContent-Transfer-Encoding: base64\r\n",
        body=(base64_lines(event),),
    )
    file = Entity(
        fields=b'Content-Type: application/ics; name="invite.ics"\r\n'
        b'Content-Disposition: attachment; filename="invite.ics"\r\nContent-Transfer-Encoding: base64\r\n',
        body=(base64_lines(event),),
    )
    parts = [kit.text(share=96), kit.html(share=96), invitation]
    return plan(
        kit.mixed(multipart("alternative", parts, mark=kit.mark(1)), file),
        people=kit.people,
        subjects=_own(kit, [f"Invitation: {title}", title]),
    )


def _folded(text: str) -> bytes:
    """Content lines of at most 75 octets (RFC 5545 section 3.1)."""
    made = b""
    for line in textwrap.dedent(text).strip().split("\n"):
        used = 0
        for character in line:
            raw = character.encode()
            if used + len(raw) > 75:  # noqa: PLR2004 the number is the RFC's
                made += b"\r\n "
                used = 1
            made += raw
            used += len(raw)
        made += b"\r\n"
    return made


# --- reports ----------------------------------------------------------------------------------------------------------

_LOST: Final = """
    This is the mail system at host mx.fakemail.test.

    I'm sorry to have to inform you that your message could not
    be delivered to one or more recipients. It's attached below.

    <nobody@example.net>: host mx.example.net[192.0.2.44] said: 550 5.1.1
        <nobody@example.net>: Recipient address rejected: User unknown in
        virtual mailbox table (in reply to RCPT TO command)
    """
_LATE: Final = """
    Your message could not be delivered for more than 4 hours.
    It will be retried until it is 5 days old.
    """


def _report(kit: Kit) -> Plan:
    """A delivery status notification (RFC 3464), of failure or of delay."""
    late = kit.at % 3 == 0
    action, status = ("delayed", "4.4.1") if late else ("failed", "5.1.1")
    state = f"""
        Reporting-MTA: dns; mx.fakemail.test
        X-Postfix-Queue-ID: 4T7QK{kit.at}
        Arrival-Date: Sun, 31 Dec 2023 17:04:31 +0000 (UTC)

        Final-Recipient: rfc822; nobody@example.net
        Original-Recipient: rfc822;nobody@example.net
        Action: {action}
        Status: {status}
        Remote-MTA: dns; mx.example.net
        Diagnostic-Code: smtp; {"450 4.4.1 Connection timed out" if late else "550 5.1.1 User unknown"}
        """
    parts = [
        _literal(
            "Content-Description: Notification\nContent-Type: text/plain; charset=us-ascii\n", _LATE if late else _LOST
        ),
        _literal("Content-Description: Delivery report\nContent-Type: message/delivery-status\n", state),
        _returned(kit, "text/rfc822-headers") if kit.at % 2 else _returned(kit, "message/rfc822"),
    ]
    entity = multipart("report", parts, mark=kit.mark(1), parameters=b"; report-type=delivery-status")
    named = "Delayed Mail (still being retried)" if late else "Undelivered Mail Returned to Sender"
    return plan(entity, people=kit.people, subjects=_own(kit, [named, "Delivery Status Notification"]))


def _returned(kit: Kit, content_type: str) -> Entity:
    sent = f"""
        From: office@team.example
        To: nobody@example.net
        Subject: Hello
        Date: Sun, 31 Dec 2023 18:04:30 +0100
        Message-ID: <{name_hash("returned", kit.at, size=12).hex()}@team.example>
        """
    text = sent if content_type.startswith("text/") else sent + "\n        Are you there?\n"
    return _literal(f"Content-Description: Undelivered Message\nContent-Type: {content_type}\n", text)


def _receipt(kit: Kit) -> Plan:
    """A message disposition notification (RFC 8098)."""
    state = f"""
        Reporting-UA: desk.example; Mailer 7.4.1
        Final-Recipient: rfc822;office@team.example
        Original-Message-ID: <{name_hash("read", kit.at, size=12).hex()}@fakemail.test>
        Disposition: manual-action/MDN-sent-manually; displayed
        """
    parts = [
        _literal(
            "Content-Type: text/plain\n", "\n    Your message was displayed. That it was understood is not said.\n"
        ),
        _literal("Content-Type: message/disposition-notification\n", state),
    ]
    entity = multipart("report", parts, mark=kit.mark(1), parameters=b"; report-type=disposition-notification")
    return plan(entity, people=kit.people, subjects=_own(kit, [f"Read: {text}" for text in kit.short_subjects()]))


# --- signed -----------------------------------------------------------------------------------------------------------


def _smime(kit: Kit) -> Plan:
    """Shaped as RFC 8551 section 3.5.3 has it; the signature verifies nothing."""
    noise = b"0\x82\x08\x00" + b"".join(name_hash("smime", kit.at, turn, size=64) for turn in range(32))
    signature = Entity(
        fields=b'Content-Type: application/pkcs7-signature; name="smime.p7s"\r\nContent-Transfer-Encoding: base64\r\n'
        b'Content-Disposition: attachment; filename="smime.p7s"\r\n',
        body=(base64_lines(noise),),
    )
    parameters = b'; protocol="application/pkcs7-signature"; micalg=sha-256'
    entity = multipart("signed", [kit.alternative(), signature], mark=kit.mark(4), parameters=parameters)
    return kit.plan(entity)


def _pgp(kit: Kit) -> Plan:
    """Shaped as RFC 3156 section 5 has it; the signature verifies nothing."""
    noise = b"".join(name_hash("pgp", kit.at, turn, size=64) for turn in range(6))
    armor = b"-----BEGIN PGP SIGNATURE-----\r\n\r\n" + base64_lines(noise) + b"=a2Fz\r\n-----END PGP SIGNATURE-----\r\n"
    signature = Entity(
        fields=b'Content-Type: application/pgp-signature; name="signature.asc"\r\n'
        b"Content-Description: OpenPGP digital signature\r\n",
        body=(armor,),
    )
    parameters = b'; protocol="application/pgp-signature"; micalg=pgp-sha512'
    return kit.plan(multipart("signed", [kit.text(), signature], mark=kit.mark(4), parameters=parameters))


# --- spam -------------------------------------------------------------------------------------------------------------

_OFFER: Final = ["Dear Friend,", "", "cl1ck h3re: http://192.0.2.66/win.php?id=1971", ""]
_PAGE: Final = [
    "<html><body>", '<font color="#ff0000" size="7">CLICK NOW</font>',
    '<a href="http://192.0.2.66/login.php">https://www.bank.test/secure</a>',
    '<div style="display:none">',
]  # fmt: skip


def _spam(kit: Kit, *, html: bool, late: bool = False, file: bool = False) -> Plan:
    if html:
        gap = Gap(section=kit.pool.html[kit.at], share=160)
        entity = kit.written("html", _PAGE, gap, ["</div>", "</body></html>"])
    else:
        gap = Gap(section=kit.pool.text[kit.at], share=160)
        entity = kit.written("plain", _OFFER, gap, ["", "Remove: http://192.0.2.66/remove"])
    if file:
        # Small: what is sent a million times has to be.
        entity = kit.mixed(entity, kit.file(share=32))
    # What comes from the future stays on top of the list.
    overrides = ((DAY, b"Tue, 19 Jan 2038 "),) if late else ()
    texts = [subject(text, charset="utf-8", at=at) for at, text in enumerate(SPAM_SUBJECTS)]
    return plan(entity, people=kit.people, subjects=sixteen(texts), overrides=overrides)


SPECIAL: Final[Mapping[str, Builder]] = {
    "forward": lambda kit: _forward(kit, with_file=False),
    "forward-file": lambda kit: _forward(kit, with_file=True),
    "digest": _digest,
    "calendar": _calendar,
    "report": _report,
    "receipt": _receipt,
    "smime": _smime,
    "pgp": _pgp,
    "spam-html": lambda kit: _spam(kit, html=True),
    "spam-plain": lambda kit: _spam(kit, html=False),
    "spam-file": lambda kit: _spam(kit, html=False, file=True),
    "spam-late": lambda kit: _spam(kit, html=True, late=True),
}
