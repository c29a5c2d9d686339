"""The router's page without a browser: what is served, to whom, and what happens to the router while somebody looks.

scripts/page-check looks at the same page with a real browser.
"""

import contextlib
import http.client
import json
import re
import socket
import threading
import urllib.parse

import pytest

from fake_engine import FakeEngine
from harness import wait_for
from test_admin_workers import BODY, listed, ok, plain
from test_pd_faults import fleet

pytestmark = pytest.mark.both_forms

HOSTILE = '<script>alert("x")</script>'
FILES = {"/dashboard": "text/html", "/dashboard/dashboard.js": "text/javascript", "/dashboard/charts.js": "text/javascript",
         "/dashboard/d3.js": "text/javascript", "/dashboard/page.css": "text/css"}
VIEWERS = 16


def ask(router, path):
    status, headers, raw = router.admin("GET", path)
    assert status == 200, (path, status, raw[:500])
    return json.loads(raw)


def decisions(router, key=""):
    return ask(router, f"/dashboard/decisions?key={urllib.parse.quote(key)}")["decisions"]


class Viewer:
    """One reader of the event stream."""

    def __init__(self, router):
        url = urllib.parse.urlsplit(router.admin_url)
        self.conn = http.client.HTTPConnection(url.hostname, url.port, timeout=60)
        self.conn.request("GET", "/dashboard/live")
        self.answer = self.conn.getresponse()
        self.status = self.answer.status

    def next(self, event):
        """The data of the next event of this name; None at the end."""
        name = None
        while line := self.answer.readline():
            if line.startswith(b"event: "):
                name = line[7:].strip().decode()
            elif line.startswith(b"data: ") and name == event:
                return json.loads(line[6:])
        return None

    def close(self):
        self.conn.close()


