"""Every metric by name: what is listed here is what `/metrics` has, and names and labels stay as they are.

docs/reference/metrics.md is made from these tables. Units are those of Prometheus: seconds, bytes, ratios from 0 to 1.
What cannot be read has no sample; it is never 0.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from msgspec import Struct

OTHER = "_other"  # stands for all that came after a bound was reached

# The suffix ("", "_bucket", "_sum" or "_count"), the values of the labels ("le" of a bucket last), the value.
Sample = tuple[str, tuple[str, ...], float]


class Family(Struct, frozen=True, kw_only=True):
    """`series` says what bounds the number of series."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    series: str = "1"

    def of(self, values: Mapping[tuple[str, ...], float]) -> "Metric":
        return Metric(self, [("", labels, value) for labels, value in values.items()])

    def single(self, value: float) -> "Metric":
        return Metric(self, [("", (), value)])


class Metric(Struct, frozen=True):
    """A family with its samples, without the format they are written in."""

    family: Family
    samples: Iterable[Sample]


class Histogram:
    """Counts by bucket, for each combination of labels up to a bound; from then on for all others together."""

    def __init__(self, bounds: tuple[float, ...], series_max: int = 1) -> None:
        self._bounds = bounds
        self._texts = [*map(repr, bounds), "+Inf"]
        self._series_max = series_max
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}

    def observe(self, value: float, *labels: str) -> None:
        counts = self._counts.get(labels)
        if counts is None:
            if len(self._counts) >= self._series_max:
                labels = (OTHER,) * len(labels)
            counts = self._counts.setdefault(labels, [0] * len(self._texts))
            self._sums.setdefault(labels, 0.0)
        counts[bisect_left(self._bounds, value)] += 1
        self._sums[labels] += value

    def metric(self, family: Family) -> Metric:
        return Metric(family, list(self._samples()))

    def _samples(self) -> Iterator[Sample]:
        for labels, counts in self._counts.items():
            yield from histogram_samples(self._texts, labels, counts, self._sums[labels])


def histogram_samples(bounds: list[str], labels: tuple[str, ...], counts: list[int], total: float) -> Iterator[Sample]:
    """Yield buckets as Prometheus has them: each counts all that is not above its bound."""
    for bound, count in zip(bounds, accumulate(counts), strict=True):
        yield "_bucket", (*labels, bound), count
    yield "_sum", labels, total
    yield "_count", labels, sum(counts)


def _gauge(name: str, text: str, *labels: str, series: str = "1") -> Family:
    return Family(name=f"muster_{name}", kind="gauge", help=text, labels=labels, series=series)


def _counter(name: str, text: str, *labels: str, series: str = "1") -> Family:
    return Family(name=f"muster_{name}_total", kind="counter", help=text, labels=labels, series=series)


def _histogram(name: str, text: str, *labels: str, series: str = "1") -> Family:
    return Family(name=f"muster_{name}_seconds", kind="histogram", help=text, labels=labels, series=series)


_NODES = "nodes (setting `nodes_max`)"
_GPUS = "GPUs of all nodes"
_QUEUES = "the 100 largest queues, and `_other`"
_FIRST_QUEUES = "the first 100 queues, and `_other`"
_WORKERS = "workers, at most 10,000"

# --- the fleet: the same at every control plane -----------------------------------------------------------------------

