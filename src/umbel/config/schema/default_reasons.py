"""The reason of each default of a limit or a time, which docs/config.md shows: by the section's class and the key.

A test requires a reason for every number of the schema that has a default: add one with each new key.
"""

from __future__ import annotations

from collections.abc import Mapping

REASONS: Mapping[str, str] = {
    # The inbound side.
    "Server.head_timeout": "a head fits into a few packets; haproxy's example against slow heads says 5 s",
    "Server.body_timeout": "a few round trips, a slow start, a pause of a phone",
    "Server.min_body_rate": "slower than the links in use; 1 MB has 71 s, and a drip ends",
    "Server.write_timeout": "half of nginx's send_timeout, and for each 64 KiB: a slow reader goes on, a stuck one not",
    "Server.max_connections": "each costs memory and a descriptor; most of them are idle",
    "Server.max_in_flight": "more requests at once only make each of them slower in one process",
    "Server.max_uploads": "a quarter of max_in_flight: each may hold a body of max_body",
    "Server.max_head": "what Node.js allows; a sound client sends 2 KiB",
    "Server.max_fields": "what Apache allows",
    "Server.max_target": "RFC 9112 asks for 8,000 octets of a request line at least",
    "Server.max_body": "Quart's MAX_CONTENT_LENGTH; the routes' own bounds are lower",
    "Server.drain_delay": "only who stands behind a load balancer needs one",
    "Server.drain_idle": "a request that is on its way arrives within a round trip",
    "Server.cancel_timeout": "cleanup writes a record and closes sockets; it asks nobody",
    "Server.memory_limit": "only the operator knows how much there is",
    # A route.
    "Route.deadline": "people leave after some seconds; a front proxy often waits for 30 s or 60 s",
    "Route.max_body": "JSON of that size is decoded within 100 ms",
    "Route.max_steps": "holds the worker for some 100 ms at most",
    "Call.limit": "a fan-out shall not take all places of its upstream (100)",
    "Call.max_items": "more than a page of anything; a longer list is usually a mistake",
    "Answer.status": "the answer is there",
    # An upstream.
    "Upstream.timeout": "the deadline of the route bounds it already",
    "Upstream.connect_timeout": "two lost SYNs are not waited for; another replica is",
    "Upstream.max_concurrency": "what a usual service works on at once; beyond it queues, here or there",
    "Upstream.max_queue": "the server takes no more requests, and none of them fails while the upstream works",
    "Upstream.keepalive_expiry": "less than the 5 s after which Node, uvicorn and Apache close",
    "Upstream.max_body": "1 MB of JSON is decoded within 100 ms; text costs less",
    "Upstream.max_head": "four times what clients may send: upstreams set cookies",
    "Upstream.max_fields": "as for requests",
    "Upstream.retry_budget": "Finagle's and Linkerd's 20 %: retries never double a load",
    "Retry.attempts": "one more: what fails twice within a moment will fail again",
    "Retry.backoff": "Envoy's base of 25 ms",
    "Retry.max_backoff": "Envoy's ten times the base",
    "Hedge.max": "a second one helps; a third mostly adds load",
    "Breaker.window": "long enough for 20 attempts, short enough to forget",
    "Breaker.min_requests": "below that a ratio is chance",
    "Breaker.failure_ratio": "half: a mistake of single callers does not open it",
    "Breaker.open_for": "a restart takes seconds",
    "Ejection.failures": "Envoy's consecutive_5xx",
    "Ejection.base": "Envoy's base_ejection_time",
    "Ejection.max": "Envoy's max_ejection_time",
    "Ejection.share": "half of the replicas must carry the load of all",
    "Health.every": "Envoy's and Kubernetes' examples lie between 5 s and 10 s",
    "Health.healthy": "one good answer may be chance",
    "Health.unhealthy": "one lost packet is no outage",
    "WeightedUrl.weight": "all alike",
    # The master.
    "Supervisor.start_timeout": "importing an application takes seconds, a warm-up more",
    "Supervisor.hang_timeout": "no sound step of a loop takes a tenth of it",
    "Supervisor.orphan_grace": "what most requests need: the default deadline",
    "Supervisor.restart_max_delay": "soon enough for people who wait, seldom enough for logs",
    "Supervisor.max_rss": "only the operator knows how much there is",
    "Supervisor.max_lifetime": "a sound worker needs no replacement",
    "Intensity.restarts": "Erlang's habit: a few in a row are chance, more are a defect",
    "Intensity.window": "with restarts, three a minute for each worker",
    # Records.
    "LogStream.sample": "all of them; who has too many says so",
    "LogStream.slow": "a fifth of the default deadline",
    "CallsLogStream.sample": "all of them; who has too many says so",
    "CallsLogStream.slow": "a fifth of the default deadline",
    "Logs.max_queue_bytes": "some seconds of a busy worker while a disk hangs",
    "Logs.max_queue_records": "as many small records as fit into max_queue_bytes",
    "Logs.flush_every": "people who follow a log do not notice; a batch is worth it",
    "Logs.rotate_size": "an editor still opens it",
    "Logs.rotate_every": "the size bounds a file already",
    "Logs.keep": "1 GB of plain records, a tenth of that compressed",
    "Logs.keep_bytes": "keep bounds them already",
    "Logs.keep_days": "how long records may be kept is no question of technique",
}
