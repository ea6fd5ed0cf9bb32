"""A configuration brought in: users, folders, mail, faults, limits.

Owns: the order in which that happens. Never does: reading the file (reading), serving, clocks: what goes on by
itself is ``Config.running``, for whoever has one. Called by: ``__main__``, at the start and at every reset to it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fakemail import FakemailError
from fakemail.config.model import Config, ConfigError, FolderConfig
from fakemail.faults import Plan
from fakemail.mailbox import Account, Folder, MailStore

#: Reads a Maildir or an mbox file into a folder.
Load = Callable[[MailStore, Folder, Path], object]


def apply(config: Config, store: MailStore, plan: Plan, *, load: Load) -> None:
    """Bring in users and mail, and replace faults and limits.

    Raises ConfigError for what only turns out now: a folder name that can't be, a file that is not there.
    """
    for user in config.users:
        account = store.add_user(user.address, user.password, user.token)
        for folder in user.folders:
            try:
                _fill(folder, account, store, load)
            except OSError as err:
                raise ConfigError(f"{folder.where}: {folder.load}: {err.strerror}") from err
            except FakemailError as err:
                raise ConfigError(f"{folder.where}: {err}") from err
    plan.replace(config.faults)
    store.limits.connections = config.limits.connections
    store.limits.connections_per_user = config.limits.connections_per_user


def _fill(folder: FolderConfig, account: Account, store: MailStore, load: Load) -> None:
    if folder.name not in account.folders:
        store.create(account, folder.name)
        account.subscribed.add(folder.name)
    here = account.folder(folder.name)
    if folder.seeding is not None:
        some = folder.seeding
        store.seed_folder(here, count=some.count, seed=some.seed, profile=some.profile, gaps=some.gaps)
    if folder.load is not None:
        load(store, here, folder.load)
    if folder.timeline is not None:
        line = folder.timeline
        store.advance(account, folder.name, line.steps, weights=line.weights, profile=line.profile)
