"""A little application that is not ours, on a real broker with real prefork workers, watched from outside."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from celery import Celery
from waiting import until

from mailrig import cli, runner
from mailrig.runner import interrupts
from mailrig.stack import end, parts
from mailrig.stack.processes import Command, Part, Spawner
from mailrig.watch import WatchOptions, watch

SECRET = "s3cret-of-the-broker"
SHOP = """
import os, time
from celery import Celery
app = Celery("shop", broker="redis://nobody.invalid/0")
app.conf.update(
    task_acks_late=os.environ.get("SHOP_ACK") == "late", worker_prefetch_multiplier=1, worker_concurrency=2,
    task_ignore_result=True, broker_connection_retry_on_startup=True, worker_hijack_root_logger=False,
    broker_transport_options={"priority_steps": [0, 5], "sep": "|", "global_keyprefix": "shop-"},
    task_default_queue="orders",
)
@app.task
def work(seconds): time.sleep(seconds)
@app.task(autoretry_for=(OSError,), retry_backoff=1, retry_jitter=False, max_retries=2)
def flaky(): raise OSError("no")
"""


@pytest.fixture(scope="module")
def spawner() -> Iterator[Spawner]:
    spawner = Spawner()
    yield spawner
    spawner.close()


@pytest.fixture(scope="module")
def broker(spawner, tmp_path_factory) -> Iterator[str]:
    """The URL of a Valkey with a password."""
    folder = Path(parts.data_folder())
    part, url = parts.start_valkey(spawner, folder / "valkey", tmp_path_factory.mktemp("logs"), 0)
    with redis.Redis.from_url(url) as client:
        client.config_set("requirepass", SECRET)
    yield url.replace("://", f"://:{SECRET}@")
    end([part], reason="stop", grace_s=5)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def shop(tmp_path, monkeypatch) -> Path:
    """The application's folder, where the user stands."""
    (tmp_path / "shop.py").write_text(SHOP)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def environment(url: str, ack: str) -> dict[str, str]:
    return parts.plain_environment() | {"CELERY_BROKER_URL": url, "SHOP_ACK": ack}


@contextmanager
def worker(spawner: Spawner, folder: Path, url: str, ack: str) -> Iterator[Part]:
    """A prefork worker of two processes, without events of tasks."""
    argv = [sys.executable, "-m", "celery", "-A", "shop", "worker", "--loglevel", "WARNING"]
    command = Command(kind="worker", argv=argv, env=environment(url, ack), log=folder / "worker.log", cwd=folder)
    part = spawner.start(command)
    try:
        yield part
    finally:
        end([part], reason="stop", grace_s=0)


def publish(folder: Path, url: str, code: str) -> None:
    """By the application itself."""
    program = f"import shop\n{code}"
    subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment(url, "late"), check=True, timeout=60)


def busy(url: str) -> None:
    """Wait until messages are taken out of the queue."""
    with redis.Redis.from_url(url) as client:
        until(lambda: client.zcard("shop-unacked_index") or None, what="a message that is not acknowledged")


def options(folder: Path, url: str, *, say: Callable[[str], None], events: bool = False) -> WatchOptions:
    return WatchOptions(
        app="shop:app",
        python=None,
        broker=url,
        seconds=60,
        every_s=0.05,
        enable_events=events,
        gates=None,
        runs_dir=folder / "runs",
        say=say,
    )


@contextmanager
def ctrl_c_when(enough: Callable[[], bool]) -> Iterator[None]:
    """What somebody does who has seen enough: a watch ends so, and judges."""
    before = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    runner.stop_on_signals()
    over = threading.Event()

    def wait() -> None:
        while not over.wait(0.1):
            if enough():
                os.kill(os.getpid(), signal.SIGINT)
                return

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        for number, handler in before.items():
            signal.signal(number, handler)


def written(folder: Path, name: str) -> list[dict]:
    """Lines that a watch has written so far; the last may not be whole yet."""
    text = "".join(file.read_text() for file in folder.glob(f"runs/*/latest/evidence/{name}.jsonl"))
    return [json.loads(line) for line in text.split("\n")[:-1]]


