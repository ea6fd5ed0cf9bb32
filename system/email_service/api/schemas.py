"""What goes in: the bodies and queries of the API, checked in compiled code and told in its OpenAPI document.

Rule 1: an unknown field is refused, so that a misspelt one is never ignored.
Rule 2: nothing that is kept as text holds a NUL (PostgreSQL refuses it); what goes into a header is one line.
Rule 3: no error shows a value, which may be a secret.
Callers: the modules of routes; ``openapi`` reads the same models.
"""

from __future__ import annotations

import uuid
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError, core_schema

from email_service import message
from email_service.errors import FieldsError, InvalidRequestError
from email_service.vault import Secret

#: Recipients of one message (RFC 5321 section 4.5.3.1.8 asks servers for 100 at least).
RECIPIENTS_MAX: Final = 100
#: Characters of a text or an HTML body.
BODY_CHARACTERS_MAX: Final = 10_000_000
#: Messages that one request deletes or checks.
BATCH_MAX: Final = 1000
#: Rows of one page of the feed, and of any other list.
FEED_LIMIT_MAX: Final = 1000
PAGE_LIMIT_MAX: Final = 200

_NO_NUL: Final = r"^[^\u0000]*$"
_ONE_LINE: Final = r"^[^\u0000\r\n]*$"
#: No white space, and nothing that ends a host in a URL: what is left is a name or an address.
_HOST: Final = r"^[^\u0000-\u0020\u007f/@\\?#%\[\]]+$"
#: RFC 5322's msg-id as far as a header can hold it.
_MESSAGE_ID: Final = r"^<[^<>\u0000-\u0020\u007f]+@[^<>\u0000-\u0020\u007f]+>$"


class Model(BaseModel):
    """A JSON object with these fields and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Body(Model):
    """A request's JSON: no type is turned into another."""

    model_config = ConfigDict(strict=True)


def _address(text: str) -> str:
    try:
        return message.parse_address(text)
    except InvalidRequestError as err:
        raise PydanticCustomError("address", "{detail}", {"detail": err.detail}) from None


