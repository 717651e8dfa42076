"""The host that `bench.http` puts under load, in a process of its own: as `durably run` serves it, with keys and audit log.

It prints one JSON line, with its URL and a key, once it serves, and ends when stdin does, so it never outlives its parent.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from bench.hub import check_durable, hub_url
from bench.loops import run
from bench.programs import app
from durably.http_api.options import HttpOptions
from durably.security.access_keys import MANAGEMENT
from durably.security.key_file import KeyFile


async def serve(directory: Path) -> None:
    """Serve a hub in a directory."""
    async with app.host(hub_url("sqlite", directory)) as host:
        check_durable("sqlite", host.engine.store)
        options = HttpOptions(port=0)
        keys = options.keys_at(host.engine.store.url)
        key = KeyFile(keys, host.engine.clock.now).renew("system", MANAGEMENT)
        async with host.serve_http(options) as server:
            print(json.dumps({"url": server.url, "key": key}), flush=True)
            await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    run(serve(Path(sys.argv[1])), sys.argv[2])
