"""Watches any Celery application on Redis without changing its code: what its workers hold, run, retry and need.

bridge     stands in the application's interpreter (a script)   workers    its process
broker     what waits and what is not acknowledged              local      memory of processes that are here
seen       the evidence, and indexes over it                    limits     what the application declares, as gates
measure    the metrics                                          judging    the verdict
watching   the loop, and the folder                             asking     the command's arguments and answer
"""

from mailrig.watch.asking import add_arguments, answer
from mailrig.watch.judging import Judged, judge
from mailrig.watch.watching import WatchOptions, watch

__all__ = ["Judged", "WatchOptions", "add_arguments", "answer", "judge", "watch"]
