"""The start configuration: what it says, how a mistake in it is told, and what it brings in."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakemail.config import (
    Config,
    ConfigError,
    FolderConfig,
    LimitsConfig,
    Seeding,
    ServerConfig,
    Timeline,
    UserConfig,
    apply,
    parse_config,
    read_config,
)
from fakemail.faults import Plan
from fakemail.mailbox import MailStore
from fakemail.timeline import Weights

MINIMAL = """
[[user]]
address = "ann@example.test"
password = "secret"
seed = 3

[[fault]]
id = "greylist"
point = "smtp.rcpt"
when = { first = 1 }
action = { reply = "451 4.7.1 Later" }
"""

FULL = """
seed = 7
presets = ["slow-imap", "greylisting"]

[limits]
connections = 100
connections_per_user = 15
line_bytes = 8192
literal_bytes = 1_000_000
message_bytes = 2_000_000
idle_timeout_s = 1800

[imap]
without = ["idle", "CONDSTORE"]
require_tls = true

[smtp]
without = ["PIPELINING"]

[[user]]
address = "Ann@example.test"
password = "secret"
token = "ya29.canary"
seed = { count = 20, seed = 3, profile = "exchange", gaps = 5 }

[user.timeline]
steps = 10
per_s = 0.5
arrive = 1
reset = 2

[[user.folder]]
name = "Archive/2024"
load = "corpus.mbox"

[[user.folder]]
name = "Big"
seed = 1_000_000

[[user]]
address = "bob@example.test"
password = "other"

