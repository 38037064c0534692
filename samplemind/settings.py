"""All settings, in one frozen tree that is read once.

Each comes from the environment as `SAMPLEMIND_<GROUP>_<FIELD>` (`SAMPLEMIND_POSTGRES_POOL_SIZE`);
`SAMPLEMIND_HOME` stands alone. With `_FILE` behind its name, a variable names the file that holds
the value. A store without a URL is served by the embedded stack, whose addresses `samplemind up`
leaves in its home and `get_settings` fills in.

Invariant: a `Settings` that exists is whole and consistent; a wrong or unknown value stops the
process with one readable line a fault. Secrets are `SecretStr` and are never printed.
"""

import difflib
import os
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from samplemind.audio.limits import AudioLimits
from samplemind.endpoints import Store, read_endpoints
from samplemind.errors import SettingsError, StackNotRunningError
from samplemind.jobs.times import When
from samplemind.limit import Limit
from samplemind.search.languages import TextConfiguration
from samplemind.secret_files import names_a_file, read_secret_files
from samplemind.setting_types import (
    BackupKeys,
    Emails,
    FernetKey,
    FernetKeys,
    OwnerLimits,
    ScheduleTimes,
    UsersAndPasswords,
    url_of,
)

PREFIX = "SAMPLEMIND_"

# Pydantic's words for a variable that names no setting, and for one that names a whole group.
_UNKNOWN = ("extra_forbidden", "model_type")


_LEAST_SECRET = 32


class LogFormat(StrEnum):
    """How log lines look."""

    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PostgresSettings(_Group):
    """The relational store and its connection pool."""

    url: Annotated[SecretStr | None, url_of(Store.POSTGRES)] = Field(
        None, description="postgresql://user:password@host:port/database; none: embedded"
    )
    pool_size: int = Field(20, ge=1, le=500, description="connections kept open by a service")
    max_overflow: int = Field(40, ge=0, le=500, description="connections above that, at a peak")
    pool_timeout_s: float = Field(30, gt=0, description="seconds to wait for a free connection")
    pool_recycle_s: int = Field(3600, gt=0, description="seconds after which one is replaced")
    connect_timeout_s: int = Field(5, ge=1, description="seconds for opening a connection")
    worker_pool_size: int = Field(2, ge=1, le=5, description="connections kept by a worker process")
    worker_max_overflow: int = Field(3, ge=0, le=5, description="above that, at a peak")
    slow_query_ms: int = Field(1000, ge=1, description="milliseconds from which a query is logged")
    statement_timeout_ms: int = Field(
        60_000, ge=0, description="milliseconds after which the server ends a statement; 0: never"
    )
    lock_timeout_ms: int = Field(
        5_000, ge=0, description="milliseconds that a migration waits for a lock"
    )


class MongoSettings(_Group):
    """The document store."""

    url: Annotated[SecretStr | None, url_of(Store.MONGO)] = Field(
        None, description="mongodb://user:password@host:port/?replicaSet=…; none: embedded"
    )
    database: str = Field("samplemind", min_length=1, max_length=63, description="database name")
    pool_size: int = Field(20, ge=1, le=500, description="connections at most, each process")
    timeout_ms: int = Field(10_000, ge=100, description="milliseconds for finding a server")


class BrokerSettings(_Group):
    """The Redis that holds queues, leases and results; it must not evict."""

    url: Annotated[SecretStr | None, url_of(Store.BROKER)] = Field(
        None, description="redis://:password@host:port/0; none: embedded"
    )
    lease_s: int = Field(
        15,
        ge=3,
        description="seconds after a worker's death until its messages are given to others",
    )
    lease_renewal_s: int = Field(3, ge=1, description="seconds between renewals of a lease")
    sweep_s: int = Field(2, ge=1, description="seconds between searches for expired leases")


class CacheSettings(_Group):
    """The Redis that may forget: cache, rate limits, popularity."""

    url: Annotated[SecretStr | None, url_of(Store.CACHE)] = Field(
        None, description="redis://:password@host:port/0; none: embedded"
    )
    max_connections: int = Field(
        50, ge=1, le=50, description="connections to the cache that one process opens at most"
    )
    timeout_ms: int = Field(
        1000, ge=10, le=10_000, description="milliseconds for one answer; later is a miss"
    )
    local_entries: int = Field(
        10_000, ge=0, description="values that a process keeps before the cache; 0: none"
    )
    lease_s: int = Field(
        5, ge=1, le=300, description="seconds until waiters replace a process that died computing"
    )
    warm_s: int = Field(60, ge=1, le=540, description="seconds that one warming may take")
    signing_key: SecretStr | None = Field(
        None, description="key that signs pickled values, for callers that ask for pickle"
    )


