import socket

import pytest

from racepool.commands.exporter.address import Names, NoAddressError, listening_socket, url_of


@pytest.mark.parametrize(
    "header", ["127.0.0.1:9724", "localhost", "LocalHost:1", "[::1]:9724", "[::1]", "monitor.example:9724"]
)
def test_request_to_loopback_or_an_allowed_name_is_admitted(header: str) -> None:
    assert Names.of("127.0.0.1", ["Monitor.example"]).admit(header)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "evil.example",
        "evil.example:9724",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "[",
        "[::2]:9724",
        "@localhost",
        "[::1]evil.example",
        "[::1",
        "[::1]:",
        "::1",
        "[localhost]",
        "[127.0.0.1]",
        "localhost:evil.example",
        "localhost:",
        "localhost:0",
        "localhost:65536",
        "localhost:999999999999999999999",
        "localhost:-1",
        "localhost:+80",
        "localhost: 80",
        "localhost:80:80",
        "localhost:\u0668\u0660",
        "user@localhost",
        "localhost.",
        "localhost%00",
        "localhost\0",
        "localhost\n",
        "localhost:80\n",
        " localhost",
        "localhost,evil.example",
        "http://localhost",
        "localhost/",
    ],
)
def test_request_to_another_name_is_not(header: str) -> None:
    assert not Names.of("127.0.0.1").admit(header)


def test_address_that_is_listened_at_is_a_name_but_all_addresses_are_none() -> None:
    assert Names.of("10.0.0.5").admit("10.0.0.5:9724")
    assert not Names.of("0.0.0.0").admit("0.0.0.0:9724")  # noqa: S104  # not bound
    assert not Names.of("").admit("")


def test_taken_port_is_an_error_that_names_it() -> None:
    with listening_socket("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(
            NoAddressError, match=rf"127\.0\.0\.1:{port} \(Address already in use\); choose another --port"
        ):
            listening_socket("127.0.0.1", port)


def test_address_of_another_machine_is_an_error() -> None:
    with pytest.raises(NoAddressError, match="--host"):
        listening_socket("192.0.2.1", 0)


@pytest.mark.parametrize(("host", "start"), [("127.0.0.1", "http://127.0.0.1:"), ("", "http://127.0.0.1:")])
def test_url_is_one_that_this_machine_can_open(host: str, start: str) -> None:
    with listening_socket(host, 0) as listening:
        assert url_of(listening) == f"{start}{listening.getsockname()[1]}/"


@pytest.mark.skipif(not socket.has_ipv6, reason="this Python has no IPv6")
def test_ipv6_address_is_bracketed() -> None:
    try:
        listening = listening_socket("[::1]", 0)
    except NoAddressError:
        pytest.skip("this machine has no IPv6 loopback")
    with listening:
        assert url_of(listening).startswith("http://[::1]:")


def test_name_that_nobody_has_is_an_error() -> None:
    with pytest.raises(NoAddressError, match=r"no\.such\.host\.invalid:0 \([A-Z].*\); choose"):
        listening_socket("no.such.host.invalid", 0)
