r"""CREATE, DELETE, RENAME, SUBSCRIBE, LIST, LSUB (RFC 3501 section 6.3, RFC 3348, RFC 5258, RFC 5819, RFC 6154)."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from imap_transcript import MAIL, SHORT, Transcript, another, selected

from fakemail.imap_protocol import mutf7
from fakemail.imap_protocol.listing import _matcher

STANDARD = ("Drafts", "INBOX", "Junk", "Sent", "Trash")


@pytest.fixture
def imap():
    return Transcript().login()


@pytest.fixture
def tree():
    """Nothing but INBOX and t, t/a, t/ab, t/a/b, t/a/b/c, none of them subscribed."""
    client = Transcript().login()
    for name in set(STANDARD) - {"INBOX"}:
        client.store.delete(client.account, name)
    for name in ("t/a/b/c", "t/ab"):
        client.ok(f"CREATE {name}")
    client.account.subscribed.clear()
    return client


def listed(client, arguments, word="LIST"):
    """(flags, name) of each line."""
    lines = client.ok(f"{word} {arguments}")
    found = [re.fullmatch(rf'\* {word} \(([^)]*)\) "/" (.*)', line).groups() for line in lines]
    return [(set(flags.split()), name) for flags, name in found]


def names(client, arguments, word="LIST"):
    return [name for _, name in listed(client, arguments, word)]


# --- CREATE, DELETE, RENAME ---


def test_a_folder_is_made_once(imap):
    imap.step("1 CREATE box", "1 OK <any>")
    imap.step("2 CREATE box", "2 NO [ALREADYEXISTS] <any>")
    imap.step("3 CREATE inbox", "3 NO [ALREADYEXISTS] <any>")


def test_the_names_above_are_made_and_listed(imap):
    imap.ok("CREATE p/q/r")
    assert names(imap, '"" p*') == ["p", "p/q", "p/q/r"]
    assert names(imap, '"" p%') == ["p"]


def test_a_separator_at_the_end_promises_names_below(imap):
    imap.ok("CREATE z/")
    imap.step("1 CREATE z", "1 NO [ALREADYEXISTS] <any>")
    imap.ok("CREATE z/x")
    imap.ok("CREATE a/b/")
    assert names(imap, '"" a*') == ["a", "a/b"]


def test_a_new_folder_is_not_subscribed(imap):
    imap.ok("CREATE box")
    assert names(imap, '"" box', "LSUB") == []


@pytest.mark.parametrize("name", ['"a*"', '"%"', '""', "/a", "a//b", "x" * 256, '"a\tb"', '"a & b"', "&AGE-"])
def test_what_can_be_no_folder_is_refused_and_nothing_is_made(imap, name):
    imap.step(f"1 CREATE {name}", "1 NO [CANNOT] <any>")
    imap.step(f"2 RENAME Sent {name}", "2 NO [CANNOT] <any>")
    assert imap.account.names == list(STANDARD)


NAMES = {
    "simple": "simple",
    "123": "123",
    "L&AP8-R": "L&AP8-R",
    '"test &- &JiI-"': '"test &- &JiI-"',
    '"stuff &- things"': '"stuff &- things"',
    '"\\"foobar\\""': '"\\"foobar\\""',
    '"foo \\"bar\\""': '"foo \\"bar\\""',
    '"foo\\\\bar"': '"foo\\\\bar"',
    '"NIL"': '"NIL"',
    "NIL": '"NIL"',
    '"a]b"': '"a]b"',
    '"(x"': '"(x"',
    '"{5}"': '"{5}"',
    "Entwürfe": "Entw&APw-rfe",
    "{4+}\r\nlite": "lite",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_comes_back_in_a_form_that_can_be_sent_again(imap, name):
    imap.ok(f"CREATE {name}")
    wire = NAMES[name]
    assert names(imap, f'"" {wire}') == [wire]
    assert imap.ok(f"STATUS {wire} (MESSAGES)") == [f"* STATUS {wire} (MESSAGES 0)"]
    imap.ok(f"SUBSCRIBE {wire}")
    assert names(imap, f'"" {wire}', "LSUB") == [wire]
    imap.select(wire).ok("CLOSE")
    imap.ok(f"DELETE {wire}")
    assert names(imap, f'"" {wire}') == []


@pytest.mark.parametrize(
    ("line", "code"), [("DELETE nowhere", "NONEXISTENT"), ("DELETE INBOX", "CANNOT"), ("DELETE inbox", "CANNOT")]
)
def test_what_can_not_be_deleted(imap, line, code):
    imap.step(f"1 {line}", f"1 NO [{code}] <any>")


def test_deleting_a_parent_leaves_a_name_that_holds_no_mail(tree):
    tree.ok("DELETE t/a")
    assert listed(tree, '"" t/a') == [({"\\Noselect", "\\HasChildren"}, "t/a")]
    for command in ("SELECT t/a", "EXAMINE t/a", "STATUS t/a (MESSAGES)"):
        tree.step(f"1 {command}", "1 NO [NONEXISTENT] <any>")
    tree.step("1 APPEND t/a {1+}\r\nx", "1 NO [TRYCREATE] <any>")
    tree.step("2 DELETE t/a", "2 NO [CANNOT] <any>")
    assert "t/a/b" in names(tree, '"" *')
    tree.ok("CREATE t/a")
    assert listed(tree, '"" t/a') == [({"\\HasChildren"}, "t/a")]


def test_a_tree_can_be_deleted_deepest_first(tree):
    for name in reversed(names(tree, '"" "t*"')):
        tree.ok(f"DELETE {name}")
    assert names(tree, '"" *') == ["INBOX"]


def test_a_tree_can_be_deleted_from_its_top(tree):
    for name in names(tree, '"" "t*"'):
        tree.ok(f"DELETE {name}")
    assert names(tree, '"" *') == ["INBOX"]


def test_deleting_what_is_selected_here_lets_go_of_it(imap):
    imap.ok("CREATE INBOX/x")
    imap.select("inbox/x")
    imap.step("1 DELETE inbox/x", "* OK [CLOSED] <any>", "1 OK <any>")
    assert imap.session.state == "authenticated"
    imap.step("2 FETCH 1 UID", "2 BAD <any>")


def test_deleting_what_is_selected_elsewhere_sends_that_client_away(imap):
    other = another(imap, "Sent")
    imap.ok("DELETE Sent")
    other.told("* BYE <any>")
    assert other.closed


def test_a_name_made_again_has_a_greater_uidvalidity(imap):
    before = imap.ok("STATUS Sent (UIDVALIDITY)")[0]
    imap.ok("DELETE Sent")
    imap.ok("CREATE Sent")
    after = imap.ok("STATUS Sent (UIDVALIDITY)")[0]
    assert int(re.findall(r"\d+", after)[0]) > int(re.findall(r"\d+", before)[0])


def test_rename_moves_what_is_below_makes_what_is_above_and_keeps_uidvalidity(tree):
    before = tree.account.folder("t/a/b").uidvalidity
    tree.ok("RENAME t/a new/a")
    assert names(tree, '"" *') == ["INBOX", "new", "new/a", "new/a/b", "new/a/b/c", "t", "t/ab"]
    assert tree.account.folder("new/a/b").uidvalidity == before


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("nowhere x", "NONEXISTENT"),
        ("Sent Trash", "ALREADYEXISTS"),
        ("Sent INBOX", "ALREADYEXISTS"),
        ("Sent Sent", "ALREADYEXISTS"),
        ("Sent Sent/below", "CANNOT"),
    ],
)
def test_what_can_not_be_renamed(imap, arguments, code):
    imap.step(f"1 RENAME {arguments}", f"1 NO [{code}] <any>")
    assert imap.account.names == list(STANDARD)


def test_rename_of_inbox_moves_its_mail_and_leaves_it_empty():
    imap = selected(MAIL, SHORT)
    imap.ok("CREATE INBOX/below")
    imap.step("1 RENAME INBOX Old", "* 2 EXPUNGE", "* 1 EXPUNGE", "1 OK <any>")
    assert imap.ok("STATUS Old (MESSAGES)") == ["* STATUS Old (MESSAGES 2)"]
    assert names(imap, '"" INBOX*') == ["INBOX", "INBOX/below"]


def test_rename_of_what_is_selected_keeps_it_selected():
    imap = selected()
    imap.select("Sent")
    imap.append(SHORT, folder="Sent")
    imap.step("1 RENAME Sent Gone", "1 OK <any>")
    imap.step("2 FETCH 1 UID", "* 1 FETCH (UID 1)", "2 OK <any>")
    imap.append(SHORT, folder="Gone")
    imap.step("3 FETCH 2 UID", "* 2 FETCH (UID 2)", "3 OK <any>")


def test_rename_takes_the_special_use_along_and_no_subscription(imap):
    imap.ok("RENAME Sent Gone")
    assert listed(imap, '"" Gone') == [({"\\HasNoChildren", "\\Sent"}, "Gone")]
    assert names(imap, '"" *', "LSUB") == sorted(STANDARD)


# --- CREATE-SPECIAL-USE (RFC 6154 section 3) ---


def test_a_folder_may_be_made_for_a_use(imap):
    imap.step("1 CREATE Old (USE (\\archive))", "1 OK <any>")
    assert listed(imap, '(SPECIAL-USE) "" Old') == [({"\\HasNoChildren", "\\Archive"}, "Old")]


@pytest.mark.parametrize("use", ["(\\Inbox)", "(x)", "()", "(\\All \\Sent)"])
def test_a_use_that_is_not_had_is_refused_by_its_code(imap, use):
    imap.step(f"1 CREATE Old (USE {use})", "1 NO [USEATTR] <any>")
    assert "Old" not in imap.account.names


@pytest.mark.parametrize(
    "parameters", ["()", "(USE)", "(USES (\\All))", "(USE (\\All)", "USE (\\All)", "(USE (\\All)) x"]
)
def test_malformed_parameters_of_create_are_bad(imap, parameters):
    imap.step(f"1 CREATE Old {parameters}", "1 BAD <any>")


# --- SUBSCRIBE, UNSUBSCRIBE, LSUB ---


def test_a_subscription_is_made_listed_and_taken_back(tree):
    tree.ok("SUBSCRIBE t/a")
    tree.ok("SUBSCRIBE inbox")
    assert names(tree, '"" *', "LSUB") == ["INBOX", "t/a"]
    tree.ok("UNSUBSCRIBE InBox")
    tree.ok("UNSUBSCRIBE t/a")
    assert names(tree, '"" *', "LSUB") == []


def test_what_never_was_can_not_be_subscribed_and_always_be_unsubscribed(imap):
    imap.step("1 SUBSCRIBE nowhere", "1 NO [NONEXISTENT] <any>")
    imap.step("2 UNSUBSCRIBE nowhere", "2 OK <any>")
    imap.step("3 SUBSCRIBE nowhere more", "3 BAD <any>")


def test_a_subscription_outlives_its_folder_and_may_be_made_again(imap):
    imap.ok("DELETE Sent")
    assert "Sent" in names(imap, '"" *', "LSUB")
    imap.step("1 SUBSCRIBE Sent", "1 OK <any>")
    imap.ok("UNSUBSCRIBE Sent")
    imap.step("2 SUBSCRIBE Sent", "2 NO [NONEXISTENT] <any>")


def test_a_name_that_holds_no_mail_can_be_subscribed(tree):
    tree.ok("DELETE t/a")
    tree.ok("SUBSCRIBE t/a")
    assert names(tree, '"" *', "LSUB") == ["t/a"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("%", [({"\\Noselect"}, "t")]),
        ("t/%", [({"\\Noselect"}, "t/a")]),
        ("t/a/%", [(set(), "t/a/b")]),
        ("*", [(set(), "t/a/b")]),
        ("t", []),
        ("t/a", []),
        ("t/a/b", [(set(), "t/a/b")]),
        ("x%", []),
    ],
)
def test_lsub_with_a_percent_sign_shows_the_level_above_a_subscribed_name(tree, pattern, expected):
    tree.ok("SUBSCRIBE t/a/b")
    assert listed(tree, f'"" {pattern}', "LSUB") == expected


def test_lsub_shows_a_level_that_is_subscribed_itself_as_such(tree):
    tree.ok("SUBSCRIBE t/a/b")
    tree.ok("SUBSCRIBE t")
    assert listed(tree, '"" %', "LSUB") == [(set(), "t")]


# --- LIST ---


def test_list_shows_children_and_uses(imap):
    imap.ok("CREATE Sent/2024")
    assert listed(imap, '"" *') == [
        ({"\\HasNoChildren", "\\Drafts"}, "Drafts"),
        ({"\\HasNoChildren"}, "INBOX"),
        ({"\\HasNoChildren", "\\Junk"}, "Junk"),
        ({"\\HasChildren", "\\Sent"}, "Sent"),
        ({"\\HasNoChildren"}, "Sent/2024"),
        ({"\\HasNoChildren", "\\Trash"}, "Trash"),
    ]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('"" t/%', "t/a t/ab"),
        ('"" t/%/%', "t/a/b"),
        ('"" t/*', "t/a t/a/b t/a/b/c t/ab"),
        ('"" t*', "t t/a t/a/b t/a/b/c t/ab"),
        ('"" %', "INBOX t"),
        ('"" *', "INBOX t t/a t/a/b t/a/b/c t/ab"),
        ('"" t/%b', "t/ab"),
        ('"" t/*b', "t/a/b t/ab"),
        ('"" t/%a*c', "t/a/b/c"),
        ('"" */b/%', "t/a/b/c"),
        ('"" t/', ""),
        ('"" %/%', "t/a t/ab"),
        ('"" *%', "INBOX t t/a t/a/b t/a/b/c t/ab"),
        ('"" **b**', "t/a/b t/a/b/c t/ab"),
        ('"t/" %', "t/a t/ab"),
        ('"t/a" *', "t/a t/a/b t/a/b/c t/ab"),
        ('"t" "*"', "t t/a t/a/b t/a/b/c t/ab"),
        ("t/a/ b", "t/a/b"),
        ('"" inbox', "INBOX"),
        ('"" InBox', "INBOX"),
        ('"" "IN%"', "INBOX"),
        ('"in" box', "INBOX"),
        ('"" NIL', ""),
        ('NIL "*"', ""),
        ('"" /t', ""),
        ('"/" t', ""),
        ('"" {1+}\r\n%', "INBOX t"),
    ],
)
def test_reference_and_pattern_are_joined_and_matched(tree, arguments, expected):
    assert names(tree, arguments) == expected.split()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ('"" ""', '* LIST (\\Noselect) "/" ""'),
        ('"foo/bar" ""', '* LIST (\\Noselect) "/" foo/'),
        ('foo/ ""', '* LIST (\\Noselect) "/" foo/'),
        ('INBOX ""', '* LIST (\\Noselect) "/" ""'),
    ],
)
def test_an_empty_pattern_asks_for_the_separator(imap, arguments, line):
    imap.step(f"1 LIST {arguments}", line, "1 OK <any>")


@pytest.mark.parametrize(
    "arguments", ["", '""', '"" ()', '"" (*', "() ()", '("") *', '"" * RETURN', '"" * ()', '"" * ']
)
def test_a_malformed_list_is_bad(imap, arguments):
    imap.step(f"1 LIST {arguments}", "1 BAD <any>")


def plain_matches(pattern, name):
    """The same by a regular expression."""
    parts = [{"*": ".*", "%": "[^/]*"}.get(each, re.escape(each)) for each in pattern]
    return re.fullmatch("".join(parts), name) is not None


@given(st.text("ab/*%", max_size=8), st.text("ab/", max_size=8))
def test_wildcards_match_as_a_regular_expression_would(pattern, name):
    assert _matcher(pattern)(name) == plain_matches(pattern, name)


def test_a_pattern_of_many_wildcards_takes_no_time():
    assert not _matcher("*a%" * 60 + "x")("a/" * 120)


# --- LIST-EXTENDED (RFC 5258) ---


def test_only_subscribed_ones_are_listed_when_asked_so(tree):
    tree.ok("SUBSCRIBE t/a")
    assert listed(tree, '(SUBSCRIBED) "" *') == [({"\\Subscribed", "\\HasChildren"}, "t/a")]


def test_a_subscribed_name_without_a_folder_is_nonexistent(tree):
    tree.ok("SUBSCRIBE t/ab")
    tree.ok("DELETE t/ab")
    assert listed(tree, '(SUBSCRIBED) "" *') == [({"\\Subscribed", "\\NonExistent", "\\HasNoChildren"}, "t/ab")]
    assert "t/ab" not in names(tree, '"" *')
    assert names(tree, '"" "*" RETURN (SUBSCRIBED)') == names(tree, '"" "*"')


def test_subscription_and_children_are_returned_when_asked_for(tree):
    tree.ok("SUBSCRIBE t/a")
    assert listed(tree, '"" (t t/%) RETURN (SUBSCRIBED CHILDREN)') == [
        ({"\\HasChildren"}, "t"),
        ({"\\HasChildren", "\\Subscribed"}, "t/a"),
        ({"\\HasNoChildren"}, "t/ab"),
    ]
    assert listed(tree, '"" t/a') == [({"\\HasChildren"}, "t/a")]


def test_several_patterns_list_each_name_once(tree):
    assert names(tree, '"" (t* *a t/a)') == ["t", "t/a", "t/a/b", "t/a/b/c", "t/ab"]
    assert names(tree, '"t/" (a b)') == ["t/a"]
    assert names(tree, '"" (x y)') == []


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("%", ['* LIST (\\HasChildren) "/" t ("CHILDINFO" ("SUBSCRIBED"))']),
        ("*", ['* LIST (\\HasChildren \\Subscribed) "/" t/a/b']),
        ("(t t/a/b)", ['* LIST (\\HasChildren \\Subscribed) "/" t/a/b']),
        ("t/%", ['* LIST (\\HasChildren) "/" t/a ("CHILDINFO" ("SUBSCRIBED"))']),
        ("t/a/b/%", []),
    ],
)
def test_a_recursive_match_tells_of_subscribed_names_below_that_the_pattern_does_not_show(tree, pattern, expected):
    tree.ok("SUBSCRIBE t/a/b")
    assert tree.ok(f'LIST (SUBSCRIBED RECURSIVEMATCH) "" {pattern}') == expected
    assert names(tree, '(SUBSCRIBED) "" %') == []


def test_a_parent_with_one_name_shown_and_one_hidden_has_childinfo(tree):
    for name in ("t/a/b", "t/ab", "t/a"):
        tree.ok(f"SUBSCRIBE {name}")
    lines = tree.ok('LIST (SUBSCRIBED RECURSIVEMATCH) "" (t t/a t/ab)')
    assert [line.partition('"/" ')[2] for line in lines] == [
        't ("CHILDINFO" ("SUBSCRIBED"))',
        't/a ("CHILDINFO" ("SUBSCRIBED"))',
        "t/ab",
    ]


def test_a_recursive_match_finds_names_below_that_are_gone(tree):
    tree.ok("SUBSCRIBE t/ab")
    for name in ("t/a/b/c", "t/a/b", "t/a", "t/ab", "t"):
        tree.ok(f"DELETE {name}")
    assert tree.ok('LIST (SUBSCRIBED RECURSIVEMATCH) "" %') == [
        '* LIST (\\NonExistent \\HasNoChildren) "/" t ("CHILDINFO" ("SUBSCRIBED"))'
    ]


@pytest.mark.parametrize("options", ["()", "(REMOTE)", "(REMOTE REMOTE)"])
def test_options_that_select_nothing_list_everything(tree, options):
    assert names(tree, f'{options} "" %') == ["INBOX", "t"]


def test_in_the_extended_form_an_empty_pattern_is_no_question(imap):
    imap.step('1 LIST () "" ""', "1 OK <any>")
    imap.step('2 LIST "" ("")', "2 OK <any>")
    imap.step('3 LIST "" "" RETURN ()', "3 OK <any>")


@pytest.mark.parametrize(
    "arguments",
    [
        '(RECURSIVEMATCH) "" *',
        '(RECURSIVEMATCH REMOTE) "" *',
        '(COLOUR) "" *',
        '(SUBSCRIBED COLOUR) "" *',
        '"" * RETURN (COLOUR)',
        '"" * RETURN (STATUS)',
        '"" * RETURN (STATUS (COLOUR))',
        '"" * RETURN (RECURSIVEMATCH)',
        '(SUBSCRIBED "" *',
    ],
)
def test_unknown_options_are_bad(imap, arguments):
    imap.step(f"1 LIST {arguments}", "1 BAD <any>")


# --- SPECIAL-USE and LIST-STATUS ---


def test_special_uses_are_selected_and_returned(imap):
    expected = [({"\\HasNoChildren", f"\\{name}"}, name) for name in ("Drafts", "Junk", "Sent", "Trash")]
    assert listed(imap, '(SPECIAL-USE) "" *') == expected
    found = {name: flags for flags, name in listed(imap, '"" * RETURN (SPECIAL-USE)')}
    assert "\\Sent" in found["Sent"]
    assert "INBOX" in found


def test_a_recursive_match_tells_of_uses_below(imap):
    imap.ok("CREATE p/q (USE (\\All))")
    assert imap.ok('LIST (SPECIAL-USE RECURSIVEMATCH) "" "p%"') == [
        '* LIST (\\HasChildren) "/" p ("CHILDINFO" ("SPECIAL-USE"))'
    ]


def test_the_status_of_each_folder_comes_right_behind_it(tree):
    tree.append(SHORT, folder="t/ab")
    tree.ok("DELETE t/a")
    tree.account.subscribed |= {"t", "t/a", "t/ab", "gone"}
    tree.step(
        '1 LIST (SUBSCRIBED) "" * RETURN (STATUS (MESSAGES SIZE))',
        '* LIST (\\NonExistent \\HasNoChildren \\Subscribed) "/" gone',
        '* LIST (\\HasChildren \\Subscribed) "/" t',
        "* STATUS t (MESSAGES 0 SIZE 0)",
        '* LIST (\\Noselect \\HasChildren \\Subscribed) "/" t/a',
        '* LIST (\\HasNoChildren \\Subscribed) "/" t/ab',
        f"* STATUS t/ab (MESSAGES 1 SIZE {len(SHORT)})",
        "1 OK <any>",
    )


def test_the_status_that_a_list_asks_for_may_switch_condstore_on():
    imap = selected(SHORT)
    imap.step(
        '1 LIST "" INBOX RETURN (STATUS (HIGHESTMODSEQ))',
        "* OK [HIGHESTMODSEQ <any>] <any>",
        '* LIST (\\HasNoChildren) "/" INBOX',
        f"* STATUS INBOX (HIGHESTMODSEQ {imap.inbox.highestmodseq})",
        "1 OK <any>",
    )


# --- a client that cleans up, as conformance suites do ---


def test_everything_below_a_name_is_found_and_removed_in_one_go(imap):
    made = ["imaptest", "imaptest/a/b", '"imaptest2"', '"imaptest &- x"']
    for name in made:
        imap.ok(f"CREATE {name}")
        imap.ok(f"SUBSCRIBE {name}")
    found, subscribed = names(imap, '"" "imaptest*"'), names(imap, '"" "imaptest*"', "LSUB")
    commands = [f"DELETE {name}" for name in reversed(found)] + [f"UNSUBSCRIBE {name}" for name in subscribed]
    out = imap.lines("\r\n".join(f"{number} {command}" for number, command in enumerate(commands)))
    assert [line.split()[1] for line in out] == ["OK"] * len(commands)
    assert imap.account.names == list(STANDARD)
    assert imap.account.subscribed == set(STANDARD)


@given(st.lists(st.text("ab&é☺ /", min_size=1, max_size=5).filter(lambda name: "//" not in name), max_size=5))
def test_what_is_listed_is_what_was_made_whatever_its_name(made):
    imap = Transcript().login()
    for name in made:
        imap.send(b'1 CREATE "%b"\r\n' % mutf7.encode(name).encode())
    expected = sorted(imap.account.names)
    assert [mutf7.decode(name.strip('"')) for name in names(imap, '"" *')] == expected
    for name in itertools.islice(expected, 3):
        assert names(imap, f'"" "{mutf7.encode(name)}"')
