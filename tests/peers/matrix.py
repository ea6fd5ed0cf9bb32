"""What each IMAP server does of the contract, as the table in fakes/README.md.

    python tests/peers/matrix.py            runs the contract over all servers and prints the table
    python tests/peers/matrix.py --write    and writes it between the README's markers

Owns: the table's form and place.
Never: tells what was not run: the suite holds the declared lacks to be exact, so a run that passes is what is declared.
Called by: people, after the contract, a server or its version has changed; a test compares the README with the lacks.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

import dovecot_server
import greenmail_server
from contract.cases import AREAS, CASES
from contract.lacks import LACKS, PEERS

SUITE = Path(__file__).with_name("test_imap_contract.py")
ROOT = Path(__file__).parents[2]
README = ROOT / "fakes" / "README.md"
BEGIN, END = "<!-- matrix:begin -->", "<!-- matrix:end -->"
TITLES = {
    "fakemail": "fakemail",
    "dovecot": f"Dovecot {dovecot_server.SERIES}",
    "greenmail": f"GreenMail {greenmail_server.VERSION}",
}
#: Server and case -> what it lacks; empty: it passes.
Results = Mapping[tuple[str, str], str]


#: The id of a test of the contract.
_ASKED = re.compile(r"\w+\[(?P<peer>\w+)-(?P<case>\w+)\]")


class MatrixError(Exception):
    """There is no table to be had, or no place for it."""


def declared() -> Results:
    """What the suite expects."""
    return {(peer, name): LACKS[peer].get(name, "") for peer in PEERS for name in CASES}


def measured() -> Results:
    """What a run of the suite shows."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "contract.xml"
        argv = [sys.executable, "-m", "pytest", "-q", str(SUITE), f"--junitxml={report}", "-rN"]
        done = subprocess.run(argv, cwd=ROOT, check=False, capture_output=True, text=True, timeout=600)
        if done.returncode != 0:
            raise MatrixError(f"the suite fails:\n{done.stdout[-4000:]}{done.stderr[-2000:]}")
        return read(report.read_text())


def read(report: str) -> Results:
    """The results in a JUnit report of the suite."""
    results = {}
    for test in ET.fromstring(report).iter("testcase"):
        asked = _ASKED.fullmatch(test.attrib["name"])
        if asked is None:
            continue
        skipped = test.find("skipped")
        if skipped is not None and skipped.attrib["type"] != "pytest.xfail":
            raise MatrixError(f"{asked['peer']} was not asked: {skipped.attrib['message']}")
        results[asked["peer"], asked["case"]] = "" if skipped is None else skipped.attrib["message"]
    missing = set(declared()) - set(results)
    if missing:
        raise MatrixError(f"{len(missing)} cases were not asked, among them {min(missing)}")
    return results


def table(results: Results) -> str:
    """Passed and all cases by area and server, and under it what each lacks."""
    rows = [["area", *(TITLES[peer] for peer in PEERS)], ["---"] * (1 + len(PEERS))]
    rows += [[area, *(_share(results, peer, area) for peer in PEERS)] for area in AREAS]
    rows += [["**all**", *(_share(results, peer, None) for peer in PEERS)]]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    for peer in PEERS:
        if lacks := _lacks(results, peer):
            lines += ["", f"What {TITLES[peer]} lacks or does otherwise:", "", *lacks]
    return "\n".join(lines) + "\n"


def _share(results: Results, peer: str, area: str | None) -> str:
    asked = [lack for (name, case), lack in results.items() if name == peer and area in {None, CASES[case].area}]
    return f"{asked.count('')}/{len(asked)}"


def _lacks(results: Results, peer: str) -> list[str]:
    """A line for each area; a lack that several cases meet has their number."""
    lines = []
    for area in AREAS:
        found = (lack for (name, case), lack in results.items() if name == peer and CASES[case].area == area and lack)
        told = [f"{lack} ({count})" if count > 1 else lack for lack, count in Counter(found).items()]
        if told:
            lines.append(f"- {area}: {'; '.join(told)}".replace("|", r"\|"))
    return lines


def inserted(text: str, matrix: str) -> str:
    """A README with the table between its markers."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise MatrixError(f"no place for the table: {BEGIN} and {END} are missing")
    return f"{head}{begin}\n\n{matrix}\n{end}{tail}"


def between(text: str) -> str:
    """The table that stands in a README."""
    _, begin, rest = text.partition(BEGIN)
    matrix, end, _ = rest.partition(END)
    if not begin or not end:
        raise MatrixError(f"no table: {BEGIN} and {END} are missing")
    return matrix.strip("\n") + "\n"


def main(argv: list[str] | None = None) -> int:
    """Run, print, and write if told so; answers the exit code."""
    parser = argparse.ArgumentParser(description="Run the IMAP contract and print what each server does of it.")
    parser.add_argument("--write", action="store_true", help=f"write the table into {README.relative_to(ROOT)}")
    arguments = parser.parse_args(argv)
    try:
        matrix = table(measured())
        if arguments.write:
            README.write_text(inserted(README.read_text(), matrix))
    except MatrixError as err:
        sys.stderr.write(f"{err}\n")
        return 1
    sys.stdout.write(matrix)
    return 0


if __name__ == "__main__":
    sys.exit(main())
