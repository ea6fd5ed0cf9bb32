"""The truth about work: job and execution rows.

Rule 1: a job is written before its message is published; the broker is a hint, the row is the truth.
Rule 2: an execution starts by taking the lease, committed before work begins, and ends in the commit that holds its
outcome. Who can't take the lease does nothing: a second copy of a message is harmless.
Rule 3: ``next_publish_at`` alone says when the dispatcher acts: the grace after a publish, the due time of a retry, the
end of a lease, or never again.
Rule 4: whoever ends an execution that is not its own writes its span once that is committed (``tell``).

Every function but ``tell`` takes a session and leaves the commit to its caller, unless it says otherwise. Callers: api,
service, tasks, losses, worker, dispatcher. Times that two clocks could disagree on (the start, the end, the due time of
a retry) come from the caller, so that differences between them are exact; leases come from the database's clock.

shapes       what goes in and out
asking       a job is asked for, found again by its key, or given up with its client
running      the lease, the fence, progress, the end
delivering   what the dispatcher publishes
dying        executions whose process is gone: found, ended, and told of
showing      a job and the feed, as the API shows them
"""

from email_service.jobs.asking import abandon, adopt, enqueue, keyed
from email_service.jobs.delivering import due, hasten, next_due_in_s
from email_service.jobs.dying import cut_off, last_of, release_dead, tell
from email_service.jobs.running import finish, hold, lease, progress, refuse, reschedule
from email_service.jobs.shapes import CHANNEL, Dead, Delivery, Ending, Enqueued, Holder, Lease, Message, NewJob
from email_service.jobs.showing import feed, status

__all__ = [
    "CHANNEL",
    "Dead",
    "Delivery",
    "Ending",
    "Enqueued",
    "Holder",
    "Lease",
    "Message",
    "NewJob",
    "abandon",
    "adopt",
    "cut_off",
    "due",
    "enqueue",
    "feed",
    "finish",
    "hasten",
    "hold",
    "keyed",
    "last_of",
    "lease",
    "next_due_in_s",
    "progress",
    "refuse",
    "release_dead",
    "reschedule",
    "status",
    "tell",
]
