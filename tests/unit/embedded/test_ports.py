import socket

from samplemind.embedded.ports import Ports, is_free


def test_a_name_gets_its_port_of_last_time(tmp_path):
    port = Ports(tmp_path).claim("postgres")
    assert Ports(tmp_path).claim("postgres") == port
    assert Ports(tmp_path).known() == {"postgres": port}


def test_a_port_that_is_taken_is_replaced_and_the_new_one_remembered(tmp_path):
    port = Ports(tmp_path).claim("postgres")
    with socket.create_server(("127.0.0.1", port)):
        assert not is_free(port)
        other = Ports(tmp_path).claim("postgres")
    assert other != port
    assert Ports(tmp_path).known() == {"postgres": other}


def test_no_two_names_share_a_port(tmp_path):
    ports = Ports(tmp_path)
    claimed = [ports.claim(f"name{number}") for number in range(50)]
    assert len(set(claimed)) == 50


def test_ports_are_not_those_of_outgoing_connections(tmp_path):
    assert all(20_000 <= Ports(tmp_path).claim(name) < 30_000 for name in "abcdefgh")
