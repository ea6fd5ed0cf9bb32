"""Programs that send mail: swaks, msmtp and postfix's smtp-source."""

from __future__ import annotations

import pytest
from mail_clients import LETTER, Mailbox, new_mailbox, run
from programs import need_perl_module

SENDER = "sender@elsewhere.example"
#: sysexits(3), as msmtp ends: a 5xx is wrong data, a 4xx an unavailable service, another greeting a wrong protocol.
EX_OK, EX_DATAERR, EX_UNAVAILABLE, EX_PROTOCOL, EX_NOPERM = 0, 65, 69, 76, 77


@pytest.fixture
def swaks(program, ann, tmp_path):
    """swaks with one letter; answers the conversation."""
    found = program("swaks", "swaks")
    letter = tmp_path / "letter.eml"

    def send(*options: str, raw: bytes = LETTER, to: str = ann.address, port: str = "smtp", code: int = 0) -> str:
        # It ends the last line by itself.
        letter.write_bytes(raw.removesuffix(b"\r\n"))
        where = ("--server", f"127.0.0.1:{ann.fakes.port(port)}", "--helo", "client.example")
        given = (*where, "--from", SENDER, "--to", to, "--data", f"@{letter}", *options)
        done = run(found, *given, code=code)
        return (done.stdout + done.stderr).decode(errors="replace")

    return send


def letters_of(mailbox: Mailbox) -> list[bytes]:
    return [mailbox.message(row["uid"]) for row in mailbox.rows()]


def test_swaks_delivers_into_the_inbox_byte_by_byte(swaks, ann):
    swaks()
    assert letters_of(ann) == [LETTER]
    (entry,) = ann.taken()
    assert (entry["mail_from"], entry["rcpt_to"], entry["tls"]) == (SENDER, [ann.address], False)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_swaks_logs_in(swaks, ann, mechanism):
    swaks("--auth", mechanism, "--auth-user", ann.address, "--auth-password", ann.password)
    (entry,) = ann.taken()
    assert entry["user"] == ann.address


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_swaks_is_told_of_a_wrong_password(swaks, ann, mechanism):
    # 28: authentication failed.
    told = swaks("--auth", mechanism, "--auth-user", ann.address, "--auth-password", "wrong", code=28)
    assert "535 5.7.8" in told
    assert ann.taken() == []


@pytest.mark.parametrize(("options", "port"), [(("--tls",), "smtp"), (("--tls-on-connect",), "smtps")])
def test_swaks_speaks_tls_and_sees_the_servers_certificate(swaks, ann, options, port):
    need_perl_module("libnet-ssleay-perl", "Net::SSLeay")
    trust = ("--tls-verify", "--tls-ca-path", str(ann.fakes.ca_file))
    told = swaks(*options, *trust, port=port)
    assert "TLS started" in told
    assert letters_of(ann) == [LETTER]
    (entry,) = ann.taken()
    assert entry["tls"] is True


def test_swaks_logs_in_behind_starttls(swaks, ann):
    need_perl_module("libnet-ssleay-perl", "Net::SSLeay")
    swaks("--tls", "--auth", "PLAIN", "--auth-user", ann.address, "--auth-password", ann.password)
    (entry,) = ann.taken()
    assert (entry["user"], entry["tls"]) == (ann.address, True)


def test_swaks_delivers_to_many_recipients(swaks, ann):
    others = [new_mailbox(ann.fakes) for _ in range(20)]
    swaks(to=",".join(each.address for each in (ann, *others)))
    assert all(letters_of(each) == [LETTER] for each in (ann, *others))


def test_swaks_pipelines(swaks, ann):
    told = swaks("--pipeline")
    assert "PIPELINING" in told
    assert letters_of(ann) == [LETTER]


def test_a_refused_recipient_does_not_keep_the_letter_from_the_others(swaks, ann):
    other = new_mailbox(ann.fakes)
    with ann.fakes.control.fault("smtp.rcpt", reply="550 5.1.1 No such user", match={"recipient": other.address}):
        told = swaks(to=f"{ann.address},{other.address}")
    assert "550 5.1.1 No such user" in told
    assert letters_of(ann) == [LETTER]
    assert letters_of(other) == []


def test_swaks_is_told_that_the_only_recipient_is_refused(swaks, ann):
    with ann.fakes.control.fault("smtp.rcpt", reply="550 5.1.1 No such user", match={"recipient": ann.address}):
        # 24: no recipient was accepted.
        swaks(code=24)
    assert letters_of(ann) == []


def test_swaks_doubles_dots_and_they_arrive_single(swaks, ann):
    dotted = LETTER + b".\r\n..two\r\n.one\r\n"
    swaks(raw=dotted)
    assert letters_of(ann) == [dotted]


@pytest.fixture
def msmtp(program, ann):
    """msmtp without a configuration; answers what it wrote."""
    found = program("msmtp", "msmtp")

    def send(*options: str, port: str = "smtp", to: tuple[str, ...] = (ann.address,), code: int = EX_OK) -> str:
        where = ("--host", "localhost", "--port", ann.fakes.port(port), "--timeout", 30)
        # What a letter has is left as it is.
        headers = ("--set-from-header=off", "--set-date-header=off", "--set-msgid-header=off")
        done = run(found, *where, f"--from={SENDER}", *headers, *options, "--", *to, given=LETTER, code=code)
        return done.stderr.decode(errors="replace")

    return send


