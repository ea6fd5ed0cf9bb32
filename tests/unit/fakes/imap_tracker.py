"""What a strict client knows of its folder, response by response; it raises at the first one that can't be right.

Owns: the rules of RFC 3501 sections 5 and 7, RFC 7162 and RFC 4731 that any two sessions of a server must keep.
Never does: commands. Called by: test_imap_model.

Rule: it believes the server's responses alone; only ``check`` compares what it believes with the store.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field

from imap_transcript import Reply

SYSTEM = {"\\Answered", "\\Flagged", "\\Deleted", "\\Seen", "\\Draft", "\\Recent"}
#: Commands that message numbers must survive (RFC 3501 section 7.4.1).
STEADY = {"FETCH", "STORE", "SEARCH"}
#: Items that never change for a message.
FIXED = re.compile(r"RFC822\.SIZE|INTERNALDATE|ENVELOPE|BODYSTRUCTURE|BODY\[.*")


@dataclass(eq=False)
class Slot:
    """One message of the view, as far as the client knows it."""

    uid: int | None = None
    flags: frozenset[str] | None = None
    modseq: int = 0


@dataclass(kw_only=True)
class Sent:
    """A command that is still to be answered."""

    tag: str
    #: Without UID.
    name: str
    by_uid: bool = False
    #: The messages that it names, where it matters.
    slots: list[Slot] = field(default_factory=list)
    #: It names all that there are when it runs.
    everything: bool = False
    #: (sign, flags, silent) of a STORE.
    change: tuple[str, frozenset[str], bool] | None = None
    #: It may fail.
    may_fail: bool = False
    #: It asks for QRESYNC's news of what went earlier.
    earlier: bool = False
    #: It reads messages: their \\Seen has to be told.
    reads: bool = False
    #: What is on from its execution on.
    enables: frozenset[str] = frozenset()
    #: Of SELECT: name and whether it is EXAMINE.
    selects: tuple[str, bool] | None = None
    #: Messages whose flags were told meanwhile.
    told: set[Slot] = field(default_factory=set)
    #: Numbers that SEARCH answered; None before.
    found: list[int] | None = None


@dataclass(kw_only=True)
class World:
    """What holds for all sessions together."""

    #: (uidvalidity, uid) -> the session that saw it as recent.
    recent: dict[tuple[int, int], str] = field(default_factory=dict)
    #: (uidvalidity, uid, item) -> its value.
    fixed: dict[tuple[int, int, str], object] = field(default_factory=dict)
    #: Responses that were checked.
    responses: int = 0


class Tracker:
    """One session's client."""

    def __init__(self, name: str, world: World) -> None:
        self.name, self._world = name, world
        self.pending: deque[Sent] = deque()
        self.enabled: set[str] = set()
        self._buffer = b""
        self._deselect()
        self.idling = self.ended = False

    def _deselect(self) -> None:
        self.folder: str | None = None
        self.read_only = False
        self.view: list[Slot] = []
        self.keywords: set[str] = set()
        self.recent = self.uidvalidity = self.uidnext = 0
        #: The mod-sequence up to which everything was told.
        self.synced = 0
        self._highest = 0

    # --- input ---

    def feed(self, data: bytes) -> None:
        """Check whatever has arrived whole."""
        self._buffer += data
        while (end := self._response_end()) >= 0:
            response, self._buffer = self._buffer[:end], self._buffer[end:]
            try:
                self._world.responses += 1
                self._handle(response[:-2])
            except AssertionError as err:
                raise AssertionError(f"{self.name}: {err}\nresponse: {response!r}\npending: {self.pending}") from err

    def _response_end(self) -> int:
        at = 0
        while (end := self._buffer.find(b"\r\n", at)) >= 0:
            literal = re.search(rb"\{(\d+)\}\Z", self._buffer[at:end])
            if literal is None:
                return end + 2
            at = end + 2 + int(literal[1])
            if at > len(self._buffer):
                return -1
        return -1

    @property
    def _now(self) -> Sent | None:
        return self.pending[0] if self.pending else None

    def _handle(self, response: bytes) -> None:
        if response.startswith(b"+"):
            assert self._now is not None, "leave that nobody waits for"
            assert self._now.name == "IDLE", "leave that nobody waits for"
            self.idling = True
            return
        if not response.startswith(b"* "):
            self._tagged(response.decode())
            return
        if not response.startswith(b"* BYE "):
            assert self._now is not None, "a response while no command is in progress"
        if match := re.match(rb"\* (\d+) (EXISTS|RECENT|EXPUNGE|FETCH)", response):
            assert self.folder is not None, "a message response without a folder"
            number = int(match[1])
            getattr(self, f"_{match[2].decode().lower()}")(number, response)
            return
        word = response.split()[1].decode()
        handler = getattr(self, f"_{word.lower()}", None)
        if handler is not None:
            handler(response.decode("latin-1"))
        else:
            assert word in {"LIST", "LSUB", "STATUS", "CAPABILITY"}, "an unknown response"

    # --- untagged ---

    def _exists(self, number: int, _response: bytes) -> None:
        assert number >= len(self.view), f"EXISTS fell from {len(self.view)}"
        self.view += [Slot() for _ in range(number - len(self.view))]

    def _recent(self, number: int, _response: bytes) -> None:
        assert number <= len(self.view)
        self.recent = number

    def _expunge(self, number: int, _response: bytes) -> None:
        assert "QRESYNC" not in self.enabled, "EXPUNGE where VANISHED was enabled"
        self._may_expunge()
        assert 1 <= number <= len(self.view), f"EXPUNGE beyond {len(self.view)}"
        self._remove(self.view[number - 1])

    def _may_expunge(self) -> None:
        now = self._now
        assert now is not None
        assert now.by_uid or now.name not in STEADY, f"message numbers change during {now.name}"

    def _remove(self, slot: Slot) -> None:
        self.view.remove(slot)

    def _vanished(self, text: str) -> None:
        assert "QRESYNC" in self.enabled, "VANISHED without ENABLE QRESYNC"
        now = self._now
        assert now is not None
        earlier = text.startswith("* VANISHED (EARLIER) ")
        uids = expanded(text.rpartition(" ")[2])
        assert compressed(uids) == text.rpartition(" ")[2], "a set that is not compressed"
        if earlier:
            assert now.earlier, "VANISHED (EARLIER) that nobody asked for"
            assert not set(uids) & {slot.uid for slot in self.view}, "VANISHED (EARLIER) of a message that is there"
            self.earlier(uids)
            return
        self._may_expunge()
        for uid in uids:
            self._remove(self._slot_of(uid))

    def earlier(self, uids: list[int]) -> None:
        """For a client that keeps what it knew from one session to the next."""

    def _slot_of(self, uid: int) -> Slot:
        """The message of a UID: one that is known, or one that must be it."""
        for slot in self.view:
            if slot.uid == uid:
                return slot
        low = max((at for at, slot in enumerate(self.view) if slot.uid is not None and slot.uid < uid), default=-1)
        for slot in self.view[low + 1 :]:
            if slot.uid is None:
                return slot
            assert slot.uid < uid, f"VANISHED of UID {uid}, which is not in the view"
        raise AssertionError(f"VANISHED of UID {uid}, which is not in the view")

    def _flags(self, text: str) -> None:
        words = re.fullmatch(r"\* FLAGS \((.*)\)", text)[1].split()
        keywords = {word for word in words if not word.startswith("\\")}
        assert set(words) - keywords <= SYSTEM, "an unknown system flag"
        assert self.keywords <= keywords, f"keywords were forgotten: {self.keywords - keywords}"
        self.keywords = keywords

    def _ok(self, text: str) -> None:
        code = re.match(r"\* OK \[([A-Z-]+) ?([^]]*)\]", text)
        assert code, "an untagged OK without a code"
        match code[1]:
            case "CLOSED":
                assert self.folder is not None, "CLOSED where nothing was selected"
                self._deselect()
                selects = self._now.selects if self._now else None
                if selects is not None:
                    self.folder, self.read_only = selects
            case "PERMANENTFLAGS":
                words = set(code[2].strip("()").split()) - {"\\*"}
                assert words <= self.keywords | SYSTEM, "a permanent flag that FLAGS does not name"
            case "UNSEEN":
                assert 1 <= int(code[2]) <= len(self.view)
            case "UIDVALIDITY":
                assert self.uidvalidity in {0, int(code[2])}, "UIDVALIDITY changed"
                self.uidvalidity = int(code[2])
            case "UIDNEXT":
                assert int(code[2]) > max((slot.uid or 0 for slot in self.view), default=0)
                self.uidnext = int(code[2])
            case "HIGHESTMODSEQ":
                self._tell_highest(int(code[2]))

    def _tell_highest(self, value: int) -> None:
        assert value >= self._highest, f"the highest mod-sequence fell from {self._highest}"
        self._highest = value

    def _fetch(self, number: int, response: bytes) -> None:
        now = self._now
        assert now is not None
        assert 1 <= number <= len(self.view), f"FETCH beyond {len(self.view)}"
        slot = self.view[number - 1]
        values = Reply(response.partition(b" FETCH ")[2]).value()
        assert len(values) % 2 == 0, "a row that is no pairs"
        row = dict(zip(values[::2], values[1::2], strict=True))
        assert len(row) == len(values) // 2 or now.name == "FETCH", "an item twice"
        if "UID" in row:
            self._uid(slot, number, int(row["UID"]))
        if "MODSEQ" in row:
            self._modseq(slot, int(row["MODSEQ"][0]))
        if "FLAGS" in row:
            self._message_flags(slot, frozenset(flag or "NIL" for flag in row["FLAGS"]), now)
        if now.reads and "BODY[]" in row and not self.read_only:
            assert slot.flags is None or "\\Seen" in slot.flags, "read and not seen"
        if now.name != "FETCH":
            assert "UID" in row or "QRESYNC" not in self.enabled, "a row without its UID under QRESYNC"
            assert "MODSEQ" in row or "CONDSTORE" not in self.enabled, "a row without its MODSEQ"
        for item, value in row.items():
            if slot.uid is not None and FIXED.fullmatch(item):
                known = self._world.fixed.setdefault((self.uidvalidity, slot.uid, item), value)
                assert known == value, f"{item} changed"

    def _uid(self, slot: Slot, number: int, uid: int) -> None:
        assert slot.uid in {None, uid}, f"the UID of {number} changed from {slot.uid}"
        slot.uid = uid
        before = [each.uid for each in self.view[: number - 1] if each.uid is not None]
        after = [each.uid for each in self.view[number:] if each.uid is not None]
        assert all(each < uid for each in before), "UIDs do not ascend"
        assert all(each > uid for each in after), "UIDs do not ascend"

    def _modseq(self, slot: Slot, modseq: int) -> None:
        assert "CONDSTORE" in self.enabled, "MODSEQ that nobody asked for"
        assert modseq >= slot.modseq, f"the mod-sequence fell from {slot.modseq}"
        slot.modseq = modseq
        self._highest = max(self._highest, modseq)

    def _message_flags(self, slot: Slot, flags: frozenset[str], now: Sent) -> None:
        system = {flag for flag in flags if flag.startswith("\\")}
        assert system <= SYSTEM, "an unknown system flag"
        assert flags - system <= self.keywords, f"keywords that FLAGS did not name: {flags - system - self.keywords}"
        slot.flags = flags
        now.told.add(slot)
        if "\\Recent" in flags and slot.uid is not None and not self.read_only:
            owner = self._world.recent.setdefault((self.uidvalidity, slot.uid), self.name)
            assert owner == self.name, f"\\Recent was {owner}'s"

    def _search(self, text: str) -> None:
        now = self._now
        assert now is not None
        assert now.name == "SEARCH", "a result that nobody asked for"
        assert now.found is None, "two results"
        now.found = [int(word) for word in text.partition(" (")[0].split()[2:]]
        self._found(now)

    def _esearch(self, text: str) -> None:
        now = self._now
        assert now is not None
        assert now.name == "SEARCH", "a result that nobody asked for"
        assert now.found is None, "two results"
        assert text.startswith(f'* ESEARCH (TAG "{now.tag}")'), "another command's tag"
        assert (" UID" in text) == now.by_uid
        items = dict(re.findall(r" (MIN|MAX|COUNT|ALL|MODSEQ) ([0-9:,]+)", text))
        now.found = expanded(items["ALL"]) if "ALL" in items else []
        if "ALL" in items:
            assert items["ALL"] == compressed(now.found), "ALL is not compressed"
            assert items.get("MIN", str(now.found[0])) == str(now.found[0])
            assert items.get("MAX", str(now.found[-1])) == str(now.found[-1])
        assert int(items["COUNT"]) == len(now.found), "COUNT is not that of ALL"
        self._found(now)

    def _found(self, now: Sent) -> None:
        assert now.found is not None
        assert now.found == sorted(set(now.found))
        if not now.by_uid:
            assert all(1 <= number <= len(self.view) for number in now.found), "a number beyond EXISTS"
            return
        known = {slot.uid for slot in self.view}
        assert None in known or set(now.found) <= known, "a UID that is not in the view"

    def _bye(self, _text: str) -> None:
        self.ended = True

    # --- tagged ---

    def _tagged(self, text: str) -> None:
        tag, word, rest = text.split(" ", 2)
        assert self.pending, "an answer to nothing"
        now = self.pending.popleft()
        assert tag == now.tag, f"answered out of order: {now.tag} was first"
        assert word == "OK" or (word == "NO" and now.may_fail), "the command failed"
        self.idling = self.idling and now.name != "IDLE"
        assert not self.ended or now.name == "LOGOUT", "an answer after BYE"
        if now.selects is not None:
            if word != "OK":
                self._deselect()
            else:
                assert ("READ-ONLY" in rest) == now.selects[1]
                assert ("READ-WRITE" in rest) != now.selects[1]
        if now.name in {"CLOSE", "UNSELECT"}:
            self._deselect()
        if now.name == "SEARCH":
            assert now.found is not None, "SEARCH without a result"
        if now.change is not None and word == "OK":
            self._stored(now, rest)
        if word == "OK" and (code := re.match(r"\[HIGHESTMODSEQ (\d+)\]", rest)):
            self._tell_highest(int(code[1]))
            self.synced = self._highest
        if now.name in {"NOOP", "CHECK", "SELECT", "EXAMINE"}:
            self.synced = self._highest
        self._start()

    def sent(self, command: Sent) -> None:
        """It is on its way."""
        self.pending.append(command)
        if len(self.pending) == 1:
            self._start()

    def _start(self) -> None:
        if self.pending:
            now = self.pending[0]
            self.enabled |= now.enables
            # What went with an answer to an earlier command is named no more.
            now.slots = list(self.view) if now.everything else [slot for slot in now.slots if slot in self.view]

    def _enabled(self, text: str) -> None:
        self.enabled |= set(text.split()[2:])
        if "QRESYNC" in self.enabled:
            self.enabled.add("CONDSTORE")

    def _stored(self, now: Sent, rest: str) -> None:
        assert now.change is not None
        sign, flags, silent = now.change
        modified = re.match(r"\[MODIFIED ([0-9:,]+)\]", rest)
        refused = set(expanded(modified[1])) if modified else set()
        for slot in now.slots:
            number = slot.uid if now.by_uid else self.view.index(slot) + 1 if slot in self.view else 0
            if number in refused or (number is None and refused):
                continue
            if not silent:
                assert slot in now.told, f"a STORE without a FETCH of {slot}: {now}"
            elif slot not in now.told and slot.flags is not None:
                before = slot.flags
                recent = before & {"\\Recent"}
                slot.flags = {"+": before | flags, "-": before - flags, "": flags | recent}[sign]

    # --- what is sent ---

    def selecting(self, name: str, *, read_only: bool) -> None:
        """SELECT is about to be sent with nothing selected: what comes next is of this folder."""
        if self.folder is None:
            self.folder, self.read_only = name, read_only

    def check(self, folder) -> None:
        """After CHECK: it must know what the folder holds."""
        assert self.uidvalidity == folder.uidvalidity
        assert len(self.view) == len(folder.uids), f"{self.name} counts {len(self.view)}, there are {len(folder.uids)}"
        for slot, uid in zip(self.view, folder.uids, strict=True):
            assert slot.uid in {None, uid}, f"{self.name} takes {uid} for {slot.uid}"
            if slot.flags is not None:
                known = slot.flags - {"\\Recent"}
                assert known == folder.flags(uid), f"{self.name} believes {known} of UID {uid}: {folder.flags(uid)}"
            if slot.modseq and "CONDSTORE" in self.enabled:
                assert slot.modseq <= folder.modseq(uid)
        assert self.keywords <= set(folder.keywords.values())


def expanded(text: str) -> list[int]:
    """The numbers of a set."""
    found = []
    for part in text.split(","):
        low, _, high = part.partition(":")
        found += range(int(low), int(high or low) + 1)
    return found


def compressed(numbers: list[int]) -> str:
    """The one shortest text of ascending numbers."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] + 1 == number:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(low) if low == high else f"{low}:{high}" for low, high in ranges)
