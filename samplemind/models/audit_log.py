"""The audit log: who did what to which thing, and when.

Invariant: a row that is written stays as it is. The database refuses UPDATE, DELETE and TRUNCATE
twice: by privilege, also to the owner of the table, and by trigger, also to a superuser. The
table is partitioned by month of `occurred_at` (UTC); a default partition takes what no month's
partition takes, so an entry is never lost for want of one. Old months leave whole, by detaching
their partition. Nothing refers to users by foreign key: the log outlives them.
"""

import ipaddress
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, Index, func, text
from sqlalchemy.dialects.postgresql import INET
from sqlalchemy.orm import Mapped, mapped_column

from samplemind.ids import new_id
from samplemind.models.base import Base


class ActorKind(StrEnum):
    """What acted."""

    USER = "user"
    API_KEY = "api_key"
    SYSTEM = "system"


class AuditOutcome(StrEnum):
    """How it ended."""

    SUCCESS = "success"
    DENIED = "denied"
    FAILED = "failed"


class AuditLog(Base):
    """One entry; `details` holds what the action needs to be understood, never a secret."""

    __tablename__ = "audit_logs"

    # A partitioned table's key must contain what it is partitioned by.
    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    occurred_at: Mapped[datetime] = mapped_column(primary_key=True, server_default=func.now())
    actor_kind: Mapped[str]
    actor_id: Mapped[UUID | None]
    action: Mapped[str]
    resource_kind: Mapped[str]
    resource_id: Mapped[str | None]
    outcome: Mapped[str] = mapped_column(server_default=text("'success'"))
    ip_address: Mapped[ipaddress.IPv4Address | ipaddress.IPv6Address | None] = mapped_column(INET)
    request_id: Mapped[str | None]
    details: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))

    __table_args__ = (
        CheckConstraint("actor_kind IN ('user', 'api_key', 'system')", "actor_kind_known"),
        CheckConstraint("actor_kind = 'system' OR actor_id IS NOT NULL", "actor_named"),
        CheckConstraint("outcome IN ('success', 'denied', 'failed')", "outcome_known"),
        CheckConstraint("action ~ '^[a-z_]+(\\.[a-z_]+)+$'", "action_form"),
        Index("ix_audit_logs_occurred_at", "occurred_at"),
        Index("ix_audit_logs_actor_id_occurred_at", "actor_id", "occurred_at"),
        Index("ix_audit_logs_resource_occurred_at", "resource_kind", "resource_id", "occurred_at"),
        Index("ix_audit_logs_action_occurred_at", "action", "occurred_at"),
        Index(
            "ix_audit_logs_not_successful",
            "occurred_at",
            postgresql_where=text("outcome <> 'success'"),
        ),
        Index(
            "ix_audit_logs_request_id",
            "request_id",
            postgresql_where=text("request_id IS NOT NULL"),
        ),
        Index(
            "ix_audit_logs_details",
            "details",
            postgresql_using="gin",
            postgresql_ops={"details": "jsonb_path_ops"},
        ),
        {"postgresql_partition_by": "RANGE (occurred_at)"},
    )
