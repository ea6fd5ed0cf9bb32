"""CONDSTORE and QRESYNC: what has changed since (RFC 7162)."""

from __future__ import annotations

import re

from raw_imap import RawImap, Reply

from contract.box import Box
from contract.cases import case
from contract.mails import letter

_ROW = "CONDSTORE"


def _aware(box: Box, *mails: bytes) -> RawImap:
    """The first connection, with CONDSTORE enabled before the mail came: a server may count only from then on."""
    box.imap.ok("SELECT INBOX (CONDSTORE)")
    return box.selected(*mails)


def _modseqs(imap: RawImap) -> dict[int, int]:
    """MODSEQ by UID."""
    rows = imap.ok("UID FETCH 1:* (MODSEQ)").by_uid()
    return {uid: int(row[b"MODSEQ"][0]) for uid, row in rows.items()}


def _numbers(text: bytes) -> set[int]:
    """A set like ``1:3,5`` written out."""
    found: set[int] = set()
    for piece in text.split(b","):
        first, _, last = piece.partition(b":")
        low, high = sorted((int(first), int(last or first)))
        found |= set(range(low, high + 1))
    return found


def _vanished(reply: Reply) -> tuple[set[int], bool]:
    """The UIDs of VANISHED, and whether all of it was EARLIER."""
    found: set[int] = set()
    earlier = True
    for line in reply.untagged:
        if match := re.fullmatch(rb"VANISHED (\(EARLIER\) )?([0-9:,]+)", line):
            found |= _numbers(match[2])
            earlier = earlier and bool(match[1])
    return found, earlier


@case(_ROW, "CONDSTORE")
def select_with_condstore_tells_the_highest_modseq(box: Box) -> None:
    box.append(letter(1))
    highest = int(box.imap.ok("SELECT INBOX (CONDSTORE)").codes[b"HIGHESTMODSEQ"])
    assert highest > 0
    assert highest == box.modseq()


@case(_ROW, "CONDSTORE", "ENABLE")
def enable_condstore_is_confirmed(box: Box) -> None:
    (names,) = box.imap.ok("ENABLE CONDSTORE").named(b"ENABLED")
    assert names == [b"CONDSTORE"]


@case(_ROW, "CONDSTORE")
def every_message_has_a_modseq_no_higher_than_the_mailboxs(box: Box) -> None:
    imap = _aware(box, letter(1), letter(2))
    modseqs = _modseqs(imap)
    assert len(modseqs) == 2
    assert max(modseqs.values()) <= box.modseq()


@case(_ROW, "CONDSTORE")
def a_change_raises_the_modseq_of_its_message_alone(box: Box) -> None:
    imap = _aware(box, letter(1), letter(2))
    first, second = box.uids()
    before = _modseqs(imap)
    imap.ok(r"STORE 1 +FLAGS (\Seen)")
    after = _modseqs(imap)
    assert after[first] > max(before.values())
    assert after[second] == before[second]
    assert box.modseq() == after[first]


@case(_ROW, "CONDSTORE")
def store_tells_the_new_modseq_even_when_silent(box: Box) -> None:
    """RFC 7162 section 3.1.3, once CONDSTORE is enabled."""
    box.append(letter(1))
    imap = box.imap
    imap.ok("SELECT INBOX (CONDSTORE)")
    row = imap.ok(r"STORE 1 +FLAGS.SILENT (\Seen)").row()
    assert int(row[b"MODSEQ"][0]) == box.modseq()
    assert b"FLAGS" not in row


@case(_ROW, "CONDSTORE")
def changed_since_lists_only_what_changed(box: Box) -> None:
    """RFC 7162 section 3.1.4.1."""
    imap = _aware(box, letter(1), letter(2), letter(3))
    since = box.modseq()
    assert imap.ok(f"FETCH 1:* (FLAGS) (CHANGEDSINCE {since})").fetches() == []
    imap.ok(r"STORE 2 +FLAGS.SILENT (\Flagged)")
    ((number, row),) = imap.ok(f"FETCH 1:* (FLAGS) (CHANGEDSINCE {since})").fetches()
    assert number == 2
    assert rb"\Flagged" in row[b"FLAGS"]
    assert int(row[b"MODSEQ"][0]) > since


