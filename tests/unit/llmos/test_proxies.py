"""The hosts that the platform adds to ``NO_PROXY``, and their effect on clients."""

import httpx
import pytest

from llmos.proxies import CLUSTER_HOSTS, LOOPBACK_HOSTS, hosts_of, invalid_proxy, proxy_advice, with_no_proxy

PROXY = "http://proxy.example.org:3128"


@pytest.mark.parametrize("name", ["HTTP_PROXY", "https_proxy", "ALL_PROXY"])
def test_own_hosts_are_added_to_what_is_there(name):
    found = with_no_proxy(
        {name: PROXY, "no_proxy": "a.example.org, b.example.org", "NO_PROXY": "c"}, ["localhost", "c"]
    )
    assert found == {
        name: PROXY,
        "NO_PROXY": "c,a.example.org,b.example.org,localhost",
        "no_proxy": "c,a.example.org,b.example.org,localhost",
    }


def test_who_has_a_proxy_is_told_to_check_it_without_its_address():
    assert proxy_advice({"HTTP_PROXY": PROXY, "HTTPS_PROXY": ""}) == "Behind a proxy, set HTTPS_PROXY"
    for name in ("HTTPS_PROXY", "all_proxy"):
        assert proxy_advice({name: PROXY}) == f"{name} is set: check that proxy"


@pytest.mark.parametrize("environment", [{}, {"HTTP_PROXY": ""}, {"NO_PROXY": "x"}])
def test_without_a_proxy_nothing_changes(environment):
    assert with_no_proxy(environment, LOOPBACK_HOSTS) == environment


def test_the_same_again_changes_nothing():
    once = with_no_proxy({"HTTP_PROXY": PROXY}, CLUSTER_HOSTS)
    assert with_no_proxy(once, CLUSTER_HOSTS) == once


def test_hosts_are_taken_from_addresses():
    assert hosts_of("http://127.0.0.1:8010/v1", "", "https://[::1]:1/x", "http://hub:8081") == [
        "127.0.0.1",
        "::1",
        "hub",
    ]


@pytest.mark.parametrize(
    ("url", "direct"),
    [
        ("http://localhost:8000/", True),
        ("http://127.0.0.1:8010/v1", True),
        ("http://[::1]:8010/v1", True),
        ("http://llmos-gateway.llmos.svc/v1", True),
        ("http://10.96.0.1/", True),
        ("http://example.org/", False),
    ],
)
def test_openais_client_goes_past_the_proxy_to_them(monkeypatch, url, direct):
    """``openai.OpenAI()`` uses httpx, which reads the environment."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    hosts = [*CLUSTER_HOSTS, "10.96.0.1", "10.0.0.0/8"]
    for name, value in with_no_proxy({"HTTP_PROXY": PROXY}, hosts).items():
        monkeypatch.setenv(name, value)
    with httpx.Client() as client:
        assert (client._transport_for_url(httpx.URL(url)) is client._transport) is direct


@pytest.mark.parametrize(
    "value", ["http://proxy:port", "http://[::1", "htp://proxy:3128", "http://", "http://proxy:99999", "//"]
)
def test_what_is_no_address_of_a_proxy_is_named(value):
    assert invalid_proxy({"NO_PROXY": "http://[", "https_proxy": value}) == "https_proxy"


@pytest.mark.parametrize(
    "value", ["", "proxy:3128", "http://ada:p%40ss@proxy.example.org:3128", "socks5h://[::1]:1080", "https://proxy"]
)
def test_addresses_of_proxies_are_taken(value):
    assert invalid_proxy({"HTTP_PROXY": value}) is None
