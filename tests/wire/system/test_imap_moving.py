"""Moves, expunges and new folders: what is done, that nothing else is, and that doing it twice does no harm."""

import pytest
from imap_dialogue import LOGIN, LOGOUT, opened, welcome
from scripted_server import ScriptedServer

from email_service import imap
from email_service.errors import ImapError, UidValidityError
from email_service.imap import Moved
from email_service.vault import Secret

#: What is stripped from the server's offer, by the way that is left.
WAYS = {"MOVE": (), "UIDPLUS": ("MOVE",), "neither": ("MOVE", "UIDPLUS")}


@pytest.fixture
def session(fakemail, mailbox):
    """Opens a session with a server that lacks some capabilities."""

    def opening(way="MOVE", *more):
        fakemail.clear_faults()
        if stripped := [*WAYS[way], *more]:
            fakemail.put_fault("imap.capability", fault_id="lacks", strip=stripped)
        host, port = mailbox.imap
        endpoint = imap.ImapEndpoint(
            host=host, port=port, encryption="none", username=mailbox.address, password=Secret(mailbox.password)
        )
        return imap.open_session(endpoint, 10.0)

    return opening


@pytest.fixture
def uidvalidity(fakemail, mailbox):
    return lambda: next(f["uidvalidity"] for f in fakemail.mailbox(mailbox.address)["folders"] if f["name"] == "INBOX")


def subjects(mailbox, folder="INBOX"):
    return sorted(mail.email["Subject"] for mail in mailbox.messages(folder))


def flags(fakemail, mailbox, folder="INBOX"):
    return {row["uid"]: set(row["flags"]) - {"\\Recent"} for row in fakemail.messages(mailbox.address, folder)}


def filled(mailbox, *letters):
    for letter in letters:
        mailbox.append(f"Message-ID: <{letter}@example.com>\r\nSubject: {letter}\r\n\r\nbody\r\n".encode())


# --- move -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_a_move_takes_these_messages_and_no_others(mailbox, session, uidvalidity, way):
    filled(mailbox, *"abcde")
    with session(way) as box:
        moved = box.move("INBOX", uidvalidity(), [4, 2, 77], "Trash")
    assert (moved.done, moved.gone) == ((2, 4), (77,))
    assert subjects(mailbox) == ["a", "c", "e"]
    assert subjects(mailbox, "Trash") == ["b", "d"]
    if way != "neither":
        assert moved.uids == {2: 1, 4: 2}
        assert moved.uidvalidity is not None


@pytest.mark.parametrize("way", WAYS)
def test_a_move_that_is_done_again_finds_the_messages_gone(mailbox, session, uidvalidity, way):
    filled(mailbox, *"abc")
    for _ in range(2):
        with session(way) as box:
            moved = box.move("INBOX", uidvalidity(), [1, 2], "Trash")
    assert (moved.done, moved.gone, moved.uids) == ((), (1, 2), {})
    assert (subjects(mailbox), subjects(mailbox, "Trash")) == (["c"], ["a", "b"])


#: Where a move may break off: the way, the command, and whether it is carried out first.
BREAKS = [
    (way, command, point)
    for way, commands in {"MOVE": ["MOVE"], "UIDPLUS": ["COPY", "STORE", "EXPUNGE"]}.items()
    for command in commands
    for point in ("imap.command", "imap.reply")
] + [("neither", command, "imap.reply") for command in ("COPY", "STORE", "EXPUNGE")]


@pytest.mark.parametrize("broken", BREAKS, ids=" ".join)
def test_a_move_that_breaks_off_anywhere_ends_as_one_that_did_not(fakemail, mailbox, session, uidvalidity, broken):
    way, command, point = broken
    filled(mailbox, *"abcd")
    fakemail.set_flags(mailbox.address, 4, ["\\Deleted"])
    with session(way) as box:
        fakemail.put_fault(point, match={"command": command}, drop=True, first=1)
        with pytest.raises(ImapError):
            box.move("INBOX", uidvalidity(), [1, 2], "Trash")
    with session(way) as box:
        box.move("INBOX", uidvalidity(), [1, 2], "Trash")
    assert subjects(mailbox) == ["c", "d"]
    assert subjects(mailbox, "Trash") == ["a", "b"]


def test_messages_without_a_message_id_are_not_copied_twice_either(fakemail, mailbox, session, uidvalidity):
    for text in (b"Subject: a\r\n\r\none\r\n", b"Subject: b\r\n\r\ntwo\r\n", b"Subject: c\r\n\r\nthree\r\n"):
        mailbox.append(text)
    with session("neither") as box:
        fakemail.put_fault("imap.reply", match={"command": "COPY"}, drop=True, first=1)
        with pytest.raises(ImapError):
            box.move("INBOX", uidvalidity(), [1, 2, 3], "Trash")
    with session("neither") as box:
        moved = box.move("INBOX", uidvalidity(), [1, 2, 3], "Trash")
    assert moved.done == (1, 2, 3)
    assert len(mailbox.messages("Trash")) == 3


