"""Greeting, capabilities, login and its mechanisms, logout, TLS (RFC 3501 sections 6.1, 6.2 and 7.1)."""

from __future__ import annotations

import base64
import json

from raw_imap import ClosedError

from contract.box import Box, plain, xoauth2
from contract.cases import case


@case("session")
def the_greeting_is_an_untagged_ok(box: Box) -> None:
    assert box.connect().greeting.startswith(b"* OK ")


@case("session", "IMAP4REV1", "AUTH=PLAIN", "SASL-IR")
def the_greeting_or_capability_names_the_ways_to_log_in(box: Box) -> None:
    words = box.connect().ok("CAPABILITY").named(b"CAPABILITY")[0]
    assert {b"IMAP4rev1", b"AUTH=PLAIN", b"SASL-IR"} <= set(words)


@case("session")
def capabilities_differ_before_and_after_login(box: Box) -> None:
    before = set(box.connect().ok("CAPABILITY").named(b"CAPABILITY")[0])
    after = set(box.imap.ok("CAPABILITY").named(b"CAPABILITY")[0])
    assert b"IMAP4rev1" in before & after
    assert {b"UIDPLUS", b"MOVE"} <= after - before
    assert not any(word.startswith(b"AUTH=") for word in after)


@case("session")
def login_tells_the_new_capabilities_by_itself(box: Box) -> None:
    reply = box.connect().ok(f"LOGIN {box.user} {box.password}")
    assert b"IMAP4rev1" in reply.codes[b"CAPABILITY"].split()


@case("session")
def login_takes_quoted_strings_with_escapes(box: Box) -> None:
    user, _ = box.new_user('pass "word" with\\backslash')
    box.connect().ok(rf'LOGIN "{user}" "pass \"word\" with\\backslash"')


@case("session")
def login_takes_synchronising_literals(box: Box) -> None:
    user = box.user.encode()
    box.connect().ok(b"LOGIN {%d}\r\n%s {%d}\r\n%s" % (len(user), user, len(box.password), box.password.encode()))


@case("session", "LITERAL+")
def a_literal_with_a_plus_is_sent_without_waiting(box: Box) -> None:
    user = box.user.encode()
    box.connect().ok(b"LOGIN {%d+}\r\n%s {%d+}\r\n%s" % (len(user), user, len(box.password), box.password.encode()))


@case("session")
def a_wrong_password_is_refused_by_its_code_and_the_next_login_works(box: Box) -> None:
    imap = box.connect()
    assert imap.no(f"LOGIN {box.user} wrong").code == b"AUTHENTICATIONFAILED"
    imap.ok(f"LOGIN {box.user} {box.password}")


@case("session")
def an_unknown_user_is_refused_like_a_wrong_password(box: Box) -> None:
    assert box.connect().no("LOGIN nobody@contract.example wrong").code == b"AUTHENTICATIONFAILED"


@case("session")
def a_second_login_is_out_of_place(box: Box) -> None:
    box.imap.bad(f"LOGIN {box.user} {box.password}")
    box.imap.ok("NOOP")


@case("session", "AUTH=PLAIN")
def authenticate_plain_asks_for_the_message(box: Box) -> None:
    imap = box.connect()
    tag = imap.send("AUTHENTICATE PLAIN")
    assert imap.continued(tag) == b""
    imap.write(plain(box.user, box.password).encode() + b"\r\n")
    imap.finish(tag).ok()
    imap.ok("SELECT INBOX")


@case("session", "AUTH=PLAIN", "SASL-IR")
def authenticate_plain_takes_the_message_at_once(box: Box) -> None:
    box.connect().ok(f"AUTHENTICATE PLAIN {plain(box.user, box.password)}")


@case("session", "AUTH=PLAIN", "SASL-IR")
def authenticate_plain_takes_oneself_as_the_one_acted_for(box: Box) -> None:
    box.connect().ok(f"AUTHENTICATE PLAIN {plain(box.user, box.password, acting_for=box.user)}")


@case("session", "AUTH=PLAIN", "SASL-IR")
def authenticate_plain_refuses_a_wrong_password_by_its_code(box: Box) -> None:
    reply = box.connect().no(f"AUTHENTICATE PLAIN {plain(box.user, 'wrong')}")
    assert reply.code == b"AUTHENTICATIONFAILED"


@case("session", "AUTH=PLAIN")
def a_star_cancels_authenticate_and_the_connection_goes_on(box: Box) -> None:
    imap = box.connect()
    tag = imap.send("AUTHENTICATE PLAIN")
    imap.continued(tag)
    imap.write(b"*\r\n")
    imap.finish(tag).bad()
    imap.ok(f"LOGIN {box.user} {box.password}")


@case("session", "AUTH=PLAIN")
def authenticate_without_base64_fails_and_the_connection_goes_on(box: Box) -> None:
    imap = box.connect()
    tag = imap.send("AUTHENTICATE PLAIN")
    imap.continued(tag)
    imap.write(b"!not base64!\r\n")
    imap.finish(tag).must("BAD", "NO")
    imap.ok(f"LOGIN {box.user} {box.password}")


@case("session")
def an_unknown_mechanism_is_refused(box: Box) -> None:
    imap = box.connect()
    imap.command("AUTHENTICATE KERBEROS-OF-NOBODY").must("NO", "BAD")
    imap.ok(f"LOGIN {box.user} {box.password}")