class WorkerSettings(_Group):
    """How worker processes run jobs."""

    audio_concurrency: int = Field(
        0, ge=0, le=256, description="processes that analyse audio; 0: one for each core"
    )
    index_concurrency: int = Field(
        2, ge=1, le=64, description="processes that write the index; one may be busy for minutes"
    )
    soft_time_limit_s: int = Field(540, ge=1, description="seconds after which a job is cancelled")
    time_limit_s: int = Field(600, ge=2, description="seconds after which its process is killed")
    max_jobs_per_child: int = Field(500, ge=1, description="jobs after which a process is renewed")
    max_memory_per_child_mib: int = Field(600, ge=128, description="MiB after which it is renewed")
    drain_s: int = Field(
        10, ge=0, description="seconds that a stopping worker gives running jobs before giving back"
    )
    cancel_grace_s: int = Field(
        10,
        ge=0,
        description="seconds that a cancelled job has to stop before its process is killed",
    )
    max_deliveries: int = Field(
        4, ge=1, description="times a job may start before it is given up as a worker killer"
    )
    health_host: str = Field(
        "127.0.0.1", min_length=1, description="address that a worker's health is served on"
    )
    health_port: int = Field(
        0, ge=0, le=65535, description="port of it; 0: a free one, which `status` shows"
    )


class AudioSettings(_Group):
    """What an audio file may be."""

    root: Path | None = Field(
        None, description="folder outside of which no file is read; none: no such bound"
    )
    max_file_mib: int = Field(512, ge=1, description="MiB of the largest file that is read")
    max_duration_s: int = Field(7200, ge=1, description="seconds of the longest file analysed")
    window_s: int = Field(120, ge=10, le=600, description="seconds of a long file analysed")

    def limits(self) -> AudioLimits:
        """Return the bounds on one file that these settings ask for."""
        return AudioLimits(
            max_size_bytes=self.max_file_mib * 2**20,
            max_duration_s=self.max_duration_s,
            window_s=self.window_s,
        )


class BatchSettings(_Group):
    """How a batch is cut into jobs."""

    chunk_size: int = Field(32, ge=1, le=1000, description="files in one job")
    claim_s: int = Field(60, ge=5, description="seconds that a claim on a file lasts unrenewed")
    max_attempts: int = Field(3, ge=1, le=20, description="attempts for a file before it fails")
    max_files: int = Field(100_000, ge=1, description="files in one batch at most")
    window: int = Field(
        2, ge=1, le=1000, description="jobs of one owner's batches that wait in the queue at most"
    )


class LimitSettings(_Group):
    """What one owner's batches may do at once; 0 is no limit."""

    running: int = Field(0, ge=0, le=10_000, description="jobs of one owner that run at once")
    per_minute: int = Field(
        0, ge=0, le=10_000, description="jobs of one owner begun within any minute"
    )
    owners: OwnerLimits = Field(
        {}, description='JSON of other limits, {"<user id>": {"running": 4, "per_minute": 100}}'
    )

    def of(self, owner_id: UUID | None) -> Limit:
        """Return the limit of an owner; None: of the library's own files, named "library"."""
        own = self.owners.get(str(owner_id or "library"), {})
        return Limit(
            running=own.get("running", self.running),
            per_minute=own.get("per_minute", self.per_minute),
        )


