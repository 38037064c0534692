"""Each job as one thin Celery task."""