def test_the_page_is_whole_and_names_nobody_else(pdctl):
    """Five files of one origin, below 1 MB, with nothing inline that the policy for content would have to allow."""
    with FakeEngine(ok) as one:
        router = plain(pdctl, f"w0={one.url}")
        size = 0
        for path, kind in FILES.items():
            status, headers, raw = router.admin("GET", path)
            assert status == 200 and headers["Content-Type"].startswith(kind), path
            policy = dict(part.strip().partition(" ")[::2] for part in headers["Content-Security-Policy"].split(";"))
            assert policy["default-src"] == "'none'" and policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
            assert "unsafe" not in headers["Content-Security-Policy"] and policy["frame-ancestors"] == "'none'"
            assert headers["X-Content-Type-Options"] == "nosniff"
            size += len(raw)
            head = router.admin("HEAD", path)
            assert head[0] == 200 and head[2] == b"" and int(head[1]["Content-Length"]) == len(raw)
        assert size < 1 << 20
        html = router.admin("GET", "/dashboard")[2].decode()
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=|javascript:", html)
        for place in re.findall(r'(?:src|href)="([^"]*)"', html):
            assert place.startswith(("dashboard/", "data:,")) or place in ("metrics", "workers"), place
        ours = "".join(router.admin("GET", f"/dashboard/{f}.js")[2].decode() for f in ("dashboard", "charts"))
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|\.html\(", ours)
        assert router.admin("GET", "/dashboard/nothing")[0] == 404
        assert router.admin("POST", "/dashboard")[0] == 405
        assert router.admin("GET", "/dashboard/where")[0] == 400


def test_the_data_port_does_not_have_it(pdctl):
    with FakeEngine(ok) as one:
        router = plain(pdctl, f"w0={one.url}", flags=("--admin-on-data-port",))
        one.seen.clear()
        for path in [*FILES, "/dashboard/live", "/dashboard/state"]:
            router.get(path)
        assert [s.target for s in one.seen if s.target.startswith("/dashboard")] == [*FILES, "/dashboard/live", "/dashboard/state"], "they are any paths"


def test_what_clients_send_stays_data(pdctl):
    with FakeEngine(ok) as one:
        router = plain(pdctl, f"w0={one.url}", flags=("--policy", "consistent_hash"))
        assert decisions(router) == []
        for key in (HOSTILE, 'a"b\\c', "plain"):
            assert router.post("/v1/completions", BODY, headers={"X-Session-Id": key})[0] == 200
        found = decisions(router)
        assert [d["key"] for d in found] == ["plain", 'a"b\\c', HOSTILE], "newest first"
        assert found[0]["source"] == "header:x-session-id" and found[0]["picks"][0]["worker"] == found[0]["picks"][0]["home"] == "w0"
        assert found[0]["picks"][0]["policy"] == "consistent_hash" and found[0]["picks"][0]["reason"] == "key"
        assert [d["key"] for d in decisions(router, "<script")] == [HOSTILE]
        status, headers, raw = router.admin("GET", "/dashboard/decisions")
        assert headers["Content-Type"] == "application/json" and headers["X-Content-Type-Options"] == "nosniff"
        assert decisions(router, "no such key") == []
        assert router.admin("GET", "/dashboard/decisions?key=" + "k" * 5000)[0] == 400


def test_nothing_is_kept_before_somebody_looks(pdctl):
    with FakeEngine(ok) as one:
        router = plain(pdctl, f"w0={one.url}")
        router.post("/v1/completions", BODY, headers={"X-Session-Id": "before"})
        assert decisions(router) == []
        router.post("/v1/completions", BODY, headers={"X-Session-Id": "after"})
        assert [d["key"] for d in decisions(router)] == ["after"]


def test_it_remembers_the_last_ones_only(pdctl):
    with FakeEngine(ok) as one:
        router = plain(pdctl, f"w0={one.url}")
        viewer = Viewer(router)
        viewer.next("decisions")
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", router.port, timeout=60)) as conn:
            for i in range(2100):
                conn.request("POST", "/v1/completions", b'{"prompt":"a"}', {"X-Session-Id": f"s{i}-"})
                conn.getresponse().read()
        assert decisions(router, "s10-") == [] and len(decisions(router, "s2099-")) == 1
        assert len(decisions(router)) == 200, "an answer is bounded"
        seen = missed = 0
        while seen + missed < 2100:
            got = viewer.next("decisions")
            assert len(got["decisions"]) <= 250
            seen += len(got["decisions"])
            missed += got["missed"]
        assert seen + missed == 2100 and seen > 0
        viewer.close()


def test_where_a_session_goes(pdctl):
    """What the page foretells is what happens; and a policy without keys says that it has none."""
    with FakeEngine(ok) as one, FakeEngine(ok) as two, FakeEngine(ok) as three:
        urls = [f"w{i}={e.url}" for i, e in enumerate((one, two, three))]
        router = plain(pdctl, *urls, flags=("--policy", "rendezvous_hash"))
        for i in range(12):
            told = ask(router, f"/dashboard/where?key=user-{i}")["pools"]
            assert [p["policy"] for p in told] == ["rendezvous_hash"]
            order = [o["worker"] for o in told[0]["order"]]
            assert sorted(order) == ["w0", "w1", "w2"]
            router.post("/v1/completions", BODY, headers={"X-Session-Id": f"user-{i}"})
            assert decisions(router, f"user-{i}")[0]["picks"][0]["worker"] == order[0]
        assert router.admin("POST", "/workers/w1/drain")[0] == 200
        states = {o["worker"]: o["state"] for o in ask(router, "/dashboard/where?key=x")["pools"][0]["order"]}
        assert states == {"w0": "available", "w1": "draining", "w2": "available"}
        state = ask(router, "/dashboard/state")
        shares = {w["name"]: w["share"] for w in state["workers"]}
        assert abs(sum(shares.values()) - 1) < 1e-6 and all(0.2 < s < 0.47 for s in shares.values())
        load = plain(pdctl, *urls, flags=("--policy", "least_request"))
        assert ask(load, "/dashboard/where?key=x")["pools"][0]["order"] is None
        assert [w["share"] for w in ask(load, "/dashboard/state")["workers"]] == [None] * 3


def test_the_state_tells_what_happens(pdctl):
    """Both roles of a pair, counts, streams' times; a request that hangs shows as in flight."""
    router, ps, ds = fleet(pdctl, prefill=1, decode=1)
    ask(router, "/dashboard/state")
    body = {"model": "m", "prompt": "tell me", "max_tokens": 8, "stream": True, "stream_options": {"include_usage": True}}
    for _ in range(3):
        assert router.post("/v1/completions", body)[0] == 200

    def counted():
        workers = {w["role"]: w for w in ask(router, "/dashboard/state")["workers"]}
        return workers["decode"]["first_n"] == 3 and workers["decode"]["gap_n"] > 0 and workers["prefill"]["prompt_tokens"] > 0 and workers

    workers = wait_for("three streams to be counted", counted)
    assert workers["decode"]["first_us"] > 0 and workers["decode"]["completion_tokens"] == 24
    assert [w["state"] for w in workers.values()] == ["available"] * 2 and workers["prefill"]["breaker"] == "closed"
    state = ask(router, "/dashboard/state")
    assert state["mode"] == "prefill/decode" and state["may_act"] is False and {p["role"] for p in state["pools"]} == {"prefill", "decode"}
    picks = decisions(router)[0]["picks"]
    assert [p["role"] for p in picks] == ["prefill", "decode"]


def test_a_shadow_policy_shows_beside(pdctl):
    """What it would have picked, per decision, and how often it agreed: the counts are those of the metrics."""
    with FakeEngine(ok) as one, FakeEngine(ok) as two:
        router = plain(pdctl, f"w0={one.url}", f"w1={two.url}", flags=("--policy", "consistent_hash", "--shadow-policy", "round_robin"))
        assert ask(router, "/dashboard/state")["pools"][0]["shadow"] == {"policy": "round_robin", "same": 0, "other": 0, "none": 0}
        for _ in range(8):
            assert router.post("/v1/completions", BODY, headers={"X-Session-Id": "one"})[0] == 200
        found = [d["picks"][0] for d in decisions(router)]
        same = sum(p["shadow"] == p["worker"] for p in found)
        assert len(found) == 8 and {p["shadow"] for p in found} == {"w0", "w1"} and same == 4
        wait_for("the state", lambda: ask(router, "/dashboard/state")["pools"][0]["shadow"] == {"policy": "round_robin", "same": 4, "other": 4, "none": 0})
        alone = plain(pdctl, f"w0={one.url}")
        assert ask(alone, "/dashboard/state")["pools"][0]["shadow"] is None
        alone.post("/v1/completions", BODY)
        assert "shadow" not in decisions(alone)[0]["picks"][0]


def test_a_viewer_sees_it_live(pdctl):
    release = threading.Event()

    def holds(seen, wire):
        release.wait(60)
        ok(seen, wire)

    with FakeEngine(holds) as one:
        router = plain(pdctl, f"w0={one.url}")
        viewer = Viewer(router)
        assert viewer.status == 200 and viewer.answer.headers["Content-Type"] == "text/event-stream"
        first = viewer.next("state")
        assert first["in_flight"] == 0 and first["workers"][0]["name"] == "w0"
        asker = threading.Thread(target=lambda: router.post("/v1/completions", BODY, headers={"X-Session-Id": HOSTILE}))
        asker.start()
        while viewer.next("state")["workers"][0]["in_flight"] != 1:
            pass
        assert [d["key"] for d in decisions(router)] == [HOSTILE], "a decision is seen before its request ends"
        release.set()
        asker.join()
        while viewer.next("state")["workers"][0]["in_flight"] != 0:
            pass
        viewer.close()


def test_viewers_that_do_not_read_hold_nobody(pdctl):
    """Half of the places are taken by viewers that never read: requests and another viewer go on; one too many is refused."""
    with FakeEngine(ok) as one:
        router = plain(pdctl, f"w0={one.url}")
        port = int(router.admin_url.rsplit(":", 1)[1])
        asleep = []
        for _ in range(8):
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            s.connect(("127.0.0.1", port))
            s.sendall(b"GET /dashboard/live HTTP/1.1\r\nHost: x\r\n\r\n")
            asleep.append(s)
        for s in asleep:
            assert s.recv(12) == b"HTTP/1.1 200"
        viewers = [Viewer(router) for _ in range(VIEWERS - 8)]
        assert [v.status for v in viewers] == [200] * (VIEWERS - 8)
        late = Viewer(router)
        assert late.status == 503 and late.answer.headers["Retry-After"] == "5"
        late.close()
        # Long keys: more than the buffers of a socket hold.
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", router.port, timeout=60)) as conn:
            for i in range(600):
                conn.request("POST", "/v1/completions", b'{"prompt":"a"}', {"X-Session-Id": f"s{i}-" + "k" * 490})
                assert conn.getresponse().read()
        for v in viewers:
            told = 0
            while told < 600:
                got = v.next("decisions")
                told += len(got["decisions"]) + got["missed"]
        for v in viewers:
            v.close()
        for s in asleep:
            s.close()

        def free():
            v = Viewer(router)
            v.close()
            return v.status == 200

        wait_for("the places to be free again", free)


def test_a_viewer_does_not_hold_up_the_end(pdctl):
    with FakeEngine(ok) as one:
        router = plain(pdctl, f"w0={one.url}")
        viewer = Viewer(router)
        assert viewer.next("state")
        router.signal(15)
        with contextlib.suppress(http.client.IncompleteRead, ConnectionError):
            while viewer.next("state"):
                pass
        assert router.wait() == 0
        viewer.close()


# -- who may act --


def test_a_browser_acts_with_a_key_on_this_port_only(pdctl, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("sesame-sesame-sesame\n")
    with FakeEngine(ok) as one:
        router = plain(pdctl, f"w0={one.url}", flags=("--admin-api-key-file", keys))
        host = urllib.parse.urlsplit(router.admin_url).netloc
        key = {"Authorization": "Bearer sesame-sesame-sesame"}
        own = {"Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}

        def drain(**headers):
            return router.admin("POST", "/workers/w0/drain?role=regular", headers=headers)[0]

        assert ask(router, "/dashboard/state")["may_act"] is True
        assert drain(**own) == 401
        assert drain(**own, Authorization="Bearer sesame-sesame-sesamf") == 401
        for bad in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": f"http://{host}.evil.example"}, {"Origin": f"ftp://{host}"},
                    {"Origin": "http://"}, {"Origin": f"http://{host}", "Sec-Fetch-Site": "cross-site"}, {"Origin": f"http://x{host}"}):
            assert drain(**key, **bad) == 403, bad
        assert listed(router)["w0"]["state"] == "available"
        assert drain(**key, **own) == 200
        assert listed(router)["w0"]["state"] == "draining"
        assert router.admin("POST", "/workers/w0/undrain", headers={**key, "Origin": f"https://{host}"})[0] == 200, "behind a proxy that ends TLS"
        assert listed(router)["w0"]["state"] == "available"


def test_without_keys_no_page_acts(pdctl):
    with FakeEngine(ok) as one:
        router = plain(pdctl, f"w0={one.url}")
        host = urllib.parse.urlsplit(router.admin_url).netloc
        status, _, raw = router.admin("POST", "/workers/w0/drain", headers={"Origin": f"http://{host}"})
        assert status == 403 and "--admin-api-key-file" in json.loads(raw)["error"]["message"]
        assert listed(router)["w0"]["state"] == "available"
