"""From one request to the next."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from durably.errors import HttpRefusedError
from durably.executors.http.hops import parsed, poll_of, redirected, retry_after_s
from durably.executors.http.policy import HttpPolicy
from durably.program.http import HttpRequest, TokenSource

KEPT = HttpPolicy().cross_origin_headers
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def post(**changes: object) -> HttpRequest:
    headers = {"authorization": "a", "accept": "b", "content-type": "text/plain", "x-mine": "c"}
    values = {"content": "body", "headers": headers, "token_source": TokenSource("t")} | changes
    return HttpRequest("POST", "https://a.test/x/y", **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "method"), [(301, "GET"), (302, "GET"), (303, "GET"), (307, "POST"), (308, "POST")]
)
def test_redirects_change_the_method_as_browsers_do(status: int, method: str) -> None:
    found = redirected(post(), status, {"location": "z"}, KEPT)
    assert found is not None
    assert (found.method, found.uri) == (method, "https://a.test/x/z")
    assert (found.content, "content-type" in found.headers) == (
        ("", False) if method == "GET" else ("body", True)
    )
    assert found.headers["authorization"] == "a"
    assert found.token_source == TokenSource("t")


def test_a_put_stays_one() -> None:
    request = HttpRequest("PUT", "https://a.test/", content="x")
    assert [
        getattr(redirected(request, s, {"location": "/"}, KEPT), "method", None) for s in (301, 302, 303, 307)
    ] == [
        "PUT",
        "PUT",
        "GET",
        "PUT",
    ]


@pytest.mark.parametrize("status", [200, 300, 304, 305, 404])
def test_other_statuses_are_no_redirects(status: int) -> None:
    assert redirected(post(), status, {"location": "z"}, KEPT) is None


@pytest.mark.parametrize(
    "elsewhere",
    ["http://a.test/x", "https://a.test:8443/", "https://b.test/", "//b.test/", "https://sub.a.test/"],
)
def test_scheme_host_and_port_make_an_origin(elsewhere: str) -> None:
    for found in (
        redirected(post(), 307, {"location": elsewhere}, KEPT),
        poll_of(post(), 202, {"location": elsewhere}, KEPT),
    ):
        assert found is not None
        assert set(found.headers) <= {"accept", "content-type"}
        assert found.token_source is None


@pytest.mark.parametrize("here", ["https://A.test:443/", "https://a.TEST", "/", "?q"])
def test_an_origin_may_be_written_in_several_ways(here: str) -> None:
    found = poll_of(post(), 202, {"location": here}, KEPT)
    assert found is not None
    assert found.headers == {"authorization": "a", "accept": "b", "x-mine": "c"}
    assert found.token_source == TokenSource("t")


@pytest.mark.parametrize(
    "uri",
    [
        "ftp://a.test/",
        "file:///etc/passwd",
        "gopher://a.test:70/",
        "http://",
        "https://user@a.test/",
        "https://user:pw@a.test/",
        "http://a.test:99999/",
        "http://a.test:0/",
        "http://[::1/",
        "http://a.test/\x00",
    ],
)
def test_what_cannot_be_called_is_refused(uri: str) -> None:
    with pytest.raises(HttpRefusedError) as raised:
        parsed(uri)
    assert "pw" not in str(raised.value).replace("passwd", "")
    if "\x00" not in uri:
        with pytest.raises(HttpRefusedError):
            redirected(post(), 302, {"location": uri}, KEPT)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 0 "}, 0.0),
        ({"retry-after": "-7"}, None),
        ({"retry-after": "7.5"}, None),
        ({"retry-after": "9" * 5000}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Sun, 01 Mar 2026 12:00:09 GMT"}, 9.0),
        ({"retry-after": "Sun, 01 Mar 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "Sun, 01 Mar 2026 08:00:09 GMT", "date": "Sun, 01 Mar 2026 08:00:00 GMT"}, 9.0),
        ({"retry-after": "Sun, 99 Mar 2026 12:00:09 GMT"}, None),
        ({"retry-after": "Sun, 01 Mar 2026 12:00:09 -0000"}, 9.0),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers, NOON) == seconds
