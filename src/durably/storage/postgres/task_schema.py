# ruff: noqa: S608 - statements are put together from constants of this package; values are bound
"""The queue of activities that all hosts share: its table, and the functions of those who run them.

What the owner of a partition offers and withdraws is a part of its batches, see `commit_function`. A row may be claimed from
`due` on: a new one at once, a claimed one when the claim has run out. So one index finds both. Whoever changes several rows
locks them in the order of their key, or leaves locked ones out: nobody waits in a circle.
"""

from __future__ import annotations

from typing import Final

from durably.storage.postgres.commit_function import ABSENT, DURABLE, PLANNED

TASKS: Final = """
CREATE TABLE {s}.tasks (
    partition integer NOT NULL,
    task_id bytea NOT NULL,
    instance_id bytea NOT NULL,
    name bytea NOT NULL,
    at bigint NOT NULL,
    body bytea NOT NULL,
    deliveries integer NOT NULL DEFAULT 0,  -- claims that were neither finished nor given back
    token bigint NOT NULL DEFAULT 0,        -- of the newest claim
    claimer bytea,                          -- the store object that has it
    due timestamptz NOT NULL,               -- from then on it may be claimed
    PRIMARY KEY (partition, task_id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
CREATE INDEX tasks_due ON {s}.tasks (name, deliveries, due);
CREATE INDEX tasks_claimed ON {s}.tasks (claimer) WHERE claimer IS NOT NULL;
ALTER TABLE {s}.tasks ALTER COLUMN body SET STORAGE EXTERNAL;
"""
"""The table. It is no part of a dump: what has no row is offered again by whoever loads the partition."""

_TAKE: Final = """
    UPDATE {s}.tasks t SET claimer = me, token = t.token + 1, deliveries = t.deliveries + 1,
        due = clock_timestamp() + make_interval(secs => lease_s)
    FROM found f WHERE t.partition = f.partition AND t.task_id = f.task_id
    RETURNING t.*;
END $body$;
"""

_CLAIM: Final = f"""
CREATE FUNCTION {{s}}.claim_1(me bytea, lease_s double precision, names bytea[], most bigint[], all_most bigint)
RETURNS SETOF {{s}}.tasks LANGUAGE plpgsql {PLANNED} AS $body$
BEGIN
    {DURABLE}
    RETURN QUERY
    WITH found AS MATERIALIZED (
        SELECT r.partition, r.task_id
        FROM unnest(names, most) WITH ORDINALITY AS w (name, most, place), LATERAL (
            SELECT t.partition, t.task_id FROM {{s}}.tasks t
            WHERE t.name = w.name AND t.deliveries = 0 AND t.due <= now()
            ORDER BY t.due LIMIT w.most FOR UPDATE OF t SKIP LOCKED
        ) r LIMIT all_most
    ){_TAKE}"""

_CLAIM_INTERRUPTED: Final = f"""
CREATE FUNCTION {{s}}.claim_interrupted_1(me bytea, lease_s double precision, names bytea[], rooms bigint[])
RETURNS SETOF {{s}}.tasks LANGUAGE plpgsql {PLANNED} AS $body$
DECLARE
    deaths integer;
BEGIN
    {DURABLE}
    SELECT max(t.deliveries) INTO deaths FROM {{s}}.tasks t
        WHERE t.name = ANY(names) AND t.deliveries > 0 AND t.due <= now()
        AND t.claimer IS DISTINCT FROM me;
    RETURN QUERY
    WITH found AS MATERIALIZED (
        SELECT t.partition, t.task_id FROM {{s}}.tasks t
        WHERE t.name = ANY(names) AND t.deliveries = deaths AND t.due <= now()
            AND t.claimer IS DISTINCT FROM me
        ORDER BY t.due LIMIT rooms[least(deaths, cardinality(rooms))] FOR UPDATE OF t SKIP LOCKED
    ){_TAKE}"""

RESULT: Final = {
    "partition": "int",
    "task_id": "bytea",
    "token": "bigint",
    "message_id": "bytea",
    "instance_id": "bytea",
    "at": "bigint",
    "body": "bytea",
}
"""The parameters of `finish_1`, behind the store object that asks."""

_RESULTS: Final = f"unnest({', '.join(f'in_{name}' for name in RESULT)}) AS r ({', '.join(RESULT)})"

_FINISH: Final = f"""
CREATE FUNCTION {{s}}.finish_1(me bytea, {", ".join(f"in_{name} {kind}[]" for name, kind in RESULT.items())})
RETURNS SETOF bytea LANGUAGE plpgsql {PLANNED} AS $body$
BEGIN
    {DURABLE}
    PERFORM 1 FROM {{s}}.tasks t JOIN {_RESULTS} USING (partition, task_id)
        ORDER BY t.partition, t.task_id FOR UPDATE OF t;
    RETURN QUERY
    WITH done AS (
        DELETE FROM {{s}}.tasks t USING {_RESULTS}
        WHERE t.partition = r.partition AND t.task_id = r.task_id AND t.token = r.token AND t.claimer = me
        RETURNING r.*
    ), told AS (
        INSERT INTO {{s}}.inbox (message_id, partition, instance_id, at, body, absent)
        SELECT r.message_id, r.partition, r.instance_id, r.at, r.body, {ABSENT} FROM done r
        ON CONFLICT (message_id) DO NOTHING
    )
    SELECT done.task_id FROM done;
END $body$;
"""

FUNCTIONS: Final = (_CLAIM, _CLAIM_INTERRUPTED, _FINISH)
"""The statements that make them."""
