"""Mailboxes: made, listed, renamed, removed, counted (RFC 3501 section 6.3; RFC 5258, 5819, 6154, 8438)."""

from __future__ import annotations

from raw_imap import Reply

from contract.box import Box
from contract.cases import case
from contract.mails import letter


def _listed(reply: Reply, name: bytes = b"LIST") -> dict[str, set[bytes]]:
    """Attributes by mailbox."""
    rows = reply.named(name)
    return {row[2].decode(): {word.lower() for word in row[0]} for row in rows}


def _status(reply: Reply) -> dict[str, dict[bytes, int]]:
    """Items by mailbox."""
    rows = reply.named(b"STATUS")
    return {
        row[0].decode(): {key: int(value) for key, value in zip(row[1][::2], row[1][1::2], strict=True)} for row in rows
    }


@case("mailboxes")
def an_empty_pattern_asks_for_the_separator_alone(box: Box) -> None:
    ((attributes, separator, name),) = box.imap.ok('LIST "" ""').named(b"LIST")
    assert rb"\Noselect" in attributes
    assert len(separator) == 1
    assert name in {b"", separator}


@case("mailboxes")
def a_new_user_has_an_inbox(box: Box) -> None:
    assert "INBOX" in _listed(box.imap.ok('LIST "" "*"'))


@case("mailboxes")
def inbox_is_inbox_in_any_case(box: Box) -> None:
    assert set(_listed(box.imap.ok('LIST "" inbox'))) == {"INBOX"}
    box.imap.ok("SELECT iNbOx")


@case("mailboxes")
def create_makes_a_mailbox_that_list_shows(box: Box) -> None:
    box.imap.ok("CREATE work")
    assert "work" in _listed(box.imap.ok('LIST "" "*"'))
    box.imap.ok("SELECT work")


@case("mailboxes")
def create_with_a_separator_at_the_end_makes_the_name_without_it(box: Box) -> None:
    box.imap.ok(f"CREATE parent{box.separator}")
    assert "parent" in _listed(box.imap.ok('LIST "" "*"'))


@case("mailboxes")
def create_makes_the_levels_above_too(box: Box) -> None:
    box.imap.ok(f"CREATE {box.path('one', 'two', 'three')}")
    listed = _listed(box.imap.ok('LIST "" "one*"'))
    assert set(listed) == {"one", box.path("one", "two"), box.path("one", "two", "three")}


@case("mailboxes")
def create_refuses_what_is_there_by_its_code(box: Box) -> None:
    box.imap.ok("CREATE work")
    assert box.imap.no("CREATE work").code == b"ALREADYEXISTS"


@case("mailboxes")
def create_refuses_inbox(box: Box) -> None:
    box.imap.ok("SELECT INBOX")
    box.imap.no("CREATE INBOX")


@case("mailboxes")
def a_percent_sign_stops_at_the_separator_and_a_star_does_not(box: Box) -> None:
    inner = box.path("one", "two")
    box.imap.ok(f"CREATE {inner}")
    assert inner not in _listed(box.imap.ok('LIST "" "%"'))
    assert "one" in _listed(box.imap.ok('LIST "" "%"'))
    assert set(_listed(box.imap.ok(f'LIST "" "one{box.separator}%"'))) == {inner}
    assert inner in _listed(box.imap.ok('LIST "" "o*o"'))


@case("mailboxes")
def the_reference_is_put_before_the_pattern(box: Box) -> None:
    inner = box.path("one", "two")
    box.imap.ok(f"CREATE {inner}")
    assert set(_listed(box.imap.ok(f'LIST "one{box.separator}" "%"'))) == {inner}


@case("mailboxes")
def a_pattern_that_nothing_fits_lists_nothing(box: Box) -> None:
    assert box.imap.ok('LIST "" "nothing-is-called-so"').named(b"LIST") == []


@case("mailboxes")
def list_tells_whether_there_are_children(box: Box) -> None:
    """RFC 3348, part of RFC 5258."""
    inner = box.path("one", "two")
    box.imap.ok(f"CREATE {inner}")
    listed = _listed(box.imap.ok('LIST "" "one*"'))
    assert rb"\haschildren" in listed["one"]
    assert rb"\hasnochildren" in listed[inner]


