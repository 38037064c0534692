import subprocess
import sys

import pytest

_PROGRAM = """
import sys
from samplemind.log import configure_logging, get_logger
from samplemind.settings import LogFormat, LogSettings

configure_logging(LogSettings(format=LogFormat(sys.argv[1])))

def sign_in():
    password = "hush-" * 2
    raise ValueError("refused")

try:
    sign_in()
except ValueError:
    get_logger("probe").exception("sign_in_failed")
"""


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_traceback_in_the_log_shows_no_local_variables(log_format):
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, log_format], capture_output=True, text=True, check=True
    )
    assert "ValueError: refused" in done.stderr
    assert "in sign_in" in done.stderr
    assert "hush-hush-" not in done.stderr
