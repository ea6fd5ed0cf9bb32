"""A comparison of runs that are told instead of made: order, what counts, going on, what is printed."""

import argparse
import json
import shutil
from pathlib import Path

import pytest
from recorded import RUNS

from mailrig.ab import add_arguments, book, course, sides, table
from mailrig.ab.command import options_of
from mailrig.ab.figures import Figure, FigureError, parse_figure
from mailrig.checkers import Verdict
from mailrig.scenario import RigError
from mailrig.store import Run

RUN_TIME = Figure(metric="task.run_time{queue=send}", aggregate="p50")


class Told:
    """Runs that are copies of the recorded one, slower where the side says so."""

    def __init__(self, *, slow="", factor=1.0, verdicts=()):
        self.slow, self.factor, self.verdicts, self.asked = slow, factor, list(verdicts), []

    def __call__(self, options):
        self.asked.append(options)
        path = options.runs_dir / "smoke" / str(len(list(options.runs_dir.glob("smoke/*"))))
        shutil.copytree(RUNS / "tiny", path)
        if self.slow and self.slow in options.service_name:
            self._slow_down(path / "evidence" / "executions.jsonl")
        verdict = self.verdicts.pop(0) if self.verdicts else "pass"
        if isinstance(verdict, BaseException):
            raise verdict
        return Run(path=path), Verdict(
            verdict=verdict, scenario="smoke", seed=1, mutant=None, started_ns=1, duration_s=1.0, gates=()
        )

    def _slow_down(self, file):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for row in rows:
            row["ended_ns"] = row["started_ns"] + int((row["ended_ns"] - row["started_ns"]) * self.factor)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(course.runner, "STATE_DIR", tmp_path / "state")


def options(tmp_path, **more):
    return course.Options(**({"blocks": 3, "figures": (RUN_TIME,), "runs_dir": tmp_path / "runs"} | more))


def test_the_order_is_abba_and_baab_in_turn():
    sides_of = "".join(turn.side[0] for turn in book.order(3))
    assert sides_of == "bhhb" + "hbbh" + "bhhb"


def test_the_same_twice_is_not_slower(tmp_path):
    told = Told()
    found = course.compare(options(tmp_path), run=told)
    assert (found.exit_code, found.blocks, found.repeated) == (0, 3, 0)
    assert [found.decisions[0].ratio, found.decisions[0].slower] == [1.0, False]
    assert len({asked.seed for asked in told.asked}) == 1
    assert len(told.asked) == 12


def test_a_slower_side_is_found_and_told(tmp_path):
    found = course.compare(
        options(tmp_path, settings={"MAIL_LOG_LEVEL": "DEBUG"}), run=Told(slow="MAIL_LOG_LEVEL", factor=1.3)
    )
    assert found.exit_code == 1
    assert found.decisions[0].ratio == pytest.approx(1.3, abs=0.01)
    text = table.as_text(found)
    assert "B is slower: task.run_time{queue=send} p50" in text
    assert "B: as it stands + MAIL_LOG_LEVEL=DEBUG" in text
    assert "1.300" in text
    assert table.as_markdown(found).startswith("**B is slower")
    data = json.loads(table.as_json(found))
    assert data["slower"] is True
    assert data["decisions"][0]["ratio"] == pytest.approx(1.3, abs=0.01)


def test_a_run_that_does_not_count_is_made_again(tmp_path):
    found = course.compare(options(tmp_path), run=Told(verdicts=["pass", "invalid", "unknown", "pass"]))
    assert (found.repeated, found.blocks) == (2, 3)


def test_a_gate_that_fails_is_told_and_does_not_end_it(tmp_path):
    assert course.compare(options(tmp_path), run=Told(verdicts=["fail"] * 12)).blocks == 3


def test_runs_that_never_count_end_it_as_invalid(tmp_path):
    with pytest.raises(course.CompareError, match="3 runs did not count, the last because it is invalid") as err:
        course.compare(options(tmp_path), run=Told(verdicts=["invalid"] * 3))
    assert err.value.exit_code == 4


def test_what_was_cut_off_goes_on_where_it_was(tmp_path):
    first = Told(verdicts=["pass"] * 5 + [RigError("the power went")])
    with pytest.raises(RigError):
        course.compare(options(tmp_path), run=first)
    second = Told()
    found = course.compare(options(tmp_path, resume=True), run=second)
    assert (found.blocks, len(second.asked)) == (3, 7)


def test_more_blocks_may_be_added_to_what_is_there(tmp_path):
    course.compare(options(tmp_path, blocks=2), run=Told())
    more = Told()
    assert course.compare(options(tmp_path, blocks=4, resume=True), run=more).blocks == 4
    assert len(more.asked) == 8


