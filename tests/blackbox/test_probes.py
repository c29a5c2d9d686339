"""Raw bytes from hostile clients and hostile workers.

Clients: each probe is sent as it is, in two pieces, and byte by byte. It is refused, or passed on in one reading only; the worker gets
nothing else, and the request after it gets its own answer. Workers: each wrong answer costs its own client an error or a visible cut,
never a byte of somebody else's answer, and the next client gets its own.
"""

import itertools
import json
import re
import socket
import threading
import time

import pytest

from fake_engine import FakeEngine
from harness import Fleet, wait_for

pytestmark = pytest.mark.both_forms

MARK = b"MMMMMMMM"  # in a probe: replaced by a text of the same length that is new each time
BODY = b'{"mark":"MMMMMMMM","prompt":"p"}'
N = len(BODY)
LINE = b"POST /v1/completions HTTP/1.1\r\n"
HOST = b"Host: router:30000\r\n"
CL = b"Content-Length: %d\r\n" % N
TE = b"Transfer-Encoding: chunked\r\n"
END = b"\r\n"
CHUNKED = b"%x\r\n%s\r\n0\r\n\r\n" % (N, BODY)
SMUGGLED = b"POST /smuggled HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
FIELD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+: ?[\x21-\x7e\x80-\xff]?[\t\x20-\x7e\x80-\xff]*")

marks = (b"m%07d" % i for i in itertools.count())


def post(*fields, body=BODY, line=LINE, host=HOST):
    return line + host + b"".join(fields) + END + body


def raw(*fields, **kw):
    """With the right Content-Length in front."""
    return post(CL, *fields, **kw)


def chunks(body, *fields):
    return post(TE, *fields, body=body)


class Passed:
    """Goes to the worker: method, target, body as the worker must see them; `head` are patterns that must (or with ! must not) be in it."""

    def __init__(self, method=b"POST", target=b"/v1/completions", body=BODY, head=(), status=200, closes=False):
        self.method, self.target, self.body, self.head, self.status, self.closes = method, target, body, head, status, closes


OK = Passed()
GET = Passed(b"GET", b"/x", b"")
SHUT = Passed(closes=True)  # passed on, and the connection closes after its answer
get = b"GET /x HTTP/1.1\r\n"