@case("mailboxes")
def names_with_spaces_and_quotes_come_back_as_they_were(box: Box) -> None:
    box.imap.ok(rb'CREATE "a \"quoted\" name"')
    assert 'a "quoted" name' in _listed(box.imap.ok('LIST "" "*"'))
    box.imap.ok(b'SELECT {15}\r\na "quoted" name')


@case("mailboxes")
def names_in_modified_utf7_come_back_as_they_were(box: Box) -> None:
    """RFC 3501 section 5.1.3: Entwürfe, and an ampersand."""
    for name in ("Entw&APw-rfe", "Q&-A"):
        box.imap.ok(f"CREATE {name}")
        assert name in _listed(box.imap.ok('LIST "" "*"'))
        box.imap.ok(f"SELECT {name}")


@case("mailboxes")
def delete_removes_a_mailbox_and_its_mail(box: Box) -> None:
    box.imap.ok("CREATE work")
    box.append(letter(1), folder="work")
    box.imap.ok("DELETE work")
    assert "work" not in _listed(box.imap.ok('LIST "" "*"'))
    box.imap.no("SELECT work")


@case("mailboxes")
def delete_refuses_what_is_not_there_by_its_code(box: Box) -> None:
    assert box.imap.no("DELETE nothing").code == b"NONEXISTENT"


@case("mailboxes")
def delete_refuses_inbox(box: Box) -> None:
    box.imap.no("DELETE INBOX")
    box.imap.ok("SELECT INBOX")


@case("mailboxes")
def delete_leaves_the_levels_below(box: Box) -> None:
    inner = box.path("one", "two")
    box.imap.ok("CREATE one")
    box.imap.ok(f"CREATE {inner}")
    box.append(letter(1), folder=inner)
    box.imap.ok("DELETE one")
    assert inner in _listed(box.imap.ok('LIST "" "*"'))
    assert box.imap.ok(f"SELECT {inner}").numbered(b"EXISTS") == [1]


@case("mailboxes")
def a_name_used_again_has_another_uidvalidity(box: Box) -> None:
    """RFC 3501 section 6.3.4: or higher UIDs; both keep a client from mixing up old and new. Also in one second."""
    known: list[tuple[bytes, int]] = []
    for _ in range(4):
        box.imap.ok("CREATE work")
        box.append(letter(1), folder="work")
        codes = box.imap.ok("SELECT work").codes
        validity, uid = codes[b"UIDVALIDITY"], box.uids()[0]
        assert all(validity != before or uid > used for before, used in known)
        known.append((validity, uid))
        box.imap.ok("CLOSE")
        box.imap.ok("DELETE work")


@case("mailboxes")
def rename_takes_mail_and_uids_along(box: Box) -> None:
    box.imap.ok("CREATE work")
    box.append(letter(1), folder="work")
    before = box.imap.ok("SELECT work").codes[b"UIDNEXT"]
    box.imap.ok("SELECT INBOX")
    box.imap.ok("RENAME work play")
    listed = _listed(box.imap.ok('LIST "" "*"'))
    assert "play" in listed
    assert "work" not in listed
    reply = box.imap.ok("SELECT play")
    assert reply.numbered(b"EXISTS") == [1]
    assert reply.codes[b"UIDNEXT"] == before


@case("mailboxes")
def rename_takes_the_levels_below_along(box: Box) -> None:
    box.imap.ok(f"CREATE {box.path('one', 'two', 'three')}")
    box.imap.ok("RENAME one other")
    assert set(_listed(box.imap.ok('LIST "" "o*"'))) == {
        "other",
        box.path("other", "two"),
        box.path("other", "two", "three"),
    }


@case("mailboxes")
def rename_makes_the_levels_above_the_new_name(box: Box) -> None:
    box.imap.ok("CREATE work")
    box.imap.ok(f"RENAME work {box.path('deep', 'work')}")
    assert set(_listed(box.imap.ok('LIST "" "*work"'))) == {box.path("deep", "work")}
    assert "deep" in _listed(box.imap.ok('LIST "" "%"'))


@case("mailboxes")
def rename_refuses_a_name_that_is_taken_and_one_that_is_not_there(box: Box) -> None:
    box.imap.ok("CREATE work")
    box.imap.ok("CREATE play")
    assert box.imap.no("RENAME work play").code == b"ALREADYEXISTS"
    assert box.imap.no("RENAME nothing other").code == b"NONEXISTENT"


