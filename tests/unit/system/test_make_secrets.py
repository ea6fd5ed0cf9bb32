"""The secrets of the compose stack: made once, each for its readers, and the same again whatever file is lost."""

from __future__ import annotations

import base64
import stat
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "system" / "docker"))
import make_secrets
from make_secrets import SEED_BYTES, SecretsError, main, make, secrets_from

SEED = bytes(range(SEED_BYTES))


def files(root):
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def test_each_secret_is_its_own_and_follows_from_the_seed():
    one, again, other = secrets_from(SEED), secrets_from(SEED), secrets_from(bytes(SEED_BYTES))
    assert one == again
    for folder, made in one.items():
        assert not set(made.values()) & set(other[folder].values())
    passwords = [value for folder in ("service", "flower", "owner", "audit") for value in one[folder].values()]
    assert len(set(passwords)) == len(passwords)
    assert len(base64.b64decode(one["service"]["CREDENTIAL_ENCRYPTION_KEY"])) == SEED_BYTES


def test_what_belongs_together_fits_together():
    made = secrets_from(SEED)
    assert f":{made['postgres']['password']}@" in made["owner"]["DATABASE_OWNER_URL"]
    assert f":{made['redis']['password']}@" in made["service"]["REDIS_URL"]
    assert made["redis"]["redis.conf"] == f"requirepass {made['redis']['password']}\n"


def test_a_second_run_changes_nothing_and_a_lost_file_comes_back_as_it_was(tmp_path):
    assert make(tmp_path, SEED) > 0
    before = files(tmp_path)
    assert make(tmp_path, bytes(SEED_BYTES)) == 0
    (tmp_path / "service" / "REDIS_URL").unlink()
    (tmp_path / "redis" / "redis.conf").unlink()
    assert make(tmp_path, bytes(SEED_BYTES)) == 2
    assert files(tmp_path) == before


def test_nobody_may_write_what_was_written(tmp_path):
    make(tmp_path, SEED)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_file()}
    assert modes <= {0o444, 0o440, 0o400}


def test_a_lost_seed_beside_a_database_is_told_and_nothing_is_overwritten(tmp_path):
    make(tmp_path, SEED)
    (tmp_path / "seed" / "seed").unlink()
    before = files(tmp_path)
    with pytest.raises(SecretsError, match="seed is gone"):
        make(tmp_path, bytes(SEED_BYTES))
    assert files(tmp_path) == before


@pytest.mark.parametrize("content", ["", "abcd", "not hex"])
def test_a_damaged_seed_is_one_line_and_exit_code_1(tmp_path, capsys, content):
    (tmp_path / "seed").mkdir()
    (tmp_path / "seed" / "seed").write_text(content)
    assert main([str(tmp_path)]) == 1
    told = capsys.readouterr().err
    assert told.startswith("make_secrets: ")
    assert told.count("\n") == 1
    assert content not in told or not content


def test_no_secret_is_printed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(make_secrets.secrets, "token_bytes", lambda _: SEED)
    assert main([str(tmp_path)]) == 0
    told = "".join(capsys.readouterr())
    assert told.strip() == "secrets: 11 files written"
    assert not [value for made in secrets_from(SEED).values() for value in made.values() if value in told]


def test_wrong_use_is_exit_code_2(capsys):
    assert main([]) == 2
    assert capsys.readouterr().err.startswith("usage: ")
