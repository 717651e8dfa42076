# ruff: noqa: S608 - statements are put together from constants of this file; values are parameters
"""The functions of a hub that write: a batch, or several of one host, in one round trip; and messages from anybody.

They belong to the schema, and change with its version. There is one for each part of a batch, and each parameter is a
column of rows: a parameter that is empty costs as much as one with a row, and most batches have few parts. A statement calls
those that it needs, each with the answer of the one before as its first argument, which is what puts them in order. Most
parts have a second one, for a single row of plain values: that saves half of what a batch costs beyond a bare insert.

The statement raises when a batch does not fit, so that nothing of it is applied, and `Lane` looks whom it is about: `DUR01`,
a batch is not the next one of its partition, epoch and holder; `DUR02`, a change names an instance that is not there.
"""

from __future__ import annotations

from typing import Final, NamedTuple

FENCED: Final = "DUR01"
MISSING: Final = "DUR02"


_INSTANCE: Final = {
    "instance_id": "bytea",
    "partition": "int",
    "execution": "bigint",
    "ordinal": "bigint",
    "execution_id": "bytea",
    "name": "bytea",
    "version": "bytea",
    "status": "bytea",
    "created_at": "bigint",
    "updated_at": "bigint",
    "input": "bytea",
    "output": "bytea",
    "custom_status": "bytea",
    "failure": "bytea",
    "blocked": "bytea",
    "parked": "bytea",
    "in_flight": "boolean",
    "parent_instance_id": "bytea",
    "tags": "bytea",
    "start_at": "bigint",
    "bases": "bytea",
}
_CHANGE: Final = {
    "instance_id": "bytea",
    "status": "bytea",
    "updated_at": "bigint",
    "output": "bytea",
    "custom_status": "bytea",
    "failure": "bytea",
    "blocked": "bytea",
    "parked": "bytea",
    "in_flight": "boolean",
    "start_at": "bigint",
}
_ENTITY: Final = {
    "instance_id": "bytea",
    "partition": "int",
    "name": "bytea",
    "execution": "bigint",
    "created_at": "bigint",
    "updated_at": "bigint",
    "state": "bytea",
    "version": "bigint",
    "locked_by": "bytea",
    "rest": "bytea",
    "checksum": "bytea",
}
_EXECUTION: Final = {"partition": "int", "execution": "bigint"}
_MESSAGE: Final = {
    "message_id": "bytea",
    "partition": "int",
    "instance_id": "bytea",
    "at": "bigint",
    "body": "bytea",
}

KINDS: Final[dict[str, dict[str, str]]] = {
    "fence": {
        "partition": "int",
        "epoch": "bigint",
        "holder": "bytea",
        "number": "bigint",
        "highest": "bigint",
    },
    "removed": {"instance_id": "bytea"},
    "dropped": _EXECUTION,  # before the append, with what is removed
    "history": {**_EXECUTION, "seq": "int", "at": "bigint", "data": "bytea", "checksum": "bytea"},
    "ended": _EXECUTION,  # after the append
    "instances": _INSTANCE,
    "tags": {"instance_id": "bytea", "key": "bytea", "value": "bytea"},
    "changes": _CHANGE,
    "entities": _ENTITY,
    "entities_removed": {"instance_id": "bytea"},
    "entities_ended": _EXECUTION,
    "timers": {**_EXECUTION, "seq": "int", "kind": "int", "due_at": "bigint", "instance_id": "bytea"},
    "cleared": {**_EXECUTION, "seq": "int", "kind": "int"},
    "put": _MESSAGE,
    "consumed": {"message_id": "bytea"},
    "tombstones": {"message_id": "bytea", "partition": "int", "at": "bigint", "verdict": "bytea"},
    "forgotten": {"partition": "int", "before": "bigint"},
    "parked": {**_MESSAGE, "cause": "bytea", "parked_at": "bigint"},
    "unparked": {"message_id": "bytea"},
    "parked_dropped": {"message_id": "bytea"},
    "withdrawn": {"partition": "int", "task_id": "bytea"},
    "offered": {
        "partition": "int",
        "task_id": "bytea",
        "instance_id": "bytea",
        "name": "bytea",
        "at": "bigint",
        "body": "bytea",
    },
}
"""The parts of a batch, in the order in which they are applied: the columns of their rows, each with its type."""


