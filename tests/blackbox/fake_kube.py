"""An API server of Kubernetes as far as pods go: list with pages, watch with bookmarks, tokens, and every odd case on demand.

    with FakeKube() as k:
        k.put("a", ip="127.0.0.1", labels={"app": "vllm"})
        router = pdctl("serve", *k.flags, "--selector", "app=vllm")
        k.put("a", ready=False); k.delete("a"); k.compact(); k.cut()

What it cannot be is the real one: scripts/peers/kubernetes has that.
"""

import http.server
import json
import re
import ssl
import threading
import time
import urllib.parse


def matches(selector, labels):
    """Equality and "in", which is what the router sends."""
    for part in re.findall(r"[^,(]+(?:\([^)]*\))?", selector or ""):
        name, _, value = part.partition("=")
        if " in (" in part:
            name, _, values = part.partition(" in (")
            if labels.get(name) not in values.rstrip(")").split(","):
                return False
        elif labels.get(name) != value:
            return False
    return True


class FakeKube:
    def __init__(self, context=None, token=None, page=500, pieces=None):
        self.lock = threading.Condition()
        self.version, self.oldest, self.closing = 100, 0, False
        self.pods, self.history, self.asked, self.when = {}, [], [], []
        self.token, self.page, self.pieces = token, page, pieces  # pieces: bytes per write of a watch
        self.scripted = {"list": [], "watch": []}  # functions (handler, query) that answer the next requests
        self.generation = 0  # watches of an older one end
        kube = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args):
                pass

            def do_GET(self):
                kube.serve(self)

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *args):
                pass  # clients may leave at any time

        self.server = Server(("127.0.0.1", 0), Handler)
        if context:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    @property
    def flags(self):
        return ("--service-discovery", "--kube-api-server", self.url)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        with self.lock:
            self.closing = True
            self.lock.notify_all()
        self.server.shutdown()
        self.server.server_close()

    # -- what the test does --

    def put(self, name, ip="127.0.0.1", labels=None, ready=True, phase="Running", going=False, namespace="default", uid=None, node="n1", annotations=None):
        with self.lock:
            old = self.pods.get((namespace, name))
            self.version += 1
            pod = {
                "metadata": {"name": name, "namespace": namespace, "uid": uid or f"uid-{name}", "resourceVersion": str(self.version),
                             "labels": labels if labels is not None else old["metadata"]["labels"] if old else {"app": "vllm"},
                             "annotations": annotations or {}, **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if going else {}),
                             "managedFields": [{"manager": "x\u00e9\\\"]}", "fieldsV1": {"f:status": {}}}]},
                "spec": {"nodeName": node, "containers": [{"name": "vllm"}]},
                "status": {"phase": phase, "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True" if ready else "False"}],
                           **({"podIP": ip, "podIPs": [{"ip": ip}]} if ip else {})},
            }
            self.pods[namespace, name] = pod
            self.note("MODIFIED" if old else "ADDED", pod, old)

    def delete(self, name, namespace="default", silently=False):
        with self.lock:
            old = self.pods.pop((namespace, name))
            self.version += 1
            if not silently:
                self.note("DELETED", {**old, "metadata": {**old["metadata"], "resourceVersion": str(self.version)}}, old)

    def note(self, kind, pod, old):
        self.history.append((self.version, kind, pod, old))
        self.lock.notify_all()

    def bookmark(self):
        with self.lock:
            self.version += 1
            self.history.append((self.version, "BOOKMARK", {"kind": "Pod", "metadata": {"resourceVersion": str(self.version)}}, None))
            self.lock.notify_all()

    def raw(self, data):
        """Into each watch, as it is."""
        with self.lock:
            self.history.append((self.version, "RAW", data, None))
            self.lock.notify_all()

    def compact(self):
        with self.lock:
            self.oldest = self.version
            self.history = []

    def cut(self):
        """All watches end in the middle of a chunk."""
        with self.lock:
            self.generation += 1
            self.lock.notify_all()

    def count(self, kind):
        with self.lock:
            return sum(k == kind for k, _, _ in self.asked)

    def queries(self, kind):
        with self.lock:
            return [q for k, q, _ in self.asked if k == kind]

    # -- what it answers --

    def serve(self, h):
        url = urllib.parse.urlsplit(h.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        kind = "watch" if query.get("watch") == "1" else "list"
        space = re.fullmatch(r"/api/v1/(?:namespaces/([a-z0-9-]+)/)?pods", url.path)
        with self.lock:
            self.asked.append((kind, query, h.headers))
            self.when.append(time.monotonic())
            script = self.scripted[kind].pop(0) if self.scripted[kind] else None
        if script:
            return script(h, query)
        if not space:
            return self.status(h, 404, "the server could not find the requested resource")
        if self.token and h.headers.get("Authorization") != f"Bearer {self.token}":
            return self.status(h, 401, "Unauthorized")
        if kind == "watch":
            return self.watch(h, query, space[1])
        return self.list(h, query, space[1])

    def status(self, h, code, message, headers=(), **details):
        self.answer(h, code, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code, "details": details}, headers)

    def answer(self, h, code, body, headers=()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        h.send_response(code)
        h.send_header("Content-Type", "application/json")
        h.send_header("Content-Length", str(len(data)))
        for name, value in headers:
            h.send_header(name, value)
        h.end_headers()
        h.wfile.write(data)

    def wanted(self, pod, query, space):
        m = pod["metadata"]
        return (not space or m["namespace"] == space) and matches(query.get("labelSelector"), m["labels"])

    def list(self, h, query, space):
        with self.lock:
            pods = [p for _, p in sorted(self.pods.items()) if self.wanted(p, query, space)]
            version = self.version
        begin = int(query.get("continue", "c0")[1:])
        size = min(self.page, int(query.get("limit", len(pods) + 1)))
        more = f"c{begin + size}" if begin + size < len(pods) else ""
        self.answer(h, 200, {"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": str(version), **({"continue": more} if more else {})},
                             "items": pods[begin:begin + size]})

    def begin(self, h):
        h.send_response(200)
        h.send_header("Content-Type", "application/json")
        h.send_header("Transfer-Encoding", "chunked")
        h.end_headers()

    def chunk(self, h, data):
        data = f"{len(data):x}\r\n".encode() + data + b"\r\n"
        step = self.pieces or len(data)
        for i in range(0, len(data), step):
            h.wfile.write(data[i:i + step])
            h.wfile.flush()

    def event(self, h, kind, body):
        self.chunk(h, json.dumps({"type": kind, "object": body}).encode() + b"\n")

    def watch(self, h, query, space):
        since, at = int(query["resourceVersion"]), 0
        self.begin(h)
        with self.lock:
            generation = self.generation
            if since < self.oldest:
                at = -1
        if at < 0:
            self.event(h, "ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"})
            h.wfile.write(b"0\r\n\r\n")
            return
        end = time.monotonic() + int(query["timeoutSeconds"])
        while True:
            with self.lock:
                new = [e for e in self.history if e[0] > since or (e[1] == "RAW" and e[0] >= since)]
                new = new[at:] if new else []
                at += len(new)
                if not new and not self.closing and generation == self.generation and time.monotonic() < end:
                    self.lock.wait(1)
                    continue
                if self.closing or generation != self.generation:
                    h.close_connection = True
                    h.connection.close()
                    return
            if not new:
                h.wfile.write(b"0\r\n\r\n")
                return
            for _, kind, pod, old in new:
                if kind == "RAW":
                    self.chunk(h, pod)
                elif kind == "BOOKMARK":
                    if query.get("allowWatchBookmarks") == "true":
                        self.event(h, kind, pod)
                else:
                    is_in, was_in = self.wanted(pod, query, space), old is not None and self.wanted(old, query, space)
                    if kind == "DELETED" and was_in:
                        self.event(h, kind, pod)
                    elif kind != "DELETED" and is_in:
                        self.event(h, "MODIFIED" if was_in else "ADDED", pod)
                    elif kind != "DELETED" and was_in:
                        self.event(h, "DELETED", pod)
