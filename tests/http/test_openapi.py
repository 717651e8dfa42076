"""What /api/v1 says of itself is valid, whole, and true: Schemathesis looks for a request that shows otherwise."""

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from durably.http_api.served import Served
from durably.http_api.v1 import instances
from durably.http_api.v1.openapi import Description
from durably.http_api.v1.operation import V1
from durably.http_api.v1.routes import v1_operations
from durably.http_api.v1.streams import Streams
from durably.management import Management
from tests.http.scene import flows, serving

HOOKS = Path(__file__).with_name("schemathesis_hooks.py")


def test_the_description_is_valid_and_names_every_operation(tmp_path: Path) -> None:
    async def fetched() -> tuple[dict[str, object], int]:
        async with serving(flows(), tmp_path) as scene:
            answer = await scene.http.get(f"{V1}/openapi.json", headers={"x-functions-key": scene.key})
            return answer.json(), answer.status_code

    document, status = asyncio.run(fetched())
    assert status == 200
    OpenAPIV31SpecValidator(document).validate()
    operations = v1_operations(Served(None, None, None, "orders"), Streams(1))  # type: ignore[arg-type]
    assert document == json.loads(json.dumps(Description(operations[:-1]).document))
    paths = document["paths"]
    assert isinstance(paths, dict)
    described = {
        (method.upper(), path): row["operationId"]
        for path, methods in paths.items()
        for method, row in methods.items()
    }
    assert described == {(one.method, f"{V1}{one.path}"): one.id for one in operations}


@pytest.mark.slow_once
def test_schemathesis_finds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No 5xx, answers and events as described, what is not described refused, no way in without a credential.

    What is described and refused nevertheless (an id that is reserved, a bulk operation without a filter) is left out.
    """
    original = instances._ended

    async def soon(management: Management, instance_id: str, timeout_s: float) -> None:
        await original(management, instance_id, min(timeout_s, 0.05))

    monkeypatch.setattr(instances, "_ended", soon)
    options = (
        "--phases=examples,coverage,fuzzing,stateful --checks=all --exclude-checks=positive_data_acceptance "
        "--max-examples=3 --generation-deterministic --continue-on-failure --request-timeout=20 --no-color"
    )

    async def whole() -> tuple[int | None, str]:
        async with serving(flows(), tmp_path) as scene:
            await scene.start("waits", "w")
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "schemathesis.cli",
                "run",
                f"{scene.url}{V1}/openapi.json",
                f"--header=x-functions-key: {scene.master}",
                *options.split(),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env={**os.environ, "SCHEMATHESIS_HOOKS": HOOKS.stem, "PYTHONPATH": str(HOOKS.parent)},
                cwd=tmp_path,  # it leaves notes
            )
            said, _ = await process.communicate()
            return process.returncode, said.decode()

    code, said = asyncio.run(whole())
    assert code == 0, said
    assert "Tested: 43" in said, said
