"""The Celery app and all that a worker process owns."""