[[fault]]
id = "mine"
point = "imap.command"
when = { window = [2, 3] }
action = { stall = true }
match = { command = "NOOP" }
"""


def parse(text):
    return parse_config(text, "dir/fakes.toml")


# --- what it says -----------------------------------------------------------------------------------------------------


def test_an_empty_file_is_an_empty_start():
    assert parse("") == Config()


def test_the_smallest_form_is_a_user_with_mail_and_a_fault():
    config = parse(MINIMAL)
    (user,) = config.users
    assert (user.address, user.password, user.token) == ("ann@example.test", "secret", None)
    assert user.folders == (FolderConfig(name="INBOX", seeding=Seeding(count=3), where="dir/fakes.toml:2"),)
    assert [fault.id for fault in config.faults] == ["greylist"]


def test_everything_that_can_be_said_is_read():
    config = parse(FULL)
    assert config.seed == 7
    assert config.limits == LimitsConfig(
        connections=100,
        connections_per_user=15,
        line_bytes=8192,
        literal_bytes=1_000_000,
        message_bytes=2_000_000,
        idle_timeout_s=1800,
    )
    assert config.imap == ServerConfig(without=frozenset({"IDLE", "CONDSTORE"}), require_tls=True)
    assert config.smtp == ServerConfig(without=frozenset({"PIPELINING"}), require_tls=False)
    line = Timeline(steps=10, per_s=0.5, weights=Weights(arrive=1, reset=2), profile="small")
    assert config.users == (
        UserConfig(
            address="Ann@example.test",
            password="secret",
            token="ya29.canary",
            folders=(
                FolderConfig(
                    name="INBOX",
                    seeding=Seeding(count=20, seed=3, profile="exchange", gaps=5),
                    timeline=line,
                    where="dir/fakes.toml:20",
                ),
                FolderConfig(name="Archive/2024", load=Path("dir/corpus.mbox"), where="dir/fakes.toml:32"),
                FolderConfig(name="Big", seeding=Seeding(count=1_000_000), where="dir/fakes.toml:36"),
            ),
            where="dir/fakes.toml:20",
        ),
        UserConfig(address="bob@example.test", password="other", where="dir/fakes.toml:40"),
    )
    assert config.running == (("Ann@example.test", "INBOX", line),)


def test_a_file_s_own_faults_come_before_those_of_its_presets():
    ids = [fault.id for fault in parse(FULL).faults]
    assert ids == ["mine", "slow-imap-commands", "slow-imap-literals", "greylisting"]


def test_a_path_to_load_begins_beside_the_file_or_at_the_root():
    text = '[[user]]\naddress = "a@b"\npassword = "p"\nload = "{}"\n'
    assert parse(text.format("../mail")).users[0].folders[0].load == Path("dir/../mail")
    assert parse(text.format("/var/mail/ann")).users[0].folders[0].load == Path("/var/mail/ann")


def test_no_secret_is_shown():
    assert "secret" not in repr(parse(FULL))
    assert "canary" not in repr(parse(FULL))


# --- how a mistake is told --------------------------------------------------------------------------------------------

USER = '[[user]]\naddress = "a@b"\npassword = "p"\n'
WRONG = [
    ("[[user]\n", 1, ""),
    ("x = = 1", 1, "Invalid value"),
    ("\n\nx = ", 3, ""),
    (
        MINIMAL.replace('point = "smtp.rcpt"', 'point = "smtp.rcpd"'),
        9,
        "(did you mean 'smtp.rcpt'?); allowed: smtp.connect",
    ),
    (MINIMAL.replace("first = 1", "first = 0"), 10, "fault[0].when.first: 0 given; allowed: a whole number from 1 up"),
    (MINIMAL.replace("first = 1", "fist = 1"), 10, "did you mean 'first'?"),
    (
        MINIMAL.replace("password", "pasword"),
        2,
        "'password' is missing (is 'pasword' meant to be it?); allowed: address and",
    ),
    (
        MINIMAL.replace("seed = 3", "sed = 3"),
        5,
        "unknown key 'sed' (did you mean 'seed'?); allowed: address and password",
    ),
    (MINIMAL.replace("seed = 3", 'seed = "x"'), 5, "allowed: a whole number, or { count = N"),
    (MINIMAL.replace("seed = 3", "seed = -3"), 5, "a whole number from 0 to"),
    (MINIMAL.replace("ann@example.test", "ann"), 3, "local-part@domain"),
    (MINIMAL.replace('"secret"', "12345"), 4, "user[0].password: no text given"),
    (MINIMAL.replace("id =", "extra = 1\nid ="), 8, "unknown key 'extra'"),
    (MINIMAL + MINIMAL.replace("greylist", "other"), 14, "'ann@example.test' is taken; allowed: each user once"),
    (MINIMAL + MINIMAL.replace("ann", "bob"), 19, "fault[1].id: 'greylist' is taken; allowed: an id of its own"),
    ("[faults]\n", 1, "faults: not known (did you mean 'fault'?); allowed: [[user]], [[fault]], presets = [...]"),
    ("seed = 1\n[[client]]\nx = 1\n", 2, "client: not known; allowed: [[user]], [[fault]]"),
    ("seed = 1\nuser = 3\n", 2, "user: 3 given; allowed: [[user]], one for each"),
    ("[user]\nx = 1\n", 1, "user: a table given; allowed: [[user]], one for each"),
    ("\nseed = 1.5\n", 2, "seed: 1.5 given"),
    ('presets = "greylisting"', 1, "presets: text given; allowed: a list of names"),
    ("presets = [1]", 1, "presets: a list given; allowed: a list of names"),
    ('seed = 1\npresets = ["slow-imap", "grey-listing"]', 2, "presets[1]: unknown preset 'grey-listing' (did you mean"),
    (
        MINIMAL.replace('"greylist"', '"greylisting"').replace("[[user]]", 'presets = ["greylisting"]\n[[user]]'),
        2,
        "too",
    ),
    ("[limits]\nconections = 1", 2, "unknown key 'conections' (did you mean 'connections'?)"),
    ("[limits]\nconnections = 0", 2, "limits.connections: 0 given; allowed: a whole number from 1 up"),
    ("[limits]\nline_bytes = 3", 2, "from 512 to"),
    ("[limits]\nidle_timeout_s = 0", 2, "a number above 0"),
    ("limits = 3", 1, "a table of keys and values"),
    ('[imap]\nwithout = ["IDEL"]', 2, "imap.without[0]: unknown name 'IDEL' (did you mean 'IDLE'?)"),
    ('[imap]\nwithout = "IDLE"', 2, "imap.without: text given"),
    ('[smtp]\nwithout = ["IDLE"]', 2, "smtp.without[0]: unknown name 'IDLE'"),
    ("[smtp]\nrequire_tls = 1", 2, "smtp.require_tls: 1 given; allowed: true or false"),
    (USER + "seed = {}\n", 4, "user[0].seed: 'count' is missing"),
    (USER + "seed = { count = 1, profile = 'exchanges' }\n", 4, "(did you mean 'exchange'?)"),
    (USER + "seed = { count = 1, gap = 1 }\n", 4, "unknown key 'gap' (did you mean 'gaps'?)"),
    (USER + "\n[user.timeline]\nstep = 4\n", 6, "user[0].timeline: unknown key 'step' (did you mean 'steps'?)"),
    (USER + "timeline = { reset = -1 }\n", 4, "user[0].timeline.reset: -1 given"),
    (USER + "folder = 3\n", 4, "allowed: [[user.folder]], one for each"),
    (USER + "[[user.folder]]\nseed = 1\n", 4, "user[0].folder[0]: 'name' is missing"),
    (USER + '[[user.folder]]\nname = "A"\nseed = "x"', 6, "user[0].folder[0].seed"),
    (USER + 'seed = 1\n[[user.folder]]\nname = "inbox"\n', 6, "'INBOX' is taken; allowed: each folder once"),
    (USER + 2 * '[[user.folder]]\nname = "A"\n', 7, "user[0].folder[1].name: 'A' is taken"),
    (
        USER + USER.replace("a@b", "c@d") + '[[user.folder]]\nname = "A"\nload = 3\n',
        9,
        "user[1].folder[0].load: 3 given",
    ),
]


@pytest.mark.parametrize(("text", "line", "words"), WRONG)
def test_a_mistake_is_told_with_file_line_and_what_is_allowed(text, line, words):
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert str(caught.value).startswith(f"dir/fakes.toml:{line}: ")
    assert words in str(caught.value)
    assert "12345" not in str(caught.value)


def test_a_file_that_can_not_be_read_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml: No such file"):
        read_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="Is a directory"):
        read_config(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9\n")
    with pytest.raises(ConfigError, match=r"latin\.toml: .*allowed: TOML in UTF-8"):
        read_config(tmp_path / "latin.toml")
    (tmp_path / "good.toml").write_text(MINIMAL)
    assert read_config(tmp_path / "good.toml").users[0].where == f"{tmp_path}/good.toml:2"


_LINES = [line for line in FULL.splitlines() if line]


@given(
    lines=st.lists(
        st.sampled_from(_LINES)
        | st.tuples(st.sampled_from(_LINES), st.sampled_from("0123456789x\"'[]{}=.,-")).map("".join),
        max_size=30,
    )
)
def test_fuzz_whatever_the_file_says_is_a_configuration_or_one_line_of_error(lines):
    try:
        parse("\n".join(lines))
    except ConfigError as err:
        told = str(err)
    else:
        return
    assert told.startswith("dir/fakes.toml:")
    assert 1 <= int(told.split(":")[1]) <= max(1, len(lines))


# --- what it brings in ------------------------------------------------------------------------------------------------


def start(text, load=None):
    store, plan, loaded = MailStore(seed=7), Plan(7), []

    def note(_store, folder, path):
        loaded.append((folder.address, folder.name, path))

    apply(parse(text), store, plan, load=load or note)
    return store, plan, loaded


def test_users_folders_mail_faults_and_limits_are_there_after_the_start():
    store, plan, loaded = start(
        FULL.replace("reset = 2", "flags = 0\nexpunge = 0").replace("1_000_000\n\n[[user]]", "1000\n\n[[user]]")
    )
    ann = store.user("ann@example.test")
    assert len(ann.folder("INBOX").uids) == 30, "twenty that were there and ten that have arrived"
    assert ann.folder("INBOX").step == 10
    assert len(ann.folder("Big").uids) == 1000
    assert {"Archive", "Archive/2024", "Big"} <= set(ann.names)
    assert {"Archive/2024", "Big"} <= ann.subscribed
    assert loaded == [("ann@example.test", "Archive/2024", Path("dir/corpus.mbox"))]
    assert store.login_token("ann@example.test", "ya29.canary") is ann
    assert store.login("bob@example.test", "other") is store.user("bob@example.test")
    assert (store.limits.connections, store.limits.connections_per_user) == (100, 15)
    assert [fault.id for fault in plan.faults] == [fault.id for fault in parse(FULL).faults]


def test_mail_with_gaps_has_gaps():
    store, _, _ = start(USER + "seed = { count = 500, gaps = 9 }\n")
    uids = list(store.user("a@b").folder("INBOX").uids)
    assert len(uids) == 500
    assert uids[-1] > 550


def test_the_start_can_be_brought_back():
    config, store, plan = parse(MINIMAL), MailStore(seed=7), Plan(7)
    sizes = []
    for _ in range(2):
        apply(config, store, plan, load=lambda *_: None)
        assert plan.decide("smtp.rcpt") is not None
        sizes.append(len(store.user("ann@example.test").folder("INBOX").uids))
        store.reset()
    assert sizes == [3, 3]


def test_what_turns_out_at_the_start_is_told_with_file_and_line():
    with pytest.raises(ConfigError, match=r"dir/fakes\.toml:4: '%' is no folder name"):
        start(USER + '[[user.folder]]\nname = "%"\n')

    def missing(_store, _folder, path):
        path.read_bytes()

    with pytest.raises(ConfigError, match=r"dir/fakes\.toml:1: dir/none\.mbox: No such file"):
        start(USER + 'load = "none.mbox"\n', load=missing)
