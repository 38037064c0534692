"""Which system libraries a server lacks, and the package that has them.

The loader itself is asked, as ldd(1) does: with LD_TRACE_LOADED_OBJECTS set it lists what it
would load and runs nothing of the program.
"""

import os
import platform
import re
import subprocess
from pathlib import Path

from samplemind.errors import MissingLibraryError

_LOADER_TIMEOUT_S = 20
_MISSING = re.compile(r"^\s*(\S+) => not found", re.MULTILINE)
_TOO_OLD = re.compile(r"version `(GLIBC\w*_[\d.]+)' not found")

# library → (Debian and Ubuntu, Fedora and its kin)
_PACKAGES = {
    "libcurl.so.4": ("libcurl4", "libcurl"),
    "libssl.so.3": ("libssl3", "openssl-libs"),
    "libcrypto.so.3": ("libssl3", "openssl-libs"),
    "liblzma.so.5": ("liblzma5", "xz-libs"),
    "libgcc_s.so.1": ("libgcc-s1", "libgcc"),
    "libz.so.1": ("zlib1g", "zlib"),
}


def require_libraries(binary: Path) -> None:
    """Check that every library that the program needs can be loaded.

    Raises:
        MissingLibraryError: one line that names what to install.
    """
    fault = library_fault(binary.name, _trace(binary))
    if fault is not None:
        raise MissingLibraryError(fault)


def library_fault(program: str, trace: str) -> str | None:
    """Return what the loader's listing lacks and how to mend it, in one line; none if whole."""
    missing = sorted(set(_MISSING.findall(trace)))
    if missing:
        return f"{program} needs {', '.join(missing)}: {_install_hint(missing)}"
    too_old = sorted(set(_TOO_OLD.findall(trace)))
    if too_old:
        return f"{program} needs a newer C library ({too_old[-1]}): use a newer system, or a URL"
    return None


def _trace(binary: Path) -> str:
    environment = {**os.environ, "LD_TRACE_LOADED_OBJECTS": "1"}
    try:
        listing = subprocess.run(
            [binary], env=environment, capture_output=True, text=True, timeout=_LOADER_TIMEOUT_S
        )
    except OSError as error:
        # Typically a system whose loader is not glibc's, such as Alpine.
        message = f"{binary.name} cannot run on this system ({error.strerror}): use a URL instead"
        raise MissingLibraryError(message) from error
    return listing.stdout + listing.stderr


def _install_hint(libraries: list[str]) -> str:
    known = [_PACKAGES[library] for library in libraries if library in _PACKAGES]
    debian = f"apt-get install {' '.join(dict.fromkeys(names[0] for names in known))}"
    fedora = f"dnf install {' '.join(dict.fromkeys(names[1] for names in known))}"
    if len(known) < len(libraries):
        return "install the packages that hold them"
    family = _system_family()
    if family & {"debian", "ubuntu"}:
        return debian
    if family & {"fedora", "rhel", "centos"}:
        return fedora
    return f"Debian and Ubuntu: {debian}; Fedora: {fedora}"


def _system_family() -> set[str]:
    try:
        release = platform.freedesktop_os_release()
    except OSError:  # a system without the file
        return set()
    return {release.get("ID", ""), *release.get("ID_LIKE", "").split()}
