from __future__ import annotations

import pickle

from email_service import errors


def _tree(cls=errors.MailServiceError, depth=1):
    yield cls, depth
    for child in cls.__subclasses__():
        yield from _tree(child, depth + 1)


def test_the_list_at_the_top_of_the_module_is_the_tree():
    lines = [line for line in errors.__doc__.splitlines() if line.strip().split(" ")[0].endswith("Error")]
    told = [(line.strip().split(" ")[0], (len(line) - len(line.lstrip())) // 4) for line in lines]
    assert sorted(told) == sorted((cls.__name__, depth) for cls, depth in _tree())


def test_the_docstring_is_the_message_and_the_detail_follows():
    assert str(errors.ConnectError("mail.example:25")) == (
        "No session with the mail server could be opened: mail.example:25"
    )


def test_an_error_survives_pickling_with_its_answers():
    error = errors.SmtpError("RCPT", reply_code=550, transient=False)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.reply_code, again.transient, again.definite) == (str(error), 550, False, True)


def test_only_what_may_have_happened_is_indefinite():
    assert {cls.__name__ for cls, _ in _tree() if not cls.definite} == {"DeliveryUnknownError", "WorkerLostError"}


def test_a_code_is_the_name_in_kebab_case():
    assert errors.HostNotAllowedError("x").code == "host-not-allowed"
