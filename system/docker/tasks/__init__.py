"""Where the architecture document's commands look for Celery: ``celery -A tasks.celery_app inspect ping``."""
