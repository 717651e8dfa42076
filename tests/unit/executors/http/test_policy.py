"""Which addresses and ports may be called."""

from __future__ import annotations

from typing import Any

import pytest

from durably.errors import UsageError
from durably.executors.http.policy import HttpPolicy

REFUSED = [
    # this machine
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "::1",
    "::",
    # where clouds keep credentials
    "169.254.169.254",
    "fd00:ec2::254",
    "fe80::a9fe:a9fe",
    "fe80::1%eth0",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    # private
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "fc00::1",
    "fec0::1",
    # for nobody
    "224.0.0.1",
    "239.1.1.1",
    "ff02::1",
    "240.0.0.1",
    "255.255.255.255",
    "192.0.2.1",
    "198.18.0.1",
    "2001:db8::1",
    # other ways to reach those
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "2002:7f00:1::1",
    "2002:a9fe:a9fe::1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::10.0.0.1",
    "2001:0:4136:e378:8000:63bf:f5ff:fffe",
]

ALLOWED = ["8.8.8.8", "1.1.1.1", "172.32.0.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"]


@pytest.mark.parametrize("address", REFUSED)
def test_what_is_not_public_is_refused(address: str) -> None:
    assert not HttpPolicy().allows(address)


@pytest.mark.parametrize("address", ALLOWED)
def test_what_is_public_is_allowed(address: str) -> None:
    assert HttpPolicy().allows(address)


def test_networks_can_be_allowed() -> None:
    policy = HttpPolicy(allow_networks=("10.0.0.0/8", "127.0.0.1", "fd00::/8"))
    assert policy.allows("10.9.8.7")
    assert policy.allows("127.0.0.1")
    assert policy.allows("::ffff:127.0.0.1")
    assert policy.allows("fd00::7")
    assert policy.allows("8.8.8.8")
    assert not policy.allows("127.0.0.2")
    assert not policy.allows("169.254.169.254")


def test_ports() -> None:
    assert [port for port in (22, 25, 80, 443, 587, 1024, 8080) if HttpPolicy().allows_port(port)] == [
        80,
        443,
        1024,
        8080,
    ]
    assert [port for port in (80, 443, 8443) if HttpPolicy(ports=(8443,)).allows_port(port)] == [8443]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"allow_networks": ("10.0.0.1/8",)}, "has host bits set"),
        ({"allow_networks": ("internal.test",)}, "expected a network"),
        ({"allow_networks": "10.0.0.0/8"}, "expected a tuple"),
        ({"allow_networks": (10,)}, "expected text"),
        ({"ports": ("80",)}, "expected numbers"),
        ({"ports": (0,)}, "expected numbers"),
        ({"max_response_bytes": -1}, "expected a whole number"),
        ({"max_redirects": True}, "expected a whole number"),
        ({"poll_interval_s": 0}, "above 0"),
        ({"connect_timeout_s": float("nan")}, "above 0"),
    ],
)
def test_wrong_values_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        HttpPolicy(**wrong)


def test_each_setting_has_a_variable() -> None:
    environment = {
        "DURABLY_HTTP_ALLOW_NETWORKS": "10.0.0.0/8, ::1",
        "DURABLY_HTTP_PORTS": "443,8443",
        "DURABLY_HTTP_MAX_RESPONSE_BYTES": "7",
        "DURABLY_HTTP_MAX_REDIRECTS": "0",
        "DURABLY_HTTP_CONNECT_TIMEOUT_S": "2",
        "DURABLY_HTTP_POLL_INTERVAL_S": "1.5",
        "DURABLY_HTTP_CROSS_ORIGIN_HEADERS": "Accept",
        "DURABLY_HTTP__ALLOWED": "?",
    }
    assert HttpPolicy.from_environment(environment) == HttpPolicy(
        allow_networks=("10.0.0.0/8", "::1"),
        ports=(443, 8443),
        max_response_bytes=7,
        max_redirects=0,
        connect_timeout_s=2.0,
        poll_interval_s=1.5,
        cross_origin_headers=("accept",),
    )
    assert HttpPolicy.from_environment({}) == HttpPolicy()


@pytest.mark.parametrize(("name", "text"), [("PORTS", "http"), ("MAX_REDIRECTS", "ten")])
def test_a_wrong_variable_is_named(name: str, text: str) -> None:
    with pytest.raises(UsageError, match=f"DURABLY_HTTP_{name}"):
        HttpPolicy.from_environment({f"DURABLY_HTTP_{name}": text})
