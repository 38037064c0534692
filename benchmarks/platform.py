"""The whole platform in a home of its own, for benchmarks that need it running."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from samplemind.endpoints import read_endpoints
from samplemind.settings import Settings, load_settings

_COMMAND = Path(sys.executable).with_name("samplemind")


@contextmanager
def temporary_home() -> Iterator[Path]:
    """Yield a new home; whatever runs in it is stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="samplemind-bench-") as name:
        home = Path(name)
        home.chmod(0o711)  # as root, PostgreSQL runs as another account, which must get in
        try:
            yield home
        finally:
            samplemind("down", home=home)


def samplemind(*arguments: str, home: Path, settings: Mapping[str, str] | None = None) -> float:
    """Run a command and return how many seconds it took; its failure fails the benchmark."""
    started = time.perf_counter()
    subprocess.run(
        [_COMMAND, *arguments],
        env={**_environment(home), **(settings or {})},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    return time.perf_counter() - started


def ask(*arguments: str, home: Path, code: int | None = 0) -> Any:
    """Run a command with --json and return what it printed; None: whatever its exit code."""
    done = subprocess.run(
        [_COMMAND, *arguments, "--json"], env=_environment(home), capture_output=True, check=False
    )
    if code is not None and done.returncode != code:
        raise subprocess.CalledProcessError(done.returncode, arguments, done.stdout, done.stderr)
    return json.loads(done.stdout)


def settings_of(home: Path) -> Settings:
    """Return the settings with the addresses of what runs in `home`."""
    return load_settings().model_copy(update={"home": home}).with_urls(read_endpoints(home))


def _environment(home: Path) -> Mapping[str, str]:
    return {**os.environ, "SAMPLEMIND_HOME": str(home), "SAMPLEMIND_LOG_LEVEL": "WARNING"}
