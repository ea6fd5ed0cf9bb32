"""/metrics: the metrics of ``signals.METRICS``, from one process with a normal registry.

Rule 1: counters and histograms come from execution and job rows, by a cursor without gaps: exact, unsampled, and they
survive the death of any worker and of this process, which counts all rows again when it starts. What the cleanup has
removed is in ``metric_totals``, written by the same counting (``counting``).
Rule 2: gauges are read when they are asked for; so is what has ended since the last look.
Rule 3: a source that is away takes its own metrics away and nothing else (``mail_exporter_up``).

Called by ``__main__``. In OpenMetrics each observation has the id of its trace as exemplar, if that trace was kept.

collecting  counts what has ended, and asks the sources for the rest
rows        PostgreSQL, as mail_system
broker      Redis 0: queues, workers, beat and dispatchers
serving     HTTP
"""

from email_service.exporter.collecting import PAGE, UP, Cursor, Exporter, Inputs
from email_service.exporter.serving import serve
from email_service.exporter.sources import live_inputs

__all__ = ["PAGE", "UP", "Cursor", "Exporter", "Inputs", "live_inputs", "serve"]
