"""STORE, COPY, MOVE and EXPUNGE (RFC 3501 section 6.4; RFC 4315, 6851)."""

from __future__ import annotations

from raw_imap import RawImap, Reply

from contract.box import Box
from contract.cases import case
from contract.mails import letter


def _flags(imap: RawImap, number: int = 1) -> set[bytes]:
    return set(imap.ok(f"FETCH {number} FLAGS").row()[b"FLAGS"]) - {rb"\Recent"}


def _subjects(imap: RawImap) -> list[bytes]:
    """The numbers of the letters in the selected mailbox, in order."""
    rows = imap.ok("FETCH 1:* ENVELOPE").fetches()
    return [row[b"ENVELOPE"][1].removeprefix(b"Letter ") for _, row in rows]


def _copied(reply: Reply) -> tuple[bytes, bytes, bytes]:
    """UIDVALIDITY, source UIDs and new UIDs, from wherever COPYUID stands."""
    validity, source, target = reply.codes[b"COPYUID"].split()
    return validity, source, target


@case("STORE")
def store_sets_adds_and_removes_flags(box: Box) -> None:
    imap = box.selected(letter(1))
    for item, expected in (
        (r"FLAGS (\Seen \Flagged)", {rb"\Seen", rb"\Flagged"}),
        (r"+FLAGS (\Answered)", {rb"\Seen", rb"\Flagged", rb"\Answered"}),
        (r"-FLAGS (\Seen \Draft)", {rb"\Flagged", rb"\Answered"}),
        (r"FLAGS (\Draft)", {rb"\Draft"}),
        ("FLAGS ()", set()),
    ):
        row = imap.ok(f"STORE 1 {item}").row()
        assert set(row[b"FLAGS"]) - {rb"\Recent"} == expected
        assert _flags(imap) == expected


@case("STORE")
def silent_says_nothing_and_does_the_same(box: Box) -> None:
    imap = box.selected(letter(1))
    assert imap.ok(r"STORE 1 +FLAGS.SILENT (\Seen)").fetches() == []
    assert _flags(imap) == {rb"\Seen"}
    assert imap.ok(r"STORE 1 -FLAGS.SILENT (\Seen)").fetches() == []
    assert imap.ok(r"STORE 1 FLAGS.SILENT (\Draft)").fetches() == []
    assert _flags(imap) == {rb"\Draft"}


@case("STORE")
def flags_need_no_parentheses(box: Box) -> None:
    imap = box.selected(letter(1))
    imap.ok(r"STORE 1 +FLAGS \Seen \Flagged")
    assert _flags(imap) == {rb"\Seen", rb"\Flagged"}


@case("STORE")
def keywords_are_flags_of_ones_own(box: Box) -> None:
    imap = box.selected(letter(1))
    imap.ok("STORE 1 +FLAGS ($Forwarded custom)")
    assert _flags(imap) == {b"$Forwarded", b"custom"}
    imap.ok("STORE 1 -FLAGS ($Forwarded)")
    assert _flags(imap) == {b"custom"}


@case("STORE")
def flags_know_no_case(box: Box) -> None:
    imap = box.selected(letter(1))
    imap.ok(r"STORE 1 +FLAGS (\sEEN)")
    assert {flag.lower() for flag in _flags(imap)} == {rb"\seen"}


@case("STORE")
def uid_store_answers_with_uids(box: Box) -> None:
    imap = box.selected(letter(1), letter(2))
    last = box.uids()[1]
    ((number, row),) = imap.ok(rf"UID STORE {last} +FLAGS (\Seen)").fetches()
    assert (number, int(row[b"UID"])) == (2, last)
    assert rb"\Seen" in row[b"FLAGS"]


@case("STORE")
def uid_store_passes_over_what_is_not_there(box: Box) -> None:
    imap = box.selected(letter(1))
    assert imap.ok(rf"UID STORE {box.uids()[0] + 50} +FLAGS (\Seen)").fetches() == []


@case("STORE")
def store_on_many_answers_each(box: Box) -> None:
    imap = box.selected(letter(1), letter(2), letter(3))
    assert [number for number, _ in imap.ok(r"STORE 1:* +FLAGS (\Seen)").fetches()] == [1, 2, 3]


@case("STORE")
def recent_and_unknown_system_flags_can_not_be_set(box: Box) -> None:
    imap = box.selected(letter(1))
    imap.command(r"STORE 1 +FLAGS (\Recent)").must("BAD", "NO")
    imap.command(r"STORE 1 +FLAGS (\Nobody)").must("BAD", "NO")
    assert _flags(imap) == set()


@case("STORE")
def flags_outlive_the_connection(box: Box) -> None:
    box.selected(letter(1)).ok(r"STORE 1 +FLAGS (\Flagged kept)")
    other = box.login()
    other.ok("SELECT INBOX")
    assert _flags(other) == {rb"\Flagged", b"kept"}


@case("COPY, MOVE, EXPUNGE")
def copy_keeps_bytes_flags_and_date(box: Box) -> None:
    box.imap.ok("CREATE work")
    imap = box.selected(letter(1), flags=[r"\Flagged", "custom"])
    items = "(FLAGS INTERNALDATE BODY.PEEK[])"
    before = imap.ok(f"FETCH 1 {items}").row()
    imap.ok("COPY 1 work")
    assert imap.ok("STATUS work (MESSAGES)").named(b"STATUS")[0][1] == [b"MESSAGES", b"1"]
    imap.ok("SELECT work")
    after = imap.ok(f"FETCH 1 {items}").row()
    assert set(after[b"FLAGS"]) - {rb"\Recent"} == {rb"\Flagged", b"custom"}
    assert (after[b"INTERNALDATE"], after[b"BODY[]"]) == (before[b"INTERNALDATE"], before[b"BODY[]"])