class SearchSettings(_Group):
    """How the index is built and what a query may cost."""

    statement_timeout_ms: int = Field(
        2000, ge=10, le=60_000, description="milliseconds after which a query is ended"
    )
    text_configuration: TextConfiguration = Field(
        TextConfiguration.ENGLISH,
        description="text search configuration of words whose file names no language",
    )
    rank_up_to: int = Field(
        6000, ge=100, description="estimated matches up to which all are ranked and counted"
    )
    hnsw_m: int = Field(16, ge=2, le=100, description="links of a vector in the HNSW graph")
    hnsw_ef_construction: int = Field(
        64, ge=4, le=1000, description="candidates looked at when a vector is linked"
    )
    ivfflat_lists: int = Field(
        1000, ge=1, le=32_768, description="lists of an IVFFlat index, where that is chosen"
    )
    recall_target: float = Field(
        0.95, gt=0, lt=1, description="share of the true nearest that an approximate search finds"
    )
    exact_up_to: int = Field(
        40_000, ge=0, description="vectors up to which a filtered set is compared one by one"
    )
    fresh_limit: int = Field(
        20_000, ge=1, description="vectors that may wait to be folded before a fold is urgent"
    )
    fold_batch: int = Field(
        200, ge=1, le=10_000, description="vectors folded in one transaction (some 500 a second)"
    )
    maintenance_memory_mib: int = Field(
        512, ge=1, description="MiB for building an index; a graph that fits is built in memory"
    )
    build_workers: int = Field(
        2, ge=0, le=64, description="parallel workers that build an index beside the main one"
    )

    @model_validator(mode="after")
    def _graph_is_buildable(self) -> "SearchSettings":
        """`search.hnsw_ef_construction` is at least twice `search.hnsw_m`."""
        if self.hnsw_ef_construction < 2 * self.hnsw_m:
            message = "search.hnsw_ef_construction must be at least twice search.hnsw_m"
            raise ValueError(message)
        return self


class SecuritySettings(_Group):
    """Keys for what is encrypted at rest."""

    encryption_key: FernetKey | None = Field(
        None, description="Fernet key (32 bytes, url-safe base64) for tokens at rest"
    )
    previous_encryption_keys: FernetKeys = Field(
        (), description="JSON list of older keys that still open what they closed"
    )


class StorageKind(StrEnum):
    """Where objects are stored."""

    LOCAL = "local"
    S3 = "s3"
    GCS = "gcs"
    AZURE = "azure"


class ServerSideEncryption(StrEnum):
    """How S3 encrypts what it stores, beside our own encryption."""

    AES256 = "AES256"
    KMS = "aws:kms"


class StorageSettings(_Group):
    """The object store for backups."""

    kind: StorageKind = Field(StorageKind.LOCAL, description="local, s3, gcs or azure")
    path: Path | None = Field(
        None, description="directory of the local store; none: backups in SAMPLEMIND_HOME"
    )
    bucket: str | None = Field(
        None, min_length=3, max_length=222, description="bucket, or Azure's container"
    )
    prefix: str = Field("", max_length=100, description="path in the bucket below which all lies")
    endpoint: str | None = Field(
        None, description="URL of a server that speaks the protocol; none: the cloud's own"
    )
    region: str | None = Field(None, description="region of an S3 bucket")
    access_key: SecretStr | None = Field(
        None, description="S3's access key id or Azure's account name; none: the SDK's own way"
    )
    secret_key: SecretStr | None = Field(
        None, description="S3's secret key or Azure's account key; none: the SDK's own way"
    )
    credentials_file: Path | None = Field(
        None, description="Google's service account file; none: the SDK's own way"
    )
    server_side_encryption: ServerSideEncryption | None = Field(
        None, description="AES256 or aws:kms for S3; none: the bucket's default"
    )
    kms_key_id: str | None = Field(None, description="key of aws:kms; none: the bucket's")
    part_mib: int = Field(
        8, ge=5, le=512, description="MiB of one part of an upload; doubled after each 2,500"
    )
    timeout_s: float = Field(60, gt=0, le=3600, description="seconds that the store may be silent")
    attempts: int = Field(5, ge=1, le=20, description="attempts for each request, with backoff")

    @model_validator(mode="after")
    def _place_is_named(self) -> "StorageSettings":
        """`storage.bucket` is set unless `storage.kind` is `local`.

        `storage.access_key` and `storage.secret_key` are set together or not at all.
        `storage.endpoint` holds no credentials.
        """
        if self.kind is not StorageKind.LOCAL and self.bucket is None:
            message = f"storage.kind {self.kind} needs {PREFIX}STORAGE_BUCKET"
            raise ValueError(message)
        if (self.access_key is None) != (self.secret_key is None):
            message = "storage.access_key and storage.secret_key are set together or not at all"
            raise ValueError(message)
        if self.endpoint is not None and "@" in self.endpoint:
            message = "storage.endpoint must not hold credentials: they have settings of their own"
            raise ValueError(message)
        return self


