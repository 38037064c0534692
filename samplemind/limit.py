"""How much one owner may do at once."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limit:
    """What one key may do; 0 is no limit.

    Attributes:
        running: jobs at once.
        per_minute: jobs begun within any minute.
    """

    running: int = 0
    per_minute: int = 0

    @property
    def is_none(self) -> bool:
        """Whether it limits nothing."""
        return not self.running and not self.per_minute
