"""The guarded child: a fresh process that reads one untrusted file and can do nothing else.

It is started by `samplemind.audio.isolation` with the file as its standard input. Once its code is
loaded it gives up root, caps its memory and processor time, and lowers its limit of descriptors to
none: from then on no file, socket, pipe or program can be opened, whatever the bytes make a
decoder do. It holds no secret, because its environment is empty and no memory was inherited.

It answers on standard output in messages: one byte of kind, four of length, then the payload.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import struct
import sys
from typing import Any

MESSAGE_HEAD = struct.Struct("<cI")
INFO, SAMPLES, END, REFUSED, RESULT = b"I", b"S", b"E", b"X", b"R"
WHOLE, DAMAGED = b"whole", b"damaged"
_MESSAGE_BYTES = 2**18
_SOURCE, _ANSWER = 0, 1
_NOBODY = 65_534
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38


def confine(memory_bytes: int, cpu_s: int) -> None:
    """Give up everything but computing and the descriptors that are open already."""
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_FSIZE, 0)
    _lower(resource.RLIMIT_CPU, cpu_s, cpu_s + 1)  # The first one kills with a signal of its own.
    if sys.platform == "linux":
        _lower(resource.RLIMIT_AS, memory_bytes)
    _lower(resource.RLIMIT_NOFILE, 0)
    if os.geteuid() == 0:
        _give_up_root()
    if sys.platform == "linux":  # After the change of user, which would clear the death signal.
        prctl = ctypes.CDLL(None).prctl
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _lower(limit: int, soft: int, hard: int | None = None) -> None:
    """Set a limit, or keep the one there is where that is lower already."""
    _, ceiling = resource.getrlimit(limit)
    hard = soft if hard is None else hard
    if ceiling != resource.RLIM_INFINITY:
        soft, hard = min(soft, ceiling), min(hard, ceiling)
    resource.setrlimit(limit, (soft, hard))


def _give_up_root() -> None:
    """Become nobody, since root could raise its limits again."""
    # A root without capabilities, or one that a container maps to no other user, may not change;
    # it may not raise its limits either.
    with contextlib.suppress(OSError):
        os.setgroups([])
        os.setgid(_NOBODY)
        os.setuid(_NOBODY)


def send(kind: bytes, payload: bytes | bytearray) -> None:
    """Write one message to the parent."""
    data = memoryview(MESSAGE_HEAD.pack(kind, len(payload)) + payload)
    while data:
        data = data[os.write(_ANSWER, data) :]


def send_json(kind: bytes, content: dict[str, Any]) -> None:
    """Write one message that holds JSON."""
    send(kind, json.dumps(content).encode())


def decode(demuxer: str, memory_bytes: int, cpu_s: int) -> None:
    """Answer with the decoded samples of standard input."""
    from samplemind.audio import ffmpeg

    ffmpeg.warm_up()  # Whatever is imported or read later could not be opened any more.
    confine(memory_bytes, cpu_s)
    try:
        with ffmpeg.open_ffmpeg(_SOURCE, demuxer) as sound:
            send_json(INFO, sound.info)
            gathered = bytearray()
            for chunk in sound.chunks():
                gathered += chunk
                if len(gathered) >= _MESSAGE_BYTES:
                    send(SAMPLES, gathered)
                    gathered.clear()
            send(SAMPLES, gathered)
            send(END, DAMAGED if sound.damaged else WHOLE)
    except ffmpeg.RefusedSoundError as error:
        send_json(REFUSED, {"outcome": error.reason})


def examine(limits: dict[str, Any], size_bytes: int) -> None:
    """Answer with everything that is found in standard input."""
    from samplemind.audio import examination, ffmpeg, transfer
    from samplemind.audio.guards import GuardedFile
    from samplemind.audio.limits import AudioLimits
    from samplemind.audio.outcome import AudioRejectedError

    bounds = AudioLimits(**limits)
    ffmpeg.warm_up()
    examination.warm_up()
    confine(bounds.child_memory_bytes, bounds.child_cpu_s)
    file = GuardedFile(_SOURCE, size_bytes, os.fstat(_SOURCE).st_mtime_ns)
    try:
        found = examination.examine(file, bounds, confined=True)
    except AudioRejectedError as error:
        send_json(REFUSED, {"outcome": error.outcome.value, "detail": error.detail})
    else:
        send(RESULT, transfer.dump(found))


def main() -> None:
    """Do the one task that the first argument names, in JSON."""
    task = json.loads(sys.argv[1])
    if task["do"] == "decode":
        decode(task["demuxer"], task["memory_bytes"], task["cpu_s"])
    else:
        examine(task["limits"], task["size_bytes"])
