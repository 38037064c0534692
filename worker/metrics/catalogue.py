"""Every figure that is served: its name, what it means, its labels, and who serves it.

Invariant: nothing is served that is not in this table, and `docs/metrics.md`, the rules and the
dashboards name nothing else. Names follow Prometheus: base units, `_total` for what only grows.
"""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """How a figure behaves."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Source(StrEnum):
    """Who serves a figure."""

    WORKER = "each worker"
    CONSOLE = "the console"


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure.

    Attributes:
        labels: their names; each takes its values from a closed set.
        buckets: upper bounds in seconds, of a histogram.
    """

    name: str
    kind: Kind
    meaning: str
    source: Source
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    def series(self) -> tuple[str, ...]:
        """Return the names under which it can be asked for."""
        if self.kind is Kind.HISTOGRAM:
            return tuple(f"{self.name}_{part}" for part in ("bucket", "sum", "count"))
        return (self.name,)


RUN_BUCKETS = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)
WAIT_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0)


def _counted(name: str, meaning: str, *labels: str) -> Metric:
    return Metric(name, Kind.COUNTER, meaning, Source.WORKER, labels)


def _seen(name: str, meaning: str, *labels: str) -> Metric:
    return Metric(name, Kind.GAUGE, meaning, Source.WORKER, labels)


def _read(name: str, meaning: str, *labels: str) -> Metric:
    kind = Kind.COUNTER if name.endswith("_total") else Kind.GAUGE
    return Metric(name, kind, meaning, Source.CONSOLE, labels)


# What a worker counts.
JOBS = _counted("samplemind_jobs_total", "Runs of jobs that ended, and how", "task", "outcome")
JOB_RUN = Metric(
    "samplemind_job_run_seconds",
    Kind.HISTOGRAM,
    "How long a run of a job took",
    Source.WORKER,
    ("task",),
    RUN_BUCKETS,
)
JOB_WAIT = Metric(
    "samplemind_job_wait_seconds",
    Kind.HISTOGRAM,
    "How long a job waited in its queue before its first start, beyond a delay that was asked for",
    Source.WORKER,
    ("queue",),
    WAIT_BUCKETS,
)
REDELIVERIES = _counted(
    "samplemind_job_redeliveries_total",
    "Jobs that started again because their process or worker was lost",
    "task",
)
LEASES_LAPSED = _counted(
    "samplemind_leases_lapsed_total",
    "Messages whose lease this worker could not renew in time; others run them again",
)
CONNECTIONS_LOST = _counted(
    "samplemind_broker_connections_lost_total", "Connections to the broker that were lost"
)
PROCESS_STARTS = _counted(
    "samplemind_worker_process_starts_total", "Processes that the worker started for its jobs"
)
BATCH_ITEMS_ENDED = _counted(
    "samplemind_batch_items_ended_total", "Items of batches that ended, and how", "state"
)
LIMIT_REFUSALS = _counted(
    "samplemind_owner_limit_refusals_total",
    "Parts of batches that an owner's limit sent back to wait",
)
STATEMENTS = _counted("samplemind_postgres_statements_total", "Statements to PostgreSQL")
SLOW_STATEMENTS = _counted(
    "samplemind_postgres_slow_statements_total",
    "Statements that took longer than SAMPLEMIND_POSTGRES_SLOW_QUERY_MS",
)
POOL_WAITS = _counted(
    "samplemind_postgres_pool_waits_total", "Checkouts that found every connection taken"
)
POOL_TIMEOUTS = _counted(
    "samplemind_postgres_pool_timeouts_total", "Checkouts that gave up waiting for a connection"
)
POOL_CONNECTIONS = _seen(
    "samplemind_postgres_pool_connections",
    "Open connections of the processes' pools after their last job: in_use, idle",
    "state",
)
WORKER_CONNECTED = _seen(
    "samplemind_worker_connected", "1 where the worker has a connection to the broker"
)
WORKER_WAITING = _seen(
    "samplemind_worker_waiting_messages", "Messages in the worker's queues at its last look"
)
WORKER_FREE = _seen("samplemind_worker_free_processes", "Processes without a job")
WORKER_STALLED = _seen(
    "samplemind_worker_stalled_seconds",
    "How long messages have waited beside a free process while none was taken; 0: they do not",
)
WORKER_LOOKED = _seen(
    "samplemind_worker_looked_timestamp_seconds",
    "When the worker's main loop looked at itself last; it does every 5 s",
)

