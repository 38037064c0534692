"""What a refusal of Redis means to whoever asked."""

import pytest
from redis.exceptions import OutOfMemoryError, ResponseError

from samplemind.connections.redis import translating_errors
from samplemind.errors import PermanentError, StoreUnavailableError

_DISK = "MISCONF Errors writing to the AOF file: No space left on device"


@pytest.mark.parametrize(
    "refusal",
    [
        ResponseError(_DISK),
        ResponseError(f"{_DISK} script: on @user_script:13."),
        OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
    ],
    ids=["disk", "disk, in a script", "memory"],
)
def test_a_full_redis_is_a_reason_to_try_again(refusal):
    with pytest.raises(StoreUnavailableError), translating_errors():
        raise refusal


def test_a_wrong_command_is_none():
    with pytest.raises(PermanentError), translating_errors():
        raise ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")
