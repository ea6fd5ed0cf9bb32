"""Changes since a token, in the words of servers: those of RFC 7162's examples, and those that lie."""

import pytest
from imap_dialogue import (
    LOGIN,
    LOGOUT,
    Rows,
    body,
    changes,
    fetch,
    flags,
    folder,
    opened,
    search,
    sizes,
    token,
    welcome,
)
from scripted_server import ScriptedServer

from email_service.errors import ImapError
from email_service.imap import RemoteFolder
from email_service.imap import changes as changing
from email_service.imap.values import FolderStatus

QRESYNC = (*welcome("ENABLE", "CONDSTORE", "QRESYNC"), "C: * ENABLE QRESYNC", "S: * ENABLED QRESYNC", "S: TAG OK on")
CONDSTORE = welcome("CONDSTORE")
RESYNC = '"INBOX" (QRESYNC (7 20 1:9))'


def examined(parameters, *replies, exists=5, uidnext=10, modseq=20, uidvalidity=7):
    """The dialogue that opens a folder; ``replies`` come with it."""
    return (
        f"C: * EXAMINE {parameters}",
        f"S: * {exists} EXISTS",
        f"S: * OK [UIDVALIDITY {uidvalidity}] valid",
        *([f"S: * OK [UIDNEXT {uidnext}] next"] if uidnext else []),
        f"S: * OK [HIGHESTMODSEQ {modseq}] highest" if modseq else "S: * OK [NOMODSEQ] none",
        *replies,
        "S: TAG OK [READ-ONLY] open",
    )


def whole(modseq=20, last_uid=9, messages=5, uidnext=10):
    return token(last_uid, highestmodseq=modseq, messages=messages, uidnext=uidnext)


# --- QRESYNC --------------------------------------------------------------------------------------------------------


def test_qresync_tells_all_with_the_opening():
    told = (
        "S: * VANISHED (EARLIER) 1:2,4,300:500",
        "S: * 1 FETCH (UID 3 FLAGS (\\Seen) MODSEQ (21))",
        "S: * 2 FETCH (FLAGS (\\Answered $x) UID 5 MODSEQ (22))",
    )
    with ScriptedServer(*QRESYNC, *examined(RESYNC, *told, exists=2, modseq=22), *LOGOUT) as server:
        (batch,) = changes(server, whole())
    assert batch.vanished == (range(1, 3), range(4, 5))
    assert batch.flags == {3: ("\\Seen",), 5: ("\\Answered", "$x")}
    assert (batch.reset, batch.messages, batch.token) == (False, (), whole(22, messages=2))


def test_four_billion_vanished_uids_are_one_range():
    told = "S: * VANISHED (EARLIER) 1:4294967295"
    with ScriptedServer(*QRESYNC, *examined(RESYNC, told, exists=0, modseq=22), *LOGOUT) as server:
        (batch,) = changes(server, whole())
    assert batch.vanished == (range(1, 10),)


def test_what_was_said_of_the_folder_before_is_not_taken_for_this_one():
    """RFC 7162 section 3.2.11: until CLOSED, replies are about the folder that was open."""
    late = (
        "S: * VANISHED (EARLIER) 3",
        "S: * 1 FETCH (UID 4 FLAGS (\\Seen) MODSEQ (30))",
        "S: * OK [CLOSED] the other",
    )
    opening = examined(RESYNC, modseq=20)
    with ScriptedServer(*QRESYNC, opening[0], *late, *opening[1:], *LOGOUT) as server:
        (batch,) = changes(server, whole())
    assert (batch.vanished, batch.flags, batch.token) == ((), {}, whole())


def test_new_messages_and_changes_of_old_ones_are_one_batch():
    told = ("S: * VANISHED (EARLIER) 2", "S: * 1 FETCH (UID 3 FLAGS () MODSEQ (21))")
    steps = (*examined(RESYNC, *told, exists=5, uidnext=11, modseq=21), *search(10, " 10"))
    with ScriptedServer(*QRESYNC, *steps, *sizes("10", u10=1), *fetch("10", body(10, b"a")), *LOGOUT) as server:
        (batch,) = changes(server, whole())
    assert [message.uid for message in batch.messages] == [10]
    assert (batch.vanished, batch.flags) == ((range(2, 3),), {3: ()})
    assert batch.token == whole(21, last_uid=10, messages=5, uidnext=11)


