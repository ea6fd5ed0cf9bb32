"""fakemail as a program: determinism, and what it says to nonsense."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest
from fakes_process import start, stop

from fakemail.client import FakeMail


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "fakemail", *arguments], capture_output=True, text=True, check=False, timeout=30
    )


def seeded(tmp_path, seed):
    folder = tmp_path / f"{seed}-{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    process, facts = start(folder)
    control = FakeMail(facts["control"])
    control.add_user("ann@a.example", "x")
    answer = control.seed("ann@a.example", count=30, seed=seed)
    stop(process)
    return [m["sha256"] for m in answer["messages"]]


def test_two_processes_with_one_seed_make_the_same_bytes(tmp_path):
    assert seeded(tmp_path, 3) == seeded(tmp_path, 3)
    assert seeded(tmp_path, 3) != seeded(tmp_path, 4)


def test_a_port_that_is_taken_is_one_clear_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = run("--smtp-port", str(taken.getsockname()[1]))
    assert done.returncode == 2
    assert "--smtp-port" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = = 1", "line 1"),
        ("[[client]]\nx = 1\n", "allowed: [[user]], [[fault]]"),
        ('[[user]]\naddress = "a@b"\n', "address and password"),
        ('[[fault]]\nid = "x"\npoint = "nowhere"\nwhen = { first = 1 }\naction = { drop = true }\n', "smtp.rcpt"),
    ],
)
def test_a_broken_configuration_says_where_and_what_is_allowed(tmp_path, text, says):
    path = tmp_path / "fakes.toml"
    path.write_text(text)
    done = run("--config", str(path), "--smtp-port", "0")
    assert done.returncode == 2
    assert str(path) in done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