@case("COPY, MOVE, EXPUNGE", "UIDPLUS")
def copy_tells_the_uids_of_both_sides(box: Box) -> None:
    """RFC 4315 section 3."""
    box.imap.ok("CREATE work")
    imap = box.selected(letter(1), letter(2), letter(3))
    uids = box.uids()
    validity, source, target = _copied(imap.ok("COPY 1:2 work"))
    assert source in {b"%d:%d" % (uids[0], uids[1]), b"%d,%d" % (uids[0], uids[1])}
    assert validity == imap.ok("SELECT work").codes[b"UIDVALIDITY"]
    uids = box.uids()
    assert target in {b"%d:%d" % (uids[0], uids[1]), b"%d,%d" % (uids[0], uids[1])}


@case("COPY, MOVE, EXPUNGE")
def copy_to_what_is_not_there_says_try_create(box: Box) -> None:
    """RFC 3501 section 6.4.7."""
    imap = box.selected(letter(1))
    assert imap.no("COPY 1 nothing").code == b"TRYCREATE"


@case("COPY, MOVE, EXPUNGE")
def uid_copy_of_what_is_not_there_copies_nothing(box: Box) -> None:
    box.imap.ok("CREATE work")
    imap = box.selected(letter(1))
    assert b"COPYUID" not in imap.ok(f"UID COPY {box.uids()[0] + 50} work").codes
    assert imap.ok("SELECT work").numbered(b"EXISTS") == [0]


@case("COPY, MOVE, EXPUNGE")
def copy_into_the_same_mailbox_makes_another_message(box: Box) -> None:
    imap = box.selected(letter(1))
    reply = imap.ok("COPY 1 INBOX")
    assert 2 in reply.numbered(b"EXISTS") + imap.ok("NOOP").numbered(b"EXISTS")
    assert len(set(box.uids())) == 2


@case("COPY, MOVE, EXPUNGE", "MOVE", "UIDPLUS")
def move_tells_the_uids_before_it_expunges(box: Box) -> None:
    """RFC 6851 section 4.3: COPYUID in an untagged OK, so that it comes before EXPUNGE."""
    box.imap.ok("CREATE work")
    imap = box.selected(letter(1), letter(2), letter(3))
    uids = box.uids()
    reply = imap.ok("MOVE 2 work")
    assert _copied(reply)[1] == b"%d" % uids[1]
    kinds = [b"COPYUID" if b"COPYUID" in line else line for line in reply.untagged]
    assert kinds.index(b"COPYUID") < kinds.index(b"2 EXPUNGE")
    assert _subjects(imap) == [b"1", b"3"]
    imap.ok("SELECT work")
    assert _subjects(imap) == [b"2"]


@case("COPY, MOVE, EXPUNGE", "MOVE")
def uid_move_takes_uids(box: Box) -> None:
    box.imap.ok("CREATE work")
    imap = box.selected(letter(1), letter(2), letter(3))
    uids = box.uids()
    reply = imap.ok(f"UID MOVE {uids[0]},{uids[2]} work")
    assert len(reply.numbered(b"EXPUNGE")) == 2
    assert box.uids() == [uids[1]]


@case("COPY, MOVE, EXPUNGE", "MOVE")
def move_to_what_is_not_there_moves_nothing(box: Box) -> None:
    imap = box.selected(letter(1))
    assert imap.no("MOVE 1 nothing").code == b"TRYCREATE"
    assert _subjects(imap) == [b"1"]


@case("COPY, MOVE, EXPUNGE")
def expunge_numbers_follow_one_another(box: Box) -> None:
    """RFC 3501 section 7.4.1: each EXPUNGE at once shifts the numbers behind it."""
    imap = box.selected(*(letter(number) for number in range(1, 7)))
    imap.ok(r"STORE 2,3,5 +FLAGS.SILENT (\Deleted)")
    left = [b"1", b"2", b"3", b"4", b"5", b"6"]
    for number in imap.ok("EXPUNGE").numbered(b"EXPUNGE"):
        del left[number - 1]
    assert left == [b"1", b"4", b"6"]
    assert _subjects(imap) == left


@case("COPY, MOVE, EXPUNGE")
def expunge_of_nothing_says_nothing(box: Box) -> None:
    assert box.selected(letter(1)).ok("EXPUNGE").numbered(b"EXPUNGE") == []


@case("COPY, MOVE, EXPUNGE", "UIDPLUS")
def uid_expunge_takes_only_the_deleted_of_the_listed(box: Box) -> None:
    """RFC 4315 section 2.1."""
    imap = box.selected(letter(1), letter(2), letter(3))
    uids = box.uids()
    imap.ok(r"STORE 1,3 +FLAGS.SILENT (\Deleted)")
    assert imap.ok(f"UID EXPUNGE {uids[1]}:{uids[2]}").numbered(b"EXPUNGE") == [3]
    assert box.uids() == uids[:2]


@case("COPY, MOVE, EXPUNGE")
def an_examined_mailbox_can_not_be_expunged(box: Box) -> None:
    box.append(letter(1), flags=[r"\Deleted"])
    box.imap.ok("EXAMINE INBOX")
    assert box.imap.command("EXPUNGE").numbered(b"EXPUNGE") == []
    assert box.imap.ok("SELECT INBOX").numbered(b"EXISTS") == [1]
