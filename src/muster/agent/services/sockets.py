"""Ports of this machine: a free one, and who holds one that is not."""

import socket

import psutil

from muster.agent.services.keeper import read_marker


def free_port(host: str) -> int:
    with socket.socket(_family(host)) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def holder_of(host: str, port: int) -> str | None:
    """Return who keeps the port from being listened on, in words; None when it is free."""
    with socket.socket(_family(host)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: closed connections hold nothing
        try:
            probe.bind((host, port))
        except OSError as error:
            return _listener(port) or f"somebody unseen ({error.strerror})"
    return None


def _listener(port: int) -> str | None:
    try:
        connections = psutil.net_connections("tcp")
    except psutil.Error:
        return None  # some systems show them to root only
    for connection in connections:
        at = connection.laddr
        if connection.status == psutil.CONN_LISTEN and at and at.port == port and connection.pid:
            return _named(connection.pid)
    return None


def _named(pid: int) -> str:
    try:
        name = psutil.Process(pid).name()
    except psutil.Error:
        return f"pid {pid}"
    _, _, service = (read_marker(pid) or "").partition("/")
    return f"pid {pid} ({name}, the service {service} of an agent)" if service else f"pid {pid} ({name})"


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