class Shape(NamedTuple):
    """Which statement a batch needs.

    Attributes:
        kinds: Its parts, in order.
        single: Each of them has one row.
    """

    kinds: tuple[str, ...]
    single: bool


def statement(shape: Shape, schema: str) -> str:
    """Apply parts of batches: their columns are the parameters."""
    call, number = "0", 0
    for kind in shape.kinds:
        columns = KINDS[kind].values()
        places = range(number + 1, number + len(columns) + 1)
        if not shape.single or kind in _HAVE_ONE:
            values = (f"${place}" for place in places)
        else:  # the server makes arrays of them in no time, and the driver takes long for each array
            values = (f"ARRAY[${place}::{column}]" for place, column in zip(places, columns, strict=True))
        call, number = f"{schema}.{_name(kind, one=shape.single)}({call}, {', '.join(values)})", places[-1]
    return f"SELECT {call}"


_HAVE_ONE: Final = (
    "fence",
    "history",
    "ended",
    "instances",
    "changes",
    "entities",
    "timers",
    "cleared",
    "put",
    "consumed",
    "tombstones",
)
"""The parts with a function for a single row."""


def _name(kind: str, *, one: bool) -> str:
    return f"commit_one_{kind}_1" if one and kind in _HAVE_ONE else f"commit_{kind}_1"


# In the bodies of functions these stand for the rows, the same with their places, how many there are, and a column of all of
# them. A table `r` has the columns of the kind.
_ROWS: Final = "{rows}"
_ROWS_IN_ORDER: Final = "{rows in order}"
_COUNT: Final = "{count}"


def _among(column: str) -> str:
    return f"{{among {column}}}"


def _filled_in(kind: str, body: str, *, one: bool) -> str:
    columns = KINDS[kind]
    given = ", ".join(f"in_{kind}_{column}" for column in columns)
    names = ", ".join(columns)
    if one:
        found = {
            _ROWS: f"(VALUES ({given})) AS r ({names})",
            _ROWS_IN_ORDER: f"(VALUES ({given}, 1)) AS r ({names}, place)",
            _COUNT: "1",
        }
    else:
        found = {
            _ROWS: f"unnest({given}) AS r ({names})",
            _ROWS_IN_ORDER: f"unnest({given}) WITH ORDINALITY AS r ({names}, place)",
            _COUNT: f"cardinality(in_{kind}_{next(iter(columns))})",
        }
    found |= {
        _among(column): f"= in_{kind}_{column}" if one else f"= ANY(in_{kind}_{column})" for column in columns
    }
    for mark, text in found.items():
        body = body.replace(mark, text)
    return body


def _insert(table: str, kind: str, rest: str = "") -> str:
    names = ", ".join(KINDS[kind])
    order = ", ".join(f"r.{name}" for name in KINDS[kind])
    return f"INSERT INTO {{s}}.{table} ({names}) SELECT {order} FROM {_ROWS_IN_ORDER} ORDER BY r.place {rest}"


def _replaced(columns: dict[str, str], *keys: str) -> str:
    return ", ".join(f"{name} = excluded.{name}" for name in columns if name not in keys)


def _drop_executions(table: str) -> str:
    return f"DELETE FROM {{s}}.{table} t USING {_ROWS} WHERE t.partition = r.partition AND t.execution = r.execution"


ABSENT: Final = "NOT EXISTS (SELECT 1 FROM {s}.instances i WHERE i.instance_id = r.instance_id)"
"""Whether the instance of a message `r` is not there."""

_PUT: Final = (
    "WITH added AS (INSERT INTO {s}.inbox (message_id, partition, instance_id, at, body, absent)"
    f" SELECT r.message_id, r.partition, r.instance_id, r.at, r.body, {ABSENT} FROM "
    + _ROWS_IN_ORDER
    + " WHERE NOT EXISTS (SELECT 1 FROM {s}.tombstones t WHERE t.message_id = r.message_id)"
    " ORDER BY r.place ON CONFLICT (message_id) DO NOTHING RETURNING message_id)"
    " SELECT array_agg(message_id) INTO added_ids FROM added"
)

