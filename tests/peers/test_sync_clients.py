"""Programs that keep a Maildir and an IMAP server the same, both ways: mbsync (isync) and offlineimap3."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import trustme
from mail_clients import LETTER, Maildir, message_id, run, without_marks


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sync:
    """A sync program that has been set up, and its Maildir."""

    argv: tuple[str, ...]
    near: Maildir
    #: Whether a letter is deleted by the mark T; otherwise by taking its file away.
    marks_trash: bool

    def delete(self, digest: str) -> None:
        """As a mail reader deletes a letter of the Maildir."""
        if self.marks_trash:
            self.near.mark(digest, "ST")
        else:
            self.near.find(digest).unlink()

    def __call__(self) -> str:
        """Once, both ways."""
        done = run(*self.argv)
        return (done.stdout + done.stderr).decode(errors="replace")


@pytest.fixture
def mbsync(program, ann, tmp_path):
    found = program("isync", "mbsync")

    def set_up(*, host: str = "127.0.0.1", port: str = "imap", tls: str = "None", extra: str = "") -> Sync:
        mail = tmp_path / "mail"
        mail.mkdir()
        config = tmp_path / "mbsyncrc"
        config.write_text(
            f"IMAPAccount fake\nHost {host}\nPort {ann.fakes.port(port)}\nUser {ann.address}\nPass {ann.password}\n"
            f"SSLType {tls}\nCertificateFile {ann.fakes.ca_file}\nAuthMechs LOGIN\n{extra}\n"
            "IMAPStore far\nAccount fake\n\n"
            f"MaildirStore near\nPath {mail}/\nInbox {mail}/INBOX\nSubFolders Verbatim\n\n"
            "Channel all\nFar :far:\nNear :near:\nPatterns INBOX work\nCreate Both\nExpunge Both\nSync All\n"
            f"SyncState *\n"
        )
        return Sync(argv=(found, "-c", str(config), "all"), near=Maildir(path=mail / "INBOX"), marks_trash=True)

    return set_up


@pytest.fixture
def offlineimap(program, ann, tmp_path):
    found = program("offlineimap3", "offlineimap")
    mail = tmp_path / "mail"
    config = tmp_path / "offlineimaprc"
    config.write_text(
        f"[general]\naccounts = fake\nmetadata = {tmp_path}/state\nui = basic\nsocktimeout = 30\nfsync = False\n\n"
        "[Account fake]\nlocalrepository = near\nremoterepository = far\n\n"
        f"[Repository near]\ntype = Maildir\nlocalfolders = {mail}\n\n"
        f"[Repository far]\ntype = IMAP\nremotehost = 127.0.0.1\nremoteport = {ann.fakes.port('imap')}\n"
        f"remoteuser = {ann.address}\nremotepass = {ann.password}\nssl = no\nstarttls = no\nexpunge = yes\n"
        "auth_mechanisms = LOGIN\nfolderfilter = lambda name: name == 'INBOX'\n"
    )
    argv = (found, "-o", "-c", str(config))
    return Sync(argv=argv, near=Maildir(path=mail / "INBOX"), marks_trash=False)


@pytest.fixture(params=["mbsync", "offlineimap"])
def sync(request):
    """Each of the two, set up and not yet run."""
    made = request.getfixturevalue(request.param)
    return made() if request.param == "mbsync" else made


def test_the_first_run_brings_every_message_as_it_is(sync, ann):
    appended = ann.letters(25)
    sync()
    assert sync.near.digests() == sorted(appended)


def test_mbsync_brings_synthesised_mail_as_it_is(mbsync, ann):
    ann.seed(50)
    sync = mbsync()
    sync()
    assert sync.near.digests() == ann.as_files()


def test_offlineimap_brings_all_synthesised_mail(offlineimap, ann):
    """Not byte by byte: it writes anew what the standard library's parser makes of a letter."""
    ann.seed(50)
    offlineimap()
    brought = [message_id(path.read_bytes()) for path in offlineimap.near.files()]
    assert sorted(brought) == sorted(message_id(ann.message(uid)) for uid in ann.flags())


