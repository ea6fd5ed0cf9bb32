"""The use cases: what the API and the tasks do, without HTTP and without Celery.

``accounts`` makes clients and uploads, ``sending`` delivers a message, ``syncing`` turns a mailbox into rows,
``deleting`` takes messages out of it. Each task's use case ends its own job in the commit that holds its outcome.
"""
