"""The names by which both sides know the service, and the bounds that they share."""

SERVICE = "muster.v1.AgentControl"
CONNECT = f"/{SERVICE}/Connect"

CALLS_MAX = 1024  # without a reply, on one stream
BODY_BYTES_MAX = 32 * 1024 * 1024
FRAME_BYTES_MAX = BODY_BYTES_MAX + 1024 * 1024

CONNECTION_OPTIONS = (
    ("grpc.http2.bdp_probe", 0),  # pings that measure bandwidth cost a sixth of each heartbeat
    ("grpc.http2.lookahead_bytes", 1024 * 1024),  # in place of what they would have found
)
