"""Hosts that the page is known by: what other pages ask for, in a visitor's browser, is refused. Needs no Gradio."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from srflow_plugin.errors import UserError

LOCAL = ("localhost", "127.0.0.1", "::1")
OWN_SITES = (None, "same-origin", "none")  # values of Sec-Fetch-Site; none: typed in


class ForeignError(Exception):
    """Request of another page; its text says why."""


class Hosts:
    """Names and addresses that the page is known by.

    Args:
        host: at which it listens, a name or an address of 4 or 6.
        name: that a server before it gives to the page, if there is one.
        framed_by: site, such as https://example.com, that may show the page as a part of its own. Default: none.

    Raises:
        UserError: there is no such host.
    """

    def __init__(self, host: str, name: str | None = None, framed_by: str | None = None) -> None:
        self.host = host.strip("[]")
        try:
            found = {str(info[4][0]).partition("%")[0] for info in socket.getaddrinfo(self.host, None)}
        except (OSError, UnicodeError):
            raise UserError(f"--host {host} is no address of this machine; give one, or 127.0.0.1") from None
        addresses = [ipaddress.ip_address(address) for address in found]
        self.is_local = all(address.is_loopback for address in addresses)
        self.is_everywhere = any(address.is_unspecified for address in addresses)
        own = () if self.is_local else (socket.gethostname(), socket.getfqdn())
        given = () if name is None else (name,)
        self.names = {name.lower() for name in (*LOCAL, self.host, *found, *own, *given)}
        self.framed_by = framed_by

    @property
    def in_url(self) -> str:
        """Host as an address of the web has it."""
        return f"[{self.host}]" if ":" in self.host else self.host

    def check(self, headers: Mapping[str, str], is_first: bool) -> None:
        """Refuse a request that was not made to this page, or not by it.

        Args:
            headers: of the request, by names in lower case.
            is_first: it asks for the page itself, to which other pages may have links.

        Raises:
            ForeignError: with the reason.
        """
        host = headers.get("host", "")
        if not self._is_own(host):
            raise ForeignError("this page is not known by that name: open it by the address that srflow demo shows")
        origin = headers.get("origin")
        own = [f"{scheme}://{name}" for scheme in ("http", "https") for name in (host, headers.get("x-forwarded-host"))]
        if origin is not None and origin not in own:
            raise ForeignError("another page may not use this one")
        is_visit = is_first and headers.get("sec-fetch-mode") == "navigate"
        is_framed = headers.get("sec-fetch-dest") in ("iframe", "frame", "embed", "object")
        if headers.get("sec-fetch-site") not in OWN_SITES and not (is_visit and (self.framed_by or not is_framed)):
            raise ForeignError("another page may not use this one")

    def _is_own(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
            _ = urlsplit(f"//{host}").port  # raises where it is none
        except ValueError:
            return False
        name = name.rstrip(".")
        if name in self.names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        # No name has been looked up for an address: nobody can have it lead here.
        return self.is_everywhere or (self.is_local and address.is_loopback)
