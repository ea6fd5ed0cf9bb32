"""Read a mailbox: its folders, and what is new in one since a token (RFC 3501).

Rule 1: a message is (folder, UIDVALIDITY, UID); a token says up to which UID all is read, and goes into the same commit.
Rule 2: what is held in memory is bounded: batches by count and by bytes, lines and literals by size.
Rule 3: every error is ours and says whether a retry is worth it; no error and no span holds the password.
Rule 4: it reads only: EXAMINE and BODY.PEEK leave no trace in the mailbox.
``imaplib`` tags commands and collects replies; the socket and the reading of replies are our own. Called by service.
"""

from __future__ import annotations

import base64
import binascii
import functools
import imaplib
import re
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from io import BufferedReader
from itertools import islice
from typing import Any, Final, Self, TypeAlias

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode

from email_service.errors import AuthenticationError, ConnectError, ImapError, InvalidRequestError, MailServerError
from email_service.signals import (
    ERROR_TYPE,
    IMAP_BYTES,
    IMAP_FOLDER,
    IMAP_MESSAGES,
    SERVER_ADDRESS,
    SERVER_PORT,
    SPAN_IMAP_CONNECT,
    SPAN_IMAP_FETCH,
    SPAN_IMAP_LOGIN,
    SPAN_IMAP_SELECT,
)
from email_service.vault import Secret