# An insert waits for a transaction that deletes the same message and leaves its tombstone, unseen: look again.
_UNPUT: Final = "DELETE FROM {s}.inbox i USING {s}.tombstones t WHERE i.message_id = ANY(added_ids) AND t.message_id = i.message_id"

_CHANGED: Final = ", ".join(f"{name} = r.{name}" for name in _CHANGE if name != "instance_id")

# What is acknowledged is on disk, whatever is usual on this server. Any stricter setting stays.
DURABLE: Final = """IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;"""

_PUT_PARAMETERS: Final = ", ".join(f"in_put_{name} {kind}[]" for name, kind in _MESSAGE.items())

_ADD_PUT: Final = f"""
DECLARE
    added_ids bytea[];
BEGIN
    {DURABLE}
    {_PUT};
    {_UNPUT};"""

_FENCE: Final = f"""
DECLARE
    touched integer;
BEGIN
    {DURABLE}
    UPDATE {{s}}.partitions p
        SET batch = r.number, batch_epoch = r.epoch, execution = greatest(p.execution, r.highest)
        FROM {_ROWS}
        WHERE p.id = r.partition AND p.epoch = r.epoch AND p.holder = r.holder AND p.batch = r.number - 1;
    GET DIAGNOSTICS touched = ROW_COUNT;
    IF touched <> {_COUNT} THEN
        RAISE EXCEPTION USING ERRCODE = '{FENCED}', MESSAGE = 'a batch is not the next one of its partition and epoch';
    END IF;"""

_CHANGES: Final = f"""
DECLARE
    touched integer;
BEGIN
    UPDATE {{s}}.instances i SET {_CHANGED} FROM {_ROWS} WHERE i.instance_id = r.instance_id;
    GET DIAGNOSTICS touched = ROW_COUNT;
    IF touched <> {_COUNT} THEN
        RAISE EXCEPTION USING ERRCODE = '{MISSING}', MESSAGE = 'an instance was changed that is not there';
    END IF;"""


_WITHOUT_TAGS: Final = (
    "DELETE FROM {s}.instance_tags t USING {s}.instances i"
    f" WHERE i.instance_id {_among('instance_id')} AND i.tags IS NOT NULL AND t.instance_id = i.instance_id"
)