@pytest.mark.parametrize("answer", [("S: TAG OK nothing",), ("S: TAG BAD what?",), ("S: * ENABLED", "S: TAG OK on")])
def test_qresync_that_is_not_enabled_is_not_used(answer):
    steps = (*welcome("ENABLE", "CONDSTORE", "QRESYNC"), "C: * ENABLE QRESYNC", *answer)
    with ScriptedServer(*steps, *examined('"INBOX" (CONDSTORE)'), *LOGOUT) as server:
        assert changes(server, whole())[0].token == whole()


def test_a_server_that_offers_what_it_does_not_take_is_asked_for_less():
    opening = (f"C: * EXAMINE {RESYNC}", "S: TAG BAD unknown parameter")
    less = ('C: * EXAMINE "INBOX" (CONDSTORE)', "S: TAG BAD unknown parameter")
    known = flags("1:9", "S: * 1 FETCH (UID 9 FLAGS ())")
    with ScriptedServer(
        *QRESYNC, *opening, *less, *examined('"INBOX"', exists=1, modseq=None), *known, *LOGOUT
    ) as server:
        (batch,) = changes(server, whole(), Rows(u9=[]))
    assert batch.token == whole(None, messages=1)


def test_expunges_that_qresync_does_not_tell_are_found_by_their_count():
    told = "S: * VANISHED (EARLIER) 8"
    opening = (*examined(RESYNC, told, exists=3, modseq=21), *search("1:9", " 1 2 9"))
    rows = Rows(u1=[], u2=[], u7=[], u8=[], u9=[])
    steps = [step.replace("1:9:[*]", "1:9") for step in opening]
    with ScriptedServer(*QRESYNC, *steps, *LOGOUT) as server:
        first, second = changes(server, whole(), rows)
    assert first.vanished == (range(8, 9),)
    # Until all is told, the token stays where it was.
    assert first.token == whole(uidnext=None)
    assert second.vanished == (range(7, 9),)
    assert second.token == whole(21, messages=3)


# --- CONDSTORE ------------------------------------------------------------------------------------------------------


def since(*replies, modseq=20, uid_set="1:9"):
    return (f"C: * UID FETCH {uid_set} (UID FLAGS) (CHANGEDSINCE {modseq})", *replies, "S: TAG OK done")


def test_condstore_tells_flags_and_a_count_that_adds_up_says_that_nothing_is_gone():
    changed = "S: * 2 FETCH (UID 3 FLAGS (\\Seen) MODSEQ (21))"
    with ScriptedServer(*CONDSTORE, *examined('"INBOX" (CONDSTORE)', modseq=21), *since(changed), *LOGOUT) as server:
        (batch,) = changes(server, whole())
    assert (batch.flags, batch.vanished, batch.token) == ({3: ("\\Seen",)}, (), whole(21))


def test_condstore_with_a_count_that_does_not_add_up_makes_us_search():
    opening = (
        *examined('"INBOX" (CONDSTORE)', exists=3),
        "C: * UID SEARCH UID 1:9",
        "S: * SEARCH 1 5 9",
        "S: TAG OK done",
    )
    rows = Rows(u1=[], u2=[], u3=[], u5=[], u9=[])
    with ScriptedServer(*CONDSTORE, *opening, *LOGOUT) as server:
        (batch,) = changes(server, whole(), rows)
    assert (batch.vanished, batch.token) == ((range(2, 4),), whole(messages=3))