NODES = _gauge("nodes", "Nodes by health.", "health", series="6")
NODE_HEALTH = _gauge("node_health", "1 for the health that a node has now.", "node", "health", series=_NODES)
NODE_DRAINING = _gauge("node_draining", "1 while a node takes no new work.", "node", series=_NODES)
NODE_HEARD = _gauge("node_last_heard_seconds", "How long ago a node was heard last.", "node", series=_NODES)
NODE_CPU = _gauge("node_cpu_ratio", "Load of a node's processors.", "node", series=_NODES)
NODE_MEMORY = _gauge("node_memory_bytes", "Memory of a node.", "node", series=_NODES)
NODE_MEMORY_USED = _gauge("node_memory_used_bytes", "Memory of a node that is in use.", "node", series=_NODES)
NODE_DISK = _gauge("node_disk_bytes", "Size of the disk of a node's data directory.", "node", series=_NODES)
NODE_DISK_FREE = _gauge("node_disk_free_bytes", "What is free of that disk.", "node", series=_NODES)
GPU_INFO = _gauge("gpu_info", "1; which card this is.", "node", "gpu", "name", series=_GPUS)
GPU_IN_SERVICE = _gauge("gpu_in_service", "0 while nothing is given to a GPU.", "node", "gpu", series=_GPUS)
GPU_UTILIZATION = _gauge("gpu_utilization_ratio", "Load of a GPU.", "node", "gpu", series=_GPUS)
GPU_MEMORY = _gauge("gpu_memory_bytes", "Memory of a GPU.", "node", "gpu", series=_GPUS)
GPU_MEMORY_USED = _gauge("gpu_memory_used_bytes", "Memory of a GPU that is in use.", "node", "gpu", series=_GPUS)
GPU_TEMPERATURE = _gauge("gpu_temperature_celsius", "Temperature of a GPU.", "node", "gpu", series=_GPUS)
GPU_POWER = _gauge("gpu_power_watts", "Power that a GPU draws.", "node", "gpu", series=_GPUS)
WORKERS = _gauge("workers", "Workers by state.", "status", series="6")
SERVICES = _gauge("services", "Services of all nodes by state.", "status", series="as many as there are states")

# --- jobs -------------------------------------------------------------------------------------------------------------

JOBS = _gauge("jobs", "Jobs that are kept, by status; the same at every control plane.", "status", series="8")
QUEUE_JOBS = _gauge(
    "queue_jobs", "Jobs of a queue: waiting, unworkable (of those), running.", "queue", "state", series=f"3 x {_QUEUES}"
)
QUEUE_OLDEST = _gauge("queue_oldest_seconds", "How long the first in line has waited.", "queue", series=_QUEUES)
QUEUE_PAUSED = _gauge("queue_paused", "1 while a queue is paused.", "queue", series=_QUEUES)
JOB_WAIT = _histogram(
    "job_wait", "From a job's submit, or its time, to its first claim.", "queue", series=_FIRST_QUEUES
)
JOB_RUN = _histogram(
    "job_run", "From a claim to its outcome, where both came by this control plane.", "queue", series=_FIRST_QUEUES
)
JOBS_SUBMITTED = _counter("jobs_submitted", "Jobs that were new.")
JOB_ATTEMPTS = _counter(
    "job_attempts",
    "Attempts that ended: completed, retried, failed or timeout (for good), "
    "returned by a worker that stopped, refused because they came too late.",
    "outcome",
    series="6",
)
LEASES_LOST = _counter(
    "leases_lost",
    "Leases that ran out: the worker was not heard (session), or took too long (deadline).",
    "why",
    series="2",
)
WAITING_CLAIMS = _gauge("waiting_claims", "Workers that wait for a job here.")
DELIVERIES = _gauge("webhook_deliveries_waiting", "Deliveries of webhooks that are still to be made.")
BATCHES = _gauge("batches_open", "Batches that have not ended.")
FILES = _gauge("files_bytes", "Files that are kept, together.")

# --- the gateway ------------------------------------------------------------------------------------------------------