class BackupCodec(StrEnum):
    """How backups are compressed."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"


class BackupSettings(_Group):
    """How backups are made, kept and encrypted."""

    codec: BackupCodec = Field(BackupCodec.ZSTD, description="none, gzip or zstd")
    level: int | None = Field(
        None, ge=1, le=19, description="level of compression; none: the codec's default"
    )
    jobs: int = Field(2, ge=1, le=32, description="tables and ranges read at the same time")
    rate_limit_mib_s: float = Field(
        0, ge=0, description="MiB a second that a backup reads at most; 0: no limit"
    )
    beside_jobs: int = Field(
        1, ge=1, le=32, description="as jobs, of backups that are jobs and run beside queries"
    )
    beside_rate_mib_s: float = Field(
        20, ge=0, description="as rate_limit_mib_s, of these; 0: no limit of their own"
    )
    local_copy: Path | None = Field(
        None, description="directory that gets a copy of each backup; none: no copy"
    )
    incrementals: int = Field(
        6, ge=0, description="incremental base backups upon a full one before the next full one"
    )
    keep_days: int = Field(30, ge=0, description="days that every backup is kept; 0: none for this")
    keep_last: int = Field(3, ge=0, description="newest good backups kept whatever their age")
    keep_daily: int = Field(0, ge=0, description="days of which the newest good one is kept")
    keep_weekly: int = Field(0, ge=0, description="weeks of which the newest good one is kept")
    keep_monthly: int = Field(0, ge=0, description="months of which the newest good one is kept")
    keep_yearly: int = Field(0, ge=0, description="years of which the newest good one is kept")
    leftover_grace_h: int = Field(
        24, ge=1, description="hours after which what a dead upload left is removed"
    )
    keys: BackupKeys = Field(
        default_factory=dict,
        description="JSON object of base64 keys (32 bytes) by their ids, the current one first",
    )
    key_file: Path | None = Field(
        None, description="file with lines `id base64`, the current one first; beside or for keys"
    )

    def beside_queries(self) -> "BackupSettings":
        """Return these settings for a backup that nobody waits for and queries run beside."""
        limits = [rate for rate in (self.rate_limit_mib_s, self.beside_rate_mib_s) if rate]
        return self.model_copy(
            update={
                "jobs": min(self.jobs, self.beside_jobs),
                "rate_limit_mib_s": min(limits, default=0.0),
            }
        )


class OAuthProvider(StrEnum):
    """Who tells the console who somebody is; Okta's address is in FLOWER_OAUTH2_OKTA_BASE_URL."""

    GOOGLE = "google"
    GITHUB = "github"
    GITLAB = "gitlab"
    OKTA = "okta"


