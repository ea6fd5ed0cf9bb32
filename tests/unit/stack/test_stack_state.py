"""What a rig writes down, and what it believes of what it finds."""

import json
import os
import stat

import pytest

from mailrig.stack.leftovers import MARK_FILE, StateFile, _place, forget_databases
from mailrig.stack.processes import Identity, birth, members

ME = Identity(pid=os.getpid(), born=birth(os.getpid()))
#: No process has this number and birth.
NOBODY = Identity(pid=os.getpid(), born=ME.born - 1)


def state_of(directory):
    (path,) = directory.glob("rig-*.json")
    return json.loads(path.read_text())


def left_by(directory, rig=NOBODY, *, mark="m", name="rig-1-x.json", **changes):
    """The file of another rig."""
    path = directory / name
    state = {"rig": {"pid": rig.pid, "born": rig.born}, "place": _place(), "mark": mark, "parts": [], "folders": []}
    path.write_text(json.dumps(state | {"databases": []} | changes))
    path.chmod(0o600)
    return path


def marked_folder(parent, mark="m"):
    folder = parent / "mailrig-x"
    folder.mkdir()
    (folder / MARK_FILE).write_text(mark)
    return folder


def test_a_process_is_known_by_its_birth():
    assert ME.alive()
    assert not NOBODY.alive()
    assert birth(2**22 + 1) is None


def test_a_number_that_is_another_process_s_by_now_has_no_members():
    assert members(Identity(pid=os.getsid(0), born=-5), "m") == []


def test_a_process_without_the_mark_is_not_ours_when_its_leader_is_gone(monkeypatch):
    monkeypatch.setattr("mailrig.stack.processes.birth", lambda pid: None if pid == os.getsid(0) else 10**9)
    assert members(Identity(pid=os.getsid(0), born=1), "no such mark") == []


def test_the_state_file_is_its_owner_s_alone_and_holds_the_rig(tmp_path):
    state = StateFile(tmp_path / "state")
    state.add_folder(marked_folder(tmp_path))
    (path,) = (tmp_path / "state").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert state_of(tmp_path / "state")["rig"] == {"pid": ME.pid, "born": ME.born}
    state.clear()
    assert list((tmp_path / "state").iterdir()) == []


def test_a_state_file_is_written_only_when_there_is_something_to_say(tmp_path):
    StateFile(tmp_path / "state").clear()
    assert not (tmp_path / "state").exists()


def test_two_stacks_of_one_process_have_files_of_their_own(tmp_path):
    for state in (StateFile(tmp_path), StateFile(tmp_path)):
        state.add_database("mailrig_1")
    assert len(list(tmp_path.iterdir())) == 2


def test_the_folder_and_the_file_of_a_dead_rig_go(tmp_path):
    folder = marked_folder(tmp_path)
    path = left_by(tmp_path, folders=[str(folder)])
    found = StateFile(tmp_path).end_leftovers()
    assert found.told == ()
    assert not folder.exists()
    assert not path.exists()


def test_a_rig_that_lives_keeps_everything(tmp_path):
    folder = marked_folder(tmp_path)
    path = left_by(tmp_path, ME, folders=[str(folder)])
    StateFile(tmp_path).end_leftovers()
    assert folder.exists()
    assert path.exists()


def test_a_rig_of_another_container_keeps_everything(tmp_path):
    path = left_by(tmp_path, place=_place() | {"namespace": "pid:[1]"})
    StateFile(tmp_path).end_leftovers()
    assert path.exists()


def test_after_a_boot_no_process_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr("mailrig.stack.leftovers.kill_session", pytest.fail)
    folder = marked_folder(tmp_path)
    row = {"pid": ME.pid, "born": ME.born, "kind": "worker"}
    left_by(tmp_path, ME, place={"boot": "another", "namespace": "n"}, parts=[row], folders=[str(folder)])
    assert StateFile(tmp_path).end_leftovers().told == ()
    assert not folder.exists()


@pytest.mark.parametrize("wrong", ["other-mark", "no-mark", "symlink"])
def test_a_folder_that_is_not_the_rig_s_stays(tmp_path, wrong):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "work").write_text("of years")
    named = precious
    if wrong == "other-mark":
        (precious / MARK_FILE).write_text("another")
    if wrong == "symlink":
        (precious / MARK_FILE).write_text("m")
        named = tmp_path / "link"
        named.symlink_to(precious)
    left_by(tmp_path, folders=[str(named)])
    StateFile(tmp_path).end_leftovers()
    assert (precious / "work").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"rig": {}}'])
def test_a_file_that_makes_no_sense_is_left_alone(tmp_path, content):
    path = tmp_path / "rig-1-x.json"
    path.write_text(content)
    path.chmod(0o600)
    assert StateFile(tmp_path).end_leftovers().told == ()
    assert path.read_text() == content


def test_a_file_that_others_may_write_is_not_believed(tmp_path):
    folder = marked_folder(tmp_path)
    left_by(tmp_path, folders=[str(folder)]).chmod(0o666)
    StateFile(tmp_path).end_leftovers()
    assert folder.exists()


def test_a_database_on_a_server_of_the_user_s_is_remembered_until_it_is_dropped(tmp_path):
    path = left_by(tmp_path, databases=["mailrig_1"])
    found = StateFile(tmp_path).end_leftovers()
    assert found.databases == ((path, "mailrig_1"),)
    assert path.exists()
    forget_databases(found.databases)
    assert not path.exists()