def test_an_expunge_that_an_arrival_hides_is_found_the_next_time():
    """Both happen behind the search: the count is as it was, and so is the token's."""
    opening = (*examined('"INBOX" (CONDSTORE)', exists=5, uidnext=None), "C: * UID SEARCH UID 10:[*]")
    news = ("S: * 2 EXPUNGE", "S: * 5 EXISTS", "S: * SEARCH", "S: TAG OK done")
    with ScriptedServer(*CONDSTORE, *opening, *news, *LOGOUT) as server:
        (batch,) = changes(server, whole())
    assert batch.token == whole(uidnext=None)
    steps = (*examined('"INBOX" (CONDSTORE)', exists=5, uidnext=11), *search(10, " 10"))
    compared = ("C: * UID SEARCH UID 1:9", "S: * SEARCH 1 3 4 9", "S: TAG OK done")
    new = (*sizes("10", u10=1), *fetch("10", body(10, b"a")))
    with ScriptedServer(*CONDSTORE, *steps, *compared, *new, *LOGOUT) as server:
        (batch,) = changes(server, batch.token, Rows(u1=[], u2=[], u3=[], u4=[], u9=[]))
    assert (batch.vanished, batch.token.messages) == ((range(2, 3),), 5)


def test_the_token_keeps_the_sequence_from_before_the_flags_were_read():
    """A change that comes in meanwhile has a higher one, and is told again."""
    changed = ("S: * 2 FETCH (UID 3 FLAGS (\\Seen) MODSEQ (25))", "S: * OK [HIGHESTMODSEQ 25] by now")
    with ScriptedServer(*CONDSTORE, *examined('"INBOX" (CONDSTORE)', modseq=21), *since(*changed), *LOGOUT) as server:
        (batch,) = changes(server, whole())
    assert batch.token.highestmodseq == 21


def test_an_initial_synchronisation_that_was_broken_off_asks_for_changes_since_its_first_opening():
    steps = (*search(1, " 1 2 3 9 10"), *sizes("1:3,9:10", u1=1, u2=1, u3=1, u9=1, u10=1))
    opening = examined('"INBOX" (CONDSTORE)', uidnext=11, modseq=20)
    reading = (*fetch("1:3,9", *(body(uid, b"a") for uid in (1, 2, 3, 9))), "C: * UID FETCH 10 *")
    with ScriptedServer(*CONDSTORE, *opening, *steps, *reading, "DEAF") as server, opened(server) as mailbox:
        first = next(mailbox.changes_since("INBOX", None, Rows(), batch=4))
    assert (first.reset, first.token) == (True, whole(20, messages=4, uidnext=None))
    changed = "S: * 2 FETCH (UID 3 FLAGS (\\Seen) MODSEQ (21))"
    steps = (*examined('"INBOX" (CONDSTORE)', uidnext=11, modseq=21), *search(10, " 10"), *since(changed))
    new = (*sizes("10", u10=1), *fetch("10", body(10, b"a")))
    with ScriptedServer(*CONDSTORE, *steps, *new, *LOGOUT) as server:
        (last,) = changes(server, first.token)
    assert (last.reset, last.flags, last.token) == (False, {3: ("\\Seen",)}, whole(21, 10, 5, 11))


# --- comparison -----------------------------------------------------------------------------------------------------


def test_a_comparison_tells_what_differs_and_nothing_else():
    known = flags(
        "1:9",
        "S: * 1 FETCH (UID 1 FLAGS (\\Recent \\SEEN $a))",
        "S: * 2 FETCH (UID 2 FLAGS (\\Seen))",
        "S: * 3 FETCH (UID 12 FLAGS (\\Seen))",
        "S: * 4 FETCH (FLAGS (\\Seen))",
    )
    with ScriptedServer(*LOGIN, *examined('"INBOX"', exists=2, modseq=None), *known, *LOGOUT) as server:
        (batch,) = changes(server, whole(None), Rows(u1=["$a", "\\Seen"], u2=[], u3=["\\Seen"], u4=[]))
    assert (batch.flags, batch.vanished) == ({2: ("\\Seen",)}, (range(3, 5),))
    assert batch.token == whole(None, messages=2)


