"""Values out of the environment, one at a time, each checked for itself; what is wrong is collected, not raised.

Owns the rule that a secret's value enters no problem. Reads the files that ``<secret>_FILE`` and ``MAIL_CA_FILE`` name.
Called by ``settings``.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

from email_service.config.variables import BY_NAME, FILE_SUFFIX

#: Length of CREDENTIAL_ENCRYPTION_KEY once decoded, bytes.
KEY_BYTES: Final = 32
PORT_MAX: Final = 65_535
#: A secret's file holds one line; whatever is longer is another file.
_SECRET_FILE_BYTES_MAX: Final = 65_536
_LABEL: Final = r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?"
_HOST: Final = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*")
_DIGITS: Final = re.compile(r"[0-9]{1,9}")
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")
#: Span files of less would hold a few requests each.
_SPAN_BYTES_MIN: Final = 8 * 1024 * 1024
_RATE: Final = re.compile(r"[1-9]\d*\s*(/|per)\s*([1-9]\d*\s*)?(second|minute|hour|day)s?")
_KEY_ID: Final = re.compile(r"[A-Za-z0-9._-]+")
#: Scheme, whether there is a host, and how the path begins.
_BLOB_FORMS: Final = {("file", False, "/"), ("s3", True, "/"), ("s3", True, "")}
_NODE: Final = re.compile(r"[^\s@,]+@[^\s@,]+")
#: What a host of MAIL_ALLOWED_HOSTS may look like.
_HOST_FORMS: Final = "the word public, host, host:port or *.domain"

T = TypeVar("T")


class Refused(Exception):  # noqa: N818  # a value on its way to the list of problems, never out of this package
    """A value that is not right, in the words for the operator."""


class Reader:
    """The environment, with the list of all that is wrong in it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._env = environ
        self.problems: list[str] = []
        #: Variables that were refused: what contradicts only them is not told as well.
        self.refused: set[str] = set()

    def take(self, name: str, make: Callable[[], T], otherwise: T) -> T:
        """What ``make`` answers; where it refuses, that is noted, and the stand-in is what nobody gets to see."""
        try:
            return make()
        except Refused as err:
            self.refused.add(name)
            if str(err) not in self.problems:
                self.problems.append(str(err))
            return otherwise

    def optional(self, name: str) -> str | None:
        """The value, from the variable or from its file; None when there is none or it is empty."""
        return self.take(name, lambda: value_of(self._env, name) or None, None)

    def text(self, name: str) -> str:
        """The value, or the default."""
        return self.optional(name) or BY_NAME[name].default or ""

    def given(self, name: str) -> str:
        """The value, also an empty one, or the default."""
        return self._env.get(name, BY_NAME[name].default or "")

    def required(self, name: str) -> str:
        """The value; a problem when there is none."""
        return self.take(name, lambda: _required(self._env, name), "")

    def number(self, name: str, low: float, high: float) -> float:
        """A number within bounds."""
        default = float(BY_NAME[name].default or low)
        return self.take(name, lambda: _number(name, self.text(name), low, high), default)

    def whole(self, name: str, low: int, high: int) -> int:
        """A whole number within bounds."""
        default = int(BY_NAME[name].default or low)
        return self.take(name, lambda: _whole(name, self.text(name), low, high), default)

    def one_of(self, name: str, allowed: tuple[str, ...]) -> str:
        """One of some words."""
        return self.take(name, lambda: _one_of(name, self.text(name), allowed), allowed[0])

    def path(self, name: str) -> Path | None:
        """A path, which need not exist."""
        value = self.optional(name)
        return Path(value) if value else None

    def words(self, name: str) -> tuple[str, ...]:
        """What is between the commas."""
        return tuple(word.strip() for word in self.given(name).split(",") if word.strip())


def value_of(env: Mapping[str, str], name: str) -> str:
    """The value of a variable, or of the file that ``<name>_FILE`` names if it is a secret; empty when there is none.

    Raises:
        Refused: both are set, or the file can't be read.
    """
    value = env.get(name, "")
    path = env.get(name + FILE_SUFFIX, "") if BY_NAME[name].secret else ""
    if value and path:
        raise Refused(f"{name} and {name}{FILE_SUFFIX} are both set; one of them says what it is")
    return _content(name + FILE_SUFFIX, Path(path)) if path else value


def _content(name: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_SECRET_FILE_BYTES_MAX + 1)
        if len(content) > _SECRET_FILE_BYTES_MAX:
            raise Refused(f"{name} names {path}, which is too long for a secret")
        # An editor's or a shell's newline is no part of a secret.
        text = content.decode().rstrip("\r\n")
    except OSError as err:
        raise Refused(f"{name} names {path}, which can't be read ({err.strerror})") from err
    except UnicodeDecodeError as err:
        raise Refused(f"{name} names {path}, which is not text in UTF-8") from err
    if not text:
        raise Refused(f"{name} names {path}, which is empty")
    return text