REQUESTS = {
    # -- lengths
    "length": (raw(), OK),
    "length with blanks around": (post(b"Content-Length: \t %d \t\r\n" % N), OK),
    "length with leading zeros": (post(b"Content-Length: 000%d\r\n" % N), OK),
    "length in capitals": (post(b"CONTENT-LENGTH:%d\r\n" % N), OK),
    "no length, no body": (post(body=b""), Passed(body=b"")),
    "length zero": (post(b"Content-Length: 0\r\n", body=b""), Passed(body=b"", head=[b"Content-Length: 0\r\n"])),
    "same length twice": (raw(CL), 400),
    "two lengths": (raw(b"Content-Length: 5\r\n"), 400),
    "two lengths, the wrong one first": (post(b"Content-Length: 0\r\n", CL, body=SMUGGLED), 400),
    "list of lengths": (post(b"Content-Length: %d, %d\r\n" % (N, N)), 400),
    "list of two lengths": (post(b"Content-Length: 0, %d\r\n" % N), 400),
    "empty length": (post(b"Content-Length:\r\n"), 400),
    "length of blanks": (post(b"Content-Length:  \t\r\n"), 400),
    "plus": (post(b"Content-Length: +%d\r\n" % N), 400),
    "minus": (post(b"Content-Length: -1\r\n"), 400),
    "minus zero": (post(b"Content-Length: -0\r\n"), 400),
    "hex length": (post(b"Content-Length: 0x%x\r\n" % N), 400),
    "length with a point": (post(b"Content-Length: %d.0\r\n" % N), 400),
    "length with an exponent": (post(b"Content-Length: 1e1\r\n"), 400),
    "length with an underscore": (post(b"Content-Length: 3_2\r\n"), 400),
    "length with a semicolon": (post(b"Content-Length: %d;a=b\r\n" % N), 400),
    "length and a word": (post(b"Content-Length: %d bytes\r\n" % N), 400),
    "quoted length": (post(b'Content-Length: "%d"\r\n' % N), 400),
    "length above 2^63": (post(b"Content-Length: 9223372036854775808\r\n"), 400),
    "length above 2^64": (post(b"Content-Length: 18446744073709551648\r\n"), 400),
    "length of many digits": (post(b"Content-Length: 99999999999999999999999999999999\r\n"), 400),
    "length below 2^63": (post(b"Content-Length: 9223372036854775807\r\n"), 413),
    "NUL in the length": (post(b"Content-Length: %d\0\r\n" % N), 400),
    "vertical tab in the length": (post(b"Content-Length: \x0b%d\r\n" % N), 400),
    "no-break space in the length": (post(b"Content-Length: \xa0%d\r\n" % N), 400),
    "fullwidth digits": (post("Content-Length: ３２\r\n".encode()), 400),
    "length with a space before the colon": (post(b"Content-Length : %d\r\n" % N), 400),
    "length with a tab before the colon": (post(b"Content-Length\t: %d\r\n" % N), 400),
    "length spelt with an underscore": (post(b"Content_Length: %d\r\n" % N, body=b""), 400),
    "length and one spelt with an underscore": (raw(b"Content_Length: 5\r\n"), 400),
    "length with a NUL in its name": (post(b"Content-\0Length: %d\r\n" % N), 400),
    "folded length": (post(b"Content-Length:\r\n %d\r\n" % N), 400),
    "more bytes than the length": (raw(body=BODY + SMUGGLED), "two"),
    "GET with a body": (post(CL, line=get), Passed(b"GET", b"/x")),
    # -- transfer codings
    "chunked": (chunks(CHUNKED), OK),
    "chunked in capitals": (post(b"Transfer-Encoding: \tCHUNKED \r\n", body=CHUNKED), OK),
    "length and coding": (post(b"Content-Length: 5\r\n", TE, body=b"0\r\n\r\n" + SMUGGLED), 400),
    "coding and length": (post(TE, CL, body=CHUNKED), 400),
    "coding and length zero": (post(TE, b"Content-Length: 0\r\n", body=CHUNKED), 400),
    "coding and an underscored length": (post(TE, b"Content_Length: 5\r\n", body=CHUNKED), 400),
    "two codings": (post(TE, b"Transfer-Encoding: identity\r\n", body=CHUNKED), 400),
    "chunked in two fields": (post(TE, TE, body=CHUNKED), 400),
    "chunked twice": (post(b"Transfer-Encoding: chunked, chunked\r\n", body=CHUNKED), 400),
    "identity, chunked": (post(b"Transfer-Encoding: identity, chunked\r\n", body=CHUNKED), 400),
    "gzip, chunked": (post(b"Transfer-Encoding: gzip, chunked\r\n", body=CHUNKED), 400),
    "chunked, gzip": (post(b"Transfer-Encoding: chunked, gzip\r\n", body=CHUNKED), 400),
    "gzip": (post(b"Transfer-Encoding: gzip\r\n", body=CHUNKED), 400),
    "identity": (post(b"Transfer-Encoding: identity\r\n", CL), 400),
    "empty coding": (post(b"Transfer-Encoding:\r\n", CL), 400),
    "only a comma": (post(b"Transfer-Encoding: ,\r\n", body=CHUNKED), 400),
    "chunked and a comma": (post(b"Transfer-Encoding: chunked,\r\n", body=CHUNKED), 400),
    "a comma and chunked": (post(b"Transfer-Encoding: ,chunked\r\n", body=CHUNKED), 400),
    "chunked with a parameter": (post(b"Transfer-Encoding: chunked;q=1\r\n", body=CHUNKED), 400),
    "quoted chunked": (post(b'Transfer-Encoding: "chunked"\r\n', body=CHUNKED), 400),
    "xchunked": (post(b"Transfer-Encoding: xchunked\r\n", body=CHUNKED), 400),
    "chunkedx": (post(b"Transfer-Encoding: chunkedx\r\n", body=CHUNKED), 400),
    "chunke": (post(b"Transfer-Encoding: chunke\r\n", body=CHUNKED), 400),
    "chunked and a word": (post(b"Transfer-Encoding: chunked foo\r\n", body=CHUNKED), 400),
    "chunked behind a vertical tab": (post(b"Transfer-Encoding: \x0bchunked\r\n", body=CHUNKED), 400),
    "chunked behind a NUL": (post(b"Transfer-Encoding: chunked\0\r\n", body=CHUNKED), 400),
    "chunked with a long s": (post("Transfer-Encoding: chun\u212aed\r\n".encode(), body=CHUNKED), 400),
    "coding with a space before the colon": (post(b"Transfer-Encoding : chunked\r\n", body=CHUNKED), 400),
    "coding spelt with an underscore": (post(b"Transfer_Encoding: chunked\r\n", CL), 400),
    "folded coding": (post(b"Transfer-Encoding:\r\n chunked\r\n", body=CHUNKED), 400),
    "coding behind a bare CR": (raw(b"X: a\rTransfer-Encoding: chunked\r\n"), 400),
    "coding behind a bare LF": (raw(b"X: a\nTransfer-Encoding: chunked\r\n"), 400),
    "coding with a bare LF": (post(b"Transfer-Encoding: chunked\n", body=CHUNKED), 400),
    "coding in HTTP/1.0": (post(TE, line=b"POST /v1/completions HTTP/1.0\r\n", body=CHUNKED), 400),
    "coding in a content field": (raw(b"Content-Encoding: chunked\r\n"), OK),
    "field that looks like a coding": (raw(b"X-Transfer-Encoding: chunked\r\n"), OK),
    # -- chunks
    "two chunks": (chunks(b"5\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (BODY[:5], N - 5, BODY[5:])), OK),
    "size in capitals with zeros": (chunks(b"00%X\r\n%s\r\n000\r\n\r\n" % (N, BODY)), OK),
    "extensions": (chunks(b'%x;a;b=c;d="e\\";f"\r\n%s\r\n0;g\r\n\r\n' % (N, BODY)), OK),
    "trailers": (chunks(b"%x\r\n%s\r\n0\r\nX-T: 1\r\nY:\r\n\r\n" % (N, BODY)), Passed(head=[b"!X-T"])),
    "framing in trailers": (chunks(b"%x\r\n%s\r\n0\r\nContent-Length: 5\r\nTransfer-Encoding: x\r\nHost: evil\r\nAuthorization: x\r\n\r\n"
                                   % (N, BODY)), Passed(head=[b"!evil", b"!Authorization"])),
    "no chunk at all": (chunks(b"0\r\n\r\n"), Passed(body=b"")),
    "LF after the size": (chunks(b"%x\n%s\r\n0\r\n\r\n" % (N, BODY)), 400),
    "CR after the size": (chunks(b"%x\r%s\r\n0\r\n\r\n" % (N, BODY)), 400),
    "LF after the data": (chunks(b"%x\r\n%s\n0\r\n\r\n" % (N, BODY)), 400),
    "nothing after the data": (chunks(b"%x\r\n%s0\r\n\r\n" % (N, BODY)), 400),
    "LF after the last size": (chunks(b"%x\r\n%s\r\n0\n\r\n" % (N, BODY)), 400),
    "LF at the end": (chunks(b"%x\r\n%s\r\n0\r\n\n" % (N, BODY)), 400),
    "LF after an extension": (chunks(b"%x;a=b\n%s\r\n0\r\n\r\n" % (N, BODY)), 400),
    "LF in an extension": (chunks(b"%x;a\nb\r\n%s\r\n0\r\n\r\n" % (N, BODY)), 400),
    "LF in a quoted extension": (chunks(b'%x;a="\n"\r\n%s\r\n0\r\n\r\n' % (N, BODY)), 400),
    "CR in an extension": (chunks(b"%x;a\rb\r\n%s\r\n0\r\n\r\n" % (N, BODY)), 400),
    "NUL in an extension": (chunks(b"%x;a\0\r\n%s\r\n0\r\n\r\n" % (N, BODY)), 400),
    "empty extension": (chunks(b"%x;\r\n%s\r\n0\r\n\r\n" % (N, BODY)), 400),
    "blanks before an extension": (chunks(b"%x ;a\r\n%s\r\n0\r\n\r\n" % (N, BODY)), 400),
    "long extension": (chunks(b"%x;%s\r\n%s\r\n0\r\n\r\n" % (N, b"a" * 300, BODY)), 400),
    "chunk too long": (chunks(b"%x\r\n%s\r\n0\r\n\r\n" % (N - 1, BODY)), 400),
    "chunk too short": (chunks(b"%x\r\n%s\r\n0\r\n\r\n" % (N + 1, BODY)), 400),
    "empty size": (chunks(b"\r\n%s\r\n0\r\n\r\n" % BODY), 400),
    "blank before the size": (chunks(b" %x\r\n%s\r\n0\r\n\r\n" % (N, BODY)), 400),
    "blank after the size": (chunks(b"%x \r\n%s\r\n0\r\n\r\n" % (N, BODY)), 400),
    "tab after the size": (chunks(b"%x\t\r\n%s\r\n0\r\n\r\n" % (N, BODY)), 400),
    "0x before the size": (chunks(b"0x%x\r\n%s\r\n0\r\n\r\n" % (N, BODY)), 400),
    "h after the size": (chunks(b"%xh\r\n%s\r\n0\r\n\r\n" % (N, BODY)), 400),
    "minus before the size": (chunks(b"-%x\r\n%s\r\n0\r\n\r\n" % (N, BODY)), 400),
    "plus before the size": (chunks(b"+%x\r\n%s\r\n0\r\n\r\n" % (N, BODY)), 400),
    "underscore in the size": (chunks(b"2_0\r\n%s\r\n0\r\n\r\n" % BODY), 400),
    "comma in the size": (chunks(b"20,20\r\n%s\r\n0\r\n\r\n" % BODY), 400),
    "size above 2^64": (chunks(b"100000000000000%02x\r\n%s\r\n0\r\n\r\n" % (N, BODY)), 400),
    "size above 2^63": (chunks(b"80000000000000%02x\r\n%s\r\n0\r\n\r\n" % (N, BODY)), 400),
    "size below 2^63": (chunks(b"7fffffffffffffff\r\n" + BODY), 413),
    "many zeros": (chunks(b"%017x\r\n%s\r\n0\r\n\r\n" % (N, BODY)), 400),
    "trailer without a name": (chunks(b"%x\r\n%s\r\n0\r\n: x\r\n\r\n" % (N, BODY)), 400),
    "trailer without a colon": (chunks(b"%x\r\n%s\r\n0\r\nX-T\r\n\r\n" % (N, BODY)), 400),
    "space in a trailer's name": (chunks(b"%x\r\n%s\r\n0\r\nX T: 1\r\n\r\n" % (N, BODY)), 400),
    "LF in a trailer": (chunks(b"%x\r\n%s\r\n0\r\nX-T: 1\n\r\n" % (N, BODY)), 400),
    "CR in a trailer": (chunks(b"%x\r\n%s\r\n0\r\nX-T: 1\r2\r\n\r\n" % (N, BODY)), 400),
    "NUL in a trailer": (chunks(b"%x\r\n%s\r\n0\r\nX-T: \0\r\n\r\n" % (N, BODY)), 400),
    "folded trailer": (chunks(b"%x\r\n%s\r\n0\r\nX-T: 1\r\n 2\r\n\r\n" % (N, BODY)), 400),
    "huge trailers": (chunks(b"%x\r\n%s\r\n0\r\n%s\r\n" % (N, BODY, b"X-T: 12345678\r\n" * 600)), 400),
    "request behind the last chunk": (chunks(CHUNKED + SMUGGLED), "two"),
    # -- field lines
    "bare LF everywhere": (raw().replace(b"\r\n", b"\n"), 400),
    "bare LF at one line": (raw(b"X: a\n"), 400),
    "bare LF at the end": (raw()[: -N - 2] + b"\n" + BODY, 400),
    "bare CR in front of a name": (raw(b"\rX: a\r\n"), 400),
    "two CRs": (raw(b"X: a\r\r\n"), 400),
    "NUL in a value": (raw(b"X: a\0b\r\n"), 400),
    "NUL in a name": (raw(b"X\0: a\r\n"), 400),
    "DEL in a value": (raw(b"X: a\x7fb\r\n"), 400),
    "escape in a value": (raw(b"X: \x1b[31m\r\n"), 400),
    "form feed in a value": (raw(b"X: a\x0cb\r\n"), 400),
    "vertical tab in a value": (raw(b"X: a\x0bb\r\n"), 400),
    "folded line": (raw(b"X: a\r\n b\r\n"), 400),
    "folded line with a tab": (raw(b"X: a\r\n\tb\r\n"), 400),
    "first field folded": (LINE + b" " + HOST + CL + END + BODY, 400),
    "blank line of blanks": (raw(b" \r\n"), 400),
    "space before a colon": (raw(b"X : a\r\n"), 400),
    "no name": (raw(b": a\r\n"), 400),
    "no colon": (raw(b"X\r\n"), 400),
    "space in a name": (raw(b"X Y: a\r\n"), 400),
    "parenthesis in a name": (raw(b"X(: a\r\n"), 400),
    "bytes above 127 in a name": (raw(b"X\xe9: a\r\n"), 400),
    "slash in a name": (raw(b"X/Y: a\r\n"), 400),
    "odd but valid name": (raw(b"!#$%&'*+-.^_`|~09: a\r\n"), Passed(head=[b"\r\n!#$%&'*+-.^_`|~09: a\r\n"])),
    "bytes above 127 in a value": (raw(b"X: caf\xe9 \xc3\xa9\r\n"), Passed(head=[b"X: caf\xe9 \xc3\xa9\r\n"])),
    "tab in a value": (raw(b"X: a\tb\r\n"), Passed(head=[b"X: a\tb\r\n"])),
    "empty value": (raw(b"X:\r\n"), Passed(head=[b"X: \r\n"])),
    "same field twice": (raw(b"X: a\r\nX: b\r\n"), Passed(head=[b"X: a\r\nX: b\r\n"])),
    "100 fields": (raw(*[b"X: a\r\n"] * 98), OK),
    "101 fields": (raw(*[b"X: a\r\n"] * 99), 431),
    "10000 fields": (raw(*[b"X: a\r\n"] * 10000), 431),
    "large field": (raw(b"X: %s\r\n" % (b"a" * 60000)), OK),
    "too large field": (raw(b"X: %s\r\n" % (b"a" * 70000)), 431),
    "endless name": (LINE + b"X" * 70000, 431),
    "two Authorizations": (raw(b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n"), 400),
    "two content types": (raw(b"Content-Type: application/json\r\nContent-Type: text/plain\r\n"), 400),
    "Authorization spelt with an underscore": (raw(b"X_Request_Id: a\r\n"), 400),
    # -- Host
    "no Host": (raw(host=b""), 400),
    "two Hosts": (raw(host=HOST + HOST), 400),
    "two different Hosts": (raw(host=HOST + b"Host: evil\r\n"), 400),
    "empty Host": (raw(host=b"Host:\r\n"), 400),
    "Host of blanks": (raw(host=b"Host: \t \r\n"), 400),
    "two names in Host": (raw(host=b"Host: a, b\r\n"), 400),
    "space in Host": (raw(host=b"Host: a b\r\n"), 400),
    "user in Host": (raw(host=b"Host: a@b\r\n"), 400),
    "path in Host": (raw(host=b"Host: a/b\r\n"), 400),
    "URL in Host": (raw(host=b"Host: http://a\r\n"), 400),
    "query in Host": (raw(host=b"Host: a?b\r\n"), 400),
    "hash in Host": (raw(host=b"Host: a#b\r\n"), 400),
    "backslash in Host": (raw(host=b"Host: a\\b\r\n"), 400),
    "port that is no number": (raw(host=b"Host: a:80x\r\n"), 400),
    "port that is too large": (raw(host=b"Host: a:65536\r\n"), 400),
    "two ports": (raw(host=b"Host: a:80:81\r\n"), 400),
    "only a port": (raw(host=b"Host: :80\r\n"), 400),
    "open bracket": (raw(host=b"Host: [::1\r\n"), 400),
    "empty brackets": (raw(host=b"Host: []\r\n"), 400),
    "name in brackets": (raw(host=b"Host: [evil]\r\n"), 400),
    "bytes behind the bracket": (raw(host=b"Host: [::1]x\r\n"), 400),
    "half a percent sign": (raw(host=b"Host: a%2\r\n"), 400),
    "quote in Host": (raw(host=b'Host: a"b\r\n'), 400),
    "bytes above 127 in Host": (raw(host=b"Host: \xc3\xa9\r\n"), 400),
    "NUL in Host": (raw(host=b"Host: a\0b\r\n"), 400),
    "tab in Host": (raw(host=b"Host: a\tb\r\n"), 400),
    "space before Host's colon": (raw(host=b"Host : a\r\n"), 400),
    "Host and a folded one": (raw(host=b"Host: a\r\n b\r\n"), 400),
    "address in Host": (raw(host=b"Host: [2001:db8::1]:443\r\n"), Passed(head=[b"!2001"])),
    "Host is not passed on": (raw(host=b"hOsT: evil.example\r\n"), Passed(head=[b"!evil"])),
    "forwarded host is not believed": (raw(b"X-Forwarded-Host: evil\r\nForwarded: host=evil\r\nX-Host: evil\r\n"), OK),
    # -- request line
    "two spaces before the target": (raw(line=b"POST  /v1/completions HTTP/1.1\r\n"), 400),
    "two spaces after the target": (raw(line=b"POST /v1/completions  HTTP/1.1\r\n"), 400),
    "tab in the request line": (raw(line=b"POST\t/v1/completions HTTP/1.1\r\n"), 400),
    "blank at the end": (raw(line=b"POST /v1/completions HTTP/1.1 \r\n"), 400),
    "blank at the beginning": (raw(line=b" POST /v1/completions HTTP/1.1\r\n"), 400),
    "LF after the request line": (raw(line=b"POST /v1/completions HTTP/1.1\n"), 400),
    "CR in the target": (raw(line=b"POST /v1/\rcompletions HTTP/1.1\r\n"), 400),
    "LF in the target": (raw(line=b"POST /v1/\ncompletions HTTP/1.1\r\n"), 400),
    "NUL in the target": (raw(line=b"POST /v1/\0completions HTTP/1.1\r\n"), 400),
    "space in the target": (raw(line=b"POST /v1/com pletions HTTP/1.1\r\n"), 400),
    "request in the target": (raw(line=b"GET /x HTTP/1.1 /y HTTP/1.1\r\n"), 400),
    "bytes above 127 in the target": (raw(line=b"POST /\xe9 HTTP/1.1\r\n"), 400),
    "hash in the target": (raw(line=b"POST /a#b HTTP/1.1\r\n"), 400),
    "no slash": (raw(line=b"POST v1/completions HTTP/1.1\r\n"), 400),
    "star": (raw(line=b"POST * HTTP/1.1\r\n"), 400),
    "no target": (raw(line=b"POST HTTP/1.1\r\n"), 400),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400),
    "no version": (raw(line=b"POST /v1/completions\r\n"), 400),
    "version 0.9": (raw(line=b"POST /x HTTP/0.9\r\n"), 505),
    "version 1.2": (raw(line=b"POST /x HTTP/1.2\r\n"), 505),
    "version 2.0": (raw(line=b"POST /x HTTP/2.0\r\n"), 505),
    "version 1.10": (raw(line=b"POST /x HTTP/1.10\r\n"), 400),
    "version 01.1": (raw(line=b"POST /x HTTP/01.1\r\n"), 400),
    "version 1": (raw(line=b"POST /x HTTP/1\r\n"), 400),
    "small http": (raw(line=b"POST /x http/1.1\r\n"), 400),
    "another protocol": (raw(line=b"POST /x ICY/1.1\r\n"), 400),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "TLS hello": (bytes.fromhex("16030100c8010000c40303") + bytes(190), 400),
    "method of no letters": (raw(line=b"P(ST /x HTTP/1.1\r\n"), 400),
    "method with a colon": (raw(line=b"POST: /x HTTP/1.1\r\n"), 400),
    "CONNECT": (b"CONNECT evil:80 HTTP/1.1\r\nHost: evil:80\r\n\r\n", 501),
    "TRACE": (b"TRACE /x HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    "small post": (raw(line=b"post /x HTTP/1.1\r\n"), Passed(b"post", b"/x")),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\nHost: a\r\nX-Mark: MMMMMMMM\r\n\r\n", Passed(b"OPTIONS", b"*", b"")),
    "absolute form": (raw(line=b"POST http://router:30000/x?y HTTP/1.1\r\n"), Passed(target=b"/x?y")),
    "absolute form of another host": (raw(line=b"POST http://evil/x HTTP/1.1\r\n"), 400),
    "absolute form with a user": (raw(line=b"POST http://evil@router:30000/x HTTP/1.1\r\n"), 400),
    "absolute form without a path": (raw(line=b"POST http://router:30000 HTTP/1.1\r\n"), 400),
    "absolute form of another scheme": (raw(line=b"POST ftp://router:30000/x HTTP/1.1\r\n"), 400),
    "two slashes": (raw(line=b"POST //evil/x HTTP/1.1\r\n"), Passed(target=b"//evil/x")),
    "dots": (raw(line=b"POST /a/../x HTTP/1.1\r\n"), Passed(target=b"/a/../x")),
    "encoded line end": (raw(line=b"POST /x%0d%0aX:%20y HTTP/1.1\r\n"), Passed(target=b"/x%0d%0aX:%20y")),
    "long target": (raw(line=b"POST /%s HTTP/1.1\r\n" % (b"a" * 30000)), Passed(target=b"/" + b"a" * 30000)),
    "endless target": (b"POST /" + b"a" * 70000, 414),
    "endless method": (b"P" * 70000, 431),
    "empty lines in front": (b"\r\n\r\n" + raw(), OK),
    "many empty lines in front": (b"\r\n" * 3 + raw(), 400),
    "bare LF in front": (b"\n" + raw(), 400),
    # -- connection
    "close": (raw(b"Connection: close\r\n"), SHUT),
    "close among others": (raw(b"Connection: x,, \tCLOSE ,y\r\n"), SHUT),
    "close and keep-alive": (raw(b"Connection: keep-alive\r\nConnection: close\r\n"), SHUT),
    "HTTP/1.0": (raw(line=b"POST /v1/completions HTTP/1.0\r\n", host=b""), SHUT),
    "HTTP/1.0 that stays": (raw(b"Connection: keep-alive\r\n", line=b"POST /v1/completions HTTP/1.0\r\n", host=b""), OK),
    "Connection names a field": (raw(b"Connection: x-a\r\nX-A: 1\r\nX-B: 2\r\n"), Passed(head=[b"!X-A", b"X-B: 2\r\n"])),
    "Connection names the length": (raw(b"Connection: content-length\r\n"), Passed(head=[CL])),
    "Connection names the coding": (chunks(CHUNKED, b"Connection: transfer-encoding\r\n"), Passed(head=[CL])),
    "Connection names Host": (raw(b"Connection: host\r\n"), OK),
    "Connection names the credentials": (raw(b"Connection: authorization, x-api-key\r\nAuthorization: Bearer MMMMMMMM\r\nX-Api-Key: k\r\n"),
                                         Passed(head=[b"Authorization: Bearer MMMMMMMM\r\n", b"X-Api-Key: k\r\n"])),
    "Connection names the request id": (raw(b"Connection: x-request-id\r\nX-Request-Id: MMMMMMMM\r\n"), Passed(head=[b"X-Request-Id: MMMMMMMM\r\n"])),
    "Connection names the content type": (raw(b"Connection: content-type\r\nContent-Type: a/b\r\n"), Passed(head=[b"Content-Type: a/b\r\n"])),
    "Connection names a proxy's fields": (raw(b"Connection: x-forwarded-for, via\r\nX-Forwarded-For: 1.2.3.4\r\nVia: 1.1 a\r\n"),
                                          Passed(head=[b"X-Forwarded-For: 1.2.3.4\r\n", b"Via: 1.1 a\r\n"])),
    "Connection names too many": (raw(b"Connection: %s\r\n" % b",".join(b"x%d" % i for i in range(40))), 400),
    "hop-by-hop fields": (raw(b"Keep-Alive: timeout=9\r\nProxy-Connection: keep-alive\r\nTE: trailers\r\nTrailer: x\r\nUpgrade: h2c\r\n"
                              b"HTTP2-Settings: AAMAAABkAAQAAP__\r\nProxy-Authorization: Basic x\r\nX-End: 1\r\n"),
                          Passed(head=[b"!Keep-Alive", b"!Proxy-", b"!\r\nTE:", b"!Trailer", b"!Upgrade", b"!HTTP2", b"X-End: 1\r\n"])),
    "upgrade": (raw(b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"), Passed(head=[b"!Upgrade", b"!upgrade"])),
    "expectation that nobody meets": (raw(b"Expect: 200-ok\r\n"), 417),
    "two expectations": (raw(b"Expect: 100-continue, 200-ok\r\n"), 417),
    "expectation": (raw(b"Expect: 100-continue\r\n"), Passed(head=[b"!Expect"])),
    "rank": (raw(b"X-Data-Parallel-Rank: 7\r\n"), Passed(head=[b"!Rank", b"!rank"])),
    "hosts for a sidecar": (raw(b"x-prefiller-host-port: evil:1\r\nx-encoder-hosts-ports: evil:1\r\nx-data-parallel-host-port: evil:1\r\n"
                                b"x-kv-cache-source-host-port: evil:1\r\nx-gateway-destination-endpoint: evil:1\r\nx-prefill-host-port: evil:1\r\n"),
                            Passed(head=[b"!evil"])),
    "addresses in the request id": (raw(b"X-Request-Id: x___prefill_addr_evil:1___decode_addr_evil:2_0\r\n"), Passed(head=[b"!evil"])),
    "pipelined": (raw() + raw(), "two"),
    "pipelined with something bad": (raw() + b"GET /x HTTP/1.1\nHost: a\n\n", "then bad"),
}


def numbered(data):
    mark = next(marks)
    return data.replace(MARK, mark), mark


def answers(data):
    """Whole answers in the bytes: [(status, head, body)], and what is left."""
    out = []
    while b"\r\n\r\n" in data:
        head, rest = data.split(b"\r\n\r\n", 1)
        status = int(head.split(b" ")[1])
        length = re.search(rb"\r\ncontent-length: (\d+)", head, re.I)
        n = int(length[1]) if length else 0
        if len(rest) < n:
            break
        if status >= 200:
            out.append((status, head, rest[:n]))
        data = rest[n:]
    return out, data


def read_answers(sock, n, till_end=False):
    """n answers, or with till_end everything until the connection ends."""
    data, ended = b"", False
    while not ended and (till_end or len(answers(data)[0]) < n):
        try:
            piece = sock.recv(1 << 20)
        except ConnectionResetError:
            piece = b""
        ended = not piece
        data += piece
    found, rest = answers(data)
    assert rest == b"", rest[:300]
    return found, ended


class Recorder(FakeEngine):
    """Answers with the mark of the request; holds every request against the strictest reading."""

    def __init__(self):
        super().__init__(self.echo)

    def echo(self, seen, wire):
        lines = seen.head.split(b"\r\n")
        assert all(FIELD.fullmatch(line) for line in lines[1:]), seen.head
        assert [v for n, v in seen.headers if n.lower() == "host"] == [f"127.0.0.1:{self.port}"], seen.head
        names = [n.lower() for n, _ in seen.headers]
        assert names.count("content-length") <= 1 and "transfer-encoding" not in names and "connection" not in names, seen.head
        mark = re.search(rb"m\d{7}", seen.head + seen.body)
        wire.json({"mark": mark[0].decode() if mark else None})


@pytest.fixture(scope="module")
def door(io_form):
    fleet = Fleet()
    with Recorder() as engine:
        router = fleet("serve", "--worker-urls", engine.url, "--disable-circuit-breaker", "--log-level", "warn")
        yield router, engine
        engine.check()
        fleet.stop()


def send_in_pieces(sock, data, cuts):
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        for a, b in itertools.pairwise([0, *cuts, len(data)]):
            sock.sendall(data[a:b])
            if len(cuts) == 1:
                time.sleep(0.003)
    except (BrokenPipeError, ConnectionResetError):
        pass  # it was refused already


def own_answer(answer, mark):
    status, _, body = answer
    assert status == 200 and json.loads(body)["mark"] == mark.decode(), (answer, mark)


def follow_up(router, sock=None):
    data, mark = numbered(raw())
    with sock or router.connect() as s:
        s.sendall(data)
        found, _ = read_answers(s, 1)
        own_answer(found[0], mark)


def judge(door, name, cuts):
    router, engine = door
    probe, want = REQUESTS[name]
    data, mark = numbered(probe)
    before = len(engine.seen)
    sock = router.connect()
    send_in_pieces(sock, data, cuts(data))
    if isinstance(want, int):
        found, ended = read_answers(sock, 1, till_end=True)
        sock.close()
        assert [a[0] for a in found] == [want] and ended, (name, found)
        assert b"\r\nConnection: close" in found[0][1] and json.loads(found[0][2])["error"]["message"]
        assert len(engine.seen) == before, engine.seen[before].head
        follow_up(router)
        return
    if want == "two":  # the second one, whatever it is, is a request of its own
        found, _ = read_answers(sock, 2)
        own_answer(found[0], mark)
        assert [a[0] for a in found] == [200, 200]
        assert [s.body for s in engine.seen[before:]][0] == BODY.replace(MARK, mark) and len(engine.seen) == before + 2
        follow_up(router, sock)
        return
    if want == "then bad":
        found, _ = read_answers(sock, 2, till_end=True)
        own_answer(found[0], mark)
        assert [a[0] for a in found] == [200, 400] and len(engine.seen) == before + 1
        follow_up(router)
        return
    found, ended = read_answers(sock, 1, till_end=want.closes)
    assert [a[0] for a in found] == [want.status] and ended == want.closes, (name, found)
    assert len(engine.seen) == before + 1, name
    seen = engine.seen[-1]
    assert (seen.method.encode(), seen.target.encode(), seen.body) == (want.method, want.target, want.body.replace(MARK, mark)), seen.head
    if mark in data:
        own_answer(found[0], mark)
    for pattern in want.head:
        pattern = pattern.replace(MARK, mark)
        assert (pattern[1:] not in seen.head) if pattern[:1] == b"!" and pattern[1:2] != b"#" else (pattern in seen.head + END), (pattern, seen.head)
    follow_up(router, None if want.closes else sock)


def test_there_are_enough_probes():
    assert len(REQUESTS) >= 120 and len(ANSWERS) >= 40
    assert sum(isinstance(want, int) for _, want in REQUESTS.values()) >= 120


@pytest.mark.parametrize("name", REQUESTS)
def test_request(door, name):
    judge(door, name, lambda data: [])
    judge(door, name, lambda data: [len(data) // 2])
    judge(door, name, lambda data: [max(1, len(data) - 3)])
    if len(REQUESTS[name][0]) < 1000:
        judge(door, name, lambda data: list(range(1, len(data))))
    door[1].check()


# -- workers

JSON = b"Content-Type: application/json\r\n"
GOOD = b'{"mark":"MMMMMMMM"}'
G = len(GOOD)
SPLIT = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n\"EVIL!\""


def reply(*fields, body=GOOD, line=b"HTTP/1.1 200 OK\r\n"):
    return line + JSON + b"".join(fields) + END + body


GL = b"Content-Length: %d\r\n" % G
GOOD_CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (G, GOOD)
EVENT = b'data: {"mark":"MMMMMMMM"}\n\n'
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(EVENT), EVENT)


class Endless:
    """`start`, then `part` again and again until the router leaves; it must leave before `most` bytes are taken."""

    def __init__(self, start, part, most=4 << 20):
        self.start, self.part, self.most = start, part, most


class Later:
    """`first`, and after a pause `then` on the same connection, which stays open."""

    def __init__(self, first, then, pause):
        self.first, self.then, self.pause = first, then, pause


CUT = "cut"  # the answer has begun and ends visibly incomplete
OWN = 200  # the client's own answer
STREAM = "stream"  # the first event and then an error event, or a cut

ANSWERS = {
    "two lengths": (reply(GL, b"Content-Length: 5\r\n"), 502),
    "same length twice": (reply(GL, GL), 502),
    "list of lengths": (reply(b"Content-Length: %d, %d\r\n" % (G, G)), 502),
    "length and coding": (reply(GL, TE, body=GOOD_CHUNKS), 502),
    "negative length": (reply(b"Content-Length: -1\r\n"), 502),
    "plus": (reply(b"Content-Length: +%d\r\n" % G), 502),
    "hex length": (reply(b"Content-Length: 0x13\r\n"), 502),
    "empty length": (reply(b"Content-Length:\r\n"), 502),
    "length above 2^64": (reply(b"Content-Length: 18446744073709551635\r\n"), 502),
    "absurd length": (reply(b"Content-Length: 9223372036854775807\r\n") + b"close", CUT),
    "length of a terabyte": (reply(b"Content-Length: 1099511627776\r\n") + b"close", CUT),
    "length that never comes": (reply(b"Content-Length: 1000\r\n") + b"close", 502),
    "length that stalls": (reply(b"Content-Length: 1000\r\n"), 504),
    "length with a space before the colon": (reply(b"Content-Length : %d\r\n" % G), 502),
    "gzip coding": (reply(b"Transfer-Encoding: gzip\r\n"), 502),
    "gzip, chunked": (reply(b"Transfer-Encoding: gzip, chunked\r\n", body=GOOD_CHUNKS), 502),
    "chunked twice": (reply(b"Transfer-Encoding: chunked, chunked\r\n", body=GOOD_CHUNKS), 502),
    "two codings": (reply(TE, TE, body=GOOD_CHUNKS), 502),
    "identity": (reply(b"Transfer-Encoding: identity\r\n", GL), 502),
    "coding in HTTP/1.0": (reply(TE, line=b"HTTP/1.0 200 OK\r\n", body=GOOD_CHUNKS), 502),
    "bare LF": (reply(GL).replace(b"\r\n", b"\n"), 502),
    "one bare LF": (reply(GL, b"X: a\n"), 502),
    "bare CR": (reply(GL, b"X: a\rb\r\n"), 502),
    "NUL": (reply(GL, b"X: a\0b\r\n"), 502),
    "escape": (reply(GL, b"X: \x1b[2J\r\n"), 502),
    "folded line": (reply(GL, b"X: a\r\n b\r\n"), 502),
    "space in a name": (reply(GL, b"X Y: a\r\n"), 502),
    "no colon": (reply(GL, b"X\r\n"), 502),
    "empty name": (reply(GL, b": a\r\n"), 502),
    "split in a value": (reply(b"X: a\r\nContent-Length: 0\r\n\r\n" + SPLIT, GL), 200),
    "split by a bare LF": (reply(b"X: a\nContent-Length: 0\n\n" + SPLIT, GL), 502),
    "huge head": (reply(GL, b"X: %s\r\n" % (b"a" * 70000)), 502),
    "10000 fields": (reply(GL, *[b"X: a\r\n"] * 10000), 502),
    "endless head": (Endless(b"HTTP/1.1 200 OK\r\n", b"X: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n" * 100), 502),
    "endless field": (Endless(b"HTTP/1.1 200 OK\r\nX: ", b"a" * 4096), 502),
    "endless status line": (Endless(b"HTTP/1.1 200 ", b"a" * 4096), 502),
    "endless informational answers": (Endless(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 20), 502),
    "some informational answers": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + reply(GL), OWN),
    "informational answer with a body": (b"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nhello" + reply(GL), 502),
    "switching protocols": (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", 502),
    "version 2.0": (reply(GL, line=b"HTTP/2.0 200 OK\r\n"), 502),
    "version 1.2": (reply(GL, line=b"HTTP/1.2 200 OK\r\n"), 502),
    "another protocol": (reply(GL, line=b"ICY 200 OK\r\n"), 502),
    "status 000": (reply(GL, line=b"HTTP/1.1 000 OK\r\n"), 502),
    "status 99": (reply(GL, line=b"HTTP/1.1 99 OK\r\n"), 502),
    "status 600": (reply(GL, line=b"HTTP/1.1 600 OK\r\n"), 502),
    "status of four digits": (reply(GL, line=b"HTTP/1.1 2000 OK\r\n"), 502),
    "status of letters": (reply(GL, line=b"HTTP/1.1 2OO OK\r\n"), 502),
    "NUL in the reason": (reply(GL, line=b"HTTP/1.1 200 O\0K\r\n"), 502),
    "no reason": (reply(GL, line=b"HTTP/1.1 200\r\n"), OWN),
    "204 with a body": (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", 502),
    "no HTTP at all": (b"SSH-2.0-OpenSSH_9.2\r\n", 502),
    "TLS alert": (bytes.fromhex("15030100020228"), 502),
    "nothing": (b"close", 502),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-Le" + b"close", 502),
    "head that stalls": (b"HTTP/1.1 200 OK\r\nContent-Le", 504),
    "silence": (b"", 504),
    "two answers at once": (reply(GL) + SPLIT, OWN),
    "bytes after the end": (reply(GL) + b"EVIL", OWN),
    "line ends after the end": (reply(GL) + b"\r\n\r\n", OWN),
    "second answer a moment later": (Later(reply(GL), SPLIT, 0.003), OWN),
    "second answer later": (Later(reply(GL), SPLIT, 0.05), OWN),
    "chunks and a second answer a moment later": (Later(reply(TE, body=GOOD_CHUNKS), SPLIT, 0.003), OWN),
    "trailers that name the worker": (reply(TE, body=b"%x\r\n%s\r\n0\r\nX-Worker: http://evil\r\nContent-Length: 3\r\nSet-Cookie: evil\r\n\r\n"
                                            % (G, GOOD)), OWN),
    "extensions": (reply(TE, body=b"%x;evil=1\r\n%s\r\n0;evil\r\n\r\n" % (G, GOOD)), OWN),
    "stream with trailers": (SSE + b"0\r\nX-Worker: http://evil\r\n\r\n", "whole stream"),
    "stream with extensions": (SSE.replace(b"\r\ndata", b";evil=1\r\ndata") + b"0;evil\r\n\r\n", "whole stream"),
    "close and more": (reply(GL, b"Connection: close\r\n") + SPLIT, OWN),
    "length too short": (reply(b"Content-Length: %d\r\n" % (G - 3)), 200),
    "chunked": (reply(TE, body=GOOD_CHUNKS), OWN),
    "chunked and a second answer": (reply(TE, body=GOOD_CHUNKS + SPLIT), OWN),
    "LF after the size": (reply(TE, body=b"%x\n%s\r\n0\r\n\r\n" % (G, GOOD)), 502),
    "LF after the data": (reply(TE, body=b"%x\r\n%s\n0\r\n\r\n" % (G, GOOD)), "no more"),
    "LF at the end": (reply(TE, body=b"%x\r\n%s\r\n0\r\n\n" % (G, GOOD)), "no more"),
    "size that is no number": (reply(TE, body=b"zz\r\n%s\r\n0\r\n\r\n" % GOOD), 502),
    "negative size": (reply(TE, body=b"-13\r\n%s\r\n0\r\n\r\n" % GOOD), 502),
    "size above 2^64": (reply(TE, body=b"10000000000000013\r\n%s\r\n0\r\n\r\n" % GOOD), 502),
    "size above 2^63": (reply(TE, body=b"8000000000000013\r\n%s\r\n0\r\n\r\n" % GOOD), 502),
    "chunk too short": (reply(TE, body=b"%x\r\n%s\r\n0\r\n\r\n" % (G - 1, GOOD)), "no more"),
    "blank after the size": (reply(TE, body=b"%x \r\n%s\r\n0\r\n\r\n" % (G, GOOD)), 502),
    "early end in a chunk": (reply(TE, body=b"%x\r\n%s" % (G + 10, GOOD)) + b"close", "no more"),
    "early end between chunks": (reply(TE, body=b"%x\r\n%s\r\n" % (G, GOOD)) + b"close", "no more"),
    "endless extension": (Endless(reply(TE, body=b"13;"), b"a" * 4096), "no more"),
    "endless trailers": (Endless(reply(TE, body=b"%x\r\n%s\r\n0\r\n" % (G, GOOD)), b"X-T: aaaaaaaaaaaaaaaaaaaaa\r\n" * 100), "no more"),
    "endless chunk size": (Endless(reply(TE, body=b""), b"0" * 4096), "no more"),
    "endless small chunks of nothing": (reply(TE, body=b"0\r\n\r\n0\r\n\r\n0\r\n\r\n"), 200),
    "until the end of the connection": (reply() + b"close", "till end"),
    "stream with a bad chunk": (SSE + b"zz\r\nEVIL\r\n", STREAM),
    "stream with an early end": (SSE + b"close", STREAM),
    "stream with half an event": (SSE + b"20\r\ndata: EVIL" + b"close", STREAM),
    "stream that stalls": (SSE, STREAM),
    "stream and a second answer": (SSE + b"0\r\n\r\n" + SPLIT, "whole stream"),
    "hop-by-hop fields": (reply(GL, b"Connection: X-Evil\r\nX-Evil: 1\r\nKeep-Alive: timeout=1, evil=1\r\nUpgrade: evil\r\nTrailer: evil\r\n"
                                b"Proxy-Authenticate: evil\r\nProxy-Connection: evil\r\n"), OWN),
    "Connection names the content type": (reply(GL, b"Connection: content-type, content-length\r\n"), OWN),
    "own names": (reply(GL, b"X-Worker: http://evil\r\nX-Request-Id: evil\r\nX-Decode-Worker: http://evil\r\n"), OWN),
}


class Hostile(FakeEngine):
    """Does what the header X-Case says; without one it is a good worker."""

    def __init__(self, leg=None, good=None):
        super().__init__(self.play)
        self.leg = leg
        self.good = good or reply(GL)
        self.taken = 0
        self.later = threading.Event()  # the second part of a Later has been sent

    def play(self, seen, wire):
        mark = json.loads(seen.body)["mark"].encode()
        mine = seen.header("x-case") and seen.header("x-leg") == self.leg
        case = ANSWERS[seen.header("x-case")][0] if mine else self.good
        if isinstance(case, Endless):
            self.endless(wire, case, mark)
            return
        if isinstance(case, Later):
            wire.raw(case.first.replace(MARK, mark))
            time.sleep(case.pause)
            wire.raw(case.then)
            self.later.set()
            return
        data = case.replace(MARK, mark)
        closes = data.endswith(b"close")
        wire.raw(data[: -len(b"close")] if closes else data)
        wire.keep = not closes

    def endless(self, wire, case, mark):
        wire.keep = False
        self.taken = 0
        wire.conn.settimeout(20)
        wire.raw(case.start.replace(MARK, mark))
        while self.taken < 64 << 20:
            wire.raw(case.part)
            self.taken += len(case.part)


@pytest.fixture(scope="module")
def window(io_form):
    fleet = Fleet()
    with Hostile() as engine:
        router = fleet("serve", "--worker-urls", engine.url, *LIMITS)
        yield router, engine
        engine.check()
        fleet.stop()


def rss(router):
    with open(f"/proc/{router.proc.pid}/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * 4096


def ask(router, case=None, till_end=True, stream=False, leg=None):
    """Sends one request and returns its mark and every byte that comes back."""
    data, mark = numbered(BODY)
    if stream:
        data = data[:-1] + b',"stream":true}'
    extra = b"X-Case: %s\r\n" % case.encode() if case else b""
    extra += b"X-Leg: %s\r\n" % leg.encode() if leg else b""
    with router.connect() as s:
        s.sendall(LINE + HOST + extra + b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(data), data))
        got = b""
        while till_end:
            try:
                piece = s.recv(1 << 20)
            except ConnectionResetError:
                piece = b""
            if not piece:
                break
            got += piece
    return mark, got


def unchunk(data):
    """(body, ended well)"""
    out = b""
    while True:
        line, _, rest = data.partition(b"\r\n")
        if not re.fullmatch(rb"[0-9a-f]+", line) or not rest:
            return out, False
        n = int(line, 16)
        if n == 0:
            return out, rest == b"\r\n"
        out, data = out + rest[:n], rest[n + 2 :]


@pytest.mark.parametrize("name", ANSWERS)
def test_answer(window, name):
    router, engine = window
    want = ANSWERS[name][1]
    before = rss(router)
    engine.later.clear()
    mark, got = ask(router, name, stream=name.startswith("stream"))
    head, _, body = got.partition(b"\r\n\r\n")
    status = int(head.split(b" ")[1]) if head else None
    assert b"EVIL" not in got and b"evil" not in got.replace(b"own names", b""), got
    chunked = b"Transfer-Encoding: chunked" in head
    payload, whole = unchunk(body) if chunked else (body, True)
    expected = GOOD.replace(MARK, mark)
    if isinstance(want, int):
        assert status == want, (name, got[:500])
    if want in (502, 504):
        assert json.loads(body)["error"]["code"] == want
    elif want is OWN and "split" not in name and "too short" not in name and "nothing" not in name:
        assert whole and payload == expected and b"\r\nContent-Type: application/json" in head, got
    elif want == 200:
        assert expected.startswith(payload) and whole and len(payload) < len(expected)
    elif want == "till end":
        assert (status, payload) == (200, expected)
    elif want == CUT:
        assert status == 200 and int(re.search(rb"Content-Length: (\d+)", head)[1]) > len(body) or not whole
    elif want == "no more":  # an error, or what came of the answer and no good end
        assert status == 502 or (status == 200 and not whole and expected.startswith(payload)), got
    elif want == STREAM:
        if status in (502, 504):  # nothing was passed on before the fault was seen
            return
        events = payload.split(b"\n\n")
        assert status == 200 and events[0] == EVENT[:-2].replace(MARK, mark)
        assert not whole or json.loads(events[1][6:])["error"]["code"] in (502, 504), got
    elif want == "whole stream":
        assert status == 200 and whole and payload == EVENT.replace(MARK, mark), got
    if isinstance(ANSWERS[name][0], Later):  # it lies on the idle connection before the next one asks
        assert engine.later.wait(10)
    for _ in range(3):  # the next ones get their own, at once and after a moment
        mark, got = ask(router)
        found, rest = answers(got)
        assert rest == b"" and len(found) == 1
        own_answer(found[0], mark)
        time.sleep(0.002)
    if isinstance(ANSWERS[name][0], Endless):
        assert engine.taken < ANSWERS[name][0].most, f"{engine.taken} bytes were taken"
    assert rss(router) - before < 32 << 20
    wait_for("no request in work", lambda: router.metric("pdctl_requests_in_work") == 0)


def test_hostile_answers_do_not_disturb_others_at_the_same_time(window):
    """All wrong answers at once on shared pools, four clients with good requests in between: each of those gets its own."""
    router, _ = window
    wrong, stop = [], threading.Event()

    def good():
        while not stop.is_set():
            mark, got = ask(router)
            found, rest = answers(got)
            if rest or len(found) != 1 or found[0][0] != 200 or json.loads(found[0][2])["mark"] != mark.decode():
                wrong.append(got)

    clients = [threading.Thread(target=good) for _ in range(4)]
    for t in clients:
        t.start()
    bad = [threading.Thread(target=ask, args=(router, name)) for name, (case, _) in ANSWERS.items() if not isinstance(case, (Endless, Later))]
    for t in bad:
        t.start()
    for t in bad:
        t.join(30)
    stop.set()
    for t in clients:
        t.join(30)
    assert not wrong, wrong[:3]


LIMITS = ("--disable-circuit-breaker", "--disable-retries", "--first-byte-timeout-secs", 1, "--inter-token-timeout-secs", 1,
          "--request-timeout-secs", 2, "--log-level", "warn")
PREFILLED = b'{"mark":"MMMMMMMM","kv_transfer_params":{"remote_block_ids":[1]},"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}'


@pytest.fixture(scope="module")
def windows(io_form):
    fleet = Fleet()
    with Hostile("prefill", reply(b"Content-Length: %d\r\n" % len(PREFILLED), body=PREFILLED)) as prefill, Hostile("decode") as decode:
        router = fleet("serve", "--prefill", prefill.url, "--decode", decode.url, *LIMITS)
        yield router, {"prefill": prefill, "decode": decode}
        prefill.check(), decode.check()
        fleet.stop()


@pytest.mark.parametrize("leg", ["prefill", "decode"])
@pytest.mark.parametrize("name", ANSWERS)
def test_answer_in_pd(windows, name, leg):
    """On either leg: an error, or an answer of one's own; no byte of another's; and the next client gets its own."""
    router, engines = windows
    before = rss(router)
    engines[leg].later.clear()
    mark, got = ask(router, name, stream=name.startswith("stream"), leg=leg)
    status = int(got.split(b" ", 2)[1])
    assert status in (200, 502, 504), got
    assert b"EVIL" not in got and b"evil" not in got, got
    assert set(re.findall(rb"m\d{7}", got)) <= {mark}, got
    if status != 200:
        assert json.loads(got.partition(b"\r\n\r\n")[2])["error"]["code"] == status
    if isinstance(ANSWERS[name][0], Later):
        assert engines[leg].later.wait(10)
    for _ in range(2):
        mark, got = ask(router)
        found, rest = answers(got)
        assert rest == b"" and len(found) == 1
        own_answer(found[0], mark)
    if isinstance(ANSWERS[name][0], Endless):
        assert engines[leg].taken < ANSWERS[name][0].most
    assert rss(router) - before < 32 << 20
    wait_for("no request in work", lambda: router.metric("pdctl_requests_in_work") == 0)