_BODIES: Final[dict[str, str | tuple[str, ...]]] = {
    "fence": _FENCE,
    "forgotten": (
        f"DELETE FROM {{s}}.tombstones t USING {_ROWS} WHERE t.partition = r.partition AND t.at < r.before",
    ),
    "removed": (
        _WITHOUT_TAGS,
        f"DELETE FROM {{s}}.instances WHERE instance_id {_among('instance_id')}",
        f"UPDATE {{s}}.inbox SET absent = true WHERE instance_id {_among('instance_id')}",
    ),
    "dropped": (_drop_executions("history"), _drop_executions("timers")),
    "history": (_insert("history", "history"),),
    "ended": (_drop_executions("history"), _drop_executions("timers")),
    "instances": (
        _WITHOUT_TAGS,
        _insert(
            "instances",
            "instances",
            f"ON CONFLICT (instance_id) DO UPDATE SET {_replaced(_INSTANCE, 'instance_id')}",
        ),
        f"UPDATE {{s}}.inbox SET absent = false WHERE absent AND instance_id {_among('instance_id')}",
    ),
    "tags": (_insert("instance_tags", "tags"),),
    "changes": _CHANGES,
    "entities": (
        _insert(
            "entities",
            "entities",
            f"ON CONFLICT (instance_id) DO UPDATE SET {_replaced(_ENTITY, 'instance_id')}",
        ),
    ),
    "entities_removed": (f"DELETE FROM {{s}}.entities WHERE instance_id {_among('instance_id')}",),
    "entities_ended": (
        _drop_executions("history"),
        _drop_executions("timers"),
    ),
    "timers": (
        _insert(
            "timers",
            "timers",
            "ON CONFLICT (partition, execution, seq, kind)"
            " DO UPDATE SET due_at = excluded.due_at, instance_id = excluded.instance_id",
        ),
    ),
    "cleared": (
        (
            f"DELETE FROM {{s}}.timers t USING {_ROWS} WHERE t.partition = r.partition"
            " AND t.execution = r.execution AND t.seq = r.seq AND t.kind = r.kind"
        ),
    ),
    "put": _ADD_PUT,
    "consumed": (f"DELETE FROM {{s}}.inbox WHERE message_id {_among('message_id')}",),
    "tombstones": (
        _insert(
            "tombstones",
            "tombstones",
            "ON CONFLICT (message_id) DO UPDATE SET at = excluded.at, verdict = excluded.verdict",
        ),
    ),
    "parked": (
        f"DELETE FROM {{s}}.parked_messages WHERE message_id {_among('message_id')}",
        _insert("parked_messages", "parked"),
    ),
    "unparked": (
        (
            "INSERT INTO {s}.inbox (message_id, partition, instance_id, at, body, absent)"
            f" SELECT r.message_id, r.partition, r.instance_id, r.at, r.body, {ABSENT}"
            " FROM unnest(in_unparked_message_id) WITH ORDINALITY AS u (message_id, place)"
            " JOIN {s}.parked_messages r USING (message_id) ORDER BY u.place ON CONFLICT (message_id) DO NOTHING"
        ),
        f"DELETE FROM {{s}}.parked_messages WHERE message_id {_among('message_id')}",
    ),
    "parked_dropped": (f"DELETE FROM {{s}}.parked_messages WHERE message_id {_among('message_id')}",),
    # Hosts finish, claim and give back the same rows: whoever changes several locks them in the order of their key.
    "withdrawn": (
        (
            f"PERFORM 1 FROM {{s}}.tasks t JOIN {_ROWS} USING (partition, task_id)"
            " ORDER BY t.partition, t.task_id FOR UPDATE OF t"
        ),
        f"DELETE FROM {{s}}.tasks t USING {_ROWS} WHERE t.partition = r.partition AND t.task_id = r.task_id",
    ),
    "offered": (
        (
            f"INSERT INTO {{s}}.tasks ({', '.join(KINDS['offered'])}, due) SELECT r.*, clock_timestamp() FROM {_ROWS}"
            " ON CONFLICT (partition, task_id) DO UPDATE SET body = excluded.body, deliveries = 0, claimer = NULL,"
            " token = tasks.token + 1, due = excluded.due"
        ),
    ),
}
"""What the function of each part does: statements, or the beginning of a body."""


PLANNED: Final = (
    "SET plan_cache_mode TO force_generic_plan"
    " SET enable_seqscan TO off SET enable_hashjoin TO off SET enable_mergejoin TO off"
)
"""One plan for good, by the indexes: a plan for each call costs more than the rows, and one made of tables that are still
empty would read all of them when they are not."""


def _function(kind: str, *, one: bool = False) -> str:
    many = "" if one else "[]"
    parameters = ", ".join(f"in_{kind}_{column} {type_}{many}" for column, type_ in KINDS[kind].items())
    body = _BODIES[kind]
    if not isinstance(body, str):
        body = "BEGIN\n    " + "\n    ".join(f"{each};" for each in body)
    return (
        f"CREATE FUNCTION {{s}}.{_name(kind, one=one)}(so_far int, {parameters}) RETURNS int LANGUAGE plpgsql {PLANNED}"
        f" AS $body$\n{_filled_in(kind, body.strip(), one=one)}\n    RETURN so_far;\nEND $body$"
    )


_POST: Final = (
    f"CREATE FUNCTION {{s}}.post_1({_PUT_PARAMETERS}) RETURNS void LANGUAGE plpgsql {PLANNED} AS $body$"
    f"{_filled_in('put', _ADD_PUT, one=False)}\nEND $body$"
)

_OF_TASKS: Final = ("withdrawn", "offered")

FUNCTIONS: Final = (
    *(_function(kind) for kind in KINDS if kind not in _OF_TASKS),
    *(_function(kind, one=True) for kind in _HAVE_ONE),
    _POST,
)
"""The statements that make them."""

TASK_FUNCTIONS: Final = (*map(_function, _OF_TASKS),)
"""Those that make the functions about the queue of activities that all hosts share."""
