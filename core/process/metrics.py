"""What the processes measure, by name: one table, from which ``/metrics``, the dashboard, the documentation and the tests read.

Every process counts for itself, since its start, and reports all of it to the supervisor once a second (``core.process.control``) under the names
of this table, with labels as Prometheus writes them: ``errors_total{type="MSG",code="VALIDATION"}``. A histogram is reported as
`Histogram.report` says. To add a metric: a row here, and the place that counts. Labels must be bounded: no user ids, nothing that a
client chooses.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from core.measures import SECONDS, SIZES

#: Before every name that Prometheus sees.
PREFIX: Final = "fastchat_"


class Kind(StrEnum):
    """How a metric behaves."""

    #: Only grows, from 0 at the start of its process. Its name ends in ``_total``.
    COUNTER = "counter"
    #: A state.
    GAUGE = "gauge"
    #: How often a value fell into each of a few ranges.
    HISTOGRAM = "histogram"


class Source(StrEnum):
    """Whose metric it is: the name of the label that says which of them."""

    WORKER = "worker"
    FRONT = "front"
    #: What the supervisor sees of every process, itself included.
    PROCESS = "process"
    #: The server as a whole; no label.
    SERVER = ""


class Metric(NamedTuple):
    """A row of the table."""

    name: str
    kind: Kind
    source: Source
    help: str
    labels: tuple[str, ...] = ()
    #: Of a histogram: the upper ends of its ranges; one more has no end.
    bounds: tuple[float, ...] = ()


_TABLE: Final = (
    # -- A worker: who is there --
    Metric("connections", Kind.GAUGE, Source.WORKER, "Clients' connections, those that are closing included."),
    Metric("sessions", Kind.GAUGE, Source.WORKER, "Connections that have said HELLO."),
    Metric("users", Kind.GAUGE, Source.WORKER, "Users in memory: those connected, and those who were a moment ago."),
    Metric("online", Kind.GAUGE, Source.WORKER, "Users of the whole server whom this worker knows to be online."),
    Metric("slots", Kind.GAUGE, Source.WORKER, "Slots, of 1024, whose users live on this worker."),
    # -- A worker: what clients say --
    Metric("received_total", Kind.COUNTER, Source.WORKER, "Messages from clients, those that are refused included.", ("type",)),
    Metric("routed_total", Kind.COUNTER, Source.WORKER, "Valid MSG and TYPING, by the way to the recipient's shard.", ("type", "route")),
    Metric("deliveries_total", Kind.COUNTER, Source.WORKER, "MSG written to clients, each device and each repetition counted."),
    Metric("delivery_seconds", Kind.HISTOGRAM, Source.WORKER, "From a MSG's arrival at its sender's shard until it was written to the recipient, who was there.", ("route",), SECONDS),
    Metric("errors_total", Kind.COUNTER, Source.WORKER, "ERROR sent, by what it answers.", ("type", "code")),
    Metric("closes_total", Kind.COUNTER, Source.WORKER, "Connections closed, by whom, with which code and for which reason.", ("by", "code", "reason")),
    Metric("requests", Kind.GAUGE, Source.WORKER, "Messages, chats and histories whose outcome is not known yet."),
    Metric("unconfirmed_total", Kind.COUNTER, Source.WORKER, "Requests that no shard confirmed in time."),
    Metric("late_results_total", Kind.COUNTER, Source.WORKER, "Outcomes that came when nobody waited any more."),
    Metric("expired_total", Kind.COUNTER, Source.WORKER, "Requests from other shards that came too late."),
    # -- A worker: its event loop and what clients have not read --
    Metric("turn_seconds", Kind.HISTOGRAM, Source.WORKER, "How long a turn of the event loop took that had something to do.", (), SECONDS),
    Metric("longest_turn_seconds", Kind.GAUGE, Source.WORKER, "The longest of them in the last second: so long did somebody wait."),
    Metric("writes_total", Kind.COUNTER, Source.WORKER, "Writes to clients."),
    Metric("frames_total", Kind.COUNTER, Source.WORKER, "Frames in them."),
    Metric("outbox_bytes", Kind.GAUGE, Source.WORKER, "Bytes that wait until clients read."),
    Metric("shed_total", Kind.COUNTER, Source.WORKER, "Typing and presence held back from clients that do not keep up.", ("kind",)),
    Metric("metered_total", Kind.COUNTER, Source.WORKER, "Times that a client sent too much at once, and was read little by little."),
    Metric("slowed_total", Kind.COUNTER, Source.WORKER, "Times that a client was not read for a moment: its messages came to nothing."),
    Metric("memory_full", Kind.GAUGE, Source.WORKER, "1 while the memory ceiling is reached and new connections are refused."),
    Metric("memory_refused_total", Kind.COUNTER, Source.WORKER, "Connections refused for want of memory."),
    # -- A worker: the bus --
    Metric("bus_seconds", Kind.HISTOGRAM, Source.WORKER, "How long an envelope from another worker was on its way.", (), SECONDS),
    Metric("bus_sent_total", Kind.COUNTER, Source.WORKER, "Envelopes sent to other workers."),
    Metric("bus_records_total", Kind.COUNTER, Source.WORKER, "Records in them."),
    Metric("bus_received_total", Kind.COUNTER, Source.WORKER, "Envelopes from other workers."),
    Metric("bus_refused_total", Kind.COUNTER, Source.WORKER, "Envelopes that the bus did not take, since the way was full."),
    Metric("bus_undeliverable_total", Kind.COUNTER, Source.WORKER, "Records in them."),
    Metric("bus_errors_total", Kind.COUNTER, Source.WORKER, "Envelopes that could not be handled."),
    Metric("bus_unheard", Kind.GAUGE, Source.WORKER, "Other workers from which nothing has come since they, or this one, started."),
    Metric("endpoints_missing", Kind.GAUGE, Source.WORKER, "Sockets in the run directory that were removed and can't be opened again."),
    Metric("endpoints_reopened_total", Kind.COUNTER, Source.WORKER, "Sockets in the run directory that were removed and opened again."),
    # -- A worker: the hand-over --
    Metric("adopted_total", Kind.COUNTER, Source.WORKER, "Sockets taken over from fronts."),
    Metric("handover_truncated_total", Kind.COUNTER, Source.WORKER, "Hand-overs that came without their socket."),
    Metric("handover_pauses_total", Kind.COUNTER, Source.WORKER, "Times that nothing could be taken over, for want of descriptors."),
    # -- A worker: the store --
    Metric("commit_seconds", Kind.HISTOGRAM, Source.WORKER, "How long a commit took, the sync of the disk included.", (), SECONDS),
    Metric("commit_rows", Kind.HISTOGRAM, Source.WORKER, "Messages that were committed together.", (), SIZES),
    Metric("store_commits_total", Kind.COUNTER, Source.WORKER, "Commits."),
    Metric("store_rows_total", Kind.COUNTER, Source.WORKER, "Messages stored."),
    Metric("store_repeats_total", Kind.COUNTER, Source.WORKER, "Repeats that only the store knew."),
    Metric("store_expired_total", Kind.COUNTER, Source.WORKER, "Messages that waited too long to be stored."),
    Metric("store_purged_total", Kind.COUNTER, Source.WORKER, "Messages removed after the retention."),
    Metric("store_failures_total", Kind.COUNTER, Source.WORKER, "Transactions and reads that failed."),
    Metric("store_failing", Kind.GAUGE, Source.WORKER, "1 while the store can't write or read."),
    Metric("store_log_bytes", Kind.GAUGE, Source.WORKER, "Size of the write-ahead log; it grows while anybody reads the file for long."),
    Metric("store_waiting", Kind.GAUGE, Source.WORKER, "Writes and reads that wait for the store."),
    # -- A front --
    Metric("front_accepted_total", Kind.COUNTER, Source.FRONT, "Connections accepted."),
    Metric("front_accept_pauses_total", Kind.COUNTER, Source.FRONT, "Times that nothing could be accepted, for want of descriptors."),
    Metric("front_refused_total", Kind.COUNTER, Source.FRONT, "Requests answered with an error.", ("status",)),
    Metric("front_limited_total", Kind.COUNTER, Source.FRONT, "Connections refused since they were too many, by the limit.", ("limit",)),
    Metric("front_tokens_refused_total", Kind.COUNTER, Source.FRONT, "HELLO refused for its token, by what was wrong with it.", ("reason",)),
    Metric("front_page_requests_total", Kind.COUNTER, Source.FRONT, "Connections passed to the page server."),
    Metric("front_upgrades_total", Kind.COUNTER, Source.FRONT, "Connections upgraded to WebSocket."),
    Metric("front_closed_total", Kind.COUNTER, Source.FRONT, "Connections closed by the front after the upgrade.", ("code",)),
    Metric("front_errors_total", Kind.COUNTER, Source.FRONT, "ERROR sent before HELLO.", ("code",)),
    Metric("front_closes_received_total", Kind.COUNTER, Source.FRONT, "Connections closed by the client before HELLO."),
    Metric("front_lost_total", Kind.COUNTER, Source.FRONT, "Connections that broke while they were handed over."),
    Metric("front_gone_while_waiting_total", Kind.COUNTER, Source.FRONT, "Clients that left while they waited for a worker."),
    Metric("front_slowed_total", Kind.COUNTER, Source.FRONT, "Times that a client was not read for a moment: it sent too much before HELLO."),
    Metric("front_parked_total", Kind.COUNTER, Source.FRONT, "Times that the kernel woke the front for a connection without need."),
    Metric("front_not_read_total", Kind.COUNTER, Source.FRONT, "Answers that the client did not take."),
    Metric("front_bugs_total", Kind.COUNTER, Source.FRONT, "Connections lost to a bug."),
    Metric("front_handshakes", Kind.GAUGE, Source.FRONT, "Connections that have not sent their request yet."),
    Metric("front_lobby", Kind.GAUGE, Source.FRONT, "Connections that have not said HELLO yet."),
    Metric("front_lingering", Kind.GAUGE, Source.FRONT, "Connections that are closing."),
    Metric("front_pages", Kind.GAUGE, Source.FRONT, "Connections of the page server."),
    Metric("front_waiting", Kind.GAUGE, Source.FRONT, "Connections that wait to be handed over.", ("worker",)),
    Metric("front_in_flight", Kind.GAUGE, Source.FRONT, "Connections handed over and not confirmed yet.", ("worker",)),
    Metric("front_handed_over_total", Kind.COUNTER, Source.FRONT, "Sockets handed over to workers."),
    Metric("front_handover_shortages_total", Kind.COUNTER, Source.FRONT, "Hand-overs put off for want of the system's resources."),
    Metric("front_adopted_total", Kind.COUNTER, Source.FRONT, "Hand-overs confirmed by workers."),
    Metric("front_returned_total", Kind.COUNTER, Source.FRONT, "Hand-overs that came back, since the worker died."),
    Metric("front_handover_seconds", Kind.HISTOGRAM, Source.FRONT, "From HELLO until the worker has the socket: a client's pause.", (), SECONDS),
    # -- Every process --
    Metric("process_up", Kind.GAUGE, Source.PROCESS, "1 while the process serves, 0 while it is started again."),
    Metric("process_restarts_total", Kind.COUNTER, Source.PROCESS, "How often it was started again since the server started."),
    Metric("process_start_time_seconds", Kind.GAUGE, Source.PROCESS, "When it started, in seconds since 1970."),
    Metric("process_cpu_seconds_total", Kind.COUNTER, Source.PROCESS, "CPU time, user and system."),
    Metric("process_resident_memory_bytes", Kind.GAUGE, Source.PROCESS, "Memory in RAM."),
    Metric("process_open_fds", Kind.GAUGE, Source.PROCESS, "Open file descriptors."),
    Metric("process_max_fds", Kind.GAUGE, Source.PROCESS, "The most that it may have open."),
    # -- The server --
    Metric("ready", Kind.GAUGE, Source.SERVER, "1 while every user can be served: what /readyz says."),
    Metric("build_info", Kind.GAUGE, Source.SERVER, "Always 1.", ("version", "python", "core")),
)  # fmt: skip

#: name -> row.
METRICS: Final = {metric.name: metric for metric in _TABLE}