def test_another_comparison_does_not_go_on_with_this_one(tmp_path):
    course.compare(options(tmp_path), run=Told())
    with pytest.raises(book.BookError, match="compares something else \\(another seed\\): leave out --resume"):
        course.compare(options(tmp_path, seed=5, resume=True), run=Told())
    with pytest.raises(book.BookError, match="has no comparison to go on with"):
        course.compare(options(tmp_path / "elsewhere", resume=True), run=Told())


def test_a_slow_down_that_is_planted_is_in_the_code_of_one_side_alone(tmp_path):
    plain, slow = sides.make_side(".", tmp_path / "a"), sides.make_side(".", tmp_path / "b", plant_percent=30)
    texts = [(side.folder / "email_service" / "tasks.py").read_text() for side in (plain, slow)]
    assert ["0.3 * (time.thread_time() - began_s)" in text for text in texts] == [False, True]
    compile(texts[1], "tasks.py", "exec")
    assert plain.digest != slow.digest
    assert slow.label == "as it stands + 30 % more CPU in each task"


def test_copies_of_the_same_files_are_known_as_the_same(tmp_path):
    assert sides.make_side(".", tmp_path / "a").digest == sides.make_side(".", tmp_path / "b").digest


def test_a_revision_is_the_service_as_it_was_then(tmp_path):
    package = sides.service_package()
    if not sides._git(package, "rev-parse", "HEAD"):
        with pytest.raises(sides.SideError, match="in no git repository"):
            sides.make_side("HEAD", tmp_path / "head")
        return
    side = sides.make_side("HEAD", tmp_path / "head")
    assert (side.folder / "email_service" / "tasks.py").is_file()
    assert side.digest == sides.make_side("HEAD", tmp_path / "again").digest


def test_a_revision_that_git_does_not_know_is_refused(tmp_path):
    for name in ("no-such-branch", "--output=x"):
        with pytest.raises(sides.SideError, match=r"git has no revision|in no git repository"):
            sides.make_side(name, tmp_path / name)


@pytest.mark.parametrize(
    "text", ["MAIL_TOKEN_SECRET=x", "REDIS_URL=redis://x", "MAIL_LOG_LEVEL", "mail_x=1", "MAIL_BLOB_DIR=/x"]
)
def test_a_setting_that_is_a_secret_or_the_rigs_own_is_refused_without_its_value(text):
    with pytest.raises(sides.SideError, match="is not allowed") as err:
        sides.parse_setting(text)
    assert "=x" not in str(err.value)


def test_a_figure_is_read_as_a_gate_names_it():
    assert str(parse_figure("task.e2e{queue=send} p99.9")) == "task.e2e{queue=send} p99.9"
    assert parse_figure("worker.cpu_per_execution").floor == 0.0002
    for text, told in [
        ("task.e3e p95", "metric 'task.e3e' is not known; allowed: .*task.e2e"),
        ("task.e2e q95", "'q95' is not known; allowed: max"),
        ("Task", "malformed"),
    ]:
        with pytest.raises(FigureError, match=told):
            parse_figure(text)


def test_a_figure_that_a_run_does_not_have_is_named_with_the_reason(tmp_path):
    with pytest.raises(FigureError, match=r"worker\.cpu_per_execution: no readings of CPU time"):
        course.compare(options(tmp_path, figures=(parse_figure("worker.cpu_per_execution"),)), run=Told())


def test_the_arguments_are_what_is_asked_for(tmp_path):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    found = options_of(
        parser.parse_args(
            ["main", ".", "--set", "MAIL_X=1", "--plant", "30", "--margin", "0.2", "--figure", "memory.total max"]
        )
    )
    assert (found.base, found.head, found.settings, found.plant_percent) == ("main", ".", {"MAIL_X": "1"}, 30)
    assert [(str(f), f.margin) for f in found.figures] == [("memory.total max", 0.2)]
    for wrong in (["--blocks", "1"], ["--margin", "-1"], ["--plant", "0"]):
        with pytest.raises(SystemExit):
            parser.parse_args(wrong)


def test_a_folder_of_runs_is_not_left_half_written(tmp_path):
    kept = book.Book.begin(tmp_path, {"seed": 1})
    kept.add(book.Turn(block=0, place=0, side="base"), {"counts": True})
    assert [path.name for path in Path(kept.path).iterdir()] == ["ab.json"]
    (kept.path / "ab.json").write_text("{")
    with pytest.raises(book.BookError, match="can't be read"):
        book.Book.go_on(tmp_path, {"seed": 1})