def _required(env: Mapping[str, str], name: str) -> str:
    value = value_of(env, name)
    if not value:
        raise Refused(f"{name} is not set ({BY_NAME[name].help})")
    return value


def _number(name: str, text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise Refused(f"{name} is {text!r}; it must be a number from {low:g} to {high:g}")
    return value


def _whole(name: str, text: str, low: int, high: int) -> int:
    value = _number(name, text, low, high)
    if value != int(value):
        raise Refused(f"{name} is {text!r}; it must be a whole number")
    return int(value)


def _one_of(name: str, text: str, allowed: tuple[str, ...]) -> str:
    if text not in allowed:
        raise Refused(f"{name} is {text!r}; it must be one of: {', '.join(allowed)}")
    return text


def split(url: str) -> SplitResult | None:
    """A URL's parts; None where it is none (a port that is no number, a bracket that stays open)."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts


def postgres_url(name: str, value: str) -> str:
    """The SQLAlchemy form of a PostgreSQL URL; never says what it holds."""
    scheme, separator, rest = value.partition("://")
    known = scheme in {"postgresql", "postgres", "postgresql+psycopg"}
    if not separator or not known or split(value) is None:
        raise Refused(f"{name} must look like postgresql://user:password@host:5432/database")
    return f"postgresql+psycopg://{rest}"


def redis_url(value: str) -> str:
    """A Redis URL without a database."""
    parts = split(value)
    if parts is None or parts.scheme not in {"redis", "rediss"} or not parts.hostname or parts.path not in {"", "/"}:
        raise Refused("REDIS_URL must look like redis://host:6379, without a database number")
    if parts.query or parts.fragment:
        raise Refused("REDIS_URL must end with its port: options after ? would cut off the database number")
    return value.rstrip("/")


def key(name: str, value: str) -> bytes:
    """A key of 32 bytes."""
    try:
        decoded = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        decoded = b""
    if len(decoded) != KEY_BYTES:
        raise Refused(f"{name} must be {KEY_BYTES} bytes in base64")
    return decoded


def key_id(value: str) -> str:
    """The name of the current key: no comma or = may be in it, for the list of old ones has them."""
    if not _KEY_ID.fullmatch(value):
        raise Refused("MAIL_CREDENTIAL_KEY_ID must be letters, digits, dot, dash and underscore")
    return value


def old_keys(value: str, current: str) -> dict[str, bytes]:
    """Earlier keys by id; says which entry is wrong by its place, for any part of it may be the secret."""
    keys: dict[str, bytes] = {}
    for place, entry in enumerate(filter(None, (e.strip() for e in value.split(","))), start=1):
        name, _, secret = entry.partition("=")
        if not secret or not _KEY_ID.fullmatch(name):
            raise Refused(f"MAIL_CREDENTIAL_KEYS_OLD: entry {place} must look like id=base64")
        if name in keys:
            raise Refused(f"MAIL_CREDENTIAL_KEYS_OLD: entry {place} has the id of an earlier one")
        keys[name] = key(f"MAIL_CREDENTIAL_KEYS_OLD: the key of entry {place}", secret)
    if current in keys:
        raise Refused("MAIL_CREDENTIAL_KEYS_OLD names the current MAIL_CREDENTIAL_KEY_ID: a new key needs a new id")
    return keys


def token_secret(value: str) -> str:
    """RFC 7518 section 3.2: a key of at least the hash's size for HS256."""
    if len(value) < KEY_BYTES:
        raise Refused(f"MAIL_TOKEN_SECRET must have {KEY_BYTES} characters or more")
    return value


def blob_url(directory: str | None, url: str | None) -> str:
    """Where attachments are, from the one or the other variable; empty when neither is set."""
    if directory and url:
        raise Refused("MAIL_BLOB_DIR and MAIL_BLOB_URL are both set; one of them says where attachments are")
    if directory or not url:
        return Path(directory).absolute().as_uri() if directory else ""
    parts = split(url)
    if parts is None or (parts.scheme, bool(parts.netloc), parts.path[:1]) not in _BLOB_FORMS:
        raise Refused("MAIL_BLOB_URL must look like file:///directory or s3://bucket/prefix")
    return url


def ca_file(path: Path) -> Path:
    """A PEM file that OpenSSL takes."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
    except ssl.SSLError as err:
        raise Refused(f"MAIL_CA_FILE names {path}, which holds no certificate in PEM") from err
    except OSError as err:
        raise Refused(f"MAIL_CA_FILE names {path}, which can't be read ({err.strerror})") from err
    return path


def allowed_host(entry: str) -> str:
    """One entry of MAIL_ALLOWED_HOSTS in the form that ``host_listed`` compares: lower case, without brackets."""
    host, port = _host_and_port(entry.lower())
    if host.startswith("*.") and port:
        raise Refused(f"MAIL_ALLOWED_HOSTS has {entry!r}: a *.domain takes no port")
    if port and not 0 < int(port) <= PORT_MAX:
        raise Refused(f"MAIL_ALLOWED_HOSTS has {entry!r}: a port is a number from 1 to {PORT_MAX}")
    return f"{host}:{port}" if port else host


def _host_and_port(entry: str) -> tuple[str, str]:
    try:
        return str(ipaddress.ip_address(entry)), ""
    except ValueError:
        pass
    bracketed = re.fullmatch(r"\[([0-9a-f:.]+)\](?::([0-9]{1,9}))?", entry)
    try:
        if bracketed:
            return str(ipaddress.ip_address(bracketed[1])), bracketed[2] or ""
    except ValueError:
        pass
    host, colon, port = entry.partition(":")
    if not _HOST.fullmatch(host.rstrip(".")) or (colon and not _DIGITS.fullmatch(port)):
        raise Refused(f"MAIL_ALLOWED_HOSTS has {entry!r}; an entry is {_HOST_FORMS}")
    return host.rstrip("."), port


def origin(value: str) -> str:
    """One entry of MAIL_CORS_ORIGINS as a browser sends it (RFC 6454 section 6.2): nothing after the port."""
    parts = split(value)
    if parts is None or value.lower() != f"{parts.scheme}://{parts.netloc.lower()}" or not parts.hostname:
        raise Refused(f"MAIL_CORS_ORIGINS has {value!r}; an origin is scheme://host or scheme://host:port, or * alone")
    if parts.scheme not in {"http", "https"} or "@" in parts.netloc:
        raise Refused(f"MAIL_CORS_ORIGINS has an origin of {parts.hostname} that is not http:// or https:// and a host")
    return value.lower()


def rate_limit(value: str) -> str | None:
    """A number of requests in a time; None for none."""
    if value == "off":
        return None
    if not _RATE.fullmatch(value.lower()):
        raise Refused(f"MAIL_RATE_LIMIT is {value!r}; it must look like 6000/minute or 100/10seconds, or be off")
    return value.lower()


def otlp_endpoint(value: str) -> str:
    """Where traces go; may hold a password, so it is not repeated."""
    parts = split(value)
    if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname:
        raise Refused("OTEL_EXPORTER_OTLP_ENDPOINT must look like http://host:4318")
    return value


def span_bytes_max(value: int) -> int:
    """A size that holds some files, or 0."""
    if value and value < _SPAN_BYTES_MIN:
        raise Refused(f"MAIL_SPAN_BYTES_MAX is {value}; it must be {_SPAN_BYTES_MIN} (8 MB) or more, or 0 for no limit")
    return value


def otlp_headers(value: str) -> dict[str, str]:
    """Headers for a collector; their values are keys, so they are not repeated."""
    pairs = [part.partition("=") for part in value.split(",")]
    headers = {name.strip().lower(): unquote(text.strip()) for name, _, text in pairs}
    if not all(_HEADER.fullmatch(name) and text and text.isprintable() for name, text in headers.items()):
        raise Refused("OTEL_EXPORTER_OTLP_HEADERS must look like name=value,name=value with URL-encoded values")
    return headers


def prefetch_multiplier(multiplier: int, concurrency: int) -> int:
    """The document's variable is accepted, with the one value under which its promise holds."""
    if multiplier == 1:
        return 1
    held = f"{multiplier * concurrency} messages" if multiplier else "every message that waits"
    raise Refused(
        f"WORKER_PREFETCH_MULTIPLIER is {multiplier}: a worker of {concurrency} would hold {held}, and no other worker "
        "could take what waits behind a long task; it must be 1"
    )


def node(value: str) -> str:
    """A Celery node name: without a host, Celery would add this one's, and health checks would ask for another."""
    if not _NODE.fullmatch(value):
        raise Refused(f"MAIL_NODE is {value!r}; it must look like name@host")
    return value


def flower_password(value: str, length_min: int = 12) -> str:
    """Long enough, for Flower shows every task's name and id."""
    if len(value) < length_min:
        raise Refused(f"MAIL_FLOWER_PASSWORD must have {length_min} characters or more")
    return value