@case("mailboxes")
def subscribe_and_unsubscribe_are_what_lsub_shows(box: Box) -> None:
    box.imap.ok("CREATE work")
    box.imap.ok("SUBSCRIBE work")
    assert "work" in _listed(box.imap.ok('LSUB "" "*"'), b"LSUB")
    box.imap.ok("UNSUBSCRIBE work")
    assert "work" not in _listed(box.imap.ok('LSUB "" "*"'), b"LSUB")


@case("mailboxes")
def a_subscription_outlives_its_mailbox(box: Box) -> None:
    """RFC 3501 section 6.3.6: the server must not take the name off the list by itself."""
    box.imap.ok("CREATE work")
    box.imap.ok("SUBSCRIBE work")
    box.imap.ok("DELETE work")
    assert "work" in _listed(box.imap.ok('LSUB "" "*"'), b"LSUB")


@case("mailboxes")
def lsub_with_a_percent_sign_shows_the_level_above_a_subscribed_name(box: Box) -> None:
    """RFC 3501 section 6.3.9."""
    inner = box.path("one", "two")
    box.imap.ok(f"CREATE {inner}")
    box.imap.ok(f"SUBSCRIBE {inner}")
    assert rb"\noselect" in _listed(box.imap.ok('LSUB "" "%"'), b"LSUB").get("one", set())


@case("mailboxes", "SPECIAL-USE")
def special_uses_are_among_the_attributes(box: Box) -> None:
    """RFC 6154 section 2."""
    listed = _listed(box.imap.ok('LIST "" "*"'))
    for name, use in (("Drafts", rb"\drafts"), ("Sent", rb"\sent"), ("Trash", rb"\trash"), ("Junk", rb"\junk")):
        assert use in listed[name]


@case("LIST-EXTENDED", "LIST-EXTENDED")
def several_patterns_list_each_mailbox_once(box: Box) -> None:
    box.imap.ok("CREATE work")
    rows = box.imap.ok('LIST "" (INBOX "w*" "work")').named(b"LIST")
    assert sorted(row[2] for row in rows) == [b"INBOX", b"work"]


@case("LIST-EXTENDED", "LIST-EXTENDED")
def only_subscribed_ones_are_listed_when_asked_so(box: Box) -> None:
    box.imap.ok("CREATE work")
    box.imap.ok("CREATE play")
    box.imap.ok("SUBSCRIBE work")
    listed = _listed(box.imap.ok('LIST (SUBSCRIBED) "" "*"'))
    assert rb"\subscribed" in listed["work"]
    assert "play" not in listed


@case("LIST-EXTENDED", "LIST-EXTENDED")
def a_subscribed_name_without_a_mailbox_is_listed_as_nonexistent(box: Box) -> None:
    """RFC 5258 section 3.1."""
    box.imap.ok("CREATE work")
    box.imap.ok("SUBSCRIBE work")
    box.imap.ok("DELETE work")
    assert rb"\nonexistent" in _listed(box.imap.ok('LIST (SUBSCRIBED) "" "*"'))["work"]


@case("LIST-EXTENDED", "LIST-EXTENDED")
def subscription_and_children_are_returned_when_asked_for(box: Box) -> None:
    inner = box.path("one", "two")
    box.imap.ok(f"CREATE {inner}")
    box.imap.ok("SUBSCRIBE one")
    listed = _listed(box.imap.ok('LIST "" "one*" RETURN (SUBSCRIBED CHILDREN)'))
    assert {rb"\subscribed", rb"\haschildren"} <= listed["one"]
    assert rb"\hasnochildren" in listed[inner]
    assert rb"\subscribed" not in listed[inner]


@case("LIST-EXTENDED", "LIST-EXTENDED")
def a_recursive_match_tells_of_subscribed_children(box: Box) -> None:
    """RFC 5258 section 3.5: CHILDINFO."""
    inner = box.path("one", "two")
    box.imap.ok(f"CREATE {inner}")
    box.imap.ok(f"SUBSCRIBE {inner}")
    (row,) = [r for r in box.imap.ok('LIST (SUBSCRIBED RECURSIVEMATCH) "" "%"').named(b"LIST") if r[2] == b"one"]
    assert row[3] == [b"CHILDINFO", [b"SUBSCRIBED"]]