def gate(found, name: str):
    return next(one for one in found.verdict.gates if one.id == name)


@pytest.mark.parametrize(("ack", "held", "verdict"), [("late", 2, "pass"), ("early", 4, "fail")])
def test_late_acknowledgement_holds_what_runs_and_early_holds_as_much_again(  # noqa: PLR0917  # fixtures
    spawner, broker, shop, monkeypatch, ack, held, verdict
):
    url = f"{broker}/{0 if ack == 'late' else 1}"
    monkeypatch.setenv("SHOP_ACK", ack)
    said: list[str] = []
    with worker(spawner, shop, url, ack):
        publish(shop, url, "for n in range(200): shop.work.apply_async((0.7,), priority=n % 7)")
        busy(url)
        with ctrl_c_when(lambda: len(written(shop, "workers")) >= 4):
            run, found = watch(options(shop, url, say=said.append))
    assert gate(found, "held").observed == held, gate(found, "held").detail
    assert (gate(found, "held").verdict, found.verdict.verdict) == (verdict, verdict)
    assert (gate(found, "running").verdict, gate(found, "running").observed) == ("pass", 2)
    assert gate(found, "retry-backoff").verdict == "unknown"
    assert any("no events of tasks" in note for note in found.notes)
    # The two lists of priority steps, under the application's own prefix and separator.
    assert 100 < max(line["ready"]["orders"] for line in lines(run.evidence / "queues.jsonl")) <= 200
    # Of a worker on this machine each process is weighed.
    kinds = [process["kind"] for process in lines(run.evidence / "memory.jsonl")[-1]["processes"]]
    assert kinds == ["worker-main", "worker-child", "worker-child"]
    assert SECRET not in everything(run.path) + "".join(said)


def lines(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def everything(folder: Path) -> str:
    return "".join(file.read_text() for file in folder.rglob("*") if file.is_file())


def test_countdown_retries_are_held_beside_the_limit_and_keep_to_the_declared_backoff(
    spawner, broker, shop, monkeypatch
):
    url = f"{broker}/2"
    monkeypatch.setenv("SHOP_ACK", "late")
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if "switched on" in text:
            publish(shop, url, "for n in range(6): shop.flaky.delay()")

    with worker(spawner, shop, url, "late"):
        publish(shop, url, "shop.work.delay(0.01)")
        until(lambda: answers(url), what="the worker")
        with ctrl_c_when(lambda: sum(e["type"] == "task-failed" for e in written(shop, "events")) == 6):
            _, found = watch(options(shop, url, say=say, events=True))
        assert "events of tasks are off again in celery@" in "".join(said)
        # Off again: switching them on is news to the worker.
        answer = control(url, "enable_events")
        assert [told["ok"] for one in answer for told in one.values()] == ["task events enabled"]
    assert gate(found, "retry-backoff").verdict == "pass", gate(found, "retry-backoff").detail
    assert gate(found, "held").verdict == "fail"
    assert "6 of them not due yet" in "".join(gate(found, "held").detail)


def control(url: str, command: str) -> list[dict]:
    """What workers answer; who asks must spell the keys as they do."""
    app = Celery("asker", broker=url)
    app.conf.broker_transport_options = {"global_keyprefix": "shop-", "sep": "|"}
    try:
        return app.control.broadcast(command, reply=True, timeout=2) or []
    finally:
        app.close()


def answers(url: str) -> bool:
    return bool(control(url, "ping"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--broker", f"redis://:{SECRET}@127.0.0.1:1/0"], "redis://127.0.0.1:1/0 can't be asked: no connection"),
        (["--broker", f"amqp://u:{SECRET}@127.0.0.1:1//"], "amqp://127.0.0.1:1 can't be watched"),
        (["--app", "nothing:app"], "nothing"),
        (["--gates", "missing.toml"], "missing.toml: can't be read"),
    ],
)
def test_what_can_t_be_watched_is_one_line_and_exit_code_2(shop, capsys, arguments, words):
    app = [] if "--app" in arguments else ["--app", "shop:app"]
    assert cli.main(["watch", *app, "--seconds", "1", *arguments]) == 2
    told = capsys.readouterr()
    assert words in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""
    assert SECRET not in told.err
