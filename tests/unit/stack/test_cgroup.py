"""What a control group is charged, as the kernel's files of either version say it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailrig.stack.cgroup import cgroup_of

V1 = "5:devices:/\n4:cpu,memory:/box/worker\n0::/\n"
V2 = "0::/box.slice/worker\n"


def machine(folder: Path, cgroup: str, files: dict[str, str]) -> dict[str, Path]:
    (folder / "proc" / "7").mkdir(parents=True)
    (folder / "proc" / "7" / "cgroup").write_text(cgroup)
    for name, text in files.items():
        file = folder / "sys" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return {"proc": folder / "proc", "root": folder / "sys"}


@pytest.mark.parametrize(
    ("cgroup", "files", "used", "limit"),
    [
        (V2, {"box.slice/worker/memory.current": "500\n", "box.slice/worker/memory.max": "900\n"}, 500, 900),
        (V2, {"box.slice/worker/memory.current": "500\n", "box.slice/worker/memory.max": "max\n"}, 500, None),
        (
            V1,
            {"memory/box/worker/memory.usage_in_bytes": "7\n", "memory/box/worker/memory.limit_in_bytes": "9\n"},
            7,
            9,
        ),
        (V1, {"memory/memory.usage_in_bytes": "8\n", "memory/memory.limit_in_bytes": f"{2**63 - 4096}\n"}, 8, None),
    ],
)
def test_used_and_allowed_are_read_where_the_version_has_them(tmp_path, cgroup, files, used, limit):
    found = cgroup_of(7, **machine(tmp_path, cgroup, files))
    assert found == {"cgroup_bytes": used, "cgroup_limit_bytes": limit}


def test_the_root_of_all_groups_and_a_process_that_is_gone_have_no_figure(tmp_path):
    files = machine(tmp_path, "0::/\n", {"cgroup.procs": "7\n"})
    assert cgroup_of(7, **files) == {}
    assert cgroup_of(8, **files) == {}
