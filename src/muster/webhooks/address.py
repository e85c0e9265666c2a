"""Where a webhook may point: not into our own networks, unless the settings say so."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

_NAT64 = IPv6Network("64:ff9b::/96")
_OURS = ("localhost", ".localhost", ".local", ".internal")


def why_not_host(host: str) -> str | None:
    """Say why a host of a URL is not public, as far as its name tells; None when it may be."""
    folded = host.rstrip(".").lower()
    if folded == _OURS[0] or folded.endswith(_OURS[1:]):
        return f"{host} is a name of our own network"
    try:
        ip_address(folded)
    except ValueError:
        return None
    return why_not(folded)


def why_not(address: str) -> str | None:
    """Say why an IP address is not public; None when it is."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return f"{address} is no address"
    inner = _inside(found)
    public = all(part.is_global and not part.is_multicast for part in (found, *([inner] if inner else ())))
    if inner is not None and found in _NAT64:
        public = inner.is_global
    return None if public else f"{address} is an address of our own networks"


def _inside(address: IPv4Address | IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that an IPv6 one leads to."""
    if isinstance(address, IPv4Address):
        return None
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
