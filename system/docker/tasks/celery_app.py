"""The application of ``email_service`` for Celery's own command line, with the settings of the container.

Lies in the image beside the service and is not installed with it. Never run a worker by this: ``python -m
email_service worker`` is what registers the tasks, takes the leases and stops as it should.
"""

from email_service.celery_app import celery_for
from email_service.config import settings_from

app = celery_for(settings_from())
