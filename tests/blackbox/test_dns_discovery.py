"""Workers from DNS: addresses and services, changes, and what changes nothing."""

import json

import pytest

from fake_dns import AAAA, SRV, A, FakeDns
from fake_engine import FakeEngine
from harness import run, wait_for
from test_serve_bytes import reply_completion, reply_prefill

BODY = {"model": "m", "prompt": "p", "max_tokens": 4}
ROUTE = "/v1/completions"
QUICK = ("--health-check-interval-secs", 0.2, "--retry-initial-backoff-ms", 1, "--dns-interval", 0.2)


def listed(router):
    return {w["url"]: w for w in json.loads(router.admin("GET", "/workers")[2])["workers"] if w["source"] == "dns"}


def hosts(router):
    return sorted(u[len("http://"):] for u in listed(router))


def at(engine):
    return int(engine.url.rsplit(":", 1)[1])


def test_addresses_come_and_go(pdctl):
    with FakeEngine(reply_completion) as engine, FakeDns() as dns:
        dns.a("vllm.test", "127.0.0.1", "127.0.0.2")
        router = pdctl("serve", *dns.flags, "--dns-workers", f"vllm.test:{at(engine)}", *QUICK)
        port = at(engine)
        wait_for("both", lambda: hosts(router) == [f"127.0.0.1:{port}", f"127.0.0.2:{port}"])
        wait_for("the one that lives", lambda: router.post(ROUTE, BODY)[0] == 200)
        dns.a("vllm.test", "127.0.0.1", "127.0.0.3")
        wait_for("the change", lambda: hosts(router) == [f"127.0.0.1:{port}", f"127.0.0.3:{port}"])
        assert dns.count("vllm.test", AAAA) == 0, "asked only where there is no IPv4"
        dns.a("vllm.test", "::1")
        wait_for("IPv6 alone", lambda: hosts(router) == [f"[::1]:{port}"])


@pytest.mark.parametrize("how", ["servfail", "silent", "garbage", "no record", "no name"])
def test_the_last_good_set_stays(pdctl, how):
    """Whatever comes instead of addresses: said once, counted, and nobody leaves."""
    with FakeEngine(reply_completion) as engine, FakeDns() as dns:
        dns.a("vllm.test", "127.0.0.1")
        router = pdctl("serve", *dns.flags, "--dns-workers", f"vllm.test:{at(engine)}", *QUICK)
        wait_for("it", lambda: router.post(ROUTE, BODY)[0] == 200)
        if how == "no record":
            dns.a("vllm.test")
        elif how == "no name":
            with dns.lock:
                dns.table.clear()
        else:
            dns.failing = how
        wait_for("the line", lambda: "the last 1 workers of vllm.test stay" in router.log())
        assert router.post(ROUTE, BODY)[0] == 200
        page = router.admin("GET", "/metrics")[2].decode()
        assert 'pdctl_discovery_workers{source="dns"} 1\n' in page and 'pdctl_discovery_failures_total{source="dns"} 0\n' not in page
        dns.failing = None
        dns.a("vllm.test", "127.0.0.2")
        wait_for("the next good one", lambda: hosts(router) == [f"127.0.0.2:{at(engine)}"])
        wait_for("the line about it", lambda: "vllm.test has addresses again" in router.log())
        assert router.log().count("workers of vllm.test stay") == 1


def test_many_addresses_and_aliases(pdctl):
    """More than a datagram holds: over TCP. An alias is followed."""
    with FakeDns() as dns:
        dns.cname("alias.test", "many.test")
        dns.a("many.test", *[f"127.1.{i // 200}.{i % 200 + 1}" for i in range(300)])
        dns.failing = "truncated"
        router = pdctl("serve", *dns.flags, "--dns-workers", "alias.test:8000", *QUICK)
        wait_for("all", lambda: len(hosts(router)) == 300)


def test_more_than_fit(pdctl):
    """More workers than a router has room for: of one name its last set stays, of several names the first ones count; said once."""
    with FakeDns() as dns:
        dns.a("too-many.test", *[f"127.1.{i // 200}.{i % 200 + 1}" for i in range(1100)])
        dns.a("one.test", *[f"127.2.{i // 200}.{i % 200 + 1}" for i in range(600)])
        dns.a("two.test", *[f"127.3.{i // 200}.{i % 200 + 1}" for i in range(600)])
        router = pdctl("serve", *dns.flags, "--dns-workers", *[f"{x}.test:9" for x in ("too-many", "one", "two")], "--dns-interval", 0.2)
        wait_for("as many as fit", lambda: len(hosts(router)) == 1024)
        before = dns.count("two.test", A)
        wait_for("two more rounds", lambda: dns.count("two.test", A) >= before + 2)
        router.said("dns: found more than 1024 workers, or out of memory: the last 0 workers of too-many.test stay")
        assert router.log().count("dns: more than 1024 workers") == 1


