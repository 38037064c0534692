"""Archives of audit entries: the proof without which no entry may be deleted.

Invariant: `verified_at` is set after the archive was read back and compared with the rows. The
database lets an entry of `audit_logs` go only if a verified archive covers its time. An archive
without `deleted_at` is one whose rows may not be gone yet.
"""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from samplemind.models.base import Base, CreatedAt, PrimaryKey


class AuditArchive(Base):
    """One object of compressed NDJSON: entries from `first_at` to `last_at`, both included."""

    __tablename__ = "audit_archives"

    id: Mapped[PrimaryKey]
    key: Mapped[str] = mapped_column(unique=True)
    sha256: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    rows: Mapped[int] = mapped_column(BigInteger)
    first_at: Mapped[datetime]
    last_at: Mapped[datetime]
    verified_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]
    created_at: Mapped[CreatedAt]

    __table_args__ = (
        CheckConstraint("last_at >= first_at", "in_order"),
        # The guard of audit_logs asks for each row whether an archive covers it.
        Index(
            "ix_audit_archives_verified",
            "first_at",
            "last_at",
            postgresql_where=text("verified_at IS NOT NULL"),
        ),
        Index(
            "ix_audit_archives_undeleted",
            "created_at",
            postgresql_where=text("deleted_at IS NULL"),
        ),
    )