GATEWAY_REQUESTS = _counter(
    "gateway_requests",
    "Requests to the model paths (499: the caller left).",
    "path",
    "status",
    series="paths x statuses",
)
GATEWAY_IN_FLIGHT = _gauge("gateway_in_flight", "Requests being answered.", "worker", series=_WORKERS)
GATEWAY_FAILURES = _counter(
    "gateway_upstream_failures",
    "Attempts on a worker that failed.",
    "worker",
    "reason",
    series=f"{_WORKERS}, x reasons",
)
GATEWAY_CONTINUED = _counter("gateway_continued", "Answers that broke off and that another worker went on with.")
GATEWAY_QUARANTINED = _gauge(
    "gateway_quarantined",
    "1 for each worker that gateways keep from requests for a model; * for all of its models.",
    "worker",
    "model",
    series=f"{_WORKERS} that fail",
)
GATEWAY_SENT = _counter("gateway_sent_bytes", "Bytes of answers sent to callers.")
GATEWAY_FIRST_BYTE = _histogram(
    "gateway_first_byte",
    "Time to the first byte of an answer (TTFT where it is streamed).",
    "model",
    series="models that were served",
)
GATEWAY_DURATION = _histogram(
    "gateway_duration", "Time to the end of an answer.", "model", series="models that were served"
)
GATEWAY_INTER_TOKEN = _histogram(
    "gateway_inter_token",
    "Mean time between the parts, mostly tokens, of a streamed answer: one observation for each answer.",
    "model",
    series="models that were served",
)
GATEWAY_STREAMS = _gauge(
    "gateway_streams", "Resumable answers that come now; `read`: whether somebody reads them.", "read", series="2"
)
GATEWAY_STREAMS_KEPT = _counter("gateway_streams_kept", "Resumable answers that were begun and kept.")
GATEWAY_STREAMS_BYTES = _counter("gateway_streams_kept_bytes", "Bytes of them that were kept.")
GATEWAY_STREAMS_RESUMED = _counter("gateway_streams_resumed", "Callers who came back for the rest of one.")
GATEWAY_STREAMS_TAKEN_OVER = _counter(
    "gateway_streams_taken_over", "Resumable answers that were gone on with here, as their gateway was gone."
)
GATEWAY_WAITING = _gauge(
    "gateway_waiting", "Requests that wait for a free slot.", "model", series="models that are waited for"
)
GATEWAY_WAIT = _histogram(
    "gateway_wait",
    "How long requests waited for a free slot; those that found one at once are not in it.",
    "model",
    series="models that were waited for",
)
GATEWAY_PROCESSES = _gauge("gateway_processes", "Processes that serve the gateway's port, this one among them.")
GATEWAY_PROCESS_MEMORY = _gauge(
    "gateway_process_memory_bytes",
    "Memory of each process that has the gateway alone.",
    "process",
    series="setting `gateway_workers`",
)
GATEWAY_TOKENS = _counter(
    "gateway_tokens",
    "Tokens that answers came to here, of the gateway and of jobs; `token` is the id of whose, or `anonymous`.",
    "token",
    "model",
    "kind",
    series="the first 1,000, and `_other`",
)
GATEWAY_ENERGY = _counter(
    "gateway_energy_joules",
    "Energy that answers are estimated to have taken, where the power of GPUs is known.",
    "model",
    series="the first 1,000 models, and `_other`",
)

# --- this control plane -----------------------------------------------------------------------------------------------

INFO = _gauge("info", "1; which version runs.", "version")
HTTP_REQUESTS = _counter(
    "http_requests",
    "Requests to the API but for the model paths.",
    "method",
    "route",
    "status",
    series="routes x statuses",
)
HTTP_DURATION = _histogram(
    "http_duration", "Time to the head of the answer; waits that were asked for are in it.", "route", series="routes"
)
STORE_UP = _gauge("store_up", "0 while the store does not answer.")
STORE_CALL = _gauge("store_call_seconds", "How long the store took to answer this scrape.")
RECORDER_BACKLOG = _gauge("recorder_backlog", "Records of nodes and facts that wait to be written.", "what", series="2")
EVENTS_DROPPED = _counter("events_dropped", "Facts that were not kept because the store was away for too long.")
EVENT_READERS = _gauge("event_readers", "Open streams of live events.")
EVENT_GAPS = _counter("event_gaps", "Times that a stream of live events lost some and got a snapshot instead.")
COMMANDS = _gauge("commands", "Commands that are kept, by state; the same at every control plane.", "state", series="6")
PLANES = _gauge("control_planes", "Control planes on this store, as heard here.")
LEADS = _gauge("control_plane_leads", "1 where this one does what only one may do.")
SUSPECTS = _gauge("control_plane_suspects_itself", "1 while most nodes are silent at once, so that none is judged.")

