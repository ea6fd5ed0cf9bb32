"""Many sessions on one store, random commands from a seed, and a strict client behind each of them.

``IMAP_MODEL_STEPS`` and ``IMAP_MODEL_SEEDS`` make it longer than a unit test has time for.
"""

from __future__ import annotations

import os
import random

import pytest
from imap_tracker import STEADY, Sent, Tracker, World, compressed
from imap_transcript import MAIL, PASSWORD, SHORT, USER, Transcript, written

from fakemail.folder import Folder
from fakemail.imap_protocol import Close
from fakemail.imap_protocol.view import View
from fakemail.uids import NONE, UID_MAX, UidSet

STEPS = int(os.environ.get("IMAP_MODEL_STEPS", "350"))
SEEDS = range(int(os.environ.get("IMAP_MODEL_SEEDS", "4")))
FOLDERS = ("INBOX", "Work")
FLAGS = ("\\Seen", "\\Flagged", "\\Answered", "\\Draft", "\\Deleted", "$a", "$b", "$c", "NIL", "$Label1")
#: Longer than one chunk of an answer, so that others come in between.
LONG = b"Subject: long\r\n\r\n" + b"0123456789abcdef\r\n" * 400
ITEMS = (
    "(UID FLAGS)",
    "(FLAGS UID)",
    "(UID RFC822.SIZE INTERNALDATE ENVELOPE)",
    "(UID BODYSTRUCTURE FLAGS)",
    "(UID BODY.PEEK[HEADER] FLAGS)",
    "(UID BODY.PEEK[])",
    "(UID BODY[] FLAGS)",
    "(UID BODY[])",
    "(UID FLAGS MODSEQ)",
    "UID",
)
KEYS = (
    *("ALL", "SEEN", "NOT SEEN", "KEYWORD $a", "OR DELETED FLAGGED", "SUBJECT long", "RECENT", "9:*", "LARGER 100"),
    "UID 1:20",
)
SMALL = ("NOOP", "CHECK", "IDLE", "STATUS INBOX (MESSAGES RECENT UNSEEN)", 'LIST "" *', "APPEND", "CLOSE")


