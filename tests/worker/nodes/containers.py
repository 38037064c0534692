"""What pytest-celery's nodes stand on: a local process, or a container where there is Docker.

pytest-celery drives a node through Docker's container object. `ProcessContainer` has as much of its
interface as the nodes use, over a process of this machine, so the tests need no Docker. With
`SAMPLEMIND_TEST_IMAGE` naming an image of the platform, the same tests run in containers of it, in
the host's network, with this checkout and the test's directory mounted where they are.
"""

import os
import shlex
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

IMAGE_VARIABLE = "SAMPLEMIND_TEST_IMAGE"
REPOSITORY = Path(__file__).parents[3]


class ProcessContainer:
    """A local process behind the interface of a container."""

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], directory: Path
    ) -> None:
        self.name = name
        self.id = uuid4().hex
        self._command = list(command)
        self._environment = {**os.environ, **environment}
        self._log = directory / f"{name}-{self.id}.log"
        self.attrs = {
            "NetworkSettings": {"Networks": {"local": {"IPAddress": "127.0.0.1"}}, "Ports": {}},
            "HostConfig": {"PortBindings": {}},
            "Config": {
                "Hostname": "127.0.0.1",
                "Env": [f"{name}={value}" for name, value in environment.items()],
            },
        }
        self.process = self._start()

    @property
    def status(self) -> str:
        return "running" if self.process.poll() is None else "exited"

    def reload(self) -> None:
        """Nothing is cached."""

    def logs(self, **_: Any) -> bytes:
        return self._log.read_bytes()

    def kill(self, signal: str | int | None = None) -> None:
        number = _number(signal)
        if number is SIGKILL:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)
        self.process.wait(30)

    def restart(self, timeout: float = 10, **_: Any) -> None:
        self.stop(timeout)
        self.process = self._start()

    def stop(self, timeout: float = 10, **_: Any) -> None:
        """Ask it to end, and kill it if it does not."""
        if self.status != "running":
            return
        self.process.terminate()
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, SIGKILL)
            self.process.wait(10)

    def remove(self, **_: Any) -> None:
        """Kill it, if it runs."""
        if self.status == "running":
            self.kill()

    def exec_run(self, command: str | Sequence[str], **_: Any) -> tuple[int, bytes]:
        words = shlex.split(command) if isinstance(command, str) else list(command)
        done = subprocess.run(words, capture_output=True, env=self._environment, cwd=REPOSITORY)
        return done.returncode, done.stdout + done.stderr

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._command,
                cwd=REPOSITORY,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


SIGKILL = signal.SIGKILL


def _number(wanted: str | int | None) -> signal.Signals:
    if wanted is None:
        return SIGKILL
    return signal.Signals[wanted] if isinstance(wanted, str) else signal.Signals(wanted)


def start_container(
    name: str, command: Sequence[str], environment: Mapping[str, str], directory: Path
) -> Any:
    """Start a process, or a container of the image that the environment names."""
    image = os.environ.get(IMAGE_VARIABLE)
    if image is None:
        return ProcessContainer(name, command, environment, directory)
    import docker

    mounted = {str(path): {"bind": str(path), "mode": "rw"} for path in (REPOSITORY, directory)}
    return docker.from_env().containers.run(
        image,
        list(command),
        name=f"{name}-{uuid4().hex[:8]}",
        environment=dict(environment),
        network_mode="host",
        volumes=mounted,
        working_dir=str(REPOSITORY),
        detach=True,
    )
