"""How each program is configured for a measurement: the cheap backends, and the proxies that are compared.

All proxies get what a careful operator would give them: keep-alive on both sides without a limit of requests, two workers or threads
(pdctl: its defaults), no access log unless the measurement is about the log. nginx and haproxy hash the header X-Session-Id; pdctl
does not get that header and finds the same id in the body.
"""

import json
import os
import shutil
import subprocess

from perf_proc import PerfError, free_ports

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CPUS = 2
ANSWER_BYTES = 600


def chat_answer(extra=None):
    """A short chat completion of about ANSWER_BYTES bytes."""
    doc = {
        "id": "chatcmpl-4b1c0f6a2d9e4c5f8a7b6c5d4e3f2a1b",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 300, "completion_tokens": 60, "total_tokens": 360},
        **(extra or {}),
    }
    text = json.dumps(doc)
    doc["choices"][0]["message"]["content"] = ("The answer in words " * 40)[: max(1, ANSWER_BYTES - len(text))]
    return json.dumps(doc)


def prefill_answer():
    """What an engine says after the prefill leg."""
    return chat_answer(
        {
            "kv_transfer_params": {
                "do_remote_prefill": True,
                "do_remote_decode": False,
                "remote_block_ids": [[i for i in range(20)]],
                "remote_engine_id": "9f1f1a52-9d2a-4a4e-a1b5-0a5f3c1d2e4b",
                "remote_request_id": "cmpl-4b1c0f6a2d9e",
                "remote_host": "127.0.0.1",
                "remote_port": 5600,
                "tp_size": 1,
            }
        }
    )


NGINX_TOP = """worker_processes {workers};
daemon off;
pid {dir}/nginx.pid;
error_log {dir}/error.log crit;
worker_rlimit_nofile {files};
{user}
events {{ worker_connections {connections}; }}
http {{
	access_log {access};
	client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;
	fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
	keepalive_requests 100000000; keepalive_timeout 300s;
	client_max_body_size 0;
{http}
}}
"""


