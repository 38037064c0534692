import platform

import pytest

from samplemind.embedded.binaries import server_binary
from samplemind.embedded.libraries import library_fault, require_libraries
from samplemind.endpoints import Store

_TRACE = """\
\tlinux-vdso.so.1 (0x00007f95d0768000)
\tlibcurl.so.4 => not found
\tliblzma.so.5 => /lib/x86_64-linux-gnu/liblzma.so.5 (0x00007f95d0679000)
\tlibcrypto.so.3 => not found
\tlibssl.so.3 => not found
\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f95cfe1e000)
"""


@pytest.fixture
def system(monkeypatch):
    def become(identity: str, like: str = "") -> None:
        release = {"ID": identity, "ID_LIKE": like}
        monkeypatch.setattr(platform, "freedesktop_os_release", lambda: release)

    return become


def test_missing_libraries_give_one_line_with_the_packages_to_install(system):
    system("ubuntu", "debian")
    fault = library_fault("mongod", _TRACE)
    assert fault == (
        "mongod needs libcrypto.so.3, libcurl.so.4, libssl.so.3: apt-get install libssl3 libcurl4"
    )


def test_the_package_is_named_as_the_system_names_it(system):
    system("rocky", "rhel centos fedora")
    fault = library_fault("mongod", _TRACE)
    assert fault is not None
    assert fault.endswith("dnf install openssl-libs libcurl")


def test_an_unknown_system_is_told_both_names(system):
    system("void")
    fault = library_fault("mongod", _TRACE)
    assert fault is not None
    assert "apt-get install" in fault
    assert "dnf install" in fault


def test_an_unknown_library_is_named_all_the_same(system):
    system("debian")
    fault = library_fault("mongod", "\tlibodd.so.7 => not found\n")
    assert fault == "mongod needs libodd.so.7: install the packages that hold them"


def test_a_c_library_that_is_too_old_is_named():
    line = "mongod: /lib/libc.so.6: version `GLIBC_2.34' not found (required by mongod)"
    fault = library_fault("mongod", line)
    assert fault is not None
    assert "GLIBC_2.34" in fault


def test_a_whole_listing_is_no_fault():
    assert library_fault("mongod", "\tlibc.so.6 => /lib/libc.so.6 (0x00007f95cfe1e000)\n") is None


@pytest.mark.parametrize("store", Store)
def test_this_system_has_what_the_servers_need(store):
    require_libraries(server_binary(store))