def test_a_folder_that_was_renumbered_is_left_alone(fakemail, mailbox, session, uidvalidity):
    filled(mailbox, *"abc")
    before = uidvalidity()
    fakemail.reset_uidvalidity(mailbox.address)
    with session() as box:
        with pytest.raises(UidValidityError, match=str(before)) as caught:
            box.move("INBOX", before, [1], "Trash")
        with pytest.raises(UidValidityError):
            box.expunge("INBOX", before, [1])
        assert box.expunge("INBOX", uidvalidity(), [3]).done == (3,)
    assert (caught.value.transient, caught.value.definite) == (False, True)
    assert subjects(mailbox) == ["a", "b"]


def test_a_move_into_the_folder_itself_is_refused(mailbox, session, uidvalidity):
    filled(mailbox, "a")
    with session() as box, pytest.raises(ImapError) as caught:
        box.move("INBOX", uidvalidity(), [1], "INBOX")
    assert not caught.value.transient


def test_a_target_that_is_not_there_is_an_error_and_nothing_is_lost(mailbox, session, uidvalidity):
    filled(mailbox, "a")
    for way in WAYS:
        with session(way) as box, pytest.raises(ImapError):
            box.move("INBOX", uidvalidity(), [1], "Nowhere")
    assert subjects(mailbox) == ["a"]


def test_a_thousand_messages_are_moved_in_commands_that_servers_take(mailbox, session, uidvalidity):
    """At most 500 UIDs in a line, also where no two are neighbours."""
    mailbox.seed(1600, seed=1)
    uids = list(range(1, 1601, 2))
    with session() as box:
        moved = box.move("INBOX", uidvalidity(), uids, "Trash")
    assert moved.done == tuple(uids)
    assert moved.uids == {uid: place for place, uid in enumerate(uids, 1)}


def selected(*replies, uidvalidity=7):
    return (
        'C: * SELECT "INBOX"',
        *replies,
        f"S: * OK [UIDVALIDITY {uidvalidity}] valid",
        "S: TAG OK [READ-WRITE] open",
    )


SELECTED = (*selected("S: * 3 EXISTS"), "C: * UID SEARCH UID 1:2", "S: * SEARCH 1 2", "S: TAG OK done")


@pytest.mark.parametrize(
    ("replies", "uids"),
    [
        (("S: * OK [COPYUID 9 1:2 5:6] moved", "S: * 1 EXPUNGE", "S: TAG OK done"), {1: 5, 2: 6}),
        (("S: * 1 EXPUNGE", "S: TAG OK [COPYUID 9 1,2 8,6] done"), {1: 8, 2: 6}),
        (("S: TAG OK [COPYUID 9 1:2 5] done",), {}),
        (("S: TAG OK [COPYUID 9 3:4 5:6] done",), {}),
        (("S: TAG OK [COPYUID 9 1:4294967295 1:4294967295] done",), {1: 1, 2: 2}),
        (("S: TAG OK done",), {}),
    ],
)
def test_where_messages_went_is_read_from_either_reply(replies, uids):
    steps = (*welcome("MOVE"), *SELECTED, 'C: * UID MOVE 1:2 "Bin"', *replies, *LOGOUT)
    with ScriptedServer(*steps) as server, opened(server) as box:
        moved = box.move("INBOX", 7, [1, 2], "Bin")
    assert moved == Moved(done=(1, 2), gone=(), uids=uids, uidvalidity=9 if uids else None)


def test_a_folder_that_may_only_be_read_is_said_to_be_so():
    steps = (*selected("S: * 3 EXISTS")[:-1], "S: TAG OK [READ-ONLY] open", "DEAF")
    with (
        ScriptedServer(*LOGIN, *steps) as server,
        pytest.raises(ImapError, match="only be read") as caught,
        opened(server) as box,
    ):
        box.move("INBOX", 7, [1, 2], "Bin")
    assert not caught.value.transient


# --- expunge --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_an_expunge_takes_these_messages_and_not_what_others_have_flagged(fakemail, mailbox, session, uidvalidity, way):
    filled(mailbox, *"abcde")
    fakemail.set_flags(mailbox.address, 5, ["\\Deleted", "\\Seen"])
    for expected in (Moved(done=(1, 3), gone=(9,), uids={}, uidvalidity=None), None):
        with session(way) as box:
            moved = box.expunge("INBOX", uidvalidity(), [1, 3, 9])
        assert moved == expected or (expected is None and moved.gone == (1, 3, 9))
    assert flags(fakemail, mailbox) == {2: set(), 4: set(), 5: {"\\Deleted", "\\Seen"}}


def test_a_refused_expunge_gives_others_their_flags_back(fakemail, mailbox, session, uidvalidity):
    filled(mailbox, *"ab")
    fakemail.set_flags(mailbox.address, 2, ["\\Deleted"])
    with session("neither") as box:
        fakemail.put_fault("imap.command", match={"command": "EXPUNGE"}, reply="NO [INUSE] not now", first=1)
        with pytest.raises(ImapError) as caught:
            box.expunge("INBOX", uidvalidity(), [1])
    assert caught.value.transient
    assert flags(fakemail, mailbox)[2] == {"\\Deleted"}