class _Sealed:
    """A string that becomes a Secret as soon as it is read."""

    def __get_pydantic_core_schema__(self, _source: object, _handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        text = core_schema.str_schema(min_length=1, max_length=16_384, strict=True)
        return core_schema.no_info_after_validator_function(Secret, text)

    def __get_pydantic_json_schema__(self, _schema: object, _handler: object) -> dict[str, Any]:
        return {"type": "string", "minLength": 1, "maxLength": 16_384, "format": "password", "writeOnly": True}


Address = Annotated[
    str, AfterValidator(_address), Field(min_length=3, max_length=254, json_schema_extra={"format": "email"})
]
Line = Annotated[str, Field(max_length=2000, pattern=_ONE_LINE)]
Text = Annotated[str, Field(max_length=BODY_CHARACTERS_MAX, pattern=_NO_NUL)]
MessageId = Annotated[str, Field(max_length=900, pattern=_MESSAGE_ID)]
SealedText = Annotated[Secret, _Sealed()]
Ids = Annotated[list[uuid.UUID], Field(min_length=1, max_length=BATCH_MAX)]


class Endpoint(Body):
    """A mail server. ``none`` sends the password as it is: for servers in the operator's own net."""

    host: Annotated[str, Field(min_length=1, max_length=253, pattern=_HOST)]
    port: Annotated[int, Field(ge=1, le=65_535)]
    encryption: Literal["none", "starttls", "tls"] = "tls"


_Auth = Literal["password", "xoauth2"]
#: Which field holds the secret.
_SECRETS: Final = {"password": "password", "xoauth2": "token"}
_Interval = Annotated[int, Field(ge=60, le=86_400)]


def _goes_with(auth: str) -> str:
    return f"auth {auth} goes with {_SECRETS[auth]} alone"


class NewClient(Body):
    """A mailbox to be added. Its secret is a ``password``, or with ``xoauth2`` a ``token``: an OAuth 2 access token."""

    address: Address
    username: Annotated[str, Field(min_length=1, max_length=320, pattern=_ONE_LINE)]
    imap: Endpoint
    smtp: Endpoint
    auth: _Auth = "password"
    password: SealedText | None = None
    token: SealedText | None = None
    enabled: bool = True
    sync_interval_s: _Interval = 300
    spam_check: bool = True

    @model_validator(mode="after")
    def _one_secret(self) -> NewClient:
        given = {name for name in ("password", "token") if getattr(self, name) is not None}
        if given != {_SECRETS[self.auth]}:
            raise _error(_SECRETS[self.auth], _goes_with(self.auth))
        return self

    @property
    def secret(self) -> Secret:
        """What logs in."""
        found = self.token or self.password
        assert found is not None  # noqa: S101  # _one_secret
        return found


def _kept() -> Any:
    """A field that may be left out and is never null."""
    return Field(default=None, json_schema_extra=_no_default)


def _no_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


class ClientChange(Body):
    """What is to change; what is left out stays. An endpoint is replaced whole, and a new secret replaces the old."""

    username: Annotated[str, Field(min_length=1, max_length=320, pattern=_ONE_LINE)] = _kept()
    imap: Endpoint = _kept()
    smtp: Endpoint = _kept()
    auth: _Auth = _kept()
    password: SealedText = _kept()
    token: SealedText = _kept()
    enabled: bool = _kept()
    sync_interval_s: _Interval = _kept()
    spam_check: bool = _kept()

    @model_validator(mode="after")
    def _one_secret(self) -> ClientChange:
        if "auth" in self.model_fields_set and self.secrets != {_SECRETS[self.auth]}:
            raise _error(_SECRETS[self.auth], _goes_with(self.auth))
        return self

    @property
    def secrets(self) -> set[str]:
        """Names of the secrets that are given."""
        return self.model_fields_set & {"password", "token"}

    def check_secret(self, auth: str) -> None:
        """Hold a new secret against how the mailbox logs in.

        Raises:
            FieldsError: it logs in by the other kind.
        """
        if "auth" not in self.model_fields_set and self.secrets and self.secrets != {_SECRETS[auth]}:
            field, detail = _SECRETS[auth], _goes_with(auth)
            raise FieldsError(f"{field}: {detail}", fields=({"pointer": f"#/{field}", "detail": detail},))


class Inline(Body):
    """An upload that the HTML shows: ``<img src="cid:CONTENT_ID">``."""

    attachment_id: uuid.UUID
    content_id: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9!#$&'*+./=?^_`{|}~@-]+$")]


class NewMail(Body):
    """A message to be sent. ``to``, ``cc`` and ``bcc`` together name 1 to 100 addresses."""

    client_id: uuid.UUID
    to: list[Address] = Field(default=[], max_length=RECIPIENTS_MAX)
    cc: list[Address] = Field(default=[], max_length=RECIPIENTS_MAX)
    bcc: list[Address] = Field(default=[], max_length=RECIPIENTS_MAX)
    from_name: Annotated[str, Field(max_length=200, pattern=_ONE_LINE)] | None = None
    reply_to: list[Address] = Field(default=[], max_length=10)
    subject: Line = ""
    text: Text = ""
    html: Text | None = None
    attachment_ids: list[uuid.UUID] = Field(default=[], max_length=100)
    inline: list[Inline] = Field(default=[], max_length=100)
    in_reply_to: MessageId | None = None
    references: list[MessageId] = Field(default=[], max_length=100)

    @model_validator(mode="after")
    def _somebody(self) -> NewMail:
        count = len(self.to) + len(self.cc) + len(self.bcc)
        if not 1 <= count <= RECIPIENTS_MAX:
            raise _error("to", f"to, cc and bcc name {count} addresses; they must name 1 to {RECIPIENTS_MAX}")
        if self.inline and not self.html:
            raise _error("inline", "needs html, which shows it")
        if len({i.content_id for i in self.inline}) < len(self.inline):
            raise _error("inline", "each content_id must be another")
        return self


class Deletion(Body):
    """Messages to be deleted: moved to the trash, or with ``permanent`` removed for good."""

    message_ids: Ids
    permanent: bool = False


class SpamCheck(Body):
    """Messages to be checked for spam."""

    message_ids: Ids


Cursor = Annotated[str, Field(max_length=500, description="The cursor of the page before; opaque")]


class Nothing(Model):
    """No parameters."""


class Page(Model):
    """Which part of a list."""

    limit: Annotated[int, Field(ge=1, le=PAGE_LIMIT_MAX)] = 50
    cursor: Cursor | None = None


class MessagePage(Page):
    """Which messages."""

    client_id: uuid.UUID | None = None
    folder_id: uuid.UUID | None = None
    q: Annotated[str, Field(max_length=200, pattern=_NO_NUL, description="Part of subject or sender")] | None = None
    unseen: bool | None = None
    spam: bool | None = None
    has_attachments: bool | None = None


class FeedPage(Model):
    """Which part of the feed."""

    limit: Annotated[int, Field(ge=1, le=FEED_LIMIT_MAX)] = 500
    after: Cursor | None = None


def _error(field: str, detail: str) -> PydanticCustomError:
    return PydanticCustomError("field", "{detail}", {"detail": detail, "field": field})


def wrong_fields(err: ValidationError, model: type[Model], *, where: str) -> tuple[dict[str, str], ...]:
    """Each field that is wrong; ``where`` is ``pointer`` for a body and ``parameter`` for a query."""
    errors = err.errors(include_url=False, include_input=False)
    return tuple({where: _place(error, where), "detail": _detail(error, model)} for error in errors)


def _place(error: Any, where: str) -> str:
    field = error.get("ctx", {}).get("field")
    steps = [str(step) for step in (*error["loc"], *([field] if field else []))]
    if where == "parameter":
        return ".".join(steps)
    # RFC 6901 section 3, in a URI fragment.
    return "#" + "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)


def _detail(error: Any, model: type[Model]) -> str:
    if error["type"] == "missing":
        return "is missing"
    if error["type"] != "extra_forbidden":
        return str(error["msg"])
    known = f"; there are {', '.join(model.model_fields) or 'none'}" if len(error["loc"]) == 1 else ""
    return f"there is no such field{known}"
