"""The reason for each default of a limit or a time, by the class of the section and the key. docs/config.md shows it.

A test requires a reason for every number in the schema with a default.
"""

from __future__ import annotations

from collections.abc import Mapping

REASONS: Mapping[str, str] = {
    # The server.
    "Server.head_timeout": "a head fits in a few packets; HAProxy's example against slow heads has 5 s",
    "Server.body_timeout": "a few round trips, TCP slow start, a short loss of a mobile connection",
    "Server.min_body_rate": "slower than links in use; a body of 1 MB has 71 s, and a body sent byte by byte ends",
    "Server.write_timeout": "half of nginx's send_timeout, for 64 KiB: a slow client goes on, a stuck one does not",
    "Server.max_connections": "each costs memory and a descriptor, and connections to upstreams need descriptors too",
    "Server.max_in_flight": "in one process, more requests at once only make each of them slower",
    "Server.max_streams": "as many as connections: most WebSockets and event streams have one for themselves",
    "Server.max_uploads": "a quarter of max_in_flight, since each may hold a body of max_body",
    "Server.max_head": "as in Node.js; a usual client sends 2 KiB",
    "Server.max_fields": "as in Apache",
    "Server.max_target": "RFC 9112 demands at least 8,000 octets for a request line",
    "Server.max_body": "as Quart's MAX_CONTENT_LENGTH; the limits of routes are lower",
    "Server.drain_delay": "only a server behind a load balancer needs one",
    "Server.drain_idle": "a request that is on its way arrives within a round trip",
    "Server.cancel_timeout": "cleanup writes a record and closes sockets, and waits for no peer",
    "Server.memory_limit": "only the operator knows the memory of the machine",
    "Limit.max_keys": "some 15 MB in each worker",
    # A route.
    "Route.deadline": "people leave after some seconds; front proxies often wait for 30 s or 60 s",
    "Route.max_body": "JSON of this size is decoded within 100 ms",
    "Route.max_steps": "they block the worker for at most some 100 ms",
    "Call.limit": "one fan-out must not take all of the upstream's max_concurrency (100)",
    "Call.max_items": "more than a page of a list; a longer list is usually a mistake",
    "Answer.status": "the status for an answer with content",
    "Respond.status": "the status for a response with content",
    "Respond.delay": "only a mock of a slow upstream needs one",
    # A proxy route.
    "Proxy.first_byte": "twice the default deadline: pages of old backends take seconds",
    "Proxy.idle_timeout": "as the stream_idle_timeout of Envoy; servers of events often write every 15 s to 60 s",
    "Proxy.max_lifetime": "streams of events and WebSocket connections live for hours",
    "Proxy.max_body": "it is never in memory as a whole, and only the operator knows how large uploads are",
    # An upstream.
    "Upstream.timeout": "the deadline of the route limits it already",
    "Upstream.connect_timeout": "a lost SYN is repeated only after 1 s; another replica is sooner",
    "Upstream.max_concurrency": "as many as a usual service handles at once; more would queue there instead of here",
    "Upstream.max_queue": "the server accepts no more requests, so no call is refused while the upstream works",
    "Upstream.max_streams": "a stream costs a connection and little else; ten such upstreams fill the server",
    "Upstream.keepalive_expiry": "less than the 5 s after which Node.js, uvicorn and Apache close",
    "Upstream.max_body": "1 MB of JSON is decoded within 100 ms; text costs less",
    "Upstream.max_head": "four times the limit for clients, since upstreams set cookies",
    "Upstream.max_fields": "as for requests",
    "Upstream.retry_budget": "20 %, as in Finagle and Linkerd: retries never double the load",
    "Retry.attempts": "one retry; a call that fails twice within a moment will fail again",
    "Retry.backoff": "as Envoy's base interval of 25 ms",
    "Retry.max_backoff": "ten times the base, as in Envoy",
    "Hedge.max": "a second attempt helps; a third mostly adds load",
    "Breaker.window": "long enough for 20 attempts, short enough to forget old failures",
    "Breaker.min_requests": "with fewer attempts a ratio is chance",
    "Breaker.failure_ratio": "below half, the mistakes of a few clients could open it",
    "Breaker.open_for": "a restart takes seconds",
    "Ejection.failures": "as Envoy's consecutive_5xx",
    "Ejection.base": "as Envoy's base_ejection_time",
    "Ejection.max": "as Envoy's max_ejection_time",
    "Ejection.share": "the other half of the replicas must carry the whole load",
    "Health.every": "the examples of Envoy and Kubernetes have 5 s to 10 s",
    "Health.healthy": "one passed check may be chance",
    "Health.unhealthy": "one lost packet is no outage",
    "WeightedUrl.weight": "all replicas are equal",
    # Compression.
    "Compress.min": "a smaller body fits in one packet with its head; make bench-compress prints what coding costs",
    # Browsers.
    "Cors.max_age": "the most for which Chromium remembers a preflight",
    # Credentials.
    "JwtAuth.leeway": "clocks that are set by NTP differ by less; a usual allowance of JWT libraries",
    "JwtAuth.refresh": "issuers publish a new key hours before they sign with it",
    "JwtAuth.stale_if_error": "an outage of the issuer is over within an hour, and a key that was withdrawn stops then",
    "JwtAuth.unknown_kid_cooldown": "tokens with invented key ids cause at most two fetches a minute",
    "JwtAuth.cache": "more clients than send requests to one worker within a minute",
    # The master.
    "Supervisor.start_timeout": "the import of an application takes seconds, a warm-up more",
    "Supervisor.hang_timeout": "a normal step of the event loop takes less than a tenth of it",
    "Supervisor.orphan_grace": "enough for most requests, as the default deadline",
    "Supervisor.restart_max_delay": "short for waiting people, and long enough for a readable log",
    "Supervisor.max_rss": "only the operator knows the memory of the machine",
    "Supervisor.max_lifetime": "a worker without leaks needs no replacement",
    "Intensity.restarts": "a convention of Erlang: a few restarts in a row are chance, more are a defect",
    "Intensity.window": "with restarts, three per minute and worker",
    # Logs.
    "LogStream.sample": "all records are kept unless somebody has too many",
    "LogStream.slow": "a fifth of the default deadline",
    "AccessLogStream.sample": "all records are kept unless somebody has too many",
    "AccessLogStream.slow": "a fifth of the default deadline",
    "CallsLogStream.sample": "all records are kept unless somebody has too many",
    "CallsLogStream.slow": "a fifth of the default deadline",
    "Logs.max_queue_bytes": "some seconds of a busy worker while a disk hangs",
    "Logs.max_queue_records": "as many small records as fit into max_queue_bytes",
    "Logs.flush_every": "too short to notice for a reader of the log, and long enough for a batch",
    "Logs.rotate_size": "an editor can still open the file",
    "Logs.rotate_every": "rotate_size limits a file already",
    "Logs.keep": "1 GB of plain records, a tenth of that compressed",
    "Logs.keep_bytes": "keep limits them already",
    "Logs.keep_days": "how long records may be kept is a legal question and not a technical one",
}
