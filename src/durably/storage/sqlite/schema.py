"""The tables, their versions, and how a file is recognized as a hub.

FORMAT: released scripts are never edited; a change is a new script at the end of `_SCRIPTS`.
"""

from __future__ import annotations

import apsw

from durably.errors import HubNotFoundError, HubVersionError
from durably.storage.sqlite.calls import executor, pragma

APPLICATION_ID = 0x64757261
"""`PRAGMA application_id` of a hub: "dura"."""

# Text that users choose is compared byte by byte. There are no foreign keys: a batch names all that it deletes.
_VERSION_1 = """
CREATE TABLE partition (
    id INTEGER PRIMARY KEY,             -- 0: a SQLite hub has one partition
    epoch INTEGER NOT NULL,             -- fencing number of the newest owner
    batch INTEGER NOT NULL,             -- newest batch applied
    batch_epoch INTEGER NOT NULL,       -- the epoch that applied it
    execution INTEGER NOT NULL,         -- highest execution number ever used
    wake_path TEXT                      -- socket of the newest owner, see wakeup.py
);
INSERT INTO partition VALUES (0, 0, 0, 0, 0, NULL);

-- Rows lie in order of arrival, so that a batch of many executions fills few pages; the index, whose entries are short,
-- leads to them. Clustered by execution instead, each row dirtied a page of its own: measured, twice the pages and a
-- third more time for a batch of 50 executions.
CREATE TABLE history (
    execution INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    data BLOB NOT NULL,
    checksum BLOB NOT NULL
);
CREATE UNIQUE INDEX history_of_execution ON history (execution, seq);

CREATE TABLE instances (
    position INTEGER PRIMARY KEY AUTOINCREMENT,     -- order of creation; never given twice, page tokens rely on it
    instance_id TEXT NOT NULL UNIQUE,
    execution INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    execution_id TEXT NOT NULL,
    name TEXT NOT NULL,
    version TEXT,
    status TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    input BLOB,
    output BLOB,
    custom_status BLOB,
    failure BLOB,
    blocked TEXT,
    parked TEXT,
    in_flight INTEGER NOT NULL,
    parent_instance_id TEXT,
    tags BLOB,
    start_at INTEGER
);
CREATE INDEX instances_by_name ON instances (name);
-- Partial indexes stay as small as the live part of the hub. All three together cost less than can be measured here.
CREATE INDEX instances_in_flight ON instances (execution) WHERE in_flight;
CREATE INDEX instances_not_completed ON instances (status) WHERE status <> 'Completed';

CREATE TABLE timers (
    execution INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    due_at INTEGER NOT NULL,
    instance_id TEXT NOT NULL,
    PRIMARY KEY (execution, seq, kind)
) WITHOUT ROWID;
CREATE INDEX timers_due ON timers (due_at);

CREATE TABLE inbox (
    position INTEGER PRIMARY KEY AUTOINCREMENT,     -- never given twice: the owner reads what lies behind a position
    message_id TEXT NOT NULL UNIQUE,
    instance_id TEXT NOT NULL,
    at INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX inbox_instance ON inbox (instance_id);

CREATE TABLE tombstones (
    message_id TEXT PRIMARY KEY,
    at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX tombstones_at ON tombstones (at);
"""

_VERSION_2 = """
ALTER TABLE tombstones ADD COLUMN verdict BLOB NOT NULL DEFAULT x'';    -- for the sender; empty: accepted

-- Pages are in order of (created_at, position): each index ends with the position, which is the row id.
CREATE INDEX instances_by_creation ON instances (created_at);
DROP INDEX instances_by_name;
CREATE INDEX instances_by_name ON instances (name, created_at);
DROP INDEX instances_not_completed;
CREATE INDEX instances_not_completed ON instances (status, created_at) WHERE status <> 'Completed';
CREATE INDEX instances_stuck ON instances (created_at) WHERE blocked IS NOT NULL OR parked IS NOT NULL;

-- Written for instances with tags only, and by triggers, so that no writer can forget it.
CREATE TABLE instance_tags (
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (key, value, position)
) WITHOUT ROWID;
CREATE TRIGGER tags_added AFTER INSERT ON instances WHEN NEW.tags IS NOT NULL BEGIN
    INSERT INTO instance_tags SELECT key, value, NEW.position FROM json_each(CAST(NEW.tags AS TEXT)) WHERE type = 'text';
END;
CREATE TRIGGER tags_removed AFTER DELETE ON instances WHEN OLD.tags IS NOT NULL BEGIN
    DELETE FROM instance_tags WHERE position = OLD.position AND (key, value) IN
        (SELECT key, value FROM json_each(CAST(OLD.tags AS TEXT)) WHERE type = 'text');
END;
CREATE TRIGGER tags_replaced AFTER UPDATE OF tags ON instances WHEN NEW.tags IS NOT OLD.tags BEGIN
    DELETE FROM instance_tags WHERE position = OLD.position AND (key, value) IN
        (SELECT key, value FROM json_each(CAST(OLD.tags AS TEXT)) WHERE type = 'text');
    INSERT INTO instance_tags SELECT key, value, NEW.position FROM json_each(CAST(NEW.tags AS TEXT)) WHERE type = 'text';
END;
INSERT INTO instance_tags
    SELECT tag.key, tag.value, i.position FROM instances i, json_each(CAST(i.tags AS TEXT)) AS tag
    WHERE i.tags IS NOT NULL AND tag.type = 'text';
"""

_VERSION_3 = """
ALTER TABLE instances ADD COLUMN bases BLOB;    -- executions that were rewound, see InstanceRow
"""

