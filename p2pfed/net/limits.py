"""Every bound of the peer protocol that is not a message's own (those stand in `core.wire` and `core.consortium`)."""

from __future__ import annotations

PREFIX = "/p2p/v1"

# deadlines, in seconds
HANDSHAKE_SECONDS = 10.0
HEADER_SECONDS = 10.0
BODY_SECONDS = 30.0
"""For a request or answer without its body; `BYTES_PER_SECOND` more for that."""
BYTES_PER_SECOND = 64 * 1024
KEEPALIVE_SECONDS = 75.0
CLIENT_KEEPALIVE_SECONDS = 60.0
"""Shorter than the server's, so that a request rarely meets a connection that is just being closed."""
CONNECT_SECONDS = 5.0
LINGER_SECONDS = 1.0
"""How long a refused body is still read, so that the refusal arrives."""
SHUTDOWN_SECONDS = 10.0
RETRY_AFTER_SECONDS = 2

# connections
MAX_HANDSHAKES = 128
"""Strangers in the middle of a TLS handshake; one more pushes the oldest out."""
MAX_HANDSHAKES_PER_HOST = 32
"""A local cluster is one host: nine daemons that start together open some thirty connections to the tenth."""
MAX_CONNECTIONS_PER_MEMBER = 4
"""One more pushes the member's oldest out, which is probably dead."""
MAX_CONNECTIONS = 512
"""Of members in all: one more pushes the oldest out. With everything else that fits the usual 1,024 descriptors."""
ADMIN_CONNECTIONS = 64
"""To each listener of the admin API; one more pushes the oldest idle one out."""
ADMIN_CONNECTIONS_PER_HOST = 48
CLIENT_CONNECTIONS_PER_PEER = 2
TLS_BUFFER = 64 * 1024
"""Of each handshake, and of all open connections of members together: asyncio's own are 256 KiB for each."""
ANSWER_BUFFER = 1024 * 1024
"""Of all connections to peers together: most frames arrive as one piece, which takes less time than several.

OpenSSL keeps room for the largest piece a connection has had: nothing at small models, a megabyte at large ones."""
BACKLOG = 128
CHUNK = 1024 * 1024
"""Bytes buffered at once."""
WRITTEN = 256 * 1024
"""Bytes written at once: OpenSSL keeps room for as many on each connection."""
OFF_LOOP = 4 * 1024 * 1024
"""Frames above this are hashed and decoded in a thread, so that heartbeats go on."""

# dialling
DIALS_PER_SECOND, DIALS_AT_ONCE = 1 / 3, 24.0
"""Attempts at addresses of one member, other than the one that answered last."""
LOOKUP_DIALS = 4.0
"""A host name that must be looked up counts as so many."""
DIAL_JITTER = 0.5
"""The next address of a member is tried `CONNECT_SECONDS` after the one before, and up to so many seconds: the member
must not learn from our haste whether a third party's port is closed, silent or open."""
LOOKUPS = 8
"""Host names looked up at once, each in a thread."""
LOOKUP_SECONDS = 3.0
NAME_SECONDS, NAME_MISSING_SECONDS = 60.0, 60.0
"""How long a name's addresses, and that there are none, are kept."""
NAMES_KEPT = 4096
ADDRESSES_OF_NAME = 4

# requests
MAX_LINE = 4096
MAX_FIELD = 4096
MAX_FIELDS = 32
MIN_PUSHES = 4
PUSH_MEMORY = 64 * 1024 * 1024
"""Updates being received at once: as many as fit this many bytes, at least `MIN_PUSHES`, each member one."""
REQUESTS_PER_SECOND = 50.0
REQUEST_BURST = 200.0
TABLE_BYTES_PER_REQUEST = 4096
"""A heartbeat table costs its sender a request more for every so many bytes, and what is answered as much: reading or
writing 200 rows takes milliseconds. A manifest costs who asks for it the same."""
PUSH_BYTES_PER_REQUEST = 256 * 1024
"""The same of a push."""
PUSH_COST = 10.0
"""Requests that a push costs besides: each one taken is a commit to the disk."""
MAX_ANSWERS = 8
"""Answers that may lie unread on a connection: one request waits at a time, and few interim answers are honest."""
MAX_PROBLEM = 512
"""Bytes of a refusal's explanation that are read."""


def deadline(length: int) -> float:
    """Seconds a request or answer with a body of `length` bytes may take."""
    return BODY_SECONDS + length / BYTES_PER_SECOND
