"""What a process tells Prometheus: made of what is counted anyway, when it is asked.

Pure, but for the library that writes the format.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client import Metric

    from .observation import Observation

_WHO: Final = ("role", "process")  # labels of everything: ports are given out as processes start, and say nothing


class Known(NamedTuple):
    """One number that processes tell."""

    name: str
    help: str
    key: str  #: of the stats


GAUGES: Final = (
    Known("gatecrew_start_time_seconds", "When the process started, in seconds since 1970.", "started"),
    Known("gatecrew_resident_memory_bytes", "Memory of the process.", "memory"),
    Known("gatecrew_connections", "Clients of this gateway.", "connections"),
    Known("gatecrew_links", "Processes that this one is linked to.", "links"),
    Known("gatecrew_workers", "Workers that take events from this gateway.", "workers"),
    Known(
        "gatecrew_queue_events", "Events that wait for a worker (gateway), or are not handled yet (worker).", "queue"
    ),
    Known("gatecrew_pending_event_bytes", "Events that no worker has acknowledged yet.", "event_bytes"),
    Known("gatecrew_outstanding_events", "Events that are with workers.", "outstanding"),
    Known(
        "gatecrew_credit_events", "Events that the workers of this gateway would take at once, beside these.", "credit"
    ),
    Known("gatecrew_unsent_link_bytes", "Bytes on links that the other end has not acknowledged.", "unacked"),
    Known("gatecrew_running_handlers", "Handlers of this worker that have begun and not ended.", "running"),
    Known("gatecrew_pending_handshakes", "Handshakes that wait for a worker's decision.", "handshakes"),
    Known(
        "gatecrew_mirrored_clients",
        "Clients of other gateways whose close this one tells if those are lost.",
        "mirrored",
    ),
    Known("gatecrew_members", "Processes that this register knows.", "members"),
)
COUNTERS: Final = (
    Known("gatecrew_restarts_total", "Times that the supervisor started the process again.", "restarts"),
    Known("gatecrew_cpu_seconds_total", "Time that the process used a processor.", "cpu"),
    Known("gatecrew_events_total", "Events of clients: they came, said something, left.", "events"),
    Known("gatecrew_commands_total", "Messages of workers and callers: commands, acks, questions.", "commands"),
    Known("gatecrew_redelivered_total", "Events that were given to another worker.", "redelivered"),
    Known("gatecrew_misrouted_total", "Failures of the router.", "misrouted"),
    Known("gatecrew_link_sent_bytes_total", "Bytes sent to other processes.", "link.bytes_sent"),
    Known("gatecrew_link_received_bytes_total", "Bytes received from other processes.", "link.bytes_received"),
    Known("gatecrew_links_lost_total", "Links that ended.", "link.lost"),
    Known("gatecrew_links_silent_total", "Links that ended because nothing came for too long.", "link.silent"),
    Known("gatecrew_links_refused_total", "Peers that were refused.", "link.refused"),
    Known(
        "gatecrew_links_broken_total",
        "Links that ended because their connection broke: the process ended.",
        "link.broken",
    ),
    Known("gatecrew_link_unroutable_total", "Frames for a peer that was away; they are sent again.", "link.unroutable"),
    Known("gatecrew_lane_resends_total", "Times that another process asked for what got lost on the way.", "lane.gaps"),
    Known("gatecrew_clients_adopted_total", "Clients of lost gateways whose close was told here.", "clients.adopted"),
    Known(
        "gatecrew_clients_held_back_total",
        "Times that a client was too fast and not read for a while.",
        "clients.held_back",
    ),
    Known("gatecrew_commands_repeated_total", "Commands that came again and were left out.", "commands.repeated"),
    Known("gatecrew_answers_too_big_total", "Answers that were over their limit.", "answers.too_big"),
    Known("gatecrew_close_timeouts_total", "Clients that did not hang up in time.", "aborted.close_timeout"),
    Known("gatecrew_handshakes_refused_total", "Handshakes that were answered with an error.", "handshake.refused"),
    Known("gatecrew_handler_errors_total", "Handlers that failed.", "handler.errors"),
    Known("gatecrew_handler_timeouts_total", "Handlers that ran past their time limit.", "handler.timeouts"),
    Known("gatecrew_handlers_abandoned_total", "Handlers that did not even end when cancelled.", "handler.abandoned"),
    Known("gatecrew_handler_blocked_total", "Times that a handler let nothing else run.", "handler.blocked"),
    Known(
        "gatecrew_gateway_full_total", "Times that a gateway did not keep up, and its events waited.", "gateway.full"
    ),
    Known("gatecrew_gateways_fenced_total", "Gateways that were lost and turned away.", "gateways.fenced"),
    Known("gatecrew_queries_partial_total", "Questions that not all gateways answered in time.", "queries.partial"),
    Known("gatecrew_queries_refused_total", "Questions that were too many at once.", "queries.refused"),
)
#: Counters with a label: the key is what their names begin with, the label what follows.
BY_REASON: Final = (
    Known("gatecrew_closed_total", "Clients that the gateway closed, by reason.", "closed"),
    Known("gatecrew_discarded_total", "Commands and questions that were given up, by reason.", "discarded"),
    Known("gatecrew_handshake_faults_total", "Why handshakes were refused or cut off.", "handshake"),
)
HANDLERS: Final = Known("gatecrew_handler_seconds", "From the start of a handler to its end, by handler.", "")


def page(role: str, name: str, observation: Observation) -> bytes:
    """Return what Prometheus reads."""
    registry = CollectorRegistry()
    registry.register(_Collector([role, name], observation))
    return generate_latest(registry)


class _Collector(Collector):
    def __init__(self, who: list[str], observation: Observation) -> None:
        self._who = who
        self._observation = observation

    def collect(self) -> Iterator[Metric]:
        stats = self._observation.stats
        for known in GAUGES:
            if known.key in stats:
                gauge = GaugeMetricFamily(known.name, known.help, labels=_WHO)
                gauge.add_metric(self._who, stats[known.key])
                yield gauge
        for known in COUNTERS:
            if known.key in stats:
                counter = CounterMetricFamily(known.name, known.help, labels=_WHO)
                counter.add_metric(self._who, stats[known.key])
                yield counter
        told = {known.key for known in COUNTERS}
        for known in BY_REASON:
            yield self._by_reason(known, {key: stats[key] for key in stats if key not in told})
        yield self._handlers()

    def _by_reason(self, known: Known, stats: Mapping[str, Any]) -> Metric:
        counter = CounterMetricFamily(known.name, known.help, labels=[*_WHO, "reason"])
        for key, value in stats.items():
            kind, dot, reason = key.partition(".")
            if dot and kind == known.key:
                counter.add_metric([*self._who, reason], value)
        return counter

    def _handlers(self) -> Metric:
        family = HistogramMetricFamily(HANDLERS.name, HANDLERS.help, labels=[*_WHO, "handler"])
        for handler, histogram in self._observation.handlers.items():
            buckets = [
                ("+Inf" if bound == float("inf") else str(bound), count) for bound, count in histogram.cumulative()
            ]
            family.add_metric([*self._who, handler], buckets, histogram.total)
        return family