@case(_ROW, "CONDSTORE")
def unchanged_since_stores_where_nobody_has_changed(box: Box) -> None:
    """RFC 7162 section 3.1.3: the others are in MODIFIED."""
    imap = _aware(box, letter(1), letter(2), letter(3))
    uids = box.uids()
    since = box.modseq()
    box2 = box.login()
    box2.ok("SELECT INBOX")
    box2.ok(r"STORE 2 +FLAGS.SILENT (\Flagged)")
    reply = imap.command(rf"UID STORE 1:* (UNCHANGEDSINCE {since}) +FLAGS.SILENT (\Seen)").must("OK", "NO")
    assert _numbers(reply.codes[b"MODIFIED"]) == {uids[1]}
    rows = imap.ok("UID FETCH 1:* FLAGS").by_uid()
    assert [rb"\Seen" in rows[uid][b"FLAGS"] for uid in uids] == [True, False, True]


@case(_ROW, "CONDSTORE")
def modified_has_message_numbers_where_the_command_had(box: Box) -> None:
    imap = _aware(box, letter(1), letter(2))
    imap.ok(r"STORE 2 +FLAGS.SILENT (\Flagged)")
    since = min(_modseqs(imap).values())
    reply = imap.command(rf"STORE 1:2 (UNCHANGEDSINCE {since}) +FLAGS.SILENT (\Seen)").must("OK", "NO")
    assert 2 in _numbers(reply.codes[b"MODIFIED"])


@case(_ROW, "CONDSTORE")
def search_by_modseq_tells_the_highest_of_the_found(box: Box) -> None:
    """RFC 7162 section 3.1.5."""
    imap = _aware(box, letter(1), letter(2), letter(3))
    imap.ok(r"STORE 2 +FLAGS.SILENT (\Flagged)")
    highest = box.modseq()
    (found,) = imap.ok(f"SEARCH MODSEQ {highest}").named(b"SEARCH")
    assert found == [b"2", [b"MODSEQ", b"%d" % highest]]


@case(_ROW, "CONDSTORE")
def search_by_a_modseq_that_nothing_has_finds_nothing(box: Box) -> None:
    imap = _aware(box, letter(1))
    (found,) = imap.ok(f"SEARCH MODSEQ {box.modseq() + 100}").named(b"SEARCH")
    assert found == []


@case(_ROW, "CONDSTORE")
def others_changes_come_with_their_modseq(box: Box) -> None:
    box.append(letter(1))
    imap, other = box.imap, box.login()
    other.ok("SELECT INBOX (CONDSTORE)")
    imap.ok("SELECT INBOX")
    imap.ok(r"STORE 1 +FLAGS.SILENT (\Seen)")
    ((_, row),) = other.ok("NOOP").fetches()
    assert int(row[b"MODSEQ"][0]) == box.modseq()


@case(_ROW, "CONDSTORE")
def new_mail_and_expunges_raise_the_highest_modseq(box: Box) -> None:
    imap = _aware(box, letter(1))
    first = box.modseq()
    box.append(letter(2))
    second = box.modseq()
    imap.ok(r"STORE 1 +FLAGS.SILENT (\Deleted)")
    third = box.modseq()
    imap.ok("EXPUNGE")
    assert first < second < third < box.modseq()


@case("QRESYNC", "QRESYNC", "ENABLE")
def enable_qresync_is_confirmed_and_brings_condstore(box: Box) -> None:
    """RFC 7162 section 3.2.3."""
    box.append(letter(1))
    assert b"QRESYNC" in box.imap.ok("ENABLE QRESYNC").named(b"ENABLED")[0]
    assert b"HIGHESTMODSEQ" in box.imap.ok("SELECT INBOX").codes


@case("QRESYNC", "QRESYNC")
def qresync_without_enable_is_wrong(box: Box) -> None:
    """RFC 7162 section 3.2.5."""
    box.append(letter(1))
    box.imap.bad("SELECT INBOX (QRESYNC (1 1))")


def _changed(box: Box) -> tuple[RawImap, str, list[int]]:
    """A fresh connection, ``validity modseq``, and the UIDs: since then the second went and the third was flagged."""
    imap = _aware(box, *(letter(number) for number in range(1, 5)))
    uids = box.uids()
    validity = imap.ok("SELECT INBOX").codes[b"UIDVALIDITY"].decode()
    since = f"{validity} {box.modseq()}"
    imap.ok(r"STORE 2 +FLAGS.SILENT (\Deleted)")
    imap.ok("EXPUNGE")
    imap.ok(rf"UID STORE {uids[2]} +FLAGS.SILENT (\Flagged)")
    fresh = box.login()
    fresh.ok("ENABLE QRESYNC")
    return fresh, since, uids