class ConsoleSettings(_Group):
    """The operators' console (Flower)."""

    host: str = Field("127.0.0.1", min_length=1, description="address that the console listens on")
    port: int = Field(0, ge=0, le=65535, description="port of the console; 0: a free one")
    basic_auth: UsersAndPasswords = Field(
        (), description="user:password of operators, one a line or as a JSON list"
    )
    basic_auth_viewers: UsersAndPasswords = Field(
        (), description="user:password of those who may only look, in the same form"
    )
    oauth_provider: OAuthProvider | None = Field(
        None, description="google, github, gitlab or okta, in place of passwords"
    )
    oauth_key: str | None = Field(None, description="client id that the provider gave out")
    oauth_secret: SecretStr | None = Field(None, description="client secret beside it")
    oauth_redirect_uri: str | None = Field(
        None, description="https://…/login of this console, as the provider knows it"
    )
    oauth_operators: Emails = Field((), description="e-mail addresses of operators")
    oauth_viewers: Emails = Field((), description="e-mail addresses of those who may only look")
    cookie_secret: SecretStr | None = Field(
        None,
        description="32 characters or more that sign cookies; none: made once, kept in the home",
    )
    behind_proxy: bool = Field(
        False, description="a proxy is in front that sets X-Real-IP and X-Scheme, and is trusted"
    )

    @model_validator(mode="after")
    def _open_on_loopback_only(self) -> "ConsoleSettings":
        """`console.basic_auth` or OAuth is set unless `console.host` is a loopback address."""
        loopback = self.host in ("127.0.0.1", "::1", "localhost")
        if not (loopback or self.basic_auth or self.oauth_provider):
            message = (
                f"console.host {self.host} is reachable from elsewhere: set "
                f"{PREFIX}CONSOLE_BASIC_AUTH=user:password as well"
            )
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _everybody_has_one_role(self) -> "ConsoleSettings":
        operators, viewers = (
            {account.get_secret_value().partition(":")[0] for account in accounts}
            for accounts in (self.basic_auth, self.basic_auth_viewers)
        )
        if operators & viewers or set(self.oauth_operators) & set(self.oauth_viewers):
            message = "a user of the console is an operator and a viewer: keep one of the two"
            raise ValueError(message)
        if viewers and not operators:
            message = f"without {PREFIX}CONSOLE_BASIC_AUTH nobody could act: name an operator too"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _oauth_is_whole(self) -> "ConsoleSettings":
        parts = (self.oauth_key, self.oauth_secret, self.oauth_redirect_uri)
        if self.oauth_provider is None:
            if any(parts) or self.oauth_operators or self.oauth_viewers:
                message = f"OAuth needs {PREFIX}CONSOLE_OAUTH_PROVIDER"
                raise ValueError(message)
        elif not (all(parts) and self.oauth_operators):
            message = "OAuth needs oauth_key, oauth_secret, oauth_redirect_uri, oauth_operators"
            raise ValueError(message)
        elif self.basic_auth:
            message = "the console takes passwords or OAuth, not both"
            raise ValueError(message)
        return self

    @model_validator(mode="after")
    def _cookie_secret_is_long(self) -> "ConsoleSettings":
        secret = self.cookie_secret
        if secret is not None and len(secret.get_secret_value()) < _LEAST_SECRET:
            message = f"console.cookie_secret needs at least {_LEAST_SECRET} characters"
            raise ValueError(message)
        return self


class ScheduleSettings(_Group):
    """When periodic jobs run, and which beat sends them."""

    times: ScheduleTimes = Field(
        default_factory=dict,
        description="job=time; …: another time (30 3 * * *, 20s) or off, as in "
        "maintenance.vacuum=30 3 * * *; retention.run=off",
    )
    lease_s: int = Field(
        9, ge=2, le=60, description="seconds after which a silent beat is replaced by another"
    )

    def when(self, name: str) -> When | None:
        """Return the time that the settings give a job; none: they give none."""
        return self.times.get(name)


class MaintenanceSettings(_Group):
    """How the database is looked after."""

    window_minutes: int = Field(
        120, ge=1, le=1440, description="minutes that a run may start further work; then it stops"
    )
    lock_timeout_ms: int = Field(
        2000, ge=10, description="milliseconds that upkeep waits for a lock before it goes on"
    )
    vacuum_timeout_s: int = Field(
        3600, ge=1, description="seconds after which one VACUUM or REINDEX is ended"
    )
    explain_timeout_ms: int = Field(
        10_000, ge=10, description="milliseconds after which EXPLAIN (ANALYZE) is ended"
    )
    archive: Path | None = Field(
        None,
        description="folder of archived audit logs; none: the backups' store, or HOME/archive",
    )


class RetentionSettings(_Group):
    """How long things are kept: days after they ended, expired or were written."""

    sessions_days: int = Field(30, ge=1, description="sessions after they expired or were revoked")
    api_keys_days: int = Field(90, ge=1, description="API keys after they expired or were revoked")
    oauth_days: int = Field(180, ge=1, description="OAuth tokens after they expired")
    audit_days: int = Field(365, ge=1, description="audit entries before they go to the archive")
    batches_days: int = Field(90, ge=1, description="batches and their items after they ended")
    results_days: int = Field(30, ge=1, description="superseded analyses after they were made")
    dead_letters_days: int = Field(
        90, ge=1, description="dead letters after they were sent again or discarded"
    )
    open_letters_days: int = Field(
        730, ge=1, description="dead letters that nobody attended to; longer than the others"
    )
    records_days: int = Field(
        30, ge=1, description="runs of periodic jobs, snapshots of statements"
    )
    temporary_hours: int = Field(24, ge=1, description="HOURS of temporary files of ours")
    duty: float = Field(
        0.5, gt=0, le=1, description="share of the time that deletion works; the rest it waits"
    )

    @model_validator(mode="after")
    def _open_letters_outlast_closed_ones(self) -> Self:
        """`retention.open_letters_days` is more than `retention.dead_letters_days`."""
        if self.open_letters_days <= self.dead_letters_days:
            message = "open_letters_days must be more than dead_letters_days: nobody saw them yet"
            raise ValueError(message)
        return self


