"""The load generator as users run it: a Locust process against a small API on loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from small_api import SmallApi

LOCUSTFILE = Path(__file__).parents[3] / "loadtests" / "locustfile.py"
SCENARIO = """
name = "brief"
description = "A second and a half of constant arrivals."
seed = 5
[load]
arrivals = "constant"
warmup_s = 0.5
duration_s = 1
[[load.op]]
f = "send"
rate_per_s = 20
recipients_max = 3
bcc_share = 0.5
attachment_share = 0.5
[[load.op]]
f = "sync"
rate_per_s = 4
[population]
tenants = 2
mailboxes = 3
messages_per_mailbox = 0
[system]
[drain]
timeout_s = 1
"""
ARRIVALS = 36


class Bench:
    """A folder with a scenario and a stack file, and a way to run Locust in it."""

    def __init__(self, folder: Path, api: SmallApi) -> None:
        self.folder, self.api = folder, api
        self.history = folder / "history.jsonl"
        (folder / "scenario.toml").write_text(SCENARIO)
        addresses = {"acme": ("user0@acme.example", "user1@acme.example"), "globex": ("user0@globex.example",)}
        population = [
            {
                "tenant": tenant,
                "user": "alice",
                "token": f"token-of-{tenant}",
                "clients": [{"client_id": f"client-{address}", "address": address} for address in mailboxes],
                "attachment_ids": [f"attachment-of-{tenant}"],
            }
            for tenant, mailboxes in addresses.items()
        ]
        self.write_stack(json.dumps({"api_url": api.url, "population": population}))

    def write_stack(self, text: str) -> None:
        (self.folder / "stack.json").write_text(text)

    def start(
        self,
        *options: str,
        locustfiles: tuple[Path, ...] = (LOCUSTFILE,),
        headless: bool = True,
        session: bool = False,
        **environment: str,
    ) -> subprocess.Popen[str]:
        env = {
            **os.environ,
            "MAILRIG_STACK": str(self.folder / "stack.json"),
            "MAILRIG_SCENARIO": str(self.folder / "scenario.toml"),
            "MAILRIG_HISTORY": str(self.history),
            "MAILRIG_SESSION": "s",
            **environment,
        }
        files = ",".join(map(str, locustfiles))
        mode = ("--headless", "--only-summary") if headless else ()
        argv = [sys.executable, "-m", "locust", "-f", files, *mode, *options]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            argv,
            env=env,
            cwd=self.folder,
            stdout=pipe,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=session,
        )

    def run(self, *options: str, **more: Any) -> tuple[int, str]:
        with self.start(*options, **more) as process:
            output, _ = process.communicate(timeout=60)
            return process.returncode, output
