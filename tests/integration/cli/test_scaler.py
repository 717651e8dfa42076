"""What ``durably scaler`` refuses to begin with."""

import pytest

from tests.integration.cli.programs import Run

HUB = ("--hub", "postgresql://127.0.0.1:1/none")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--bind", "0.0.0.0:7072", *HUB), "anybody could ask what waits in the hub"),
        (("--bind", "localhost", *HUB), "expected an address and a port, such as 127.0.0.1:7072"),
        (("--tls-cert", "a.pem", *HUB), "tls_certificate and tls_key: expected both, or none"),
        (("--client-ca", "a.pem", *HUB), "client_ca is set, and tls_certificate is not"),
        (("--hub", "sqlite:///hub.db"), "is served by one process: there is nothing to scale"),
    ],
)
def test_what_cannot_be_served_is_refused(run: Run, arguments: tuple[str, ...], expected: str) -> None:
    done = run("scaler", *arguments)
    assert done.code == 2
    assert expected in done.err
