"""The doctor: what this machine lacks, and which traps of Celery on Redis an application walks into.

It starts nothing and changes nothing: an application is imported in a process of its own, a server is only asked.

machine       what a run needs of this machine
probe         looks at an application from inside its process (a script)
ours          the service's own application, for the probe
application   runs the probe
server        asks a Redis server
facts         what both came back with
findings      what a trap is, and a finding
holding, order, waiting, keeping, spelling, server_traps   the traps
tables        the answer, for people and for machines
"""

from mailrig.doctor.application import OURS, DoctorError, application_findings, inspect_application
from mailrig.doctor.findings import TRAP, Finding
from mailrig.doctor.machine import check_machine
from mailrig.doctor.server import AwayError, ask_server, server_findings
from mailrig.doctor.tables import finding_lines, machine_lines, summary, title, to_json

__all__ = [
    "OURS",
    "TRAP",
    "AwayError",
    "DoctorError",
    "Finding",
    "application_findings",
    "ask_server",
    "check_machine",
    "finding_lines",
    "inspect_application",
    "machine_lines",
    "server_findings",
    "summary",
    "title",
    "to_json",
]
