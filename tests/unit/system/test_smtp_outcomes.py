"""How replies and failures become outcomes, without a server."""

import smtplib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from email_service import smtp
from email_service.errors import AuthenticationError, ConnectError, DeliveryUnknownError, SmtpError
from email_service.policy import GiveUp, RetryIn, decide
from email_service.vault import Secret


class Socket:
    def settimeout(self, _):
        pass


class Server:
    """Answers each RCPT, and the final dot, as it is told."""

    def __init__(self, *replies):
        self._replies = iter(replies)
        self.sock = Socket()
        self.sent = b""

    def rcpt(self, _):
        return self._next()

    def send(self, data):
        self.sent += data

    def getreply(self):
        return self._next()

    def _next(self):
        reply = next(self._replies)
        if isinstance(reply, BaseException):
            raise reply
        return reply


class SoftTimeLimitError(Exception):
    """As Celery's: no error of ours, raised by a signal, anywhere."""


@pytest.mark.parametrize(
    "failure",
    [
        smtplib.SMTPServerDisconnected("closed"),
        smtplib.SMTPResponseException(500, b"Line too long."),
        TimeoutError(),
        ConnectionResetError(),
        SoftTimeLimitError(),
        ValueError(),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_whatever_strikes_between_the_final_dot_and_its_reply_leaves_the_outcome_unknown(failure):
    server = Server(failure)
    with pytest.raises(DeliveryUnknownError) as caught:
        smtp._final_dot(server, 1.0)
    assert server.sent == b".\r\n"
    assert caught.value.__cause__ is failure
    assert decide(caught.value, attempt=0, max_retries=3) == GiveUp(reason="delivery-unknown")


def test_the_end_of_the_process_is_not_caught():
    with pytest.raises(SystemExit):
        smtp._final_dot(Server(SystemExit(1)), 1.0)


@pytest.mark.parametrize("code", [200, 250, 251, 299])
def test_any_success_takes_the_message(code):
    assert smtp._final_dot(Server((code, b"ok")), 1.0) == (code, "ok")


@given(st.integers(300, 599))
def test_any_other_reply_to_the_final_dot_is_a_definite_refusal(code):
    with pytest.raises(SmtpError) as caught:
        smtp._final_dot(Server((code, b"no")), 1.0)
    assert caught.value.definite
    assert (caught.value.reply_code, caught.value.transient) == (code, 400 <= code < 500)


def test_what_is_no_reply_code_is_unknown():
    with pytest.raises(DeliveryUnknownError):
        smtp._final_dot(Server((-1, b"what?")), 1.0)


def test_a_transient_refusal_is_tried_again_and_a_permanent_one_is_not():
    for code, decision in ((451, RetryIn(delay_s=5.0)), (554, GiveUp(reason="smtp"))):
        with pytest.raises(SmtpError) as caught:
            smtp._expect(code, b"no")
        assert decide(caught.value, attempt=0, max_retries=3) == decision


@given(st.lists(st.sampled_from([250, 251, 450, 451, 452, 550, 551, 552, 553]), max_size=20))
def test_every_recipient_is_accepted_or_refused_never_both_and_in_order(codes):
    recipients = [f"r{number}@example.org" for number in range(len(codes))]
    accepted, refused = smtp._say_rcpt(Server(*((code, b"said") for code in codes)), recipients)
    assert sorted([*accepted, *refused]) == sorted(recipients)
    assert list(accepted) == [r for r, code in zip(recipients, codes, strict=True) if code < 300]
    assert all(r.transient == (r.reply_code in {450, 451, 452, 552}) for r in refused.values())


def test_a_refusal_unpacks_into_code_text_and_transience():
    _, refused = smtp._say_rcpt(Server((451, b"4.3.0\nlater")), ["a@example.org"])
    code, text, transient = refused["a@example.org"]
    assert (code, text, transient) == (451, "4.3.0 later", True)


@given(st.lists(st.sampled_from([b".", b"..", b"x", b"\r\n", b"\n", b"\r"]), max_size=40).map(b"".join))
def test_stuffing_is_undone_by_the_receiver_and_holds_no_end_of_message(data):
    clean = smtp._with_crlf(data)
    stuffed = smtp._stuffed(clean)
    assert clean.endswith(b"\r\n")
    assert clean.count(b"\r\n") == clean.count(b"\n") == clean.count(b"\r")
    lines = stuffed.split(b"\r\n")
    assert b"." not in lines
    assert b"\r\n".join(line.removeprefix(b".") for line in lines) == clean


@given(st.lists(st.sampled_from([b".", b"x", b"\r\n"]), max_size=40).map(b"".join))
def test_lines_that_are_right_are_not_touched(data):
    assert smtp._with_crlf(data + b"\r\n") == data + b"\r\n"


@pytest.mark.parametrize(
    ("failure", "transient"),
    [
        (smtplib.SMTPConnectError(421, b"busy"), True),
        (smtplib.SMTPConnectError(554, b"no"), False),
        (smtplib.SMTPConnectError(-1, b"what?"), True),
        (smtplib.SMTPHeloError(502, b"no"), False),
        (smtplib.SMTPServerDisconnected("closed"), True),
        (ConnectionRefusedError(), True),
        (TimeoutError(), True),
        (UnicodeError(), False),
    ],
    ids=repr,
)
def test_a_session_that_fails_is_a_connect_error_with_its_cause(failure, transient):
    endpoint = smtp.SmtpEndpoint(host="mx", port=25, encryption="none", username="", password=Secret("canary"))
    with pytest.raises(ConnectError) as caught, smtp._session_errors(endpoint, "connect"):
        raise failure
    assert caught.value.transient is transient
    assert caught.value.__cause__ is failure


def test_our_own_errors_pass_as_they_are():
    error = AuthenticationError("no")
    endpoint = smtp.SmtpEndpoint(host="mx", port=25, encryption="none", username="", password=Secret("canary"))
    for context in (smtp._session_errors(endpoint, "AUTH"), smtp._definite_errors("MAIL")):
        with pytest.raises(AuthenticationError) as caught, context:
            raise error
        assert caught.value is error


def test_an_endpoint_does_not_print_its_password():
    endpoint = smtp.SmtpEndpoint(host="mx", port=25, encryption="none", username="ann", password=Secret("canary"))
    assert "canary" not in repr(endpoint)


@pytest.mark.parametrize(("address", "literal"), [("10.0.0.7", "[10.0.0.7]"), ("fe80::1%eth0", "[IPv6:fe80::1]")])
def test_our_name_is_our_address(address, literal):
    connected = type("Connected", (), {"getsockname": lambda _: (address, 25)})()
    assert smtp._address_literal(connected) == literal


def test_a_reply_is_kept_on_one_line_and_short():
    assert smtp._readable(b"4.3.0 \r\n\x1b[31m later\xff", hidden=("31m",)) == "4.3.0 [*** later\ufffd"
    assert len(smtp._readable("x" * 5000)) == 300
