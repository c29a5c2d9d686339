"""TLS against nginx's: the same certificate (ECDSA P-256), the same protocol and cipher (TLS 1.3, AES-256-GCM), keep-alive."""

import os
import subprocess

import perf_servers as servers
from perf_http import compare, stop_all
from perf_proc import PerfError, free_ports

ANSWER = 4 << 20
REQUEST = 1 << 20
CONNECTIONS = 32

NGINX_TLS = "ssl_certificate {cert}; ssl_certificate_key {key}; ssl_protocols TLSv1.2 TLSv1.3; ssl_session_tickets on;"


def certificate(bench):
    """A self-signed certificate, which is its own CA; nginx verifies names only, pdctl the address that it connects to."""
    folder = bench.folder("certificate")
    cert, key = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    argv += ["-subj", "/CN=perf", "-addext", "subjectAltName=IP:127.0.0.1,DNS:perf.test", "-keyout", key, "-out", cert]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode != 0:
        raise PerfError(f"openssl cannot make a certificate: {done.stderr}")
    os.chmod(key, 0o644)
    return cert, key


def files(bench, size, count=4):
    """nginx that answers every POST with a file of this size."""
    folder = bench.folder("files")
    with open(os.path.join(folder, "answer"), "wb") as f:
        f.write(os.urandom(65536) * (size // 65536))
    ports = free_ports(count)
    listen = "".join(f"listen 127.0.0.1:{p} backlog=4096; " for p in ports)
    http = f"server {{ {listen} root {folder}; sendfile on; error_page 405 =200 /answer; location / {{ try_files /answer =405; }} }}"
    p = bench.start("files", servers.nginx_argv(bench, f"files{ports[0]}", http, 1), ports[0], f"files{ports[0]}")
    return p.wait_port(), ports


def per_byte(rows, size):
    """The base is the cheapest way that nginx has."""
    base = min((r for r in rows if r["server"].startswith("nginx")), key=lambda r: r["cpu_us"])
    for r in rows:
        r["body_bytes"], r["ns_per_byte"] = size, r["cpu_us"] * 1000 / size
        r["ratio"] = r["cpu_us"] / base["cpu_us"]
        r["case"] += f" (base: {base['server']})"
    return rows


def named(rows, name):
    for r in rows:
        r["case"] = f"{name}, {r['case']}"
    return rows


# nginx as it comes, with large buffers in memory, and without buffers
NGINX_ANSWER = [
    ("nginx", ""),
    ("nginx large", "proxy_buffer_size 64k; proxy_buffers 16 64k; proxy_busy_buffers_size 256k; proxy_max_temp_file_size 0;"),
    ("nginx unbuffered", "proxy_buffering off; proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_busy_buffers_size 128k;"),
]
NGINX_REQUEST = [
    ("nginx memory", "client_body_buffer_size 17m;"),
    ("nginx unbuffered", "proxy_request_buffering off; client_body_buffer_size 64k;"),
]


def listeners(bench, o, ports, pair, variants):
    tls = NGINX_TLS.format(cert=pair[0], key=pair[1])
    args = ("--tls-cert", pair[0], "--tls-key", pair[1])
    todo = [servers.nginx(bench, ports, tls=tls, extra=extra, name=name) for name, extra in variants]
    return todo + [servers.pdctl(bench, ports, path, name=name, extra=args) for name, path in o.binaries]


def https_workers(bench, o, pair):
    """Plain clients, workers that speak HTTPS; both sides verify the certificate and keep connections."""
    (port,) = free_ports(1)
    tls = NGINX_TLS.format(cert=pair[0], key=pair[1])
    body = servers.chat_answer().replace("'", "\\'")
    http = f"server {{ listen 127.0.0.1:{port} ssl backlog=4096; {tls} default_type application/json; location / {{ return 200 '{body}'; }} }}"
    backend = bench.start("backend", servers.nginx_argv(bench, f"tls{port}", http, 1), port, f"tls{port}").wait_port()
    verify = f"proxy_ssl_verify on; proxy_ssl_trusted_certificate {pair[0]}; proxy_ssl_name perf.test; proxy_ssl_protocols TLSv1.2 TLSv1.3;"
    todo = [servers.nginx(bench, [port], extra=verify, workers="https")]
    todo += [servers.pdctl(bench, [port], path, name=name, extra=("--worker-ca", pair[0]), workers="https") for name, path in o.binaries]
    rows = named(compare("tls", todo, o, "nginx", [CONNECTIONS]), "https workers")
    stop_all(bench, [backend, *todo])
    return rows


def tls(bench, o):
    """Short requests, long answers, long requests; then workers that speak HTTPS."""
    pair = certificate(bench)
    backend, ports = servers.backends(bench)
    todo = listeners(bench, o, ports, pair, NGINX_ANSWER[:1])
    rows = named(compare("tls", todo, o, "nginx", [CONNECTIONS]), "1.4 kB requests")
    stop_all(bench, [backend, *todo])
    backend, ports = files(bench, ANSWER)
    todo = listeners(bench, o, ports, pair, NGINX_ANSWER)
    rows += per_byte(named(compare("tls", todo, o, "", [4]), f"{ANSWER >> 20} MiB answers"), ANSWER)
    stop_all(bench, [backend, *todo])
    from perf_sse import engine  # reads whole bodies before it answers

    backend, ports = engine(bench, 20)
    todo = listeners(bench, o, ports, pair, NGINX_REQUEST)
    rows += per_byte(named(compare("tls", todo, o, "", [4], REQUEST), f"{REQUEST >> 20} MiB requests"), REQUEST)
    stop_all(bench, [backend, *todo])
    return rows + https_workers(bench, o, pair)
