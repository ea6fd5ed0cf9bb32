"""Credentials at rest: what is sealed opens for its owner alone, and nothing shows it."""

import copy
import json
import pickle
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from email_service.errors import ConfigError, CredentialError, InvalidRequestError
from email_service.vault import Secret, Vault

CANARY = "canary-9f3c"
OWNER = ("acme", "7f0c")


@pytest.fixture
def vault():
    return Vault({"k1": bytes(range(32))}, current="k1")


def test_a_sealed_credential_opens_for_its_owner(vault):
    assert vault.unseal(vault.seal(CANARY, *OWNER), *OWNER).reveal() == CANARY


def test_a_secret_can_be_sealed_as_it_is(vault):
    assert vault.unseal(vault.seal(Secret(CANARY), *OWNER), *OWNER) == Secret(CANARY)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back(text):
    vault = Vault({"k1": bytes(range(32))}, current="k1")
    assert vault.unseal(vault.seal(text, *OWNER), *OWNER).reveal() == text


def test_two_seals_of_one_text_have_nothing_in_common(vault):
    one, other = vault.seal(CANARY, *OWNER), vault.seal(CANARY, *OWNER)
    assert one.salt != other.salt
    assert one.nonce != other.nonce
    assert one.ciphertext != other.ciphertext
    assert CANARY.encode() not in one.ciphertext


@pytest.mark.parametrize("owner", [("other", "7f0c"), ("acme", "7f0d"), ("acme7", "f0c"), ("", "acme7f0c")])
def test_a_seal_does_not_open_for_another_owner(vault, owner):
    sealed = vault.seal(CANARY, *OWNER)
    with pytest.raises(CredentialError):
        vault.unseal(sealed, *owner)


@pytest.mark.parametrize("part", ["salt", "nonce", "ciphertext"])
@pytest.mark.parametrize("position", [0, -1])
def test_a_seal_that_was_altered_does_not_open(vault, part, position):
    sealed = vault.seal(CANARY, *OWNER)
    altered = bytearray(getattr(sealed, part))
    altered[position] ^= 1
    with pytest.raises(CredentialError) as caught:
        vault.unseal(replace(sealed, **{part: bytes(altered)}), *OWNER)
    assert caught.value.__cause__ is None
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("part", ["salt", "nonce", "ciphertext"])
def test_a_seal_with_an_empty_part_does_not_open(vault, part):
    with pytest.raises(CredentialError):
        vault.unseal(replace(vault.seal(CANARY, *OWNER), **{part: b""}), *OWNER)


def test_an_old_key_still_opens_what_it_sealed_after_a_rotation(vault):
    old = vault.seal(CANARY, *OWNER)
    rotated = Vault({"k1": bytes(range(32)), "k2": bytes(32)}, current="k2")
    assert rotated.unseal(old, *OWNER).reveal() == CANARY
    assert rotated.seal(CANARY, *OWNER).key_id == "k2"


def test_a_seal_under_a_key_that_is_not_here_names_the_key(vault):
    sealed = replace(vault.seal(CANARY, *OWNER), key_id="k9")
    with pytest.raises(CredentialError, match="k9"):
        vault.unseal(sealed, *OWNER)


def test_a_seal_does_not_open_with_another_key(vault):
    with pytest.raises(CredentialError):
        Vault({"k1": bytes(32)}, current="k1").unseal(vault.seal(CANARY, *OWNER), *OWNER)


@pytest.mark.parametrize("keys", [{}, {"k2": bytes(32)}, {"k1": bytes(31)}, {"k1": bytes(32), "k2": b""}])
def test_a_vault_needs_its_current_key_and_all_keys_whole(keys):
    with pytest.raises(ConfigError):
        Vault(keys, current="k1")


def test_half_a_surrogate_pair_is_a_request_that_is_not_valid(vault):
    with pytest.raises(InvalidRequestError) as caught:
        vault.seal(f"{CANARY}\ud800", *OWNER)
    assert caught.value.__cause__ is None
    assert CANARY not in str(caught.value)


def test_a_secret_never_prints():
    secret = Secret(CANARY)
    for shown in (repr(secret), str(secret), f"{secret}", f"{secret!r:>20}", "%s" % secret, repr([secret])):  # noqa: UP031  # each way to print
        assert CANARY not in shown


def test_neither_vault_nor_seal_print_what_they_hold(vault):
    sealed = vault.seal(CANARY, *OWNER)
    assert repr(vault) == "Vault(keys=['k1'], current='k1')"
    assert repr(sealed.ciphertext) not in repr(sealed)


def test_a_secret_does_not_leave_its_process():
    secret = Secret(CANARY)
    for leave in (pickle.dumps, json.dumps, copy.deepcopy):
        with pytest.raises(TypeError) as caught:
            leave(secret)
        assert CANARY not in str(caught.value)


def test_secrets_are_equal_by_their_text_and_have_no_hash():
    assert Secret(CANARY) == Secret(CANARY)
    assert Secret(CANARY) != Secret("other")
    assert Secret(CANARY) != CANARY
    with pytest.raises(TypeError):
        hash(Secret(CANARY))
