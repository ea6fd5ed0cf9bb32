"""The stack: every part of the service and its neighbours, up, watched, hurt on demand, and down.

Embedded processes by default; REDIS_URL and DATABASE_URL put servers of yours in the place of ours. Called by runner.

processes   start, know, wait for and end processes
leftovers   what a rig has started, on disk; the end of what killed rigs left
parts       valkey and postgres: programs, options, readiness; servers of yours
running     what a run needs of a stack, whoever started it
stack       all parts together, kept alive
attached    a stack that others started
samplers    the broker's queues and the workers' memory while a run goes on
cgroup      what the kernel charges their control group
"""

from mailrig.stack.attached import VARIABLES, AttachedStack, Attachment
from mailrig.stack.processes import Part, StackError, end
from mailrig.stack.running import RunningStack
from mailrig.stack.samplers import MemorySampler, QueueSampler
from mailrig.stack.stack import Stack, StackOptions

__all__ = [
    "VARIABLES",
    "AttachedStack",
    "Attachment",
    "MemorySampler",
    "Part",
    "QueueSampler",
    "RunningStack",
    "Stack",
    "StackError",
    "StackOptions",
    "end",
]
