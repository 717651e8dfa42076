"""Loan processing: routes, time-outs, logs of instances that are evicted and replayed, and the command with a kill."""

import asyncio
import logging
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest

from durably import App, EngineOptions, Handle, OrchestrationContext
from durably.testing import DurableEnvironment
from examples.loan_processing import app as loans
from examples.loan_processing.services import open_services
from tests.examples.commands import Example


@pytest.mark.parametrize(
    ("checks", "euros", "route"),
    [
        (loans.Checks(780, 0.01, 4_000), 24_000, "approve"),
        (loans.Checks(780, 0.01, 4_000), 24_001, "underwriter"),
        (loans.Checks(699, 0.01, 4_000), 100, "underwriter"),
        (loans.Checks(499, 0.01, 4_000), 100, "decline"),
        (loans.Checks(None, 0.01, 4_000), 100, "underwriter"),
        (loans.Checks(780, 0.01, None), 100, "underwriter"),
        (loans.Checks(None, 0.51, None), 100, "decline"),
    ],
)
def test_the_rules(checks: loans.Checks, euros: int, route: str) -> None:
    assert loans.route_of(loans.Application("ann", euros), checks) == route


@pytest.mark.parametrize("answers", [True, False])
def test_an_underwriter_has_three_days(answers: bool) -> None:
    async def scenario() -> tuple[loans.Verdict, timedelta, int]:
        async with DurableEnvironment(loans.app) as env:
            for check, value in ((loans.check_credit, 640), (loans.check_fraud, 0.0)):
                env.mock_activity(check, returns=value)
            env.mock_activity(loans.check_income, raises=loans.ServiceBusyError("503"))
            bank = env.mock_activity(loans.pay_out, returns=7)
            began = env.now
            handle = await env.start(loans.process_loan, loans.Application("bob", 100))
            if answers:
                await handle.raise_event("Opinion", loans.Opinion(approves=True, by="Uma"))
            verdict = await handle.result()
            assert [call.attempt for call in env.calls(loans.check_income)] == [1, 2, 3, 4]
            return verdict, env.now - began, len(bank.calls)

    verdict, took, transfers = asyncio.run(scenario())

    attempts = timedelta(seconds=0.1 + 0.2 + 0.4)
    if answers:
        assert (verdict, took, transfers) == (loans.Verdict("bob", True, "Uma", 7), attempts, 1)
    else:
        expected = loans.Verdict("bob", False, "nobody in time")
        assert (verdict, took, transfers) == (expected, attempts + timedelta(days=3), 0)


def test_lines_of_instances_that_are_evicted_and_replayed_are_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app, amounts = App(), [100, 200, 300, 400, 500, 600]
    begun: list[int] = []
    for activity in (loans.check_credit, loans.check_fraud, loans.check_income, loans.pay_out):
        app.activity(activity)

    @app.orchestrator
    async def counted(ctx: OrchestrationContext, application: loans.Application) -> loans.Verdict:
        begun.append(application.euros)  # not replay-safe: it says how often the code began
        return await loans.process_loan(ctx, application)

    async def scenario() -> None:
        options = EngineOptions(max_resident_instances=1)
        async with app.host(f"sqlite:///{tmp_path / 'hub.db'}", options=options) as host:
            handles: list[Handle[loans.Verdict]] = []
            for euros in amounts:  # all wait for days, and there is room for one in memory
                handles.append(await host.client.start(counted, loans.Application("dan", euros)))
                while await waits_for_nobody(handles[-1]):  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.005)
            for handle in handles:
                await handle.raise_event("Opinion", loans.Opinion(approves=True, by="Uma"))
                await handle.result(timeout=20)

    async def waits_for_nobody(handle: Handle[loans.Verdict]) -> bool:
        status = await handle.status()
        return status is None or status.custom_status != "underwriter"

    caplog.set_level(logging.INFO, "durably.orchestrator")
    with open_services(tmp_path) as services:
        monkeypatch.setenv("LOANS_URL", services.url)
        asyncio.run(scenario())

    assert len(begun) > len(amounts), begun
    lines = Counter(record.getMessage() for record in caplog.records if record.name == "durably.orchestrator")
    assert lines == {f"dan asks for {euros} euros": 1 for euros in amounts} | dict.fromkeys(
        [
            "dan has credit 655.0, fraud 0.05, income 2500.0",
            "dan waits for an underwriter",
            "dan approved by Uma",
        ],
        len(amounts),
    )


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.mark.slow_once
def test_the_command_routes_each_applicant_and_asks_as_often_as_it_must(tmp_path: Path) -> None:
    out = Example("loan_processing", tmp_path).run("--patience", "0.9")

    verdicts = [line.partition(",")[0] for line in out.partition("\n\n")[2].splitlines()[:5]]
    assert verdicts == [
        "ann   approved by the rules",
        "bob   approved by Uma",
        "cleo  declined by the rules",
        "dan   declined by nobody in time",
        "eva   declined by Uma",
    ]
    asked = Counter((tmp_path / "access.log").read_text().splitlines())
    assert {line: times for line, times in asked.items() if " 503" in line} == {
        "GET /credit/ann 503": 2,
        "GET /fraud/bob 503": 1,
        "GET /income/eva 503": 4,
    }
    assert asked["POST /payouts 200"] == 2


@pytest.mark.slow_once
def test_the_command_killed_when_the_bank_has_paid_pays_once_and_logs_each_line_once(tmp_path: Path) -> None:
    example = Example("loan_processing", tmp_path)

    def bank_has_paid() -> bool:
        return example.query("bank.db", "SELECT applicant FROM payouts") == [("ann",)]

    example.kill_when(bank_has_paid, "--applicant", "ann", "--bank-time", "60")
    out = example.run("--applicant", "ann")

    assert "ann   approved by the rules, transfer 1\n" in out
    assert example.query("bank.db", "SELECT applicant, euros FROM payouts") == [("ann", 12_000)]
    assert (tmp_path / "loans.log").read_text().splitlines() == [
        "loan-ann INFO ann asks for 12000 euros",
        "loan-ann INFO ann has credit 780.0, fraud 0.01, income 4100.0",
        "loan-ann INFO ann approved by the rules",
    ]
