import os
import subprocess
import sys

from samplemind.audio.threads import THREAD_VARIABLES


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if name not in THREAD_VARIABLES}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=plain | environment,
        capture_output=True,
        text=True,
        check=True,
    )


def test_limits_are_set_without_loading_numpy() -> None:
    finished = run(
        "import os, sys\n"
        "from samplemind.audio.threads import THREAD_VARIABLES, limit_threads\n"
        "assert 'numpy' not in sys.modules\n"
        "assert limit_threads()\n"
        "assert 'numpy' not in sys.modules\n"
        "print([os.environ[name] for name in THREAD_VARIABLES])"
    )
    assert finished.stdout.strip() == "['1', '1', '1', '1']"
    assert finished.stderr == ""


def test_limits_that_come_too_late_are_said() -> None:
    finished = run(
        "import numpy\n"
        "from samplemind.audio.threads import limit_threads\n"
        "assert not limit_threads()"
    )
    assert "ThreadLimitWarning" in finished.stderr


def test_numpy_loaded_under_the_same_limits_is_fine() -> None:
    finished = run(
        "import numpy\nfrom samplemind.audio.threads import limit_threads\nassert limit_threads()",
        OPENBLAS_NUM_THREADS="1",
        OMP_NUM_THREADS="1",
        MKL_NUM_THREADS="1",
    )
    assert finished.stderr == ""
