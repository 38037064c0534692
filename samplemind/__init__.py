"""The SampleMind library's data layer and the work itself, in plain Python.

It knows how things are done; `tasks` makes them jobs, `schedules` says when, `worker` runs them.
Nothing here imports Celery, save the thin client in `samplemind.jobs` that publishes messages.
"""

__version__ = "0.1.0"
