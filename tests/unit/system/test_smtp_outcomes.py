"""How replies and failures become outcomes, without a server."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from email_service import smtp
from email_service.errors import (
    AuthenticationError,
    ConnectError,
    DeliveryUnknownError,
    InvalidRequestError,
    SmtpError,
)
from email_service.policy import GiveUp, RetryIn, decide
from email_service.smtp import replies, transaction
from email_service.smtp import session as sessions
from email_service.smtp.replies import Reply
from email_service.smtp.session import Session
from email_service.smtp.wire import NotSmtpError
from email_service.vault import Secret


class Wire:
    """Answers each command, and the final dot, as it is told."""

    def __init__(self, *answers):
        self._answers = iter(answers)
        self.sent = b""

    def send(self, data):
        self.sent += data

    def reply(self, _timeout_s=None):
        answer = next(self._answers)
        if isinstance(answer, BaseException):
            raise answer
        return answer


def reply(code, *lines):
    return Reply(code=code, lines=lines or ("said",))


def endpoint(**changes):
    values = {"host": "mx", "port": 25, "encryption": "none", "username": "ann", "password": Secret("canary")}
    return smtp.SmtpEndpoint(**values | changes)


def session(*answers, extensions=(), messages=0):
    made = Session(Wire(*answers), dict.fromkeys(extensions, ""), address="192.0.2.1", endpoint=endpoint())
    made.messages = messages
    return made


class SoftTimeLimitError(Exception):
    """As Celery's: no error of ours, raised by a signal, anywhere."""