class Client:
    """A session, the client that tracks it and what it will do next."""

    def __init__(self, store, world, rng, name):
        self.name, self._world, self._rng = name, world, rng
        self.imap = Transcript(store)
        self.tracker = Tracker(name, world)
        self._tag = 0
        self.busy = False
        self.run(f"LOGIN {USER} {PASSWORD}", Sent(tag="", name="LOGIN"))

    # --- the line ---

    def send(self, text, sent):
        self._tag += 1
        sent.tag = f"{self.name}.{self._tag}"
        self.tracker.sent(sent)
        self.imap.session.feed(f"{sent.tag} {text}\r\n".encode())
        self.busy = True

    def pump(self, limit=None):
        """Take so many pieces of the answer, or all of it."""
        for event in self.imap.session.events():
            if (data := written(event)) is not None:
                self.tracker.feed(data)
            if isinstance(event, Close):
                self.tracker.ended = True
                self.imap.store.connections.clear()
            if limit is not None:
                limit -= 1
                if limit <= 0:
                    return
        self.busy = False

    def run(self, text, sent):
        self.send(text, sent)
        self.pump()

    def finish(self):
        self.pump()
        if self.tracker.idling:
            self.imap.session.feed(b"DONE\r\n")
            self.pump()
        assert not self.tracker.pending or self.tracker.ended

    # --- what it does ---

    def act(self):
        rng, tracker = self._rng, self.tracker
        if self.busy:
            self.pump(rng.choice([1, 2, 5, None]))
        elif tracker.idling:
            self.pump()
            if rng.random() < 0.4:
                self.imap.session.feed(b"DONE\r\n")
                self.busy = True
        elif tracker.folder is None or rng.random() < 0.04:
            self.select()
        else:
            for _ in range(rng.choice([1, 1, 1, 2, 4])):
                steady = all(each.name in STEADY and not each.by_uid for each in tracker.pending)
                self.send(*self.command(steady=steady))
                if tracker.pending[-1].name in {"IDLE", "CLOSE"}:
                    break
            if rng.random() < 0.6:
                self.pump()

    def select(self, folder=None):
        rng = self._rng
        read_only, folder = rng.random() < 0.15, folder or rng.choice(FOLDERS)
        self.tracker.selecting(folder, read_only=read_only)
        self.run(
            f"{'EXAMINE' if read_only else 'SELECT'} {folder}",
            Sent(tag="", name="SELECT", selects=(folder, read_only)),
        )

    def command(self, *, steady):
        """(text, what is expected of it); by number only where numbers are sure to stay."""
        rng = self._rng
        ways = [self.fetch] * 6 + [self.store] * 6 + [self.search] * 2
        if steady:
            ways += [self.small] * 4 + [self.expunge] * 2 + [self.copy] * 2
        return rng.choice(ways)(by_uid=not steady or rng.random() < 0.4)

    def named(self, *, by_uid):
        """(a set, the messages that it names)."""
        rng, view = self._rng, self.tracker.view
        slots = [slot for slot in view if slot.uid is not None] if by_uid else list(view)
        if not slots or rng.random() < 0.2:
            return "1:*", list(view)
        chosen = rng.sample(slots, rng.randint(1, min(5, len(slots))))
        numbers = [slot.uid if by_uid else view.index(slot) + 1 for slot in chosen]
        text = ",".join(map(str, [*numbers, numbers[0]])) if rng.random() < 0.3 else compressed(sorted(numbers))
        return text, chosen

    def fetch(self, *, by_uid):
        rng, tracker = self._rng, self.tracker
        numbers, _ = self.named(by_uid=by_uid)
        items, modifier, earlier = rng.choice(ITEMS), "", False
        if tracker.synced and rng.random() < 0.2:
            earlier = by_uid and "QRESYNC" in tracker.enabled and not tracker.pending and rng.random() < 0.7
            modifier = f" (CHANGEDSINCE {rng.randint(1, tracker.synced)}{' VANISHED' * earlier})"
        on = frozenset({"CONDSTORE"}) if modifier or "MODSEQ" in items else frozenset()
        sent = Sent(tag="", name="FETCH", by_uid=by_uid, enables=on, earlier=earlier, reads="BODY[]" in items)
        return f"{'UID ' * by_uid}FETCH {numbers} {items}{modifier}", sent

    def store(self, *, by_uid):
        rng = self._rng
        numbers, slots = self.named(by_uid=by_uid)
        sign, silent = rng.choice(["+", "+", "-", ""]), rng.random() < 0.3
        flags = rng.sample(FLAGS, rng.choice([0, 1, 1, 2]))
        unchanged = f" (UNCHANGEDSINCE {self.tracker.synced})" if rng.random() < 0.15 else ""
        if "\\Deleted" in flags and numbers == "1:*":
            flags.remove("\\Deleted")
        sent = Sent(
            tag="",
            name="STORE",
            by_uid=by_uid,
            slots=slots,
            everything=numbers == "1:*",
            change=(sign, frozenset(flags), silent),
            enables=frozenset({"CONDSTORE"}) if unchanged else frozenset(),
            may_fail=self.tracker.read_only,
        )
        return f"{'UID ' * by_uid}STORE {numbers}{unchanged} {sign}FLAGS{'.SILENT' * silent} ({' '.join(flags)})", sent

    def search(self, *, by_uid):
        rng = self._rng
        key = rng.choice(KEYS)
        returns = rng.choice(["", "", "RETURN (MIN MAX COUNT ALL) "])
        return f"{'UID ' * by_uid}SEARCH {returns}{key}", Sent(tag="", name="SEARCH", by_uid=by_uid)

    def small(self, *, by_uid):
        text = self._rng.choice(SMALL)
        if text == "APPEND":
            flags = " ".join(self._rng.sample(FLAGS, self._rng.randint(0, 2)))
            raw = self._rng.choice([MAIL, SHORT, LONG]).decode()
            return f"APPEND {self._rng.choice(FOLDERS)} ({flags}) {{{len(raw)}+}}\r\n{raw}", Sent(tag="", name="APPEND")
        if text == "CLOSE" and by_uid:
            text = "NOOP"
        return text, Sent(tag="", name=text.split()[0])

    def expunge(self, *, by_uid):
        numbers = f" {self.named(by_uid=True)[0]}" if by_uid else ""
        sent = Sent(tag="", name="EXPUNGE", by_uid=by_uid, may_fail=self.tracker.read_only)
        return f"{'UID ' * by_uid}EXPUNGE{numbers}", sent

    def copy(self, *, by_uid):
        rng = self._rng
        numbers, slots = self.named(by_uid=by_uid)
        if len(slots) > 20:
            numbers, slots = ("99999", []) if by_uid else ("1", slots[:1])
        name = rng.choice(["COPY", "MOVE"])
        sent = Sent(tag="", name=name, by_uid=by_uid, may_fail=self.tracker.read_only)
        return f"{'UID ' * by_uid}{name} {numbers} {rng.choice(FOLDERS)}", sent