@pytest.mark.parametrize("brings", [True, False], ids=["with addresses", "without"])
def test_services_at_one_address(pdctl, brings):
    """Two targets that are one server are one worker. A record that names no server has no priority."""
    with FakeDns() as dns:
        dns.brings = brings
        dns.a("p0.vllm.test", "127.0.0.1")
        dns.a("p1.vllm.test", "127.0.0.1")
        dns.srv("_http._tcp.vllm.test", (".", 9, 0), ("p0.vllm.test", 9, 1), ("p1.vllm.test", 9, 1))
        router = pdctl("serve", *dns.flags, "--dns-workers", "_http._tcp.vllm.test", *QUICK)
        wait_for("it", lambda: hosts(router) == ["127.0.0.1:9"])
        assert [w["name"] for w in listed(router).values()] == ["p0.vllm.test:9"]


@pytest.mark.parametrize("brings", [True, False], ids=["with addresses", "without"])
def test_services(pdctl, brings):
    """Each SRV record of the lowest priority: its port, its target's name; the name stays when the address changes."""
    with FakeEngine(reply_completion) as engine, FakeDns() as dns:
        dns.brings = brings
        dns.a("p0.vllm.test", "127.0.0.1", "::1")
        dns.a("p1.vllm.test", "127.0.0.2")
        dns.a("p2.vllm.test", "127.0.0.3")
        dns.srv("_http._tcp.vllm.test", ("P0.vllm.test", at(engine), 1), ("p1.vllm.test", 8001, 1), ("p2.vllm.test", 8000, 2))
        router = pdctl("serve", *dns.flags, "--dns-workers", "_http._tcp.vllm.test", *QUICK)
        wait_for("both", lambda: hosts(router) == [f"127.0.0.1:{at(engine)}", "127.0.0.2:8001"])
        assert sorted(w["name"] for w in listed(router).values()) == [f"p0.vllm.test:{at(engine)}", "p1.vllm.test:8001"]
        wait_for("an answer", lambda: router.post(ROUTE, BODY)[0] == 200)
        dns.a("p1.vllm.test", "127.0.0.9")
        wait_for("the other address", lambda: "127.0.0.9:8001" in hosts(router) and "127.0.0.2:8001" not in hosts(router))
        assert {w["name"] for w in listed(router).values()} == {f"p0.vllm.test:{at(engine)}", "p1.vllm.test:8001"}
        assert (dns.count("p1.vllm.test", A) == 0) == brings and dns.count("_http._tcp.vllm.test", SRV) > 1


def test_roles(pdctl):
    with FakeEngine(reply_prefill) as p, FakeEngine(reply_completion) as d, FakeDns() as dns:
        dns.a("prefill.test", "127.0.0.1")
        dns.a("decode.test", "127.0.0.1")
        router = pdctl("serve", *dns.flags, "--dns-prefill", f"prefill.test:{at(p)}", "--dns-decode", f"decode.test:{at(d)}", *QUICK)
        wait_for("a pair", lambda: router.post(ROUTE, BODY)[1]["X-Prefill-Worker"] == p.url)
        assert len(dns.asked) >= 2


def test_the_interval_is_the_ttl(pdctl):
    """A long TTL is not asked again while it runs, a short one is."""
    with FakeDns() as dns:
        dns.a("long.test", "127.0.0.1", ttl=3600)
        dns.a("short.test", "127.0.0.2", ttl=1)
        router = pdctl("serve", *dns.flags, "--dns-workers", "long.test:80", "short.test:80", "--dns-interval", 3600)
        wait_for("both", lambda: len(hosts(router)) == 2)
        wait_for("the short one again", lambda: dns.count("short.test", A) == 3)
        assert dns.count("long.test", A) == 1


WRONG = [
    (("--dns-workers", "vllm.test"), "--dns-workers: found 'vllm.test', expected NAME:PORT"),
    (("--dns-workers", "vllm.test:0"), "found 'vllm.test:0'"),
    (("--dns-workers", "http://vllm.test:80"), "found 'http://vllm.test:80'"),
    (("--dns-prefill", "a b:80"), "--dns-prefill: found 'a b:80'"),
    (("--pd-disaggregation", "--dns-workers", "a:80"), "--dns-workers: found prefill/decode"),
    (("--dns-workers", "a:80", "--dns-server", "localhost"), "--dns-server: found 'localhost', expected an IPv4 address"),
    (("--dns-workers", "a:80", "--dns-server", "127.0.0.1:99999"), "--dns-server: found"),
]


@pytest.mark.parametrize("flags, want", WRONG)
def test_wrong_flags(flags, want):
    done = run("serve", "--port", 0, "--admin-port", -1, *flags)
    assert done.returncode == 2 and want in done.stderr, done.stderr
