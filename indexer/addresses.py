"""Which addresses may be asked: public ones, and those in networks that the settings allow."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from mmsearch.errors import ConfigError

__all__ = ["Network", "Resolver", "is_url", "networks", "refusal", "resolve"]

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver: TypeAlias = Callable[[str, int], Iterable[str]]
"""From a host and a port to its addresses; raises ``OSError``."""

_INSIDE_IPV6 = (
    ipaddress.ip_network("64:ff9b::/96"),
    ipaddress.ip_network("::/96"),
)  # the last 32 bits are IPv4


def is_url(source: str) -> bool:
    """Whether a source of a picture is an address rather than a path (of whatever scheme)."""
    return "://" in source or source.lower().startswith(("data:", "javascript:"))


def networks(names: Iterable[str]) -> tuple[Network, ...]:
    """Networks by their names, like 10.0.0.0/8 or ::1. Raises ``ConfigError``."""
    try:
        return tuple(ipaddress.ip_network(name) for name in names)
    except ValueError as error:
        raise ConfigError(f"{error}: write networks like 10.0.0.0/8, 192.168.1.7") from None


def refusal(address: str, allowed: Sequence[Network] = ()) -> str | None:
    """Why nothing is fetched from an IP address; None if it is public, or in an allowed network.

    An IPv4 address inside an IPv6 one (mapped, 6to4, Teredo, NAT64) counts as well.
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    inner = _inner(found)
    if any(one in network for one in inner for network in allowed if one.version == network.version):
        return None
    for one in inner:
        for name in ("loopback", "link_local", "multicast", "unspecified", "private", "reserved"):
            if getattr(one, f"is_{name}"):
                return f"{address} is a {name.replace('_', '-')} address"
        if not one.is_global:
            return f"{address} is no public address"
    return None


def _inner(address: Address) -> list[Address]:
    """The address, and the IPv4 ones that are written inside it. A mapped one is nothing but its IPv4 address."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    found: list[Address] = [address]
    found += [address.sixtofour] if address.sixtofour else []
    found += list(address.teredo or ())
    if any(address in network for network in _INSIDE_IPV6) and int(address) > 1:
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return found


def resolve(host: str, port: int) -> list[str]:
    """All addresses of a host, in the order of the system's preference."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))
