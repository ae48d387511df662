"""Hosts that the page is known by."""

from __future__ import annotations

import socket

import pytest

from srflow_plugin.demo.hosts import ForeignError, Hosts
from srflow_plugin.errors import UserError

OWN = "127.0.0.1:7860"


def is_taken(hosts: Hosts, is_first: bool = False, **headers: str) -> bool:
    try:
        hosts.check({name.replace("_", "-"): value for name, value in headers.items()}, is_first)
    except ForeignError:
        return False
    return True


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]"])
def test_a_local_page_is_known_by_local_names(host: str) -> None:
    hosts = Hosts(host)
    assert hosts.is_local and hosts.in_url in ("127.0.0.1", "localhost", "[::1]")
    own = [OWN, "localhost:7860", "LOCALHOST:7860", "localhost.:7860", "[::1]:7860", "127.0.0.1", "127.0.0.1:9000"]
    assert [name for name in own if not is_taken(hosts, host=name)] == []
    foreign = ["evil.com", "evil.com:7860", "127.0.0.1.evil.com", "localhost.evil.com:7860", "192.168.1.5:7860", ""]
    foreign += ["127.0.0.1:7860@evil.com", "evil.com#127.0.0.1", "evil.com:127.0.0.1", "0.0.0.0:7860", "[::1", "[::2]"]
    foreign += [f"{socket.gethostname()}.evil.com", "2130706433", "127.0.0.1:7860, evil.com", "xn--localhost-x"]
    assert [name for name in foreign if is_taken(hosts, host=name)] == []
    assert not is_taken(hosts)


def test_a_page_for_others_is_known_by_addresses() -> None:
    for everywhere in (Hosts("0.0.0.0"), Hosts("::")):
        assert not everywhere.is_local and everywhere.in_url in ("0.0.0.0", "[::]")
        for name in ("192.168.1.5:7860", "[fe80::1]:7860", "localhost", socket.gethostname(), "10.0.0.1"):
            assert is_taken(everywhere, host=name), name
        for name in ("evil.com", "10.0.0.1.evil.com", "10.0.0.256"):
            assert not is_taken(everywhere, host=name), name


def test_hosts_that_are_not_there() -> None:
    for host in ("no.such.host.invalid", "300.1.1.1", "a b", "x" * 300, "127.0.0.1:7860"):
        with pytest.raises(UserError, match="is no address of this machine"):
            Hosts(host)


def test_other_pages_are_refused() -> None:
    hosts = Hosts("127.0.0.1")
    assert is_taken(hosts, host=OWN, origin=f"http://{OWN}", sec_fetch_site="same-origin")
    assert is_taken(hosts, host=OWN, sec_fetch_site="none") and is_taken(hosts, host=OWN)
    assert is_taken(hosts, host=OWN, origin="https://demo.org", x_forwarded_host="demo.org")  # of a proxy
    origins = ["http://evil.com", "null", "", "http://127.0.0.1:9999", "http://localhost:7860", "http://127.0.0.1"]
    origins += [f"http://{OWN}.evil.com", f"http://{OWN}@evil.com", f"file://{OWN}", f"evil://{OWN}", OWN, "http://["]
    assert [origin for origin in origins if is_taken(hosts, host=OWN, origin=origin)] == []
    for site in ("cross-site", "same-site", "anything"):
        assert not is_taken(hosts, host=OWN, sec_fetch_site=site)
        assert not is_taken(hosts, host=OWN, sec_fetch_site=site, sec_fetch_mode="navigate")
        assert not is_taken(hosts, True, host=OWN, sec_fetch_site=site, sec_fetch_mode="no-cors")
        link = {"host": OWN, "sec_fetch_site": site, "sec_fetch_mode": "navigate"}
        assert is_taken(hosts, True, **link, sec_fetch_dest="document")  # a link to the page
        assert not is_taken(hosts, True, **link, sec_fetch_dest="iframe")


def test_a_page_that_a_server_before_it_names_and_another_site_shows() -> None:
    hosts = Hosts("0.0.0.0", name="User-name.hf.space", framed_by="https://huggingface.co")
    own = "user-name.hf.space"
    assert is_taken(hosts, host=own, origin=f"https://{own}") and not is_taken(hosts, host="other.hf.space")
    visit = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "iframe"}
    assert is_taken(hosts, True, host=own, **visit) and not is_taken(hosts, False, host=own, **visit)
    assert not is_taken(Hosts("0.0.0.0", name=own), True, host=own, **visit)
    assert not is_taken(hosts, True, host=own, sec_fetch_site="cross-site", sec_fetch_mode="cors")
    assert not is_taken(hosts, host=own, origin="https://huggingface.co")
