"""Dovecot as a contract peer: its own configuration and mail under a folder that goes away, in the foreground.

Owns: the configuration and the users' file.
Never: runs as root (a test that is root hands the folder to ``nobody``), or reads the system's own configuration.
Called by: the fixture ``peer`` of the contract suite.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import secrets
import string
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import trustme
from imap_peer import ImapPeer
from processes import HOST, Identity, free_ports, listens, normal_user, running, short_folder

PACKAGE = "dovecot-imapd"
#: Dovecot 2.4 has another configuration language.
SERIES = "2.3"
#: Folders that every user has, named as their uses (RFC 6154 section 2).
_SPECIAL_USES = ("Archive", "Drafts", "Junk", "Sent", "Trash")
#: All services as one user, no chroot, no wait after a wrong password.
_CONFIGURATION = string.Template("""
base_dir = $folder/run
state_dir = $folder/run
log_path = /dev/stderr
protocols = imap
listen = $host
default_login_user = $user
default_internal_user = $user
default_internal_group = $group
first_valid_uid = 1
disable_plaintext_auth = no
auth_failure_delay = 0
auth_mechanisms = plain login xoauth2 oauthbearer
mail_location = sdbox:~/mail
mail_max_userip_connections = 50
mailbox_list_index = yes
imap_hibernate_timeout = 0
ssl = yes
ssl_cert = <$folder/cert.pem
ssl_key = <$folder/key.pem
passdb {
  driver = passwd-file
  args = scheme=PLAIN username_format=%u $folder/users/%u
}
passdb {
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = $folder/oauth2.conf
}
userdb {
  driver = static
  args = uid=$uid gid=$gid home=$folder/mail/%u
}
service anvil {
  chroot =
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service imap-login {
  chroot =
  service_count = 0
  inet_listener imap {
    port = $imap
  }
  inet_listener imaps {
    port = $imaps
    ssl = yes
  }
}
service stats {
  chroot =
}
namespace inbox {
  inbox = yes
  separator = /
$mailboxes}
""")


def version(program: str) -> str:
    """What ``dovecot --version`` says, without the hash."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=20)
    return done.stdout.split()[0]


@contextlib.contextmanager
def dovecot(program: str) -> Iterator[ImapPeer]:
    """Dovecot from the moment it serves until it, its children and its folder are gone."""
    identity, key = normal_user(), secrets.token_bytes(32)
    imap, imaps = free_ports(2)
    with short_folder("dove") as folder:
        _lay_out(folder, key)
        (folder / "dovecot.conf").write_text(_configuration(folder, identity, imap, imaps))
        identity.own(folder)
        argv = [program, "-F", "-c", str(folder / "dovecot.conf")]
        with running(argv, log=folder / "dovecot.log", ready=lambda: listens(imaps), identity=identity, utc=True):
            yield ImapPeer(
                name="dovecot",
                version=version(program),
                host=HOST,
                port=imap,
                tls_port=imaps,
                add_user=lambda address, password: _add_user(folder / "users", address, password),
                token=lambda address, _password: _web_token(key, address),
            )


def _lay_out(folder: Path, key: bytes) -> None:
    """Folders, certificate and the key of the tokens."""
    for name in ("mail", "users"):
        (folder / name).mkdir()
    # Where a validation key is looked up: <azp>/<alg>/<kid>; both names have a default.
    keys = folder / "keys" / "default" / "HS256"
    keys.mkdir(parents=True)
    (keys / "default").write_bytes(base64.b64encode(key))
    certificate = trustme.CA().issue_cert(HOST, "localhost")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    (folder / "oauth2.conf").write_text(
        "introspection_mode = local\n"
        f"local_validation_key_dict = fs:posix:prefix={folder}/keys/\n"
        "username_attribute = sub\n"
    )


def _add_user(users: Path, address: str, password: str) -> None:
    # A file each: Dovecot notices a change of one that it has read only by its second.
    path = users / address
    path.write_text(f"{address}:{{PLAIN}}{password}::::::\n")
    path.chmod(0o644)


def _web_token(key: bytes, address: str) -> str:
    """A JSON Web Token (RFC 7519) that this Dovecot checks by itself: no other service is asked."""
    now = int(time.time())
    head = {"alg": "HS256", "typ": "JWT"}
    body = {"sub": address, "iat": now - 60, "nbf": now - 60, "exp": now + 3600}
    parts = b".".join(_url64(json.dumps(part).encode()) for part in (head, body))
    return (parts + b"." + _url64(hmac.new(key, parts, hashlib.sha256).digest())).decode()


def _url64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _configuration(folder: Path, identity: Identity, imap: int, imaps: int) -> str:
    mailboxes = "".join(
        f"  mailbox {name} {{\n    auto = subscribe\n    special_use = \\{name}\n  }}\n" for name in _SPECIAL_USES
    )
    return _CONFIGURATION.substitute(
        folder=folder,
        host=HOST,
        user=identity.user,
        group=identity.group,
        uid=identity.uid,
        gid=identity.gid,
        imap=imap,
        imaps=imaps,
        mailboxes=mailboxes,
    )