@case("LIST-EXTENDED", "LIST-EXTENDED")
def a_recursive_match_alone_is_wrong(box: Box) -> None:
    """RFC 5258 section 3: it modifies another option."""
    box.imap.bad('LIST (RECURSIVEMATCH) "" "*"')


@case("LIST-EXTENDED", "LIST-EXTENDED")
def an_unknown_selection_option_is_wrong(box: Box) -> None:
    box.imap.bad('LIST (X-NOBODY-KNOWS) "" "*"')


@case("LIST-EXTENDED", "LIST-EXTENDED", "SPECIAL-USE")
def special_use_ones_are_listed_when_asked_so(box: Box) -> None:
    """RFC 6154 section 5.2."""
    listed = _listed(box.imap.ok('LIST (SPECIAL-USE) "" "*"'))
    assert rb"\drafts" in listed["Drafts"]
    assert "INBOX" not in listed
    assert rb"\sent" in _listed(box.imap.ok('LIST "" "*" RETURN (SPECIAL-USE)'))["Sent"]


@case("LIST-EXTENDED", "LIST-EXTENDED", "LIST-STATUS")
def list_returns_the_status_of_each_mailbox(box: Box) -> None:
    """RFC 5819 section 2."""
    box.append(letter(1))
    reply = box.imap.ok('LIST "" "INBOX" RETURN (STATUS (MESSAGES UNSEEN))')
    assert set(_listed(reply)) == {"INBOX"}
    assert _status(reply) == {"INBOX": {b"MESSAGES": 1, b"UNSEEN": 1}}


@case("STATUS")
def status_counts_messages_and_tells_the_next_uid(box: Box) -> None:
    box.append(letter(1))
    box.append(letter(2), flags=[r"\Seen"])
    status = _status(box.imap.ok("STATUS INBOX (MESSAGES UIDNEXT UIDVALIDITY UNSEEN)"))["INBOX"]
    assert set(status) == {b"MESSAGES", b"UIDNEXT", b"UIDVALIDITY", b"UNSEEN"}
    assert (status[b"MESSAGES"], status[b"UNSEEN"]) == (2, 1)
    selected = box.imap.ok("SELECT INBOX").codes
    assert int(selected[b"UIDNEXT"]) == status[b"UIDNEXT"]
    assert int(selected[b"UIDVALIDITY"]) == status[b"UIDVALIDITY"]


@case("STATUS")
def status_takes_recent(box: Box) -> None:
    assert set(_status(box.imap.ok("STATUS INBOX (RECENT)"))["INBOX"]) == {b"RECENT"}


@case("STATUS")
def status_of_another_mailbox_leaves_the_selected_one(box: Box) -> None:
    box.imap.ok("CREATE work")
    box.append(letter(1), folder="work")
    box.imap.ok("SELECT INBOX")
    assert _status(box.imap.ok("STATUS work (MESSAGES)"))["work"] == {b"MESSAGES": 1}
    box.imap.ok("CHECK")


@case("STATUS")
def status_refuses_what_is_not_there(box: Box) -> None:
    box.imap.no("STATUS nothing (MESSAGES)")


@case("STATUS")
def status_calls_an_unknown_item_wrong(box: Box) -> None:
    box.imap.bad("STATUS INBOX (MESSAGES NOBODY)")
    box.imap.bad("STATUS INBOX")


@case("STATUS", "STATUS=SIZE")
def status_tells_the_size_of_all_messages(box: Box) -> None:
    """RFC 8438 section 2."""
    box.append(letter(1))
    box.append(letter(2))
    size = len(letter(1)) + len(letter(2))
    assert _status(box.imap.ok("STATUS INBOX (SIZE)"))["INBOX"] == {b"SIZE": size}


@case("STATUS")
def status_counts_appended_mail_at_once_for_all_connections(box: Box) -> None:
    other = box.login()
    before = _status(other.ok("STATUS INBOX (MESSAGES UIDNEXT)"))["INBOX"]
    box.append(letter(1))
    after = _status(other.ok("STATUS INBOX (MESSAGES UIDNEXT)"))["INBOX"]
    assert (after[b"MESSAGES"], after[b"UIDNEXT"]) == (before[b"MESSAGES"] + 1, before[b"UIDNEXT"] + 1)