# What the stores say.
STORE_UP = _read("samplemind_store_up", "1 where the store answers and can be written to", "store")
STORE_ANSWER = _read(
    "samplemind_store_answer_seconds", "How long the store took to answer, connecting included",
    "store",
)  # fmt: skip
REDIS_MEMORY = _read("samplemind_redis_memory_bytes", "Memory that a Redis uses", "store")
REDIS_MEMORY_LIMIT = _read(
    "samplemind_redis_memory_limit_bytes", "Its maxmemory; 0: none is set", "store"
)
REDIS_EVICTED = _read(
    "samplemind_redis_evicted_keys_total", "Keys that a Redis dropped for want of memory", "store"
)
REDIS_CLIENTS = _read("samplemind_redis_clients", "Connections that a Redis holds", "store")
CACHE_EVENTS = _read(
    "samplemind_cache_events_total",
    "What all processes counted of the cache: hits, local_hits, misses, computed, rate_limited, …",
    "event",
)
POSTGRES_CONNECTIONS = _read(
    "samplemind_postgres_connections", "Sessions of the database, by what they do", "state"
)
POSTGRES_CONNECTIONS_LIMIT = _read(
    "samplemind_postgres_connections_limit", "Sessions that the server admits"
)
POSTGRES_SIZE = _read("samplemind_postgres_size_bytes", "Size of the database")
POSTGRES_LONGEST = _read(
    "samplemind_postgres_longest_transaction_seconds",
    "Age of the oldest transaction; one that is old keeps VACUUM from freeing rows",
)
QUEUE_MESSAGES = _read("samplemind_queue_messages", "Messages that wait in a queue", "queue")
QUEUE_OLDEST = _read(
    "samplemind_queue_oldest_seconds", "Age of a queue's oldest message; 0: it is empty", "queue"
)
MESSAGES_LEASED = _read("samplemind_messages_leased", "Messages that workers hold on lease")
JOBS_DELAYED = _read("samplemind_jobs_delayed", "Jobs that wait for their time")
DELAYED_LATE = _read(
    "samplemind_delayed_late_seconds", "How long the most overdue of them should be in its queue"
)
WORKERS = _read("samplemind_workers", "Processes of a role that show signs of life", "role")
WORKERS_FAILING = _read(
    "samplemind_workers_failing", "Those of them that say that something is wrong", "role"
)
LETTERS = _read("samplemind_dead_letters_open", "Dead letters that nobody attended to", "cause")
LETTERS_INBOX = _read(
    "samplemind_dead_letters_inbox", "Dead letters that were not moved to PostgreSQL yet"
)
BATCHES = _read("samplemind_batches", "Batches that have not ended, by state", "state")
BATCH_ITEMS = _read("samplemind_batch_items", "Items of batches that have not ended", "state")
BATCH_IDLE = _read(
    "samplemind_batch_idle_seconds",
    "Longest time for which a running batch has ended no item; 0: none runs",
)
INDEX_WAITING = _read("samplemind_index_waiting_files", "Files that wait for the search index")
INDEX_CLAIMED = _read("samplemind_index_claimed_files", "Files that drains are writing")
INDEX_OLDEST = _read("samplemind_index_oldest_seconds", "How long the first of them has waited")
INDEX_FRESH = _read(
    "samplemind_index_fresh_vectors", "Vectors that are not in the approximate index yet"
)
INDEX_DRIFT = _read(
    "samplemind_index_drift_files",
    "Files that differed from the index at the last comparison: missing, stale, surplus, ahead",
    "difference",
)
INDEX_COMPARED = _read(
    "samplemind_index_compared_timestamp_seconds", "When library and index were compared last"
)
SEARCHES = _read(
    "samplemind_search_statements_total", "Statements of searches, as PostgreSQL counted them"
)
SEARCH_SECONDS = _read(
    "samplemind_search_statement_seconds_total", "What they took; over their number: the mean"
)
BACKUP_LATEST = _read(
    "samplemind_backup_latest_timestamp_seconds", "When the newest good backup was begun", "kind"
)
BACKUP_SIZE = _read("samplemind_backup_size_bytes", "Its size in the store", "kind")
BACKUP_DURATION = _read("samplemind_backup_duration_seconds", "How long it took", "kind")
BACKUPS = _read("samplemind_backups", "Backups in the catalogue: good, bad", "state")
BACKUP_VERIFIED_LEVEL = _read(
    "samplemind_backup_verified_level",
    "Highest level at which the newest good backup was verified; 0: sizes or never",
)
BACKUP_VERIFIED = _read(
    "samplemind_backup_verified_timestamp_seconds",
    "When any backup was last verified with success at a level or above",
    "level",
)
WAL_LAG = _read(
    "samplemind_wal_archive_lag_bytes",
    "WAL that the archive has not received; absent where no archive was begun",
)
WAL_ARCHIVED = _read(
    "samplemind_wal_archived_timestamp_seconds",
    "When the job that archives WAL last succeeded; absent where no archive was begun",
)
BEAT_LEADS = _read("samplemind_beat_leads", "1 where a beat holds the lease")
PERIODIC_OVERDUE = _read("samplemind_periodic_overdue", "1 where a periodic job is overdue", "task")
PERIODIC_FAILING = _read("samplemind_periodic_failing", "1 where its last run failed", "task")
PERIODIC_LATE = _read(
    "samplemind_periodic_late_seconds", "How long its last slot has not been started", "task"
)
PERIODIC_SECONDS = _read(
    "samplemind_periodic_last_run_seconds", "How long its last run took", "task"
)
PERIODIC_STARTED = _read(
    "samplemind_periodic_last_started_timestamp_seconds", "When its last run was started", "task"
)
DISK_FREE = _read("samplemind_disk_free_bytes", "Free space where the platform writes", "place")
DISK_SIZE = _read("samplemind_disk_size_bytes", "Size of that file system", "place")
EMBEDDED_UP = _read(
    "samplemind_embedded_server_up", "1 where the embedded server's process lives", "store"
)
SIGN_INS_REFUSED = _read(
    "samplemind_console_sign_ins_refused_total",
    "Sign-ins that the console refused since it began: wrong, or too_soon after wrong ones",
    "reason",
)
RENEWED = _read(
    "samplemind_figures_renewed_timestamp_seconds", "When an area's figures were read last", "area"
)
READ_SECONDS = _read("samplemind_figures_read_seconds", "How long reading them took", "area")
READ_FAILURES = _read(
    "samplemind_figures_failures_total", "How often they could not be read", "area"
)

METRICS: tuple[Metric, ...] = tuple(
    value for value in list(globals().values()) if isinstance(value, Metric)
)
"""All of them, in the order in which they stand here."""
