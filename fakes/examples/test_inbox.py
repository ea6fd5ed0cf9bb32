"""Reading mail: a mailbox that fills, changes and breaks as real ones do."""

import imaplib


def subjects(mailbox, tls=None):
    """Every subject in INBOX: code as anybody's."""
    with imaplib.IMAP4_SSL(*mailbox.imaps, ssl_context=tls) as client:
        client.login(mailbox.address, mailbox.password)
        client.select("INBOX", readonly=True)
        _, rows = client.uid("FETCH", "1:*", "(BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
        return [row[1] for row in rows if isinstance(row, tuple)]


def test_all_mail_is_read_over_tls(mailbox, fakemail_tls):
    mailbox.seed(500, profile="exchange")
    assert len(subjects(mailbox, fakemail_tls)) == 500


def test_a_client_hears_of_mail_that_comes_meanwhile(mailbox):
    with imaplib.IMAP4(*mailbox.imap) as client:
        client.login(mailbox.address, mailbox.password)
        client.select("INBOX")
        mailbox.append(b"Subject: news\r\n\r\nhere it is\r\n", flags=["\\Flagged"])
        client.noop()
        assert client.response("EXISTS")[1][-1] == b"1"
    (mail,) = mailbox.messages()
    assert mail.flags == {"\\Flagged"}


def test_a_lost_index_changes_uidvalidity(mailbox, fakemail):
    before = mailbox.seed(3)["uidvalidity"]
    assert fakemail.reset_uidvalidity(mailbox.address)["uidvalidity"] > before