def test_a_message_that_rows_lack_is_read_and_until_then_the_token_stays():
    known = flags("1:9", *(f"S: * 1 FETCH (UID {uid} FLAGS ())" for uid in (1, 2, 3, 8, 9)))
    steps = (*sizes("2:3", u2=1, u3=1), *fetch("2", body(2, b"a")), *fetch("3", body(3, b"b")))
    with ScriptedServer(*LOGIN, *examined('"INBOX"', modseq=None), *known, *steps, *LOGOUT) as server:
        first, second = changes(server, whole(None, messages=3), Rows(u1=[], u8=[], u9=[]), batch=1)
    assert (first.token, first.more) == (whole(None, messages=3), True)
    assert (second.token, second.more) == (whole(None, messages=5), False)


@pytest.mark.parametrize("modseq", [None, 0, 19], ids=["NOMODSEQ", "zero", "going back"])
def test_a_modification_sequence_that_is_none_makes_us_compare(modseq):
    known = flags("1:9", "S: * 1 FETCH (UID 9 FLAGS (\\Seen))")
    told = ("S: * VANISHED (EARLIER) 9", "S: * 1 FETCH (UID 9 FLAGS ())")
    with ScriptedServer(*QRESYNC, *examined(RESYNC, *told, exists=1, modseq=modseq), *known, *LOGOUT) as server:
        (batch,) = changes(server, whole(), Rows(u9=[]))
    assert (batch.flags, batch.vanished) == ({9: ("\\Seen",)}, ())
    assert batch.token == whole(modseq or None, messages=1)


def test_a_folder_that_gets_modification_sequences_is_compared_once_more():
    known = flags("1:9", "S: * 1 FETCH (UID 9 FLAGS (\\Seen))")
    with ScriptedServer(*CONDSTORE, *examined('"INBOX" (CONDSTORE)', exists=1), *known, *LOGOUT) as server:
        (batch,) = changes(server, whole(None), Rows(u9=[]))
    assert batch.token == whole(20, messages=1)


# --- folders that are another one -----------------------------------------------------------------------------------


def test_another_uidvalidity_forgets_what_qresync_would_have_told():
    opening = examined(RESYNC, exists=1, uidnext=2, uidvalidity=8)
    steps = (*search(1, " 1"), *sizes("1", u1=1), *fetch("1", body(1, b"a")))
    with ScriptedServer(*QRESYNC, *opening, *steps, *LOGOUT) as server:
        (batch,) = changes(server, whole())
    assert (batch.reset, batch.uidvalidity, batch.vanished) == (True, 8, ())
    assert batch.token == token(1, uidvalidity=8, highestmodseq=20, messages=1, uidnext=2)


def test_a_folder_that_was_set_back_begins_again():
    """As after a restored backup: the same UIDVALIDITY, and UIDs that will be given again."""
    opening = (*examined(RESYNC, exists=1, uidnext=5, modseq=12), *search(9, " 4"))
    steps = (*search(1, " 4"), *sizes("4", u4=1), *fetch("4", body(4, b"a")))
    with ScriptedServer(*QRESYNC, *opening, *steps, *LOGOUT) as server:
        (batch,) = changes(server, whole())
    assert (batch.reset, batch.token) == (True, token(4, highestmodseq=12, messages=1, uidnext=5))


def test_a_uidnext_that_is_merely_wrong_does_not_make_us_begin_again():
    opening = (*examined(RESYNC, uidnext=9), *search(9, " 9"), *search(10, " 9"))
    with ScriptedServer(*QRESYNC, *opening, *LOGOUT) as server:
        (batch,) = changes(server, whole())
    assert (batch.reset, batch.messages, batch.token.last_uid) == (False, (), 9)


# --- news and searches ----------------------------------------------------------------------------------------------


