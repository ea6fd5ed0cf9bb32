"""The e-mail service: Flask API, Celery worker, beat, dispatcher and exporter (importing it imports nothing)."""