def test_a_second_run_changes_nothing(sync, ann):
    ann.seed(10)
    sync()
    before, rows = sync.near.files(), ann.rows()
    sync()
    assert sync.near.files() == before
    assert ann.rows() == rows


def test_flags_go_both_ways(sync, ann):
    ann.append(LETTER)
    ann.append(LETTER.replace(b"mine", b"other"))
    first, second = ann.digests()
    one, two = sorted(ann.flags())
    sync()
    ann.set_flags(one, "\\Seen", "\\Flagged")
    sync.near.mark(second, "RS")
    sync()
    assert sync.near.flags(first) == {"S", "F"}
    assert ann.flags()[two] == {"\\Seen", "\\Answered"}
    ann.set_flags(one, "\\Flagged")
    sync()
    assert sync.near.flags(first) == {"F"}


def test_new_mail_goes_both_ways(sync, ann):
    ann.seed(3)
    sync()
    ann.append(LETTER)
    near = LETTER.replace(b"mine", b"written near")
    sync.near.deliver(near, "1612166400.M1P1.near")
    sync()
    assert len(sync.near.files()) == len(ann.rows()) == 5
    assert near in {without_marks(ann.message(uid)) for uid in ann.flags()}
    assert LETTER in {sync.near.message(path) for path in sync.near.files()}


def test_expunges_go_both_ways(sync, ann):
    seeded = ann.letters(4)
    sync()
    uids = sorted(ann.flags())
    ann.expunge(uids[0])
    sync.delete(seeded[3])
    sync()
    assert ann.digests() == seeded[1:3]
    # Whoever found the letter gone on one side has taken it away on the other.
    assert sync.near.digests() == sorted(seeded[1:3])


def test_what_changed_on_both_sides_meets_in_the_middle(sync, ann):
    seeded = ann.letters(6)
    sync()
    uids = sorted(ann.flags())
    ann.expunge(uids[1])
    ann.set_flags(uids[2], "\\Flagged")
    sync.near.mark(seeded[3], "S")
    ann.append(LETTER)
    sync()
    sync()
    assert len(sync.near.files()) == len(ann.rows()) == 6
    assert "F" in sync.near.flags(seeded[2])
    assert "\\Seen" in ann.flags()[uids[3]]


def test_mbsync_makes_folders_on_either_side(mbsync, ann, tmp_path):
    ann.fakes.control.create_folder(ann.address, "work")
    ann.append(LETTER, folder="work")
    sync = mbsync()
    sync()
    assert len(Maildir(path=tmp_path / "mail" / "work").files()) == 1


@pytest.mark.parametrize(("port", "tls"), [("imaps", "IMAPS"), ("imap", "STARTTLS")])
def test_mbsync_trusts_the_servers_authority(mbsync, ann, port, tls):
    ann.seed(5)
    sync = mbsync(host="localhost", port=port, tls=tls)
    sync()
    assert sync.near.digests() == ann.as_files()


def test_mbsync_does_not_trust_another_authority(mbsync, ann, tmp_path):
    ann.seed(1)
    sync = mbsync(host="localhost", port="imaps", tls="IMAPS")
    config = Path(sync.argv[2])
    stranger = tmp_path / "stranger.pem"
    trustme.CA().cert_pem.write_to_path(stranger)
    config.write_text(config.read_text().replace(str(ann.fakes.ca_file), str(stranger)))
    done = run(*sync.argv, code=None)
    assert done.returncode != 0
    assert sync.near.files() == []


def test_mbsync_over_a_hundred_messages_in_two_folders(mbsync, ann, tmp_path):
    ann.fakes.control.create_folder(ann.address, "work")
    ann.seed(100)
    ann.seed(50, folder="work")
    sync = mbsync()
    sync()
    assert sync.near.digests() == ann.as_files()
    assert Maildir(path=tmp_path / "mail" / "work").digests() == ann.as_files("work")