class Resyncing(Client):
    """One that keeps what it knows of INBOX when it leaves, and is told the rest when it comes back (RFC 7162)."""

    def __init__(self, store, world, rng, name, cache=None):
        super().__init__(store, world, rng, name)
        #: (uidvalidity, mod-sequence, flags by UID) of the last moment when it knew everything.
        self.cache = cache
        self._gone = set()
        self.tracker.earlier = self._gone.update
        self.run("ENABLE QRESYNC", Sent(tag="", name="ENABLE"))
        self._come_back()

    def _come_back(self):
        tracker, inbox = self.tracker, self.imap.inbox
        resume = f" (QRESYNC ({self.cache[0]} {self.cache[1]}))" if self.cache else ""
        tracker.selecting("INBOX", read_only=False)
        self.run(f"SELECT INBOX{resume}", Sent(tag="", name="SELECT", selects=("INBOX", False), earlier=True))
        known = dict(self.cache[2]) if self.cache and self.cache[0] == tracker.uidvalidity else {}
        told = {slot.uid: slot.flags for slot in tracker.view if slot.uid is not None}
        if not known:
            self.run("UID FETCH 1:* (FLAGS)", Sent(tag="", name="FETCH", by_uid=True))
            told = {slot.uid: slot.flags for slot in tracker.view}
        now = {uid: flags for uid, flags in known.items() if uid not in self._gone} | told
        assert now.keys() == set(inbox.uids), f"{self.name} came back with {sorted(now)}: there are {inbox.uids}"
        for (uid, flags), slot in zip(sorted(now.items()), tracker.view, strict=True):
            assert flags - {"\\Recent"} == inbox.flags(uid), f"{self.name} came back with {flags} of UID {uid}"
            slot.uid, slot.flags = uid, flags
        self._remember()

    def _remember(self):
        tracker = self.tracker
        if tracker.folder == "INBOX" and not tracker.pending and all(slot.flags is not None for slot in tracker.view):
            self.cache = (tracker.uidvalidity, tracker.synced, {slot.uid: slot.flags for slot in tracker.view})

    def act(self):
        ready = not self.busy and not self.tracker.idling and self.tracker.folder is not None
        if ready and self._rng.random() < 0.3:
            self.run("UID FETCH 1:* (FLAGS)", Sent(tag="", name="FETCH", by_uid=True))
            self.run("NOOP", Sent(tag="", name="NOOP"))
            if not self.tracker.ended:
                self._remember()
        else:
            super().act()

    def select(self, folder=None):
        del folder
        self.tracker.selecting("INBOX", read_only=False)
        self.run("SELECT INBOX", Sent(tag="", name="SELECT", selects=("INBOX", False)))


