"""Triggers in code: the part of an `App` that registers them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from durably.triggers.blob_function import BlobFunction, BlobFunctions
from durably.triggers.queue_function import QueueFunction, QueueFunctions
from durably.triggers.timer_function import TimerFunction, TimerFunctions

F = TypeVar("F", bound=Callable[..., Any])


class Triggerable:
    """Takes functions of queues, timers and blobs."""

    def __init__(self) -> None:
        super().__init__()
        self.queue_functions = QueueFunctions()
        self.timer_functions = TimerFunctions()
        self.blob_functions = BlobFunctions()

    def queue(
        self,
        name: str,
        /,
        *,
        connection: str | None = None,
        function_name: str | None = None,
        max_dequeue_count: int | None = None,
        visibility_timeout: timedelta | float | None = None,
        max_concurrent: int | None = None,
    ) -> Callable[[F], F]:
        """Register a function that takes the messages of a queue: on the hub, to which `Client.queue` sends, or of a broker.

        Its parameters are filled by what they are annotated with: `QueueMessage`, `Client`, outputs (`Out`), and one more
        gets the body, decoded to its type. A message is handed out until the function returns; one that failed
        `max_dequeue_count` times goes to the queue ``{name}-poison``, with its body and why. It is handed out at least
        once: what it starts with the client that it is given is started once nevertheless, and stays started when it fails
        afterwards. Messages have no order.

        A plain ``def`` runs in a thread.

        Args:
            name: The queue: 3 to 63 lower-case letters, digits and single hyphens; of a broker: what it calls it. ``%NAME%``
                stands for a setting.
            connection: The setting that holds the URL of the broker, such as ``amqp://host``; None: the hub has the queue.
            function_name: Of the function; its own by default.
            max_dequeue_count: How often a message is tried; by default ``DURABLY_QUEUE_MAX_DEQUEUE_COUNT``, 5.
            visibility_timeout: How long one that failed waits (timedelta or seconds); by default
                ``DURABLY_QUEUE_VISIBILITY_TIMEOUT_S``, not at all.
            max_concurrent: Messages that may be in the function at once, on a host; by default
                ``DURABLY_QUEUE_MAX_CONCURRENT``, 24.

        Raises:
            RegistrationError: The queue has a function, or the function cannot be one.
            InvalidTextError: The name is not usable.
        """

        def register(function: F) -> F:
            self.queue_functions.add(
                QueueFunction(
                    function,
                    name,
                    name=function_name,
                    connection=connection,
                    max_dequeue_count=max_dequeue_count,
                    visibility_timeout=visibility_timeout,
                    max_concurrent=max_concurrent,
                )
            )
            return function

        return register

    def timer(
        self,
        schedule: str,
        /,
        *,
        name: str | None = None,
        time_zone: str = "UTC",
        run_on_startup: bool = False,
        use_monitor: bool = True,
    ) -> Callable[[F], F]:
        """Register a function that runs at certain times: once for each of them, over all hosts of a hub.

        Its parameters are `TimerRequest`, `Client` and outputs (`Out`), or fewer. While it still runs when it is due again,
        that time is left out. One that raises has failed, and runs again when it is due next. A plain ``def`` runs in a
        thread.

        Behind it is the schedule ``timer:{name}``, which `client.schedules` and ``durably schedules`` show, pause, trigger.
        It outlives the function: delete it when the function is gone for good.

        Args:
            schedule: NCRONTAB ``{second} {minute} {hour} {day} {month} {day-of-week}``, or a span
                ``{hours}:{minutes}:{seconds}`` for every so often. ``%NAME%`` stands for a setting.
            name: Of the function; its own by default.
            time_zone: IANA name, of a cron expression.
            run_on_startup: Also whenever a host starts.
            use_monitor: A time at which no host ran is made up for when one starts, once, with `TimerRequest.past_due`;
                False: it is not.

        Raises:
            RegistrationError: The name is taken, or the function cannot be a timer.
            InvalidScheduleError: The schedule can never work, when a host is made.
        """

        def register(function: F) -> F:
            self.timer_functions.add(
                TimerFunction(
                    function,
                    schedule,
                    name=name,
                    time_zone=time_zone,
                    run_on_startup=run_on_startup,
                    use_monitor=use_monitor,
                )
            )
            return function

        return register

    def blob(
        self,
        path: str,
        /,
        *,
        connection: str | None = None,
        function_name: str | None = None,
        max_tries: int | None = None,
        retry_delay: timedelta | float | None = None,
        interval: timedelta | float | None = None,
        max_concurrent: int | None = None,
    ) -> Callable[[F], F]:
        """Register a function that takes the blobs of a container: each version of a blob once, over all hosts of a hub.

        Its parameters are filled by what they are annotated with: `Blob`, `Client`; parts of the path by their names; and
        one more of ``bytes`` or ``str`` gets the content. A version is handed out until the function returns; one that
        failed `max_tries` times is told of in the queue ``webjobs-blobtrigger-poison``. It is handed out at least once: what
        it starts with the client that it is given is started once nevertheless. A blob that is overwritten is a new version,
        one that is deleted triggers nothing.

        A plain ``def`` runs in a thread.

        Args:
            path: ``"container"``, ``"container/{name}.{ext}"``, ``"container/in/{customer}/{name}"``. A part may hold ``/``;
                braces that are meant are doubled; ``%NAME%`` stands for a setting.
            connection: The setting that says where the container is: ``file:///folder``, ``s3://…``, ``az://…``, or a
                connection string of Azure Storage. By default the folder ``blobs`` beside the hub, or ``DURABLY_BLOBS``.
            function_name: Of the function; its own by default. Receipts are by this name.
            max_tries: How often a version is tried; by default ``DURABLY_BLOB_MAX_TRIES``, 5.
            retry_delay: How long one that failed waits (timedelta or seconds); by default
                ``DURABLY_BLOB_RETRY_DELAY_S``, not at all.
            interval: Between two looks at the container; by default a second for a folder, ten for others.
            max_concurrent: Blobs that may be in the function at once, on a host; by default
                ``DURABLY_BLOB_MAX_CONCURRENT``, 24.

        Raises:
            RegistrationError: The name is taken, or path, connection or function cannot be one.
        """

        def register(function: F) -> F:
            self.blob_functions.add(
                BlobFunction(
                    function,
                    path,
                    name=function_name,
                    connection=connection,
                    max_tries=max_tries,
                    retry_delay=retry_delay,
                    interval=interval,
                    max_concurrent=max_concurrent,
                )
            )
            return function

        return register

    def _check_triggers(self, other: Triggerable) -> None:
        self.queue_functions.check_merge(other.queue_functions)
        self.timer_functions.check_merge(other.timer_functions)
        self.blob_functions.check_merge(other.blob_functions)

    def _merge_triggers(self, other: Triggerable) -> None:
        self.queue_functions.merge(other.queue_functions)
        self.timer_functions.merge(other.timer_functions)
        self.blob_functions.merge(other.blob_functions)
