"""What the processes measure, by name: one table, from which ``/metrics``, the dashboard, the documentation and the tests read.

Every process counts for itself, since its start, and reports all of it to the supervisor once a second (``core.process.control``) under the names
of this table, with labels as Prometheus writes them: ``errors_total{type="MSG",code="VALIDATION"}``. A histogram is reported as
`Histogram.report` says. docs/architecture.md says how to add a metric. Labels must be bounded: no user ids, nothing that a
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
    Metric("connections", Kind.GAUGE, Source.WORKER, "Open client connections, including those that are closing."),
    Metric("sessions", Kind.GAUGE, Source.WORKER, "Connections that have sent HELLO."),
    Metric("users", Kind.GAUGE, Source.WORKER, "Users in memory: connected users, and users who disconnected a moment ago."),
    Metric("online", Kind.GAUGE, Source.WORKER, "Online users of the whole server, as this worker sees them; not to be summed over workers."),
    Metric("slots", Kind.GAUGE, Source.WORKER, "Placement slots, of 1024, that this worker owns."),
    # -- A worker: what clients say --
    Metric("received_total", Kind.COUNTER, Source.WORKER, "Messages received from clients, refused ones included, by message type.", ("type",)),
    Metric("routed_total", Kind.COUNTER, Source.WORKER, "Valid MSG and TYPING from clients, by route to the recipient's worker: local, or over the bus.", ("type", "route")),
    Metric("deliveries_total", Kind.COUNTER, Source.WORKER, "MSG frames written to recipients. Each device and each redelivery counts."),
    Metric("delivery_seconds", Kind.HISTOGRAM, Source.WORKER, "Time from the arrival of a MSG at the sender's worker to the write to a connected recipient.", ("route",), SECONDS),
    Metric("errors_total", Kind.COUNTER, Source.WORKER, "ERROR messages sent to clients, by the type of the message that caused them and by code.", ("type", "code")),
    Metric("closes_total", Kind.COUNTER, Source.WORKER, "Connections closed, by the side that closed them, close code and close reason.", ("by", "code", "reason")),
    Metric("requests", Kind.GAUGE, Source.WORKER, "Messages, chats and history requests that wait for an answer of another worker or of the store."),
    Metric("takeover_seconds", Kind.GAUGE, Source.WORKER, "Seconds in which no client was read from, when this process took the place of another one; 0 if it did not."),
    Metric("not_moved_total", Kind.COUNTER, Source.WORKER, "Connections that were closed when another process took over, since half of a frame had come."),
    Metric("sent_again_total", Kind.COUNTER, Source.WORKER, "Requests that the next process of a worker got again, since the process before it died."),
    Metric("unconfirmed_total", Kind.COUNTER, Source.WORKER, "Messages, chats and history requests that got no answer within 5 s."),
    Metric("late_results_total", Kind.COUNTER, Source.WORKER, "Answers that came after the request had timed out."),
    Metric("expired_total", Kind.COUNTER, Source.WORKER, "Requests of other workers that were dropped since their deadline had passed."),
    # -- A worker: its event loop and what clients have not read --
    Metric("turn_seconds", Kind.HISTOGRAM, Source.WORKER, "Duration of event-loop turns, idle ones excluded.", (), SECONDS),
    Metric("longest_turn_seconds", Kind.GAUGE, Source.WORKER, "Longest event-loop turn in the last second."),
    Metric("writes_total", Kind.COUNTER, Source.WORKER, "Writes to client sockets."),
    Metric("frames_total", Kind.COUNTER, Source.WORKER, "WebSocket frames written to clients; one write may have several."),
    Metric("outbox_bytes", Kind.GAUGE, Source.WORKER, "Bytes that wait to be sent since clients do not read them."),
    Metric("shed_total", Kind.COUNTER, Source.WORKER, "TYPING and PRESENCE messages dropped or merged since the client did not keep up with reading.", ("kind",)),
    Metric("metered_total", Kind.COUNTER, Source.WORKER, "Times that a client sent too much in one event-loop turn, and was read in small pieces from then on."),
    Metric("slowed_total", Kind.COUNTER, Source.WORKER, "Times that reading from a client paused since its messages were refused."),
    Metric("memory_full", Kind.GAUGE, Source.WORKER, "1 while the worker has reached its memory limit and refuses new connections."),
    Metric("drained", Kind.GAUGE, Source.WORKER, "1 while the server drains and all connections of the worker have been closed."),
    Metric("memory_refused_total", Kind.COUNTER, Source.WORKER, "Connections refused since the worker had reached its memory limit."),
    # -- A worker: the bus --
    Metric("bus_seconds", Kind.HISTOGRAM, Source.WORKER, "Transit time of envelopes from other workers.", (), SECONDS),
    Metric("bus_sent_total", Kind.COUNTER, Source.WORKER, "Envelopes sent to other workers."),
    Metric("bus_records_total", Kind.COUNTER, Source.WORKER, "Records in the envelopes sent to other workers."),
    Metric("bus_received_total", Kind.COUNTER, Source.WORKER, "Envelopes received from other workers."),
    Metric("bus_refused_total", Kind.COUNTER, Source.WORKER, "Envelopes to other workers that were dropped since the queue of the bus was full."),
    Metric("bus_undeliverable_total", Kind.COUNTER, Source.WORKER, "Records in the envelopes that were dropped since the queue of the bus was full."),
    Metric("bus_errors_total", Kind.COUNTER, Source.WORKER, "Envelopes that could not be processed."),
    Metric("bus_unheard", Kind.GAUGE, Source.WORKER, "Other workers from which no envelope has come since the later start of the two."),
    Metric("endpoints_missing", Kind.GAUGE, Source.WORKER, "Sockets in the run directory that were deleted and could not be created again."),
    Metric("endpoints_reopened_total", Kind.COUNTER, Source.WORKER, "Sockets in the run directory that were deleted and created again."),
    # -- A worker: the hand-over --
    Metric("adopted_total", Kind.COUNTER, Source.WORKER, "Client sockets received from fronts."),
    Metric("handover_truncated_total", Kind.COUNTER, Source.WORKER, "Hand-over messages that a worker received without the client's socket; the front sends them again."),
    Metric("handover_pauses_total", Kind.COUNTER, Source.WORKER, "Times that the worker stopped receiving sockets since its file descriptors had run out."),
    # -- A worker: the store --
    Metric("commit_seconds", Kind.HISTOGRAM, Source.WORKER, "Duration of commits, fsync included.", (), SECONDS),
    Metric("commit_rows", Kind.HISTOGRAM, Source.WORKER, "Messages per commit.", (), SIZES),
    Metric("store_commits_total", Kind.COUNTER, Source.WORKER, "Commits, to the commit log or to the database."),
    Metric("store_rows_total", Kind.COUNTER, Source.WORKER, "Messages stored."),
    Metric("store_repeats_total", Kind.COUNTER, Source.WORKER, "Messages sent again that were found in the database, not in memory; they were not stored again."),
    Metric("store_expired_total", Kind.COUNTER, Source.WORKER, "Messages refused since they waited too long for the database."),
    Metric("deleting_users", Kind.GAUGE, Source.WORKER, "Users who are being deleted."),
    Metric("deletions_total", Kind.COUNTER, Source.WORKER, "Users deleted by an operator while the server runs."),
    Metric("store_purged_total", Kind.COUNTER, Source.WORKER, "Messages deleted at the end of their retention."),
    Metric("store_failures_total", Kind.COUNTER, Source.WORKER, "Transactions and queries that failed."),
    Metric("store_failing", Kind.GAUGE, Source.WORKER, "1 while the database can't be written or read."),
    Metric("store_log_bytes", Kind.GAUGE, Source.WORKER, "Size of the write-ahead log. It grows while a reader keeps a transaction open."),
    Metric("store_unfolded_rows", Kind.GAUGE, Source.WORKER, "Rows in the commit log that are not yet folded into the database."),
    Metric("fold_seconds", Kind.HISTOGRAM, Source.WORKER, "Duration of the slices of folds, which move rows from the commit log into the database; commits wait meanwhile.", (), SECONDS),
    Metric("store_waiting", Kind.GAUGE, Source.WORKER, "Writes and reads that wait for the database."),
    # -- A worker: the hook --
    Metric("hook_calls_total", Kind.COUNTER, Source.WORKER, "Calls of the hook, by outcome: told (2xx), gone (410, given up at once) or failed (repeated later).", ("outcome",)),
    Metric("hook_given_up_total", Kind.COUNTER, Source.WORKER, "Chats of which the hook could not be told for a day, so that it is not tried again."),
    Metric("hook_waiting", Kind.GAUGE, Source.WORKER, "Chats of which the hook has to be told, counted every 10 s."),
    Metric("hook_oldest_seconds", Kind.GAUGE, Source.WORKER, "Age of the oldest of these chats' waiting messages that the hook has not been told of; 0 if there is none."),
    # -- A front --
    Metric("front_accepted_total", Kind.COUNTER, Source.FRONT, "Connections accepted."),
    Metric("front_accept_pauses_total", Kind.COUNTER, Source.FRONT, "Times that the front stopped accepting connections since its file descriptors had run out."),
    Metric("front_refused_total", Kind.COUNTER, Source.FRONT, "HTTP requests answered with an error, by status.", ("status",)),
    Metric("front_limited_total", Kind.COUNTER, Source.FRONT, "Connections refused by a limit on connections, by limit.", ("limit",)),
    Metric("front_tokens_refused_total", Kind.COUNTER, Source.FRONT, "HELLO messages refused since their token was missing or invalid, by reason.", ("reason",)),
    Metric("front_page_requests_total", Kind.COUNTER, Source.FRONT, "HTTP requests for the chat page and its files."),
    Metric("front_upgrades_total", Kind.COUNTER, Source.FRONT, "Connections upgraded to WebSocket."),
    Metric("front_closed_total", Kind.COUNTER, Source.FRONT, "WebSocket connections closed by the front, by close code.", ("code",)),
    Metric("front_errors_total", Kind.COUNTER, Source.FRONT, "ERROR messages sent before HELLO, by code.", ("code",)),
    Metric("front_closes_received_total", Kind.COUNTER, Source.FRONT, "WebSocket connections closed by the client before HELLO."),
    Metric("front_lost_total", Kind.COUNTER, Source.FRONT, "Connections lost since the worker ended during the hand-over."),
    Metric("front_gone_while_waiting_total", Kind.COUNTER, Source.FRONT, "Clients that disconnected while they waited for a worker."),
    Metric("front_slowed_total", Kind.COUNTER, Source.FRONT, "Times that reading from a client paused since it sent too much before HELLO."),
    Metric("front_parked_total", Kind.COUNTER, Source.FRONT, "Spurious wake-ups by the kernel for a client socket."),
    Metric("front_not_read_total", Kind.COUNTER, Source.FRONT, "Responses that did not fit in the socket since the client did not read."),
    Metric("front_bugs_total", Kind.COUNTER, Source.FRONT, "Connections closed since the front has a bug, which is logged."),
    Metric("front_handshakes", Kind.GAUGE, Source.FRONT, "Connections whose HTTP request has not arrived completely."),
    Metric("front_lobby", Kind.GAUGE, Source.FRONT, "WebSocket connections that have not sent HELLO."),
    Metric("front_lingering", Kind.GAUGE, Source.FRONT, "Connections that are closing."),
    Metric("front_pages", Kind.GAUGE, Source.FRONT, "HTTP connections for the chat page and its files."),
    Metric("front_waiting", Kind.GAUGE, Source.FRONT, "Connections that wait in the front to be handed over, by the worker that they go to.", ("worker",)),
    Metric("front_in_flight", Kind.GAUGE, Source.FRONT, "Connections handed over that their worker has not confirmed, by worker.", ("worker",)),
    Metric("front_handed_over_total", Kind.COUNTER, Source.FRONT, "Client sockets sent to workers."),
    Metric("front_handover_shortages_total", Kind.COUNTER, Source.FRONT, "Hand-overs deferred since the kernel had no memory or descriptors left for them."),
    Metric("front_adopted_total", Kind.COUNTER, Source.FRONT, "Hand-overs confirmed by workers."),
    Metric("front_returned_total", Kind.COUNTER, Source.FRONT, "Hand-overs that failed since the worker ended; the connections wait for its next process."),
    Metric("front_handover_seconds", Kind.HISTOGRAM, Source.FRONT, "Time from HELLO to the worker's confirmation that it has the connection.", (), SECONDS),
    # -- Every process --
    Metric("process_up", Kind.GAUGE, Source.PROCESS, "1 while the process serves, 0 while it is being restarted. Missing for a front that a drain has ended."),
    Metric("process_restarts_total", Kind.COUNTER, Source.PROCESS, "Restarts of the process since the server started."),
    Metric("process_replaced_total", Kind.COUNTER, Source.PROCESS, "Times that another process took the place of this one while its clients stayed connected, or that the supervisor became a new program."),
    Metric("process_hangs_total", Kind.COUNTER, Source.PROCESS, "Times that the supervisor killed the process since its event loop made no turn."),
    Metric("process_start_time_seconds", Kind.GAUGE, Source.PROCESS, "Start time of the process, in seconds since 1970."),
    Metric("process_cpu_seconds_total", Kind.COUNTER, Source.PROCESS, "User and system CPU time of the process."),
    Metric("process_resident_memory_bytes", Kind.GAUGE, Source.PROCESS, "Resident memory of the process."),
    Metric("process_open_fds", Kind.GAUGE, Source.PROCESS, "Open file descriptors of the process."),
    Metric("process_max_fds", Kind.GAUGE, Source.PROCESS, "Limit on open file descriptors of the process."),
    # -- The server --
    Metric("ready", Kind.GAUGE, Source.SERVER, "1 while every user can be served, as /readyz says."),
    Metric(
        "api_calls_total",
        Kind.COUNTER,
        Source.SERVER,
        "Calls of the server API that were answered, by call and status; `other` are paths that it does not have.",
        ("call", "status"),
    ),
    Metric("build_info", Kind.GAUGE, Source.SERVER, "Version of FastChat, of Python and of the core, as labels. The value is always 1.", ("version", "python", "core")),
)  # fmt: skip

#: name -> row.
METRICS: Final = {metric.name: metric for metric in _TABLE}
