"""The entrypoint of the rig's image: secrets come by files, and mailrig finds them in its environment."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "loadtests" / "docker"))
import from_files
from from_files import FileError, read_in


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "token"
    path.write_text("canary-of-a-file\n")
    return path


def test_a_file_becomes_the_variable_and_its_name_goes(secret):
    env = read_in({"MAIL_TOKEN_SECRET_FILE": str(secret), "PATH": "/bin"})
    assert env == {"MAIL_TOKEN_SECRET": "canary-of-a-file", "PATH": "/bin"}


def test_a_path_that_is_a_setting_stays(secret):
    env = {"MAIL_CA_FILE": str(secret), "SSL_CERT_FILE": str(secret)}
    assert read_in(env) == env


def test_both_are_refused_without_the_secret(secret):
    with pytest.raises(FileError, match="both set") as told:
        read_in({"REDIS_URL": "redis://:canary@h", "REDIS_URL_FILE": str(secret)})
    assert "canary" not in str(told.value)


@pytest.mark.parametrize("content", [None, b"", b"\xff"])
def test_a_file_that_cant_be_read_is_named(tmp_path, content):
    path = tmp_path / "gone"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FileError, match=r"DATABASE_AUDIT_URL_FILE names .*gone"):
        read_in({"DATABASE_AUDIT_URL_FILE": str(path)})


def test_what_is_wrong_is_one_line_before_anything_starts(monkeypatch):
    monkeypatch.setattr(from_files.os, "environ", {"REDIS_URL_FILE": "/nowhere/redis"})
    with pytest.raises(SystemExit, match=r"^mailrig: REDIS_URL_FILE names /nowhere/redis"):
        from_files.main()
