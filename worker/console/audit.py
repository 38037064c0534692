"""What operators did, written to the audit log.

Invariant: an action is told whatever came of it. Where PostgreSQL does not answer, the same facts
are in the process's log at level ERROR, and the operator is told that the entry is missing: an
action that mends an outage is not refused for want of a log.
"""

import ipaddress
from collections.abc import Mapping
from typing import Any

from samplemind.connections.resources import Connections
from samplemind.errors import SampleMindError
from samplemind.log import get_logger
from samplemind.models.audit_log import AuditOutcome
from samplemind.repositories.audit import AuditLogRepository

_log = get_logger(__name__)


async def record(
    connections: Connections,
    action: str,
    *,
    by: str,
    resource_kind: str,
    resource_id: str | None = None,
    outcome: AuditOutcome = AuditOutcome.SUCCESS,
    address: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> bool:
    """Write an entry; return whether the audit log has it.

    Args:
        connections: to PostgreSQL.
        action: `console.verb_thing`.
        by: the user's name.
        resource_kind: what it was done to.
        resource_id: which of them.
        outcome: whether it was done, refused, or went wrong.
        address: from where.
        details: what else tells what happened; no secrets.
    """
    facts = {**(details or {}), "by": by}
    try:
        async with connections.postgres.session() as session:
            await AuditLogRepository(session).record(
                action,
                resource_kind=resource_kind,
                resource_id=resource_id,
                outcome=outcome,
                ip_address=_address(address),
                details=facts,
            )
    except SampleMindError as error:
        _log.error(
            "console_action_not_audited",
            action=action,
            by=by,
            resource_kind=resource_kind,
            resource_id=resource_id,
            outcome=outcome.value,
            error=str(error),
        )
        return False
    _log.info(
        "console_action",
        action=action,
        by=by,
        resource_kind=resource_kind,
        resource_id=resource_id,
        outcome=outcome.value,
    )
    return True


def _address(text: str | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return None if text is None else ipaddress.ip_address(text)
    except ValueError:
        return None  # a Unix socket has none