def nginx_argv(bench, folder, http, workers, access="off", files=20000):
    """Writes the file and gives the command line."""
    where = bench.folder(folder)
    user = "user root;" if os.geteuid() == 0 else ""
    conf = NGINX_TOP.format(workers=workers, dir=where, files=files, connections=files * 4 // 5, access=access, http=http, user=user)
    return ["nginx", "-p", where, "-c", bench.file(folder, "nginx.conf", conf)]


def backends(bench, count=4, answer=None, name="backend"):
    """nginx that answers at once, on `count` ports, with one worker process. Gives the process and its ports."""
    ports = free_ports(count)
    body = (answer or chat_answer()).replace("\\", "\\\\").replace("'", "\\'").replace("$", "")
    servers = "".join(
        f"\tserver {{ listen 127.0.0.1:{p} backlog=4096; default_type application/json; location / {{ return 200 '{body}'; }} }}\n"
        for p in ports
    )
    p = bench.start(name, nginx_argv(bench, f"{name}{ports[0]}", servers, 1), ports[0], f"{name}{ports[0]}")
    p.wait_port()
    return p, ports


def nginx(bench, ports, logging=False, extra="", name="nginx", tls="", workers="http"):
    """hash on the session header, keep-alive upstreams over HTTP/1.1. extra: more lines for its server; tls: those for HTTPS."""
    (port,) = free_ports(1)
    folder = f"{name}{port}"
    servers = " ".join(f"server 127.0.0.1:{p} max_fails=0;" for p in ports)
    http = f"""
	upstream workers {{
		hash $http_x_session_id consistent;
		{servers}
		keepalive 512; keepalive_requests 100000000; keepalive_timeout 300s;
	}}
	server {{
		listen 127.0.0.1:{port} {"ssl " if tls else ""}backlog=4096;
		{tls}
		{extra}
		location / {{
			proxy_pass {workers}://workers;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_set_header Host $http_host;
			proxy_read_timeout 600s;
		}}
	}}"""
    access = f"{bench.folder(folder)}/access.log" if logging else "off"
    p = bench.start(name, nginx_argv(bench, folder, http, CPUS, access), port, folder)
    p.scheme = "https" if tls else "http"
    return p.wait_port()


def haproxy(bench, ports, logging=False, name="haproxy"):
    """Consistent hash on the session header, connections to the workers shared."""
    (port,) = free_ports(1)
    folder = f"{name}{port}"
    servers = "\n".join(f"\tserver w{i} 127.0.0.1:{p}" for i, p in enumerate(ports))
    log = ("\tlog stdout format raw local0 info\n", "\tlog global\n\toption httplog\n") if logging else ("", "")
    conf = f"""global
	nbthread {CPUS}
	maxconn 9000
{log[0]}
defaults
	mode http
{log[1]}	timeout connect 10s
	timeout client 600s
	timeout server 600s
	timeout http-keep-alive 300s
	option http-no-delay
	http-reuse always
frontend f
	bind 127.0.0.1:{port} backlog 4096
	default_backend b
backend b
	balance hdr(x-session-id)
	hash-type consistent
{servers}
"""
    p = bench.start(name, ["haproxy", "-db", "-q", "-f", bench.file(folder, "haproxy.cfg", conf)], port, folder)
    return p.wait_port()


def pdctl(bench, ports, binary, logging=False, extra=(), name="pdctl", decode_ports=None, workers="http"):
    """Defaults, no metrics port, and the policy that the others have too: a build before may have another default.
    decode_ports: P/D mode, `ports` are the prefill workers."""
    (port,) = free_ports(1)
    argv = [binary, "serve", "--port", str(port), "--prometheus-port", "-1", "--log-level", "info" if logging else "warn"]
    argv += ["--policy", "consistent_hash"]
    if decode_ports:
        argv += ["--pd-disaggregation"]
        argv += [a for p in ports for a in ("--prefill", f"http://127.0.0.1:{p}")]
        argv += [a for p in decode_ports for a in ("--decode", f"http://127.0.0.1:{p}")]
    else:
        argv += ["--worker-urls", *(f"{workers}://127.0.0.1:{p}" for p in ports)]
    p = bench.start(name, [*argv, *extra], port, f"{name}{port}")
    p.scheme = "https" if "--tls-cert" in extra else "http"
    return p.wait_port()


def knows_threads(binary):
    """Whether this build serves with `--io threads`."""
    return "--io " in subprocess.run([binary, "serve", "--help"], capture_output=True, text=True).stdout


def forms(bench, o, ports, form="", **more):
    """Every binary that is measured, as it comes and with --io threads: "pdctl", "pdctl threads". form: what the name ends with."""
    found = []
    for name, path in o.binaries:
        found.append(pdctl(bench, ports, path, name=name + form, **more))
        if knows_threads(path):
            found.append(pdctl(bench, ports, path, name=f"{name} threads{form}", extra=("--io", "threads"), **more))
    return found


def floor(bench, ports):
    """The bare relay: two event loops, the same four system calls per request, and none of what a router is for."""
    (port,) = free_ports(1)
    argv = [program("relay"), str(port), ",".join(map(str, ports))]
    return bench.start("floor", argv, port, f"floor{port}").wait_port()


def program(name):
    """Built by `make perf` beside the pdctl that is measured; else made here."""
    beside = os.path.join(os.path.dirname(os.environ.get("PDCTL", "")), "scripts/perf", name)
    path = os.path.join(ROOT, "build/scripts/perf", name)
    if os.path.exists(beside):
        return os.path.abspath(beside)
    done = subprocess.run(["make", "-s", "-C", ROOT, f"build/scripts/perf/{name}"], capture_output=True, text=True)
    if done.returncode != 0:
        raise PerfError(f"cannot build {path}: {done.stdout}{done.stderr}")
    return path


def key_of(server):
    """Where the load puts the session id: pdctl and the LLM routers read the body; nginx and haproxy need a header."""
    return "header" if server.name.split(" ")[0] in ("nginx", "haproxy") else "body"


def need(program):
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin")
    if not path:
        raise PerfError(f"{program} is not installed (Debian: apt-get install nginx-light haproxy wrk)")
    return path
