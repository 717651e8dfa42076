"""The tables and indexes of a hub, as its first migration makes them. `{s}` is filled with the schema, quoted.

FORMAT: what was released is never edited; a change is a step of its own, see `migrations`.

- All text is `bytea`, in UTF-8: PostgreSQL has no text with a zero byte, and bytes have one order.
- Payloads are compressed before they come here: they are kept as they are (`EXTERNAL`).
- There are no foreign keys: a batch names all that it deletes.
"""

from __future__ import annotations

from typing import Final

MIGRATIONS: Final = """
CREATE TABLE {s}.migrations (
    step integer PRIMARY KEY,
    version integer NOT NULL,               -- of the schema that it belongs to
    phase text NOT NULL,                    -- pre or post
    name text NOT NULL,
    begun_at timestamptz NOT NULL,
    done_at timestamptz                     -- NULL: it was cut off, or is being done
);
"""
"""What was done to the schema, see `migrations`."""

TABLES: Final = """
CREATE TABLE {s}.hub (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    hub_id bytea NOT NULL,
    partitions integer NOT NULL             -- fixed for good: ids are spread over them
);

CREATE TABLE {s}.partitions (
    id integer PRIMARY KEY,
    epoch bigint NOT NULL DEFAULT 0,        -- fencing number of the newest owner
    batch bigint NOT NULL DEFAULT 0,        -- newest batch applied
    batch_epoch bigint NOT NULL DEFAULT 0,  -- the epoch that applied it
    execution bigint NOT NULL DEFAULT 0,    -- highest execution number ever used
    held boolean NOT NULL DEFAULT false,    -- from acquire to release: true at acquire, its owner died
    owner text NOT NULL DEFAULT '',         -- for people
    holder bytea NOT NULL DEFAULT '',       -- the store object that has the lease
    lease_until timestamptz NOT NULL DEFAULT '-infinity'
) WITH (fillfactor = 25, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

CREATE TABLE {s}.history (
    partition integer NOT NULL,
    execution bigint NOT NULL,
    seq integer NOT NULL,
    at bigint NOT NULL,
    data bytea NOT NULL,
    checksum bytea NOT NULL,
    PRIMARY KEY (partition, execution, seq)
);

CREATE TABLE {s}.instances (
    instance_id bytea PRIMARY KEY,
    position bigint GENERATED ALWAYS AS IDENTITY,   -- order of creation; never given twice, page tokens rely on it
    partition integer NOT NULL,
    execution bigint NOT NULL,
    ordinal bigint NOT NULL,
    execution_id bytea NOT NULL,
    name bytea NOT NULL,
    version bytea,
    status bytea NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    input bytea,
    output bytea,
    custom_status bytea,
    failure bytea,
    blocked bytea,
    parked bytea,
    in_flight boolean NOT NULL,
    parent_instance_id bytea,
    tags bytea,
    start_at bigint,
    bases bytea
) WITH (fillfactor = 85);
CREATE INDEX instances_by_creation ON {s}.instances (created_at, position);
CREATE INDEX instances_by_name ON {s}.instances (name, created_at, position);
CREATE INDEX instances_not_completed ON {s}.instances (status, created_at, position) WHERE status <> 'Completed';
CREATE INDEX instances_in_flight ON {s}.instances (partition, execution) WHERE in_flight;
CREATE INDEX instances_stuck ON {s}.instances (created_at, position) WHERE blocked IS NOT NULL OR parked IS NOT NULL;
CREATE INDEX instances_by_parent ON {s}.instances (parent_instance_id, created_at, position)
    WHERE parent_instance_id IS NOT NULL;

CREATE TABLE {s}.instance_tags (            -- of instances with tags only
    instance_id bytea NOT NULL,
    key bytea NOT NULL,
    value bytea NOT NULL,
    PRIMARY KEY (instance_id, key)
);
CREATE INDEX instance_tags_by_value ON {s}.instance_tags (key, value, instance_id);

CREATE TABLE {s}.timers (
    partition integer NOT NULL,
    execution bigint NOT NULL,
    seq integer NOT NULL,
    kind integer NOT NULL,
    due_at bigint NOT NULL,
    instance_id bytea NOT NULL,
    PRIMARY KEY (partition, execution, seq, kind)
);
CREATE INDEX timers_due ON {s}.timers (partition, due_at);

CREATE TABLE {s}.inbox (
    message_id bytea PRIMARY KEY,
    position bigint GENERATED ALWAYS AS IDENTITY,
    partition integer NOT NULL,
    instance_id bytea NOT NULL,
    at bigint NOT NULL,
    body bytea NOT NULL,
    absent boolean NOT NULL                 -- it found no instance: mostly a start that waits for an owner
);
CREATE INDEX inbox_in_order ON {s}.inbox (partition, position);
CREATE INDEX inbox_of_instance ON {s}.inbox (instance_id, position);
CREATE INDEX inbox_absent ON {s}.inbox (at, position) WHERE absent;

CREATE TABLE {s}.tombstones (
    message_id bytea PRIMARY KEY,
    partition integer NOT NULL,
    at bigint NOT NULL,
    verdict bytea NOT NULL                  -- for the sender; empty: accepted
);
CREATE INDEX tombstones_at ON {s}.tombstones (partition, at);

CREATE TABLE {s}.parked_messages (
    message_id bytea PRIMARY KEY,
    position bigint GENERATED ALWAYS AS IDENTITY,
    partition integer NOT NULL,
    instance_id bytea NOT NULL,
    at bigint NOT NULL,
    body bytea NOT NULL,
    cause bytea NOT NULL,
    parked_at bigint NOT NULL
);
CREATE INDEX parked_in_order ON {s}.parked_messages (position);

CREATE TABLE {s}.entities (
    instance_id bytea PRIMARY KEY,   -- @name@key; also the order of pages
    partition integer NOT NULL,
    name bytea NOT NULL,
    execution bigint NOT NULL,                  -- number of its timers
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    state bytea,               -- NULL: it is locked, or waits for its time, and does not exist
    version bigint NOT NULL,
    locked_by bytea,
    rest bytea NOT NULL,
    checksum bytea NOT NULL
) WITH (fillfactor = 85);
CREATE INDEX entities_locked ON {s}.entities (instance_id) WHERE locked_by IS NOT NULL;

CREATE TABLE {s}.encryption_keys (
    key_id bytea PRIMARY KEY,
    proof bytea NOT NULL                    -- tells the key from another one under the same id; says nothing about it
);

ALTER TABLE {s}.history ALTER COLUMN data SET STORAGE EXTERNAL;
ALTER TABLE {s}.instances ALTER COLUMN input SET STORAGE EXTERNAL, ALTER COLUMN output SET STORAGE EXTERNAL,
    ALTER COLUMN custom_status SET STORAGE EXTERNAL, ALTER COLUMN failure SET STORAGE EXTERNAL;
ALTER TABLE {s}.inbox ALTER COLUMN body SET STORAGE EXTERNAL;
ALTER TABLE {s}.parked_messages ALTER COLUMN body SET STORAGE EXTERNAL;
ALTER TABLE {s}.entities ALTER COLUMN state SET STORAGE EXTERNAL, ALTER COLUMN rest SET STORAGE EXTERNAL;
"""

HOSTS: Final = """
CREATE TABLE {s}.hosts (
    host_id bytea PRIMARY KEY,              -- the store object; `holder` of its partitions
    report bytea NOT NULL,                  -- what it says of itself
    since timestamptz NOT NULL,
    seen_at timestamptz NOT NULL,
    until timestamptz NOT NULL,             -- without a word it is taken for dead then
    told_to_drain boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
"""
"""Who is there."""


def quoted(name: str) -> str:
    """An identifier as SQL takes it."""
    return '"' + name.replace('"', '""') + '"'