class Model:
    """The store, its sessions, and what else happens to it."""

    def __init__(self, seed):
        self.rng, self.world = random.Random(seed), World()
        first = Transcript()
        self.store, self.account = first.store, first.account
        self.store.create(self.account, "Work")
        self.store.seed_folder(self.account.folder("INBOX"), count=20, gaps=2)
        for raw in (MAIL, LONG, SHORT):
            self.store.store(self.account.folder("Work"), raw, flags=["$a"])
        self._made = 0
        self.clients = [self._client() for _ in range(self.rng.randint(2, 8))]
        self.clients += [self._client(Resyncing) for _ in range(2)]

    def _client(self, kind=Client, **more):
        self._made += 1
        return kind(self.store, self.world, self.rng, f"{kind.__name__[0]}{self._made}", **more)

    def step(self):
        rng = self.rng
        self._elsewhere()
        at = rng.randrange(len(self.clients))
        client = self.clients[at]
        if client.tracker.ended or rng.random() < 0.01:
            client.imap.leave()
            more = {"cache": client.cache} if isinstance(client, Resyncing) else {}
            self.clients[at] = self._client(type(client), **more)
        else:
            client.act()

    def _elsewhere(self):
        """Mail comes, and other programs change the folder, at any moment."""
        rng, folder = self.rng, self.account.folder(self.rng.choice(FOLDERS))
        match rng.randrange(60):
            case 0 | 1 | 2:
                self.store.deliver([USER], rng.choice([SHORT, LONG]))
            case 3 | 4:
                self.store.advance(self.account, folder.name, 3)
            case 5 if len(folder.uids) > 30:
                folder.expunge(UidSet.single(rng.sample(list(folder.uids), 12)))
            case 6 if rng.random() < 0.1:
                self.store.reset_uidvalidity(self.account, folder.name)

    def checkpoint(self):
        """Everybody finishes and sends CHECK: then all believe the same, which is the truth."""
        for client in self.clients:
            client.finish()
        for client in self.clients:
            tracker = client.tracker
            if tracker.ended or tracker.folder is None:
                continue
            client.run("CHECK", Sent(tag="", name="CHECK"))
            if tracker.ended:
                continue
            folder = self.account.folder(tracker.folder)
            tracker.check(folder)
            client.run("FETCH 1:* (UID FLAGS)", Sent(tag="", name="FETCH"))
            tracker.check(folder)
            assert all(slot.flags is not None for slot in tracker.view)
            assert sum("\\Recent" in slot.flags for slot in tracker.view) == tracker.recent


@pytest.mark.parametrize("seed", SEEDS)
def test_many_sessions_never_see_anything_that_can_not_be(seed):
    model = Model(seed)
    for number in range(STEPS):
        model.step()
        if number % 60 == 59:
            model.checkpoint()
    model.checkpoint()
    assert model.world.responses > STEPS


# --- the model itself ---


def forget_keywords(_view):
    return iter(())


def recent_for_all(view, uids):
    view.recent = view.recent | uids.between(view.folder.recent_from, UID_MAX)


def expunge_at_any_time(view, *, expunges, enabled):
    del expunges
    return NEWS(view, expunges=True, enabled=enabled)


def believe_all_is_told(view, uid, flags, *, told):
    del told
    view.folder.set_flags(uid, flags)
    view._known = view.folder.highestmodseq


def nothing_vanished(_folder, _modseq):
    return NONE


NEWS = View.news
DEFECTS = {
    "keywords that FLAGS did not name": (View, "keyword_lines", forget_keywords),
    "Recent was": (View, "_claim", recent_for_all),
    "message numbers change during": (View, "news", expunge_at_any_time),
    "believes": (View, "mark", believe_all_is_told),
    "came back with": (Folder, "vanished_since", nothing_vanished),
}


@pytest.mark.parametrize("complaint", DEFECTS)
def test_a_server_that_breaks_a_rule_is_found_out(monkeypatch, complaint):
    of, name, defect = DEFECTS[complaint]
    monkeypatch.setattr(of, name, defect)

    def some_seeds():
        for seed in range(8):
            test_many_sessions_never_see_anything_that_can_not_be(seed)

    with pytest.raises(AssertionError, match=complaint):
        some_seeds()
