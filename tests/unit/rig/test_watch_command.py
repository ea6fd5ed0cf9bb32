"""``mailrig watch --again``, as people and machines read it; the rest is in tests/stack."""

from __future__ import annotations

import json

import pytest
from watched import NODE, event, late_events, message, right, sample, write

from mailrig import cli

EARLY = {
    "queues": [sample(i / 10, *(message(f"t{i // 10 * 2 + k}", i // 10) for k in (2, 3))) for i in range(200)],
}


@pytest.mark.parametrize(("changes", "code"), [({}, 0), (EARLY, 1), ({"queues": []}, 4)])
def test_the_exit_code_is_the_verdict_s(tmp_path, changes, code):
    folder = write(tmp_path / "w", right(**changes))
    assert cli.main(["watch", "--again", str(folder)]) == code


def test_a_warning_has_a_code_of_its_own_where_it_counts(tmp_path):
    rising = [{**row, "ready": {"celery": 3 * i}} for i, row in enumerate(right().queues)]
    folder = write(tmp_path / "w", right(queues=rising))
    assert cli.main(["watch", "--again", str(folder)]) == 0
    assert cli.main(["watch", "--again", str(folder), "--strict"]) == 3


def test_people_read_the_gates_what_is_not_known_and_where_it_is(tmp_path, capsys):
    folder = write(tmp_path / "w", right(events=[]))
    cli.main(["watch", "--again", str(folder)])
    told = capsys.readouterr().out
    assert "PASS" in told
    assert "seed" not in told
    assert f"note: {NODE}: no events of tasks, so short tasks may have run unseen" in told
    assert told.endswith(f"{folder}\n")


def test_machines_read_what_was_declared_and_each_gate(tmp_path, capsys):
    folder = write(tmp_path / "w", right(**EARLY))
    assert cli.main(["watch", "--again", str(folder), "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert (answer["exit_code"], answer["verdict"]) == (1, "fail")
    assert answer["declared"] == {
        "held_max": 2,
        "concurrency": {NODE: 2},
        "prefetch_multiplier": {NODE: 1},
        "retry_delays_of": ["shop.flaky"],
    }
    held = next(gate for gate in answer["gates"] if gate["id"] == "held")
    assert (held["verdict"], held["observed"]) == ("fail", 4)


def test_a_watch_with_gates_of_the_user_s_is_judged_by_them_again(tmp_path):
    folder = write(tmp_path / "w", right(), gates="given")
    (folder / "gates.toml").write_text('[[gate]]\nid = "none"\nmetric = "worker.held"\ncheck = "max < 1"\n')
    assert cli.main(["watch", "--again", str(folder)]) == 1


@pytest.mark.parametrize(
    "arguments",
    [[], ["--app", "a:b", "--again", "x"], ["--app", "a:b", "--seconds", "0"], ["--app", "a:b", "--every", "soon"]],
)
def test_arguments_that_make_no_sense_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["watch", *arguments])
    assert ended.value.code == 2
    assert "mailrig watch: error:" in capsys.readouterr().err


def test_a_folder_of_something_else_is_one_line(tmp_path, capsys):
    assert cli.main(["watch", "--again", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"mailrig: {tmp_path} is no folder of a watch: it has no application.json\n"


def test_a_torn_line_is_told_with_its_place(tmp_path, capsys):
    folder = write(tmp_path / "w", right(events=[*late_events(), event("sent", "x", 1)]))
    file = folder / "evidence" / "events.jsonl"
    file.write_text(file.read_text()[:-20])
    assert cli.main(["watch", "--again", str(folder)]) == 2
    assert f"{file}:{len(late_events()) + 1}: not JSON" in capsys.readouterr().err