@case("session", "AUTH=XOAUTH2", "SASL-IR")
def xoauth2_takes_a_good_token(box: Box) -> None:
    token = box.peer.token(box.user, box.password)
    imap = box.connect()
    imap.ok(f"AUTHENTICATE XOAUTH2 {xoauth2(box.user, token)}")
    imap.ok("SELECT INBOX")


@case("session", "AUTH=XOAUTH2", "SASL-IR")
def xoauth2_explains_a_bad_token_before_it_refuses(box: Box) -> None:
    """The client answers the explanation with an empty line; then comes the tagged NO."""
    imap = box.connect()
    tag = imap.send(f"AUTHENTICATE XOAUTH2 {xoauth2(box.user, 'expired')}")
    told = json.loads(base64.b64decode(imap.continued(tag), validate=True))
    assert told["status"] in {"400", "401", "invalid_token"}
    imap.write(b"\r\n")
    assert imap.finish(tag).no().code == b"AUTHENTICATIONFAILED"
    imap.ok(f"LOGIN {box.user} {box.password}")


@case("session")
def commands_on_mailboxes_are_out_of_place_before_login(box: Box) -> None:
    imap = box.connect()
    # Two of them: some servers hang up on a client that is wrong three times before it has logged in.
    for command in ('LIST "" "*"', "SELECT INBOX"):
        imap.bad(command)
    imap.ok(f"LOGIN {box.user} {box.password}")


@case("session")
def noop_is_fine_in_every_state(box: Box) -> None:
    imap = box.connect()
    imap.ok("NOOP")
    imap.ok(f"LOGIN {box.user} {box.password}")
    imap.ok("NOOP")
    imap.ok("SELECT INBOX")
    imap.ok("NOOP")


@case("session")
def commands_and_arguments_are_read_without_regard_to_case(box: Box) -> None:
    imap = box.connect()
    imap.ok(f"login {box.user} {box.password}")
    imap.ok("sElEcT inbox")
    imap.ok("uid search all")


@case("session")
def logout_says_bye_then_ok_and_closes(box: Box) -> None:
    reply = box.imap.ok("LOGOUT")
    assert [line[:4] for line in reply.untagged] == [b"BYE "]
    assert box.imap.closed()


@case("session", "ID")
def id_takes_nil_and_fields_before_login_and_after(box: Box) -> None:
    """RFC 2971 section 3.1: the answer is a list of pairs, or NIL."""
    imap = box.connect()
    for command in ("ID NIL", 'ID ("name" "contract" "version" NIL)'):
        ((fields,),) = imap.ok(command).named(b"ID")
        assert fields is None or len(fields) % 2 == 0
    imap.ok(f"LOGIN {box.user} {box.password}")
    imap.ok("ID NIL")


@case("session", "ENABLE")
def enable_answers_what_it_has_enabled_and_skips_what_it_does_not_know(box: Box) -> None:
    """RFC 5161 section 3.1."""
    reply = box.imap.ok("ENABLE X-NOBODY-HAS-THIS")
    assert all(names == [] for names in reply.named(b"ENABLED"))


@case("session", "NAMESPACE")
def namespace_tells_prefix_and_separator(box: Box) -> None:
    """RFC 2342 section 5: personal, other users', shared."""
    ((personal, _others, _shared),) = box.imap.ok("NAMESPACE").named(b"NAMESPACE")
    assert personal[0][:2] == [b"", box.separator.encode()]


@case("TLS")
def imaps_speaks_tls_from_the_first_byte(box: Box) -> None:
    imap = box.connect_tls()
    imap.ok(f"LOGIN {box.user} {box.password}")
    imap.ok("SELECT INBOX")


@case("TLS")
def starttls_is_not_offered_where_tls_is_there_already(box: Box) -> None:
    imap = box.connect_tls()
    words = imap.ok("CAPABILITY").named(b"CAPABILITY")[0]
    assert b"STARTTLS" not in words
    imap.command("STARTTLS").must("BAD", "NO")
    imap.ok(f"LOGIN {box.user} {box.password}")


@case("TLS", "STARTTLS")
def starttls_turns_the_connection_into_a_new_one(box: Box) -> None:
    """RFC 3501 section 6.2.1: what was known of the server must be asked again."""
    imap = box.connect()
    imap.ok("STARTTLS")
    imap.start_tls()
    assert b"STARTTLS" not in imap.ok("CAPABILITY").named(b"CAPABILITY")[0]
    imap.ok(f"LOGIN {box.user} {box.password}")
    imap.ok("SELECT INBOX")


@case("TLS", "STARTTLS")
def what_stands_behind_starttls_in_the_clear_is_not_obeyed(box: Box) -> None:
    """CVE-2011-0411: an attacker's bytes before the handshake are not taken for the client's; hanging up is fine."""
    imap = box.connect()
    tag = imap.tag()
    imap.write(tag + b" STARTTLS\r\nx001 LOGIN %s %s\r\n" % (box.user.encode(), box.password.encode()))
    imap.finish(tag).ok()
    try:
        imap.start_tls()
    except ClosedError:
        return
    imap.bad("SELECT INBOX")
    imap.ok(f"LOGIN {box.user} {box.password}")


@case("TLS", "STARTTLS")
def starttls_is_out_of_place_after_login(box: Box) -> None:
    box.imap.command("STARTTLS").must("BAD", "NO")
    box.imap.ok("NOOP")