@pytest.mark.parametrize(
    "failure",
    [
        ConnectionResetError("closed"),
        NotSmtpError("what?"),
        TimeoutError(),
        BrokenPipeError(),
        SoftTimeLimitError(),
        ValueError(),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_whatever_strikes_between_the_final_dot_and_its_reply_leaves_the_outcome_unknown(failure):
    dotted = session(failure)
    with pytest.raises(DeliveryUnknownError) as caught:
        transaction._final_dot(dotted, 1.0)
    assert dotted.wire.sent == b".\r\n"
    assert caught.value.__cause__ is failure
    assert decide(caught.value, attempt=0, max_retries=3) == GiveUp(reason="delivery-unknown")


def test_the_end_of_the_process_is_not_caught():
    with pytest.raises(SystemExit):
        transaction._final_dot(session(SystemExit(1)), 1.0)


@pytest.mark.parametrize("code", [200, 250, 251, 299])
def test_any_success_takes_the_message(code):
    taken = session(reply(code))
    assert transaction._final_dot(taken, 1.0).code == code
    assert (taken.messages, taken.dot_written) == (1, True)


@given(st.integers(300, 599))
def test_any_other_reply_to_the_final_dot_is_a_definite_refusal(code):
    refused = session(reply(code))
    with pytest.raises(SmtpError) as caught:
        transaction._final_dot(refused, 1.0)
    assert caught.value.definite
    assert (refused.messages, refused.dot_written) == (0, False)
    assert (caught.value.reply_code, caught.value.transient) == (code, 400 <= code < 500)


def test_a_transient_refusal_is_tried_again_and_a_permanent_one_is_not():
    for code, decision in ((451, RetryIn(delay_s=5.0)), (554, GiveUp(reason="smtp"))):
        with pytest.raises(SmtpError) as caught:
            transaction._expect(reply(code))
        assert decide(caught.value, attempt=0, max_retries=3) == decision


@given(st.lists(st.sampled_from([250, 251, 450, 451, 452, 550, 551, 552, 553]), max_size=20))
def test_every_recipient_is_accepted_or_refused_never_both_and_in_order(codes):
    recipients = [f"r{number}@example.org" for number in range(len(codes))]
    plan = transaction._Plan("MAIL", tuple(recipients), {}, b"")
    accepted, refused = transaction._sorted_out(plan, iter([reply(code) for code in codes])), plan.refused
    assert sorted([*accepted, *refused]) == sorted(recipients)
    assert list(accepted) == [r for r, code in zip(recipients, codes, strict=True) if code < 300]
    assert all(r.transient == (r.reply_code in {450, 451, 452, 552}) for r in refused.values())


@pytest.mark.parametrize(
    ("code", "text", "waits", "too_many"),
    [
        (552, "too many recipients", True, True),
        (552, "5.5.3 Too many", True, True),
        (552, "5.2.2 Mailbox over quota", False, False),
        (452, "4.5.3 Too many recipients", True, True),
        (452, "too many recipients", True, True),
        (452, "4.2.2 Mailbox full", True, False),
        (451, "4.7.1 Greylisted", True, False),
        (450, "4.5.3 Too many", True, False),
        (550, "5.1.1 No such user", False, False),
    ],
)
def test_a_552_waits_only_where_it_may_mean_too_many_recipients(code, text, waits, too_many):
    plan = transaction._Plan("MAIL", ("a@example.org",), {}, b"")
    transaction._sorted_out(plan, iter([reply(code, text)]))
    refusal = plan.refused["a@example.org"]
    assert (refusal.transient, refusal.too_many) == (waits, too_many)


def test_a_refusal_unpacks_into_code_text_and_transience():
    refusal = smtp.Refusal(reply_code=451, reply_text="4.3.0 later", transient=True)
    code, text, transient = refusal
    assert (code, text, transient, refusal.enhanced_code) == (451, "4.3.0 later", True, "4.3.0")


@pytest.mark.parametrize(
    ("text", "code"),
    [("5.1.1 no", "5.1.1"), ("2.0.0", "2.0.0"), ("no 5.1.1", None), ("5.1.1x", None), ("1.1.1 x", None)],
)
def test_an_enhanced_code_stands_at_the_beginning(text, code):
    assert replies.enhanced_code(text) == code


def test_one_write_holds_all_commands_where_pipelining_is_offered_and_one_each_where_it_is_not():
    commands = ["MAIL FROM:<a@example.org>", "RCPT TO:<b@example.org>", "RCPT TO:<c@example.org>"]
    for extensions, writes in ((("PIPELINING",), 1), ((), 3)):
        asked = session(reply(250), reply(250), reply(550), extensions=extensions)
        sent = []
        asked.wire.send = sent.append
        assert [answer.code for answer in transaction._ask(asked, commands)] == [250, 250, 550]
        assert len(sent) == writes
        assert b"".join(sent) == "".join(f"{command}\r\n" for command in commands).encode()


@pytest.mark.parametrize(
    "failure", [ConnectionResetError("gone"), TimeoutError(), reply(421, "idle for too long")], ids=repr
)
def test_a_kept_session_that_is_dead_at_mail_is_stale_and_a_new_one_is_an_error(failure):
    for messages, kind in ((3, transaction.StaleSessionError), (0, (SmtpError, OSError))):
        with pytest.raises(kind):
            transaction._expect(
                transaction._first(session(messages=messages), transaction._ask(session(failure), ["MAIL"]))
            )


def test_a_message_that_is_larger_than_the_server_takes_is_refused_before_a_word_is_said():
    mail = transaction.Mail(mail_from="a@example.org", recipients=("b@example.org",), data=b"x" * 100)
    with pytest.raises(SmtpError, match="102 bytes, the server takes at most 50") as caught:
        transaction._plan({"SIZE": "50"}, mail)
    assert not caught.value.transient
    for unlimited in ("", "0", "102", "what"):
        assert "SIZE=102" in transaction._plan({"SIZE": unlimited}, mail).command


@given(st.lists(st.sampled_from([b".", b"..", b"x", b"\r\n", b"\n", b"\r"]), max_size=40).map(b"".join))
def test_stuffing_is_undone_by_the_receiver_and_holds_no_end_of_message(data):
    clean = transaction._with_crlf(data)
    stuffed = transaction._stuffed(clean)
    assert clean.endswith(b"\r\n")
    assert clean.count(b"\r\n") == clean.count(b"\n") == clean.count(b"\r")
    lines = stuffed.split(b"\r\n")
    assert b"." not in lines
    assert b"\r\n".join(line.removeprefix(b".") for line in lines) == clean


@given(st.lists(st.sampled_from([b".", b"x", b"\r\n"]), max_size=40).map(b"".join))
def test_lines_that_are_right_are_not_touched(data):
    assert transaction._with_crlf(data + b"\r\n") == data + b"\r\n"


@pytest.mark.parametrize(
    ("failure", "transient"),
    [
        (NotSmtpError("what?"), True),
        (ConnectionResetError("closed"), True),
        (ConnectionRefusedError(), True),
        (TimeoutError(), True),
        (UnicodeError(), False),
    ],
    ids=repr,
)
def test_a_session_that_fails_is_a_connect_error_with_its_cause(failure, transient):
    with pytest.raises(ConnectError) as caught, sessions._session_errors(endpoint(), "connect"):
        raise failure
    assert caught.value.transient is transient
    assert caught.value.__cause__ is failure


def test_our_own_errors_pass_as_they_are():
    error = AuthenticationError("no")
    for context in (sessions._session_errors(endpoint(), "AUTH"), transaction._definite_errors("MAIL")):
        with pytest.raises(AuthenticationError) as caught, context:
            raise error
        assert caught.value is error


def test_an_endpoint_does_not_print_its_password():
    assert "canary" not in repr(endpoint())
    assert b"canary" not in endpoint().fingerprint()


@pytest.mark.parametrize(
    "change",
    [
        {"host": "mx2"},
        {"port": 26},
        {"encryption": "tls"},
        {"username": "bob"},
        {"password": Secret("other")},
        {"auth": "xoauth2"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_account_has_another_fingerprint(change):
    assert endpoint(**change).fingerprint() != endpoint().fingerprint()
    assert endpoint(addresses=("192.0.2.1",)).fingerprint() == endpoint().fingerprint()


@pytest.mark.parametrize("change", [{"encryption": "ssl"}, {"auth": "kerberos"}], ids=repr)
def test_words_that_mean_nothing_are_refused_at_once(change):
    with pytest.raises(InvalidRequestError, match="must be one of"):
        endpoint(**change)


@pytest.mark.parametrize(("address", "literal"), [("10.0.0.7", "[10.0.0.7]"), ("fe80::1%eth0", "[IPv6:fe80::1]")])
def test_our_name_is_our_address(address, literal):
    assert sessions._address_literal(address) == literal


def test_what_is_offered_is_kept_by_keyword_also_in_the_old_form():
    lines = ("mx.example.org", "SIZE 1000", "auth PLAIN", "AUTH=LOGIN", "8BITMIME ")
    offered = sessions._extensions(reply(250, *lines))
    assert offered["SIZE"] == "1000"
    assert offered["AUTH"].split() == ["PLAIN", "LOGIN"]
    assert "8BITMIME" in offered
    assert "MX.EXAMPLE.ORG" not in offered


def test_a_reply_is_kept_on_one_line_and_short():
    assert replies.readable("4.3.0 \r\n\x1b[31m later\ufffd", hidden=("31m",)) == "4.3.0 [*** later\ufffd"
    assert len(replies.readable("x" * 5000)) == 300
