import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.conftest import remove_stacks_of_killed_runs


def test_processes_that_start_together_remove_what_a_killed_run_left(tmp_path: Path) -> None:
    ended = subprocess.Popen((sys.executable, "-c", ""))
    ended.wait()
    for number in range(3):
        data = tmp_path / f"samplemind-tests-{ended.pid}-{number}" / "data"
        data.mkdir(parents=True)
        for file in range(500):
            (data / f"{file}.wt").touch()
    alive = tmp_path / f"samplemind-tests-{os.getpid()}-mine"
    alive.mkdir()

    with ThreadPoolExecutor() as pool:
        starts = [pool.submit(remove_stacks_of_killed_runs, tmp_path) for _ in range(3)]
    for start in starts:
        start.result()

    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [alive]
