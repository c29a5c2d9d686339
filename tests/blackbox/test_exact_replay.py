"""What a router decided under load is decided again from its capture, event by event."""

import contextlib
import json
import sqlite3
import threading

import pytest

import exact
from harness import run, wait_for

PLAIN = ["round_robin", "least_request", "power_of_two", "affinity", "sticky", "cache_aware", "bounded_hash"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("exact") / "d.jsonl"
    exact.write_dataset(path, 240)
    return path


def serve(pdctl, db, policy, n=3):
    workers = [pdctl.worker("--speedup", 1000) for _ in range(n)]
    urls = [f"w{i}={w.url}" for i, w in enumerate(workers)]
    return workers, pdctl("serve", "--worker-urls", *urls, "--policy", policy, "--capture", db, "--health-check-interval-secs", 1)


def change(db, statement):
    with contextlib.closing(sqlite3.connect(db)) as c:
        c.execute(statement)
        c.commit()


@pytest.mark.parametrize("policy", PLAIN)
def test_under_load(policy, pdctl, dataset, tmp_path):
    db = tmp_path / "c.db"
    _, router = serve(pdctl, db, policy)
    exact.drive(router, dataset, 24)
    router.stop()
    code, found, text = exact.replay(db)
    assert (code, found) == (0, {"workers": (policy, 240, 240)}), text


def test_pairs(pdctl, dataset, tmp_path):
    db, flags = tmp_path / "c.db", []
    for role in ("prefill", "decode"):
        flags += [x for i in range(2) for x in (f"--{role}", f"{role[0]}{i}={pdctl.worker('--role', role, '--speedup', 1000).url}")]
    router = pdctl("serve", "--pd-disaggregation", *flags, "--prefill-policy", "least_request", "--decode-policy", "round_robin", "--capture", db)
    exact.drive(router, dataset, 24)
    router.stop()
    code, found, text = exact.replay(db)
    assert (code, found) == (0, {"prefill": ("least_request", 240, 240), "decode": ("round_robin", 240, 240)}), text


@pytest.mark.parametrize("policy", ["sticky", "least_request"])
def test_with_a_worker_killed_and_returned(policy, pdctl, dataset, tmp_path):
    db = tmp_path / "c.db"
    workers, router = serve(pdctl, db, policy)
    port = workers[1].port

    def captured():
        return router.metric('pdctl_capture_records_total{kind="request"}')

    def outage():
        wait_for("a third", lambda: captured() >= 80, step=0.002)
        workers[1].kill()
        wait_for("two thirds", lambda: captured() >= 160, step=0.002)
        pdctl("worker", "--speedup", 1000, port=port)

    thread = threading.Thread(target=outage)
    thread.start()
    exact.drive(router, dataset, 8)
    thread.join()
    router.stop()
    code, found, text = exact.replay(db)
    (_, agreed, compared) = found["workers"]
    assert code == 0 and agreed == compared >= 240, text


def test_a_difference_is_found_and_leads_to_no_other(pdctl, dataset, tmp_path):
    db, lines = tmp_path / "c.db", tmp_path / "lines.jsonl"
    _, router = serve(pdctl, db, "round_robin")
    exact.drive(router, dataset, 4)
    router.stop()
    assert exact.replay(db)[0] == 0
    change(db, "UPDATE decision SET worker = (worker + 1) % 3 WHERE id = 100")
    change(db, "UPDATE release SET worker = (SELECT worker FROM decision WHERE id = 100) WHERE request = (SELECT request FROM decision WHERE id = 100)")
    code, found, text = exact.replay(db, "--decisions", lines, "--json", tmp_path / "r.json")
    assert (code, found) == (1, {"workers": ("round_robin", 239, 240)}) and "1 decisions differ" in text
    rows = [json.loads(x) for x in lines.read_text().splitlines()]
    assert [r["seq"] for r in rows] == sorted({r["seq"] for r in rows})
    assert [r["event"] for r in rows].count("picked") == 240 == [r["event"] for r in rows].count("ended")
    (wrong,) = [r for r in rows if r["event"] == "picked" and not r["agrees"]]
    assert wrong["worker"] != wrong["decided"]
    doc = json.loads((tmp_path / "r.json").read_text())["pdctl"]
    assert doc["replay"] == "exact" and doc["pools"]["workers"]["agreement"] == 239 / 240
    # Another policy would have decided otherwise.
    code, found, _ = exact.replay(db, "--policy", "consistent_hash")
    assert code == 1 and found["workers"][0] == "consistent_hash" and found["workers"][1] < 200


def test_what_is_no_capture_with_an_order(pdctl, dataset, tmp_path):
    db = tmp_path / "c.db"
    _, router = serve(pdctl, db, "round_robin")
    exact.drive(router, dataset, 1)
    router.stop()
    for args, want in ((("--workload", dataset, "--replay", "exact"), "is not a capture of pdctl serve"),
                       (("--workload", dataset, "--replay", "policy"), "is not a capture of pdctl serve"),
                       (("--replay", "exact"), "--replay: expected --workload with a capture"),
                       (("--workload", db, "--replay", "exact", "--workers", 4), "--workers does not go with --replay exact"),
                       (("--workload", db, "--replay", "exact", "--policy", "random,sticky"), "expected one policy")):
        done = run("simulate", *args)
        assert done.returncode == 2 and want in done.stderr, done.stderr
    assert run("simulate", "--workload", db, "--replay", "policy", "--routing-only").returncode == 0
    change(db, "PRAGMA user_version = 1")
    done = run("simulate", "--workload", db, "--replay", "exact")
    assert done.returncode == 2 and "version 1, which has no order of events" in done.stderr
    assert run("simulate", "--workload", db, "--routing-only").returncode == 0