def test_messages_that_are_still_there_after_an_expunge_are_not_said_to_be_gone():
    steps = (*SELECTED, "C: * UID STORE 1:2 +FLAGS.SILENT (\\Deleted)", "S: TAG OK done", "C: * UID EXPUNGE 1:2")
    after = ("S: TAG OK done", "C: * UID SEARCH UID 1:2", "S: * SEARCH 2", "S: TAG OK done", "DEAF")
    with (
        ScriptedServer(*welcome("UIDPLUS"), *steps, *after) as server,
        pytest.raises(ImapError, match="1 message") as caught,
        opened(server) as box,
    ):
        box.expunge("INBOX", 7, [1, 2])
    assert caught.value.transient


def test_nothing_to_expunge_says_nothing_but_that():
    steps = (*SELECTED[:-2], "S: * SEARCH", "S: TAG OK done", *LOGOUT)
    with ScriptedServer(*LOGIN, *steps) as server, opened(server) as box:
        assert box.expunge("INBOX", 7, [1, 2]).gone == (1, 2)


# --- folders --------------------------------------------------------------------------------------------------------


def test_a_folder_of_the_type_is_taken_whatever_its_name(session):
    with session() as box:
        assert box.ensure_folder("spam", "Spam").name == "Junk"


@pytest.mark.parametrize("lacking", [(), ("CREATE-SPECIAL-USE",), ("CREATE-SPECIAL-USE", "NAMESPACE")])
def test_a_folder_that_is_missing_is_made_with_its_use(fakemail, mailbox, session, lacking):
    fakemail.delete_folder(mailbox.address, "Trash")
    for _ in range(2):
        with session("MOVE", *lacking) as box:
            made = box.ensure_folder("trash", "Gel\u00f6scht")
    assert made.name == "Gel\u00f6scht"
    assert made.type == ("custom" if lacking else "trash")
    names = [folder["name"] for folder in fakemail.mailbox(mailbox.address)["folders"]]
    assert names.count("Gel\u00f6scht") == 1


LISTED = ('C: * LIST "" [*]', 'S: * LIST () "." INBOX', "S: TAG OK done")


def test_a_folder_is_made_where_ones_own_folders_are():
    """Courier and Cyrus refuse names outside of INBOX."""
    made = ('C: * CREATE "INBOX.Trash"', "S: TAG OK made", 'C: * SUBSCRIBE "INBOX.Trash"', "S: TAG NO not here")
    steps = ("C: * NAMESPACE", 'S: * NAMESPACE (("INBOX." ".")) NIL NIL', "S: TAG OK done", *made)
    listed = (*LISTED[:-1], 'S: * LIST () "." INBOX.Trash', "S: TAG OK done", *LOGOUT)
    with ScriptedServer(*welcome("NAMESPACE"), *LISTED, *steps, *listed) as server, opened(server) as box:
        folder = box.ensure_folder("trash", "Trash")
    assert (folder.name, folder.type) == ("INBOX.Trash", "trash")


@pytest.mark.parametrize("said", ["NO [ALREADYEXISTS] there is one", "NO Mailbox exists."])
def test_a_folder_that_somebody_made_meanwhile_is_taken(said):
    steps = ('C: * CREATE "Bin"', f"S: TAG {said}", "C: * SUBSCRIBE *", "S: TAG OK done")
    listed = (*LISTED[:-1], 'S: * LIST () "." Bin', "S: TAG OK done", *LOGOUT)
    with ScriptedServer(*LOGIN, *LISTED, *steps, *listed) as server, opened(server) as box:
        assert box.ensure_folder("trash", "Bin").type == "trash"


def test_a_server_that_does_not_know_the_use_makes_the_folder_all_the_same():
    steps = ('C: * CREATE "Bin" (USE (\\Trash))', "S: TAG NO [USEATTR] not that", 'C: * CREATE "Bin"', "S: TAG OK made")
    listed = (*LISTED[:-1], 'S: * LIST () "." Bin', "S: TAG OK done", *LOGOUT)
    can = welcome("CREATE-SPECIAL-USE")
    steps = (*steps, "C: * SUBSCRIBE *", "S: TAG OK done", *listed)
    with ScriptedServer(*can, *LISTED, *steps) as server, opened(server) as box:
        assert box.ensure_folder("trash", "Bin").name == "Bin"


def test_a_server_that_makes_no_folder_says_why():
    steps = ('C: * CREATE "Bin"', "S: TAG NO [NOPERM] not yours", "DEAF")
    with (
        ScriptedServer(*LOGIN, *LISTED, *steps) as server,
        pytest.raises(ImapError, match="NOPERM") as caught,
        opened(server) as box,
    ):
        box.ensure_folder("trash", "Bin")
    assert not caught.value.transient


def test_a_folder_without_a_name_is_not_made():
    with (
        ScriptedServer(*LOGIN, *LISTED, "DEAF") as server,
        pytest.raises(ImapError) as caught,
        opened(server) as box,
    ):
        box.ensure_folder("trash", "")
    assert not caught.value.transient
    assert not any(b"CREATE" in line for line in server.lines)