class LogSettings(_Group):
    """Logs."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="least level")
    format: LogFormat = Field(
        LogFormat.AUTO, description="auto (readable on a terminal, else JSON), console or json"
    )


class MetricsSettings(_Group):
    """Figures for Prometheus: the console's process reads the stores and serves what they say."""

    enabled: bool = Field(True, description="whether the console's process serves figures")
    host: str = Field(
        "127.0.0.1", min_length=1, description="address that /metrics and /healthcheck listen on"
    )
    port: int = Field(
        0, ge=0, le=65535, description="port of it; 0: a free one, which the log names"
    )
    token: SecretStr | None = Field(
        None, description="bearer token that /metrics asks for, here and of workers; none: no token"
    )
    pace_s: int = Field(
        15, ge=1, le=600, description="seconds between two readings; of backups four times as many"
    )

    def bearer(self) -> str | None:
        """Return the token as it is compared; none: no token is asked for."""
        return None if self.token is None else self.token.get_secret_value()


class TracingSettings(_Group):
    """Traces, sent by OTLP over HTTP; needs the extra `tracing`."""

    endpoint: str | None = Field(
        None,
        pattern=r"^https?://",
        description="receiver of traces (http://collector:4318); none: no traces",
    )
    headers: SecretStr | None = Field(
        None, description="name=value, … that the receiver asks for, such as a token"
    )
    share: float = Field(1.0, ge=0, le=1, description="share of the traces begun here that is sent")

    def traces_url(self) -> str:
        """Return where traces are posted to: a bare address gets the protocol's own path."""
        endpoint = (self.endpoint or "").rstrip("/")
        return endpoint if endpoint.count("/") > 2 else f"{endpoint}/v1/traces"

    def header_fields(self) -> dict[str, str]:
        """Return the headers by name."""
        text = self.headers.get_secret_value() if self.headers else ""
        pairs = (pair.partition("=") for pair in text.split(",") if pair.strip())
        return {name.strip(): value.strip() for name, _, value in pairs}


class Settings(BaseSettings):
    """The whole tree; make one with `load_settings` or `get_settings`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="_",
        env_nested_max_split=1,
        env_ignore_empty=True,
        # A whole group as JSON is no setting of ours; decoding it would fail before it is told.
        enable_decoding=False,
        frozen=True,
        extra="forbid",
    )

    home: Path = Field(
        default_factory=lambda: Path.home() / ".local" / "share" / "samplemind",
        description="directory of the embedded stack: data, logs, addresses",
    )
    postgres: PostgresSettings = PostgresSettings()
    mongo: MongoSettings = MongoSettings()
    broker: BrokerSettings = BrokerSettings()
    cache: CacheSettings = CacheSettings()
    worker: WorkerSettings = WorkerSettings()
    audio: AudioSettings = AudioSettings()
    batch: BatchSettings = BatchSettings()
    limits: LimitSettings = LimitSettings()
    search: SearchSettings = SearchSettings()
    security: SecuritySettings = SecuritySettings()
    storage: StorageSettings = StorageSettings()
    backup: BackupSettings = BackupSettings()
    console: ConsoleSettings = ConsoleSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    maintenance: MaintenanceSettings = MaintenanceSettings()
    retention: RetentionSettings = RetentionSettings()
    log: LogSettings = LogSettings()
    metrics: MetricsSettings = MetricsSettings()
    tracing: TracingSettings = TracingSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the environment, and the files that it names."""
        if isinstance(env_settings, EnvSettingsSource):
            variables = read_secret_files(env_settings.env_vars, variable_names())
            env_settings.env_vars = variables.values
        return init_settings, env_settings

    @model_validator(mode="after")
    def _limits_fit_each_other(self) -> "Settings":
        """`broker.lease_s` is at least three times `broker.lease_renewal_s`.

        `worker.soft_time_limit_s` is less than `worker.time_limit_s`. `batch.claim_s` is at least
        three times `mongo.timeout_ms`. `audio.window_s` is not more than `audio.max_duration_s`.
        """
        faults = [
            message
            for wrong, message in (
                (
                    self.broker.lease_renewal_s * 3 > self.broker.lease_s,
                    "broker.lease_s must be at least three times broker.lease_renewal_s",
                ),
                (
                    self.worker.soft_time_limit_s >= self.worker.time_limit_s,
                    "worker.soft_time_limit_s must be less than worker.time_limit_s",
                ),
                (
                    self.batch.claim_s * 1000 < self.mongo.timeout_ms * 3,
                    # So that a renewal which failed is repeated before the claim ends.
                    "batch.claim_s must be at least three times mongo.timeout_ms",
                ),
                (
                    self.audio.window_s > self.audio.max_duration_s,
                    "audio.window_s must not exceed audio.max_duration_s",
                ),
            )
            if wrong
        ]
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def url(self, store: Store) -> SecretStr | None:
        """Return the store's URL, or none where the embedded stack is to serve it."""
        group: PostgresSettings | MongoSettings | BrokerSettings | CacheSettings = getattr(
            self, store.value
        )
        return group.url

    def embedded_stores(self) -> tuple[Store, ...]:
        """Return the stores that have no URL, in the order in which they start."""
        return tuple(store for store in Store if self.url(store) is None)

    def with_urls(self, urls: dict[Store, SecretStr]) -> "Settings":
        """Return a copy in which each named store has that URL."""
        groups = {
            store.value: getattr(self, store.value).model_copy(update={"url": url})
            for store, url in urls.items()
        }
        return self.model_copy(update=groups)