# --- links ------------------------------------------------------------------------------------------------------------

HEARTBEATS = _counter("heartbeats", "Heartbeats that came here.", "link", series="kinds of links")
REGISTRATIONS = _counter(
    "registrations", "Registrations: a node that starts, or was not known any more.", "link", series="kinds of links"
)
BROKER_CONNECTED = _gauge("broker_connected", "Whether this control plane reaches the broker.")
BROKER_RECONNECTS = _counter("broker_reconnects", "Connections to the broker after the first.")
BROKER_MESSAGES = _counter("broker_messages", "Messages of nodes that came over the broker.", "queue", series="3")
BROKER_DEAD_LETTERS = _counter(
    "broker_dead_letters", "Messages that could not be read and were put aside at the broker.", "queue", series="3"
)

# --- rented machines --------------------------------------------------------------------------------------------------

CLOUD_MACHINES = _gauge("cloud_machines", "Rented machines by state, as last listed.", "state", series="6")
CLOUD_HOURLY = _gauge("cloud_hourly_usd", "What the running machines cost an hour, as far as prices are known.")

AREAS: dict[str, tuple[Family, ...]] = {
    "The fleet": (
        *(NODES, NODE_HEALTH, NODE_DRAINING, NODE_HEARD, NODE_CPU, NODE_MEMORY, NODE_MEMORY_USED, NODE_DISK),
        *(NODE_DISK_FREE, GPU_INFO, GPU_IN_SERVICE, GPU_UTILIZATION, GPU_MEMORY, GPU_MEMORY_USED, GPU_TEMPERATURE),
        *(GPU_POWER, WORKERS, SERVICES),
    ),
    "Jobs": (
        *(JOBS, QUEUE_JOBS, QUEUE_OLDEST, QUEUE_PAUSED, JOB_WAIT, JOB_RUN, JOBS_SUBMITTED, JOB_ATTEMPTS, LEASES_LOST),
        WAITING_CLAIMS,
        *(DELIVERIES, BATCHES, FILES),
    ),
    "The gateway": (
        *(GATEWAY_REQUESTS, GATEWAY_IN_FLIGHT, GATEWAY_FAILURES, GATEWAY_SENT, GATEWAY_FIRST_BYTE, GATEWAY_DURATION),
        *(GATEWAY_INTER_TOKEN, GATEWAY_WAITING, GATEWAY_WAIT, GATEWAY_TOKENS, GATEWAY_ENERGY),
        *(GATEWAY_QUARANTINED, GATEWAY_CONTINUED, GATEWAY_PROCESSES, GATEWAY_PROCESS_MEMORY, GATEWAY_STREAMS),
        *(GATEWAY_STREAMS_KEPT, GATEWAY_STREAMS_BYTES, GATEWAY_STREAMS_RESUMED, GATEWAY_STREAMS_TAKEN_OVER),
    ),
    "The control plane": (
        *(INFO, HTTP_REQUESTS, HTTP_DURATION, STORE_UP, STORE_CALL, RECORDER_BACKLOG, EVENTS_DROPPED, EVENT_READERS),
        *(EVENT_GAPS, COMMANDS, PLANES, LEADS, SUSPECTS),
    ),
    "Links": (*(HEARTBEATS, REGISTRATIONS, BROKER_CONNECTED, BROKER_RECONNECTS, BROKER_MESSAGES, BROKER_DEAD_LETTERS),),
    "Rented machines": (CLOUD_MACHINES, CLOUD_HOURLY),
}
FAMILIES = {family.name: family for families in AREAS.values() for family in families}