def test_a_folder_into_which_more_came_meanwhile_was_not_read_to_its_end():
    opening = (*examined('"INBOX" (CONDSTORE)', modseq=21), *since("S: * 6 EXISTS"))
    with ScriptedServer(*CONDSTORE, *opening, *LOGOUT) as server:
        (batch,) = changes(server, whole())
    assert batch.token.uidnext is None


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ('S: * ESEARCH (TAG "A3") UID ALL 10:11,13', [10, 11, 13]),
        ('S: * ESEARCH (TAG "A3") UID', []),
        ('S: * ESEARCH (TAG "A3") UID ALL 13,10:11 MODSEQ 9', [10, 11, 13]),
        ("S: * SEARCH 13 11 10 11", [10, 11, 13]),
    ],
)
def test_esearch_is_used_where_it_is_offered(reply, found):
    opening = (*examined('"INBOX"', exists=3, uidnext=None, modseq=None), "C: * UID SEARCH RETURN (ALL) UID 1:[*]")
    numbers = {f"u{uid}": 1 for uid in found}
    reading = (*sizes("10:11,13", **numbers), *fetch("10:11,13", *(body(uid, b"a") for uid in found))) if found else ()
    with ScriptedServer(*welcome("ESEARCH"), *opening, reply, "S: TAG OK done", *reading, *LOGOUT) as server:
        (batch,) = changes(server)
    assert [message.uid for message in batch.messages] == found


@pytest.mark.parametrize("reply", ["* ESEARCH UID ALL 1:4294967295", "* ESEARCH UID ALL 1:*", "* ESEARCH UID ALL x"])
def test_a_search_that_finds_more_than_there_can_be_is_a_permanent_error(reply):
    steps = (*folder(), "C: * UID SEARCH*", f"S: {reply}", "S: TAG OK done", "DEAF")
    with ScriptedServer(*welcome("ESEARCH"), *steps) as server, pytest.raises(ImapError) as caught:
        changes(server)
    assert not caught.value.transient


def test_windows_are_of_as_many_messages_as_can_be_held():
    assert changing._windows(9, 5) == [(1, 9)]
    assert changing._windows(1_000_000, 50_000) == [(1, 333333), (333334, 666666), (666667, 1_000_000)]
    assert changing._windows(2, 90_000) == [(1, 1), (2, 2)]


# --- lists ----------------------------------------------------------------------------------------------------------


def test_the_status_of_all_folders_comes_with_their_list():
    said = 'C: * LIST "" [*] RETURN (SPECIAL-USE STATUS (MESSAGES UIDNEXT UIDVALIDITY HIGHESTMODSEQ))'
    listing = (
        'S: * LIST () "/" INBOX',
        'S: * LIST (\\NonExistent \\HasChildren) "/" Old',
        'S: * LIST (\\Sent) "/" {4}\r\nSent ("CHILDINFO" ("SUBSCRIBED"))',
        "S: * STATUS INBOX (MESSAGES 3 UIDNEXT 10 UIDVALIDITY 7 HIGHESTMODSEQ 5)",
        "S: * STATUS {4}\r\nSent (MESSAGES 0 UIDVALIDITY 8)",
        "S: TAG OK done",
    )
    can = welcome("LIST-EXTENDED", "LIST-STATUS", "SPECIAL-USE", "CONDSTORE")
    with ScriptedServer(*can, said, *listing, *LOGOUT) as server, opened(server) as mailbox:
        folders = mailbox.folders()
    inbox = FolderStatus(uidvalidity=7, uidnext=10, messages=3, highestmodseq=5)
    sent = FolderStatus(uidvalidity=8, uidnext=None, messages=0, highestmodseq=None)
    assert folders == [
        RemoteFolder(name="INBOX", type="inbox", status=inbox),
        RemoteFolder(name="Sent", type="sent", status=sent),
    ]


def test_a_server_that_does_not_take_its_own_extended_list_is_asked_for_the_plain_one():
    steps = ('C: * LIST "" [*] RETURN (STATUS (MESSAGES UIDNEXT UIDVALIDITY))', "S: TAG BAD syntax")
    plain = ('C: * LIST "" [*]', 'S: * LIST () "/" INBOX', "S: TAG OK done", *LOGOUT)
    with ScriptedServer(*welcome("LIST-STATUS"), *steps, *plain) as server, opened(server) as mailbox:
        assert mailbox.folders() == [RemoteFolder(name="INBOX", type="inbox", status=None)]