def load_settings() -> Settings:
    """Read the environment.

    Raises:
        SettingsError: with one line for each wrong or unknown variable.
    """
    faults = _unknown_variables() + read_secret_files(os.environ, variable_names()).faults
    try:
        settings = Settings()
    except ValidationError as error:
        # An unknown variable is in the list already, with the name that was probably meant.
        faults += [_fault_line(fault) for fault in error.errors() if fault["type"] not in _UNKNOWN]
        raise SettingsError("\n".join(faults)) from None  # the cause would print the values
    if faults:
        raise SettingsError("\n".join(faults))
    return settings.model_copy(update={"home": settings.home.expanduser().absolute()})


@cache
def get_settings() -> Settings:
    """Return the settings with the address of every store, read once in a process.

    Raises:
        SettingsError: a variable is wrong.
        StackNotRunningError: a store has no URL and no embedded stack has left one.
    """
    settings = load_settings()
    missing = settings.embedded_stores()
    if not missing:
        return settings
    urls = read_endpoints(settings.home)
    lost = [store.value for store in missing if store not in urls]
    if lost:
        message = (
            f"no address for {', '.join(lost)}: start the embedded stack with `samplemind up`, "
            f"or set {', '.join(f'{PREFIX}{name.upper()}_URL' for name in lost)}"
        )
        raise StackNotRunningError(message)
    return settings.with_urls({store: urls[store] for store in missing})


def variable_names() -> dict[str, str]:
    """Return every environment variable's name with what it means, in the tree's order."""
    names: dict[str, str] = {}
    for name, field in Settings.model_fields.items():
        group = field.annotation
        if isinstance(group, type) and issubclass(group, BaseModel):
            for leaf, leaf_field in group.model_fields.items():
                names[f"{PREFIX}{name}_{leaf}".upper()] = leaf_field.description or ""
        else:
            names[f"{PREFIX}{name}".upper()] = field.description or ""
    return names


def _unknown_variables() -> list[str]:
    # A misspelt SAMPLEMIND_POSTGRES_URL would quietly start an embedded server instead.
    known = variable_names()
    faults = []
    for name in sorted(os.environ):
        unknown = name.upper() not in known and not names_a_file(name, known)
        if name.upper().startswith(PREFIX) and unknown:
            near = difflib.get_close_matches(name.upper(), known, n=1)
            hint = f"; did you mean {near[0]}?" if near else "; `samplemind doctor` lists them all"
            faults.append(f"{name}: no such setting{hint}")
    return faults


def _fault_line(fault: Any) -> str:
    place = [str(part) for part in fault["loc"][:2]]  # of a list's item, the list
    name = f"{PREFIX}{'_'.join(place)}".upper() if place else "settings"
    return f"{name}: {fault['msg'].removeprefix('Value error, ')}"
