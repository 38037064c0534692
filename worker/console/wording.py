"""How numbers, times and sizes are said to people."""

import re
from datetime import UTC, datetime

from tornado.escape import xhtml_escape

_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_STEPS = ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min"))
_KIB = 1024
_CODE = re.compile(r"`([^`]+)`")


def number(value: float | None) -> str:
    """Return a count with its thousands apart."""
    return "–" if value is None else f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def duration(seconds: float | None) -> str:
    """Return how long something takes: its two largest units at most."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < _MINUTE:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < _HOUR:
        return _two(seconds, _MINUTE, "min", 1, "s")
    if seconds < _DAY:
        return _two(seconds, _HOUR, "h", _MINUTE, "min")
    return _two(seconds, _DAY, "d", _HOUR, "h")


def ago(moment: datetime | None, now: datetime | None = None) -> str:
    """Return how long ago, or in what time, a moment is."""
    if moment is None:
        return "never"
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    near = abs(seconds)
    if near < 5:
        return "now"
    size, unit = next(((size, unit) for size, unit in _STEPS if near >= size), (1, "s"))
    text = f"{near / size:.0f} {unit}"
    return f"{text} ago" if seconds > 0 else f"in {text}"


def exact(moment: datetime | None) -> str:
    """Return a moment to the second, in UTC."""
    return "" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def size(size_bytes: float | None) -> str:
    """Return a size in binary units."""
    if size_bytes is None:
        return "–"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size_bytes) < _KIB:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= _KIB
    return f"{size_bytes:.1f} TiB"


def rate(per_second: float) -> str:
    """Return how many there are in a second, or in a minute or hour where that is few."""
    for seconds, unit in ((1, "s"), (_MINUTE, "min"), (_HOUR, "h")):
        if per_second * seconds >= 1:
            return f"{per_second * seconds:.1f} / {unit}"
    return "–"


def share(part: float, whole: float) -> str:
    """Return a part in percent, never 100 % of what is not whole."""
    if whole <= 0:
        return "–"
    percent = 100 * part / whole
    return f"{min(percent, 99.9) if part < whole else percent:.1f} %"


def marked(text: str) -> str:
    """Return a text as HTML, escaped, with what stands in backticks as code."""
    return _CODE.sub(r"<code>\1</code>", xhtml_escape(text))


def words(name: str) -> str:
    """Return an enumeration's value as words."""
    return name.replace("_", " ")


def _two(seconds: float, large: int, large_unit: str, small: int, small_unit: str) -> str:
    whole, rest = divmod(round(seconds), large)
    less = rest // small
    return f"{whole} {large_unit} {less} {small_unit}" if less else f"{whole} {large_unit}"