@case("QRESYNC", "QRESYNC", "ENABLE")
def select_with_qresync_tells_what_went_and_what_changed(box: Box) -> None:
    """RFC 7162 section 3.2.5."""
    imap, since, uids = _changed(box)
    reply = imap.ok(f"SELECT INBOX (QRESYNC ({since}))")
    gone, earlier = _vanished(reply)
    assert uids[1] in gone
    assert not gone & {uids[0], uids[2], uids[3]}
    assert earlier
    rows = reply.by_uid()
    assert set(rows) == {uids[2]}
    assert rb"\Flagged" in rows[uids[2]][b"FLAGS"]
    assert b"MODSEQ" in rows[uids[2]]


@case("QRESYNC", "QRESYNC", "ENABLE")
def the_client_may_name_the_uids_that_it_knows(box: Box) -> None:
    imap, since, uids = _changed(box)
    reply = imap.ok(f"SELECT INBOX (QRESYNC ({since} {uids[0]}:{uids[1]}))")
    gone, _ = _vanished(reply)
    assert gone == {uids[1]}
    assert not set(reply.by_uid()) - {uids[2]}


@case("QRESYNC", "QRESYNC", "ENABLE")
def another_uidvalidity_makes_it_a_plain_select(box: Box) -> None:
    imap, since, _ = _changed(box)
    validity, modseq = since.split()
    reply = imap.ok(f"SELECT INBOX (QRESYNC ({int(validity) + 7} {modseq}))")
    assert _vanished(reply)[0] == set()
    assert reply.fetches() == []
    assert reply.codes[b"UIDVALIDITY"].decode() == validity


@case("QRESYNC", "QRESYNC", "ENABLE")
def uid_fetch_tells_what_vanished_since(box: Box) -> None:
    """RFC 7162 section 3.2.6."""
    imap, since, uids = _changed(box)
    imap.ok("SELECT INBOX")
    reply = imap.ok(f"UID FETCH 1:* (FLAGS) (CHANGEDSINCE {since.split()[1]} VANISHED)")
    gone, earlier = _vanished(reply)
    assert uids[1] in gone
    assert not gone & {uids[0], uids[2], uids[3]}
    assert earlier
    assert set(reply.by_uid()) == {uids[2]}


@case("QRESYNC", "QRESYNC", "ENABLE")
def vanished_without_changed_since_is_wrong(box: Box) -> None:
    box.imap.ok("ENABLE QRESYNC")
    box.selected(letter(1)).bad("UID FETCH 1:* (FLAGS) (VANISHED)")


@case("QRESYNC", "QRESYNC", "ENABLE")
def expunge_says_vanished_once_qresync_is_enabled(box: Box) -> None:
    """RFC 7162 section 3.2.10."""
    box.imap.ok("ENABLE QRESYNC")
    imap = box.selected(letter(1), letter(2))
    first = box.uids()[0]
    imap.ok(r"STORE 1 +FLAGS.SILENT (\Deleted)")
    reply = imap.ok("EXPUNGE")
    assert reply.numbered(b"EXPUNGE") == []
    assert b"VANISHED %d" % first in reply.untagged
    assert int(reply.codes[b"HIGHESTMODSEQ"]) == box.modseq()


@case("QRESYNC", "QRESYNC", "ENABLE")
def others_expunges_come_as_vanished(box: Box) -> None:
    imap = box.selected(letter(1), letter(2))
    first = box.uids()[0]
    other = box.login()
    other.ok("ENABLE QRESYNC")
    other.ok("SELECT INBOX")
    imap.ok(r"STORE 1 +FLAGS.SILENT (\Deleted)")
    imap.ok("EXPUNGE")
    reply = other.ok("NOOP")
    assert b"VANISHED %d" % first in reply.untagged
    assert reply.numbered(b"EXPUNGE") == []


@case("QRESYNC", "QRESYNC", "ENABLE")
def closing_one_mailbox_by_another_is_told(box: Box) -> None:
    """RFC 7162 section 3.2.11."""
    box.imap.ok("ENABLE QRESYNC")
    box.imap.ok("CREATE work")
    box.imap.ok("SELECT INBOX")
    assert any(line.startswith(b"OK [CLOSED]") for line in box.imap.ok("SELECT work").untagged)


@case("QRESYNC", "QRESYNC", "ENABLE", "UIDPLUS")
def a_moved_message_vanishes_here(box: Box) -> None:
    box.imap.ok("ENABLE QRESYNC")
    box.imap.ok("CREATE work")
    imap = box.selected(letter(1), letter(2))
    first = box.uids()[0]
    reply = imap.ok("MOVE 1 work")
    assert b"VANISHED %d" % first in reply.untagged
