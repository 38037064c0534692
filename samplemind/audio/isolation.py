"""The parent's side of the guarded child: start it, listen to it, and survive it.

Nothing that a child says is trusted: its messages are bounded, its words come from closed sets, and
its samples pass the same checks as any. A child that dies or is silent for too long is an error of
its own kind, and it is always gone when the block that started it ends.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samplemind.audio import child
from samplemind.audio.guards import GuardedFile
from samplemind.audio.header import Container
from samplemind.audio.limits import AudioLimits
from samplemind.audio.outcome import AudioRejectedError, Outcome
from samplemind.audio.stream import StreamInfo, check_shape
from samplemind.audio.threads import THREAD_VARIABLES
from samplemind.errors import DecoderDiedError, DecoderTimeoutError

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "from samplemind.audio.child import main; main()"
)
_MAX_MESSAGE_BYTES = 64 * 2**20
_READ_BYTES = 2**18
_PACKAGES = Path(__file__).resolve().parents[2]


class ChildChannel:
    """The messages of one running child."""

    def __init__(self, process: "subprocess.Popen[bytes]", wall_s: float) -> None:
        assert process.stdout is not None  # noqa: S101  # It was started with a pipe.
        self._process = process
        self._descriptor = process.stdout.fileno()
        self._deadline = time.monotonic() + wall_s
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)

    def receive(self) -> tuple[bytes, bytearray]:
        """Return the kind and payload of the next message.

        Raises:
            AudioRejectedError: the child refused the file, or used up its processor time.
            DecoderDiedError: the child ended or spoke nonsense.
            DecoderTimeoutError: the child said nothing within its time.
        """
        kind, length = child.MESSAGE_HEAD.unpack(self._read(child.MESSAGE_HEAD.size))
        if length > _MAX_MESSAGE_BYTES:
            raise DecoderDiedError("The decoder's answer is larger than any answer may be.")
        payload = self._read(length)
        if kind == child.REFUSED:
            raise _refusal(payload)
        return kind, payload

    def _read(self, length: int) -> bytearray:
        data = bytearray()
        while len(data) < length:
            left_s = self._deadline - time.monotonic()
            if left_s <= 0 or not self._poll.poll(left_s * 1000):
                raise DecoderTimeoutError("The decoder did not finish within its time.")
            part = os.read(self._descriptor, min(_READ_BYTES, length - len(data)))
            if not part:
                raise self._death()
            data += part
        return data

    def _death(self) -> AudioRejectedError | DecoderDiedError | DecoderTimeoutError:
        try:
            code = self._process.wait(max(0.1, self._deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return DecoderTimeoutError("The decoder closed its answer but did not end.")
        if code == -signal.SIGXCPU:
            return AudioRejectedError(Outcome.DECODER_TIMEOUT)
        return DecoderDiedError(f"The decoder process ended with code {code}.")


def _refusal(payload: bytearray) -> AudioRejectedError | DecoderDiedError:
    try:
        return AudioRejectedError(Outcome(json.loads(payload)["outcome"]))
    except (ValueError, KeyError, TypeError):
        return DecoderDiedError("The decoder refused the file in no known words.")


@contextmanager
def open_child(
    task: dict[str, Any], file: GuardedFile, limits: AudioLimits
) -> Iterator[ChildChannel]:
    """Start a guarded child on an open file, and end it with the block.

    The child is a fresh interpreter rather than a fork: a fork would inherit this process's
    connections, secrets and the locks that its other threads hold.

    Args:
        task: what `samplemind.audio.child.main` is to do.
        file: its descriptor becomes the child's standard input.
        limits: the child's wall time.
    """
    paths = [str(_PACKAGES), *(str(Path(entry).absolute()) for entry in sys.path)]
    environment = dict.fromkeys(THREAD_VARIABLES, "1")
    if "LD_LIBRARY_PATH" in os.environ:
        environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    os.lseek(file.descriptor, 0, os.SEEK_SET)
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _START, json.dumps(paths), json.dumps(task)],
        stdin=file.descriptor,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        cwd="/",
        start_new_session=True,
    )
    with process:
        try:
            yield ChildChannel(process, limits.child_wall_s)
        finally:
            process.kill()


class ChildStream:
    """A sound that a guarded child decodes; see `samplemind.audio.stream.AudioStream`."""

    def __init__(self, channel: ChildChannel, limits: AudioLimits) -> None:
        self._channel = channel
        kind, payload = channel.receive()
        if kind != child.INFO:
            raise DecoderDiedError("The decoder did not say what it decodes.")
        self._info = _parse_info(payload)
        check_shape(self._info.channels, self._info.sample_rate_hz, limits)
        self._damaged = False

    @property
    def info(self) -> StreamInfo:
        """What the child says of the sound."""
        return self._info

    @property
    def damaged(self) -> bool:
        """Whether decoding ended at an error."""
        return self._damaged

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """Yield float32 blocks of shape (frames, channels); see `AudioStream.blocks`."""
        while True:
            kind, payload = self._channel.receive()
            if kind == child.END:
                self._damaged = payload == child.DAMAGED
                return
            if kind != child.SAMPLES or len(payload) % (4 * self._info.channels):
                raise DecoderDiedError("The decoder sent something that is not samples.")
            if payload:
                yield np.frombuffer(payload, dtype=np.float32).reshape(-1, self._info.channels)


def _parse_info(payload: bytearray) -> StreamInfo:
    try:
        return StreamInfo.from_ffmpeg(json.loads(payload))
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise DecoderDiedError("The decoder did not say what it decodes.") from error


@contextmanager
def open_foreign(
    file: GuardedFile, container: Container, limits: AudioLimits
) -> Iterator[ChildStream]:
    """Open a sound that libsndfile does not read, with FFmpeg in a guarded child.

    Raises:
        AudioRejectedError: there is nothing in it that can be decoded.
        DecoderDiedError: the decoder crashed.
        DecoderTimeoutError: the decoder took too long.
    """
    task = {
        "do": "decode",
        "demuxer": container.demuxer,
        "memory_bytes": limits.child_memory_bytes,
        "cpu_s": limits.child_cpu_s,
    }
    with open_child(task, file, limits) as channel:
        yield ChildStream(channel, limits)
