"""Whatever bytes a server sends: an error of ours, in bounded memory, and soon."""

import socket
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from email_service import imap
from email_service.errors import MailServerError
from email_service.imap import wire
from email_service.vault import Secret

#: What a server would say to a session that lists, synchronises and moves.
SAID = (
    b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] ready\r\n",
    b"A1 OK [CAPABILITY IMAP4rev1 ENABLE CONDSTORE QRESYNC ESEARCH LIST-STATUS MOVE UIDPLUS] welcome\r\n",
    b'* LIST (\\Sent) "/" "Gr&APwA3w-e"\r\n',
    b"* LIST () NIL {5}\r\nINBOX\r\n",
    b"* STATUS INBOX (MESSAGES 3 UIDNEXT 9 UIDVALIDITY 7 HIGHESTMODSEQ 5)\r\n",
    b"A2 OK listed\r\n",
    b"* ENABLED QRESYNC\r\n",
    b"A3 OK on\r\n",
    b"* 4 EXISTS\r\n* OK [UIDVALIDITY 7] valid\r\n* OK [UIDNEXT 9] next\r\n* OK [HIGHESTMODSEQ 5] highest\r\n",
    b"* VANISHED (EARLIER) 1:2,4\r\n",
    b"* 1 FETCH (UID 3 FLAGS (\\Seen) MODSEQ (4))\r\n",
    b"A4 OK [READ-ONLY] open\r\n",
    b'* ESEARCH (TAG "A5") UID ALL 6:7\r\nA5 OK found\r\n',
    b"* 2 FETCH (UID 6 RFC822.SIZE 9)\r\n* 3 FETCH (UID 7 RFC822.SIZE 3)\r\nA6 OK sizes\r\n",
    b'* 2 FETCH (UID 6 FLAGS () INTERNALDATE "17-Jul-1996 02:44:25 -0700" BODY[] {9}\r\nS: x\r\n\r\ny)\r\n',
    b"* 3 FETCH (UID 7 FLAGS ($a) INTERNALDATE NIL BODY[] {3}\r\nabc)\r\nA7 OK fetched\r\n",
    b"* 4 EXISTS\r\n* OK [UIDVALIDITY 7] valid\r\nA8 OK [READ-WRITE] open\r\n",
    b'* ESEARCH (TAG "A9") UID ALL 6\r\nA9 OK found\r\n',
    b"* OK [COPYUID 9 6 1] copied\r\n* VANISHED 6\r\nA10 OK moved\r\n",
    b"* BYE\r\nA11 OK bye\r\n",
)
TOKEN = imap.SyncToken(uidvalidity=7, last_uid=5, highestmodseq=4, uidnext=6, messages=3)
ENDPOINT = imap.ImapEndpoint(
    host="mail.invalid", port=1, encryption="none", username="ann", password=Secret("secret"), addresses=("192.0.2.1",)
)
#: What changes the meaning of a reply, rather than its letters.
PIECES = st.one_of(
    st.sampled_from(
        (b"(", b")", b'"', b"\\", b"\r\n", b"{3}\r\n", b"{99999999999}\r\n", b"\0", b"NIL", b"[", b"]", b" ")
    ),
    st.sampled_from(
        (b"A7 NO x\r\n", b"* BYE x\r\n", b"A1 OK\r\n", b"+ \r\n", b"* 1 EXPUNGE\r\n", b"1:4294967295", b"9" * 30)
    ),
    st.binary(max_size=8),
    st.sampled_from(SAID),
)


def converse(monkeypatch, said):
    """One session with a server that has said all that it will say before it is asked."""
    ours, theirs = socket.socketpair()
    talker = threading.Thread(target=_talk, args=(theirs, said), daemon=True)
    with monkeypatch.context() as patch:
        patch.setattr(wire, "_connection", lambda *_: ours)
        ours.settimeout(5)
        talker.start()
        try:
            with imap.open_session(ENDPOINT, 5.0, message_bytes_max=100_000) as session:
                folders = session.folders()
                batches = list(session.changes_since("INBOX", TOKEN, lambda _first, _last: {}))
                return folders, batches, session.move("INBOX", 7, [6, 8], "Sent")
        finally:
            ours.close()
            talker.join(5)


def _talk(connection, said):
    with connection:
        connection.sendall(said)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass


def test_what_is_spoilt_below_is_right_as_it_stands(monkeypatch):
    folders, batches, moved = converse(monkeypatch, b"".join(SAID))
    assert [folder.name for folder in folders] == ["Grüße", "INBOX"]
    (batch,) = batches
    assert [message.uid for message in batch.messages] == [6, 7]
    assert (batch.vanished, batch.flags) == ((range(1, 3), range(4, 5)), {3: ("\\Seen",)})
    assert (moved.done, moved.gone, moved.uids) == ((6,), (8,), {6: 1})


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_bytes_of_a_server_do_worse_than_an_error_of_ours(monkeypatch, data):
    said = bytearray(b"".join(SAID))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(said)))
        said[start : start + data.draw(st.integers(0, 12))] = data.draw(PIECES)
    try:
        _, batches, _ = converse(monkeypatch, bytes(said))
    except MailServerError:
        return
    assert all(uid > TOKEN.last_uid for batch in batches for message in batch.messages for uid in [message.uid])


@pytest.mark.parametrize("place", range(len(SAID)))
def test_a_server_that_breaks_off_at_any_reply_is_an_error_of_ours(monkeypatch, place):
    said = b"".join(SAID[:place])
    if place == len(SAID) - 1:
        converse(monkeypatch, said)
        return
    for end in (b"", SAID[place][: len(SAID[place]) // 2]):
        with pytest.raises(MailServerError) as caught:
            converse(monkeypatch, said + end)
        assert caught.value.transient
