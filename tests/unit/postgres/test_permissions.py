from samplemind.models.user import User
from samplemind.security.permissions import Permission, Role, permissions_of


def test_permissions_are_the_union_over_the_roles() -> None:
    both = permissions_of([Role.CURATOR, Role.OPERATOR])
    assert both == permissions_of([Role.CURATOR]) | permissions_of([Role.OPERATOR])
    assert permissions_of([]) == frozenset()


def test_only_an_admin_manages_users_and_reads_the_audit_log() -> None:
    for permission in (Permission.USERS_MANAGE, Permission.AUDIT_READ):
        holders = {role for role in Role if permission in permissions_of([role])}
        assert holders == {Role.ADMIN}
    assert permissions_of([Role.ADMIN]) == frozenset(Permission)


def test_the_database_knows_the_same_roles() -> None:
    (check,) = [
        constraint
        for constraint in User.__table__.constraints  # type: ignore[attr-defined]
        if constraint.name == "ck_users_roles_known"
    ]
    listed = str(check.sqltext).split("ARRAY[")[1].split("]")[0]
    assert listed == ", ".join(f"'{role.value}'" for role in Role)
