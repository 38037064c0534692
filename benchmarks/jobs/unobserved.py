"""The probes for a worker that counts nothing, to measure what counting costs."""

from celery import signals

from benchmarks.jobs import probes
from worker.metrics import counting

nothing = probes.nothing

signals.celeryd_after_setup.disconnect(counting._begin_in_main_process)