_VERSION_4 = """
ALTER TABLE partition ADD COLUMN held INTEGER NOT NULL DEFAULT 0;   -- 1 from acquire to release: 1 at acquire, it died

CREATE TABLE parked_messages (
    position INTEGER PRIMARY KEY AUTOINCREMENT,     -- never given twice, page tokens rely on it
    message_id TEXT NOT NULL UNIQUE,
    instance_id TEXT NOT NULL,
    at INTEGER NOT NULL,
    body BLOB NOT NULL,
    cause TEXT NOT NULL,
    parked_at INTEGER NOT NULL
);
"""

_VERSION_5 = """
CREATE INDEX instances_by_parent ON instances (parent_instance_id, created_at) WHERE parent_instance_id IS NOT NULL;
-- For counts, which it answers by itself, and for pages of one orchestrator in one status.
CREATE INDEX instances_not_completed_by_name ON instances (name, status, created_at) WHERE status <> 'Completed';

-- Messages that found no instance: starts that nobody has taken in are shown among the instances, by their time. Any number of
-- others may be held; to ask for the instance of each would take 10 s for a million.
ALTER TABLE inbox ADD COLUMN absent INTEGER NOT NULL DEFAULT 0;
UPDATE inbox SET absent = 1 WHERE instance_id NOT IN (SELECT instance_id FROM instances);
CREATE INDEX inbox_absent ON inbox (at) WHERE absent;
"""

_VERSION_6 = """
ALTER TABLE partition ADD COLUMN hub_id BLOB NOT NULL DEFAULT x'';
UPDATE partition SET hub_id = randomblob(16);

CREATE TABLE encryption_keys (
    key_id TEXT PRIMARY KEY,
    proof BLOB NOT NULL                 -- tells the key from another one under the same id; says nothing about it
) WITHOUT ROWID;

-- Large payloads of instances; in their place the instance has their size, an integer. See payloads.py.
CREATE TABLE payloads (
    position INTEGER NOT NULL,          -- of the instance
    field TEXT NOT NULL,
    data BLOB NOT NULL
);
CREATE UNIQUE INDEX payloads_of_instance ON payloads (position, field);
CREATE TRIGGER payloads_removed AFTER DELETE ON instances WHEN 'integer' IN
    (typeof(OLD.input), typeof(OLD.output), typeof(OLD.custom_status), typeof(OLD.failure))
BEGIN
    DELETE FROM payloads WHERE position = OLD.position;
END;
CREATE TRIGGER payloads_replaced AFTER UPDATE OF input, output, custom_status, failure ON instances WHEN
    (typeof(OLD.input) = 'integer' AND typeof(NEW.input) <> 'integer')
    OR (typeof(OLD.output) = 'integer' AND typeof(NEW.output) <> 'integer')
    OR (typeof(OLD.custom_status) = 'integer' AND typeof(NEW.custom_status) <> 'integer')
    OR (typeof(OLD.failure) = 'integer' AND typeof(NEW.failure) <> 'integer')
BEGIN
    DELETE FROM payloads WHERE position = OLD.position AND CASE field
        WHEN 'input' THEN typeof(NEW.input) WHEN 'output' THEN typeof(NEW.output)
        WHEN 'custom_status' THEN typeof(NEW.custom_status) ELSE typeof(NEW.failure) END <> 'integer';
END;
"""

_VERSION_7 = """
CREATE TABLE entities (
    instance_id TEXT NOT NULL PRIMARY KEY,      -- @name@key; also the order of pages
    name TEXT NOT NULL,
    execution INTEGER NOT NULL,                 -- number of its timers
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    state BLOB,                                 -- NULL: it is locked, or waits for its time, and does not exist
    version INTEGER NOT NULL,
    locked_by TEXT,
    rest BLOB NOT NULL,                         -- see durably.core.entities
    checksum BLOB NOT NULL
);
CREATE INDEX entities_locked ON entities (instance_id) WHERE locked_by IS NOT NULL;
"""

_SCRIPTS = (_VERSION_1, _VERSION_2, _VERSION_3, _VERSION_4, _VERSION_5, _VERSION_6, _VERSION_7)

VERSION = len(_SCRIPTS)
"""`PRAGMA user_version` of a hub that this code reads and writes."""


def inspect(connection: apsw.Connection, path: str) -> int:
    """The version of the hub in the file, 0 when the file is empty. Writes nothing.

    Called within a transaction: another process may be creating the hub right now.

    Raises:
        HubNotFoundError: It is something else.
        HubVersionError: It was written by a newer version.
    """
    application_id: int = pragma(connection, "application_id")
    version: int = pragma(connection, "user_version")
    is_empty = not executor(connection)("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
    if application_id == 0 and version == 0 and is_empty:
        return 0
    if application_id != APPLICATION_ID:
        raise HubNotFoundError(
            f"File '{path}' is not a hub: it is a database of another program; name another file"
        )
    if version > VERSION:
        raise HubVersionError(
            f"Hub file '{path}' has schema version {version}, this durably knows up to {VERSION}; "
            "install the version of durably that wrote it, or a newer one"
        )
    return version


def scripts(version: int) -> tuple[str, ...]:
    """What a file of a version misses, in order."""
    return _SCRIPTS[version:]


def migrate(connection: apsw.Connection, path: str) -> None:
    """Bring the file to `VERSION` in one transaction; several processes may try at once."""
    execute = executor(connection)
    execute("BEGIN IMMEDIATE")
    try:
        for script in scripts(inspect(connection, path)):
            execute(script)
        pragma(connection, "application_id", APPLICATION_ID)
        pragma(connection, "user_version", VERSION)
        execute("COMMIT")
    finally:
        if connection.in_transaction:
            execute("ROLLBACK")