def trusting(ann: Mailbox) -> tuple[str, str]:
    return "--tls=on", f"--tls-trust-file={ann.fakes.ca_file}"


def login(ann: Mailbox, mechanism: str, password: str) -> tuple[str, str, str]:
    return f"--auth={mechanism}", f"--user={ann.address}", f"--passwordeval=echo {password}"


def test_msmtp_delivers_byte_by_byte(msmtp, ann):
    msmtp()
    assert letters_of(ann) == [LETTER]


@pytest.mark.parametrize("mechanism", ["plain", "login", "xoauth2"])
def test_msmtp_logs_in_behind_starttls(msmtp, ann, mechanism):
    secret = ann.token if "oauth" in mechanism else ann.password
    msmtp(*trusting(ann), *login(ann, mechanism, secret))
    (entry,) = ann.taken()
    assert (entry["user"], entry["tls"]) == (ann.address, True)


def test_msmtp_speaks_tls_from_the_first_byte(msmtp, ann):
    msmtp(*trusting(ann), "--tls-starttls=off", *login(ann, "plain", ann.password), port="smtps")
    assert letters_of(ann) == [LETTER]


def test_msmtp_does_not_trust_a_certificate_for_another_host(msmtp, ann):
    with ann.fakes.control.fault("smtp.tls", certificate="wrong-host"):
        told = msmtp(*trusting(ann), "--tls-starttls=off", port="smtps", code=EX_UNAVAILABLE)
    assert "TLS" in told
    assert letters_of(ann) == []


@pytest.mark.parametrize(
    ("point", "reply", "code"),
    [
        ("smtp.connect", "421 4.3.2 Not now", EX_PROTOCOL),
        ("smtp.mail", "450 4.1.8 Who are you?", EX_UNAVAILABLE),
        ("smtp.mail", "550 5.1.8 Go away", EX_DATAERR),
        ("smtp.rcpt", "451 4.7.1 Greylisted", EX_UNAVAILABLE),
        ("smtp.rcpt", "550 5.1.1 No such user", EX_DATAERR),
        ("smtp.data", "451 4.3.0 Try again", EX_UNAVAILABLE),
        ("smtp.data", "554 5.5.1 No", EX_DATAERR),
        ("smtp.body", "451 4.3.0 Try again", EX_UNAVAILABLE),
        ("smtp.body", "554 5.7.1 Spam", EX_UNAVAILABLE),
    ],
)
def test_msmtp_ends_as_the_reply_says(msmtp, ann, point, reply, code):
    """What is worth another attempt and what is not, as a queue reads it from the exit code."""
    with ann.fakes.control.fault(point, reply=reply):
        told = msmtp(code=code)
    assert reply in told
    assert letters_of(ann) == []


@pytest.mark.parametrize(("action", "kept"), [({"drop": True}, 1), ({"reply": "451 4.3.0 Try again"}, 1)])
def test_a_letter_may_be_taken_though_msmtp_was_told_otherwise(msmtp, ann, action, kept):
    with ann.fakes.control.fault("smtp.accepted", **action):
        told = msmtp(code=None)
    assert "could not send mail" in told
    assert len(letters_of(ann)) == kept


def test_msmtp_ends_with_no_permission_on_a_wrong_password(msmtp, ann):
    told = msmtp(*trusting(ann), *login(ann, "plain", "wrong"), code=EX_NOPERM)
    assert "535" in told


def test_a_greylisted_letter_arrives_at_the_second_attempt(msmtp, ann):
    match = {"recipient": ann.address}
    with ann.fakes.control.fault("smtp.rcpt", reply="451 4.7.1 Greylisted", first=1, match=match):
        msmtp(code=EX_UNAVAILABLE)
        assert letters_of(ann) == []
        msmtp()
    assert letters_of(ann) == [LETTER]


@pytest.mark.parametrize("sessions", [1, 5])
def test_smtp_source_delivers_all_its_letters(program, ann, sessions):
    where = f"127.0.0.1:{ann.fakes.port('smtp')}"
    shape = ("-s", sessions, "-m", 50, "-l", 4_000)
    run(program("postfix", "smtp-source"), *shape, "-f", SENDER, "-t", ann.address, where)
    rows = ann.rows()
    assert len(rows) == 50
    # Its letters have the given size, give or take the head.
    assert all(3_900 < row["size_bytes"] < 4_600 for row in rows)
    assert len(ann.taken()) == 50


def test_smtp_source_sends_one_letter_to_many_recipients(program, ann):
    """Its option -r counts the recipients down: 3name@domain, 2name@domain, name@domain."""
    for number in (2, 3):
        ann.fakes.control.add_user(f"{number}{ann.address}", ann.password)
    where = f"127.0.0.1:{ann.fakes.port('smtp')}"
    run(program("postfix", "smtp-source"), "-m", 2, "-r", 3, "-f", SENDER, "-t", ann.address, where)
    everybody = [f"3{ann.address}", f"2{ann.address}", ann.address]
    assert [entry["rcpt_to"] for entry in ann.taken()] == [everybody] * 2
    for address in everybody:
        assert len(list(ann.fakes.control.messages(address))) == 2
