"""`make install` gives a library that another program can use, and `make uninstall` takes everything away again."""

import os
import pathlib
import shutil
import subprocess

import pytest

import harness

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
PROGRAM = r"""
#include <pdroute.h>
#include <stdio.h>

int main(void)
{
	const char *names[] = {"http://w1:8000", "http://w2:8000", "http://w3:8000"};
	struct route_slot slots[3] = {0}, *list[] = {&slots[0], &slots[1], &slots[2]};
	const struct field header = {.name = SPAN("x-session-id"), .value = SPAN("s1")};
	struct route_keyspec spec;
	struct route_policy policy;
	struct route_pool *pool;
	struct route_decision d;
	struct route_key key;
	struct rng rng;
	struct pd_msg msg;

	for (int i = 0; i < 3; i++)
		slots[i].available = true;
	rng_seed(&rng, 1);
	route_keyspec_default(&spec);
	spec.compat = ROUTE_COMPAT_VLLM_ROUTER;
	route_key_extract(&spec, &header, 1, NULL, &key);
	route_policy_init(&policy, ROUTE_CONSISTENT_HASH);
	if (route_pool_new(&pool, names, list, 3, ROUTE_HASH_FBI, ROUTE_VNODES, &msg))
		return 1;
	if (route_decide(&policy, pool, &(struct route_input){.key = &key, .rng = &rng}, &d))
		return 1;
	printf("%s %s\n", key.text, names[d.worker]);
	route_release(&slots[d.worker]);
	route_pool_free(pool);
	return 0;
}
"""


def make(*words):
    done = subprocess.run(["make", "-s", *words], cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir())


@pytest.mark.skipif(not shutil.which("cc") or not shutil.which("pkg-config"), reason="needs cc and pkg-config")
def test_install_use_uninstall(tmp_path):
    place = ["DESTDIR=", f"PREFIX={tmp_path}/usr"]
    make("install", *place)
    installed = files(tmp_path)
    for name in ("usr/bin/pdctl", "usr/lib/libpdroute.a", "usr/lib/libpdroute.so", "usr/include/pdroute/pdroute.h",
                 "usr/lib/systemd/system/pdctl.service", "usr/lib/systemd/system/pdctl.socket"):
        assert name in installed
    assert f"ExecStart={tmp_path}/usr/bin/pdctl serve" in (tmp_path / "usr/lib/systemd/system/pdctl.service").read_text()
    assert subprocess.run([tmp_path / "usr/bin/pdctl", "--version"], timeout=20).returncode == 0
    (tmp_path / "prog.c").write_text(PROGRAM)
    env = {**harness.CLEAN_ENV, "PKG_CONFIG_PATH": f"{tmp_path}/usr/lib/pkgconfig", "LD_LIBRARY_PATH": f"{tmp_path}/usr/lib"}
    for name, libs in (("shared", "$(pkg-config --libs pdroute)"), ("static", f"{tmp_path}/usr/lib/libpdroute.a -lxxhash -lm")):
        build = f"cc -std=gnu17 -Wall -Werror $(pkg-config --cflags pdroute) prog.c -o {name} {libs} && ./{name}"
        done = subprocess.run(["sh", "-c", build], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "header:x-session-id:s1 http://w2:8000\n", "a published vector"
    for name in ("prog.c", "shared", "static"):
        os.unlink(tmp_path / name)
    make("uninstall", *place)
    assert files(tmp_path) == []


def test_the_library_needs_no_threads_sockets_or_clock():
    """libpdroute is the decision path: what it asks of the system is memory and text, nothing else."""
    make("all")
    listing = subprocess.run(["nm", "-u", "-A", ROOT / "build/libpdroute.so.1", "-D"], capture_output=True, text=True, timeout=60)
    assert listing.returncode == 0
    wanted = {line.split()[-1].split("@")[0] for line in listing.stdout.splitlines()}
    foreign = {"socket", "connect", "send", "recv", "read", "write", "open", "fopen", "pthread_create", "clock_gettime", "time",
               "printf", "puts", "exit", "abort", "getenv"}
    assert "calloc" in wanted and not wanted & foreign, wanted & foreign
