"""Chunk framing of a stream that arrives in awkward pieces: the client must get one clean message whatever the cuts are."""

import json
import time

import pytest

from fake_engine import FakeEngine

pytestmark = pytest.mark.both_forms

EVENTS = [b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": f"w{i} "}}]}).encode() + b"\n\n" for i in range(4)] + [b"data: [DONE]\n\n"]
STREAM = b"".join(b"%x\r\n%s\r\n" % (len(e), e) for e in EVENTS) + b"0\r\n\r\n"


def places():
    """Before and after every framing byte of the first three chunks, and inside their data."""
    out, at = [], 0
    for event in EVENTS[:3]:
        head = len(b"%x\r\n" % len(event))
        end = at + head + len(event) + 2
        out += [at + 1, at + head - 1, at + head, at + head + 9, end - 3, end - 2, end - 1, end]
        at = end
    return out + [len(STREAM) - 5, len(STREAM) - 2]


def test_stream_cut_anywhere(pdctl):
    """A pause at the cut makes the router see the pieces apart; a chunk whose data was passed on before its CRLF came once broke the framing."""
    cuts = places()

    def handler(seen, wire):
        cut = cuts[int(seen.header("x-cut"))]
        wire.begin_stream()
        wire.raw(STREAM[:cut])
        time.sleep(0.03)
        wire.raw(STREAM[cut:])

    with FakeEngine(handler) as engine:
        router = pdctl("serve", "--worker-urls", engine.url, "--prometheus-port", 0)
        for i, cut in enumerate(cuts):
            status, _, body = router.post("/v1/chat/completions", {"model": "m", "stream": True, "messages": []}, {"X-Cut": str(i)})
            assert status == 200 and body == b"".join(EVENTS), f"cut at byte {cut}: {body!r}"
        engine.check()
