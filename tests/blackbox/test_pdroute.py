"""libpdroute for other programs: what it exports, its header in C and C++, the example of its page, and that it decides as pdctl does."""

import json
import os
import pathlib
import re
import shutil
import subprocess

import pytest

import harness
import identity

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(harness.PDCTL).resolve().parent
HEADER = ROOT / "lib" / "pdroute" / "pdroute.h"
PAGE = ROOT / "docs" / "libpdroute.md"
STRICT = ["-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-pedantic", "-Werror"]
LANGUAGES = [("cc", "-std=c11", "c"), ("gcc", "-std=c11", "c"), ("clang", "-std=c11", "c"), ("g++", "-std=c++17", "c++"),
             ("clang++", "-std=c++17", "c++")]  # fmt: skip

pytestmark = pytest.mark.skipif(not shutil.which("cc") or not (BUILD / "libpdroute.a").exists(), reason="needs cc and make all")


def sh(*words, ok=True, **more):
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, timeout=120, **more)
    assert not ok or done.returncode == 0, done.stdout + done.stderr
    return done


def need(*programs):
    for program in programs:
        if not shutil.which(program):
            pytest.skip(f"no {program} here")


def sanitizers():
    """The flags that a program needs besides the library of this build."""
    wanted = sh("nm", "-u", BUILD / "libpdroute.a").stdout
    if "__tsan_" in wanted:
        return ["-fsanitize=thread"]
    if "__gcov" in wanted:
        return ["--coverage"]
    return ["-fsanitize=address,undefined"] if "__asan_" in wanted else []


def exported(path):
    """The names that a linker sees."""
    dynamic = ["-D"] if path.suffix != ".a" else []
    listing = sh("nm", *dynamic, "--defined-only", "--extern-only", path).stdout
    return {line.split()[-1].split("@")[0] for line in listing.splitlines() if re.search(r" [A-Zuvw] ", line)} - {"PDROUTE_1"}


def declared():
    text = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.S)
    return set(re.findall(r"\b(pdroute_\w+)\(", text))


@pytest.mark.parametrize("name", ["libpdroute.a", "libpdroute.so.1"])
def test_exports_are_the_functions_of_the_header(name):
    assert exported(BUILD / name) == declared()
    assert len(declared()) > 40


@pytest.mark.parametrize("compiler, standard, language", LANGUAGES, ids=[x[0] for x in LANGUAGES])
def test_header_compiles_alone(compiler, standard, language):
    need(compiler)
    sh(compiler, standard, *STRICT, "-x", language, "-fsyntax-only", HEADER)


def test_functions_are_documented_as_they_are():
    """The page names no function that is not there."""
    assert set(re.findall(r"\b(pdroute_\w+)\(", PAGE.read_text())) <= declared() | {"pdroute_version"}


def test_versions_agree(tmp_path):
    version = re.search(r'define PDROUTE_VERSION\s+"(.*)"', HEADER.read_text())[1]
    assert harness.run("--version").stdout == f"pdctl {version}\n"
    (tmp_path / "v.c").write_text(
        '#include "pdroute.h"\n#include <stdio.h>\n#if PDROUTE_VERSION_NUMBER < 1000\n#error old\n#endif\n'
        'int main(void) { printf("%s %d", pdroute_version(), pdroute_version_number() == PDROUTE_VERSION_NUMBER); return 0; }\n'
    )
    sh("cc", *sanitizers(), f"-I{HEADER.parent}", tmp_path / "v.c", BUILD / "libpdroute.a", "-lm", "-o", tmp_path / "v")
    assert sh(tmp_path / "v").stdout == f"{version} 1"
    if (BUILD / "pdroute.pc").exists():
        assert f"Version: {version}\n" in (BUILD / "pdroute.pc").read_text()


# -- the example --


def example():
    """The program of the page and what it prints."""
    program, output = re.search(r"```c\n(.*?)```.*?```text\n(.*?)```", PAGE.read_text(), re.S).groups()
    return program, output


@pytest.mark.parametrize("compiler, standard, language", LANGUAGES[1:], ids=[x[0] for x in LANGUAGES[1:]])
def test_example_prints_what_the_page_shows(compiler, standard, language, tmp_path):
    need(compiler)
    program, output = example()
    (tmp_path / "prog.c").write_text(program)
    extra = sanitizers() + (["-Wno-deprecated"] if compiler == "clang++" else [])
    if sanitizers() and compiler.startswith("clang"):
        pytest.skip("the library of this build was made with gcc's sanitizers")
    sh(compiler, standard, *STRICT, *extra, "-x", language, f"-I{HEADER.parent}", tmp_path / "prog.c", "-x", "none", BUILD / "libpdroute.a",
       "-lm", "-o", tmp_path / "prog")  # fmt: skip
    done = sh(tmp_path / "prog")
    assert done.stdout == output and done.stderr == ""


# -- beside other libraries --

NEIGHBOUR = """
#include "pdroute.h"
#include <stdio.h>
#include <string.h>
/* Names of our own insides, of jansson and of json-c: another library's, here. */
int buf_init, json_validate, json_object_get, json_object_release, json_array_next, json_int = 5, route_decide, pd_fail, span_of, rng_seed;
int main(void)
{
	static const char text[] = "{\\"a\\":1}";
	struct pdroute_body *b;
	struct pdroute_message why;
	if (pdroute_body_new(&b, text, strlen(text), &why))
		return 1;
	pdroute_body_free(b);
	printf("%d\\n", json_int);
	return 0;
}
"""


@pytest.mark.parametrize("library", ["libpdroute.a", "libpdroute.so.1"])
def test_its_insides_meet_no_names_of_others(library, tmp_path):
    (tmp_path / "n.c").write_text(NEIGHBOUR)
    sh("cc", "-rdynamic", *sanitizers(), f"-I{HEADER.parent}", tmp_path / "n.c", BUILD / library, "-lm", "-o", tmp_path / "n")
    assert sh(tmp_path / "n", env={**harness.CLEAN_ENV, "LD_LIBRARY_PATH": str(BUILD)}).stdout == "5\n"


@pytest.mark.parametrize("package, include, call", [
    ("jansson", "jansson.h", 'json_t *j = json_loads("{\\"a\\":5}", 0, NULL); printf("%d\\n", (int)json_integer_value(json_object_get(j, "a"))); json_decref(j);'),
    ("json-c", "json.h", 'struct json_object *j = json_tokener_parse("{\\"a\\":5}"), *a; json_object_object_get_ex(j, "a", &a); printf("%d\\n", json_object_get_int(a)); json_object_put(j);'),
])  # fmt: skip
def test_beside_another_json_library(package, include, call, tmp_path):
    need("pkg-config")
    if sh("pkg-config", "--exists", package, ok=False).returncode != 0:
        pytest.skip(f"no {package} here")
    flags = sh("pkg-config", "--cflags", "--libs", package).stdout.split()
    program = NEIGHBOUR.replace("#include <stdio.h>", f"#include <stdio.h>\n#include <{include}>")
    program = re.sub(r"^int buf_init.*$", "", program, flags=re.M).replace('printf("%d\\n", json_int);', call)
    (tmp_path / "n.c").write_text(program)
    sh("cc", *sanitizers(), f"-I{HEADER.parent}", tmp_path / "n.c", BUILD / "libpdroute.a", "-o", tmp_path / "n", *flags, "-lm")
    assert sh(tmp_path / "n").stdout == "5\n"


# -- one decision path --

PROBE = r"""
#include "pdroute.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* probe POLICY[/POLICY] SEED WORKER...[/ WORKER...]: for each line of standard input the names of the picks; an empty line has no key. */
static struct pdroute_pool *make(const char *spec, char **names, int n)
{
	char copy[200], *word, *rest = copy;
	const char *parameter[8];
	size_t parameters = 0; /* NAME:PARAMETER=VALUE:... */
	struct pdroute_message why;
	struct pdroute_policy *policy;
	struct pdroute_worker *w[64];
	struct pdroute_pool *pool;
	snprintf(copy, sizeof(copy), "%s", spec);
	word = strsep(&rest, ":");
	while (rest)
		parameter[parameters++] = strsep(&rest, ":");
	if (pdroute_policy_new(&policy, word, parameter, parameters, &why)) { fprintf(stderr, "%s\n", why.text); exit(2); }
	for (int i = 0; i < n; i++)
		if (pdroute_worker_new(&w[i], names[i], &why)) { fprintf(stderr, "%s\n", why.text); exit(2); }
	if (pdroute_pool_new(&pool, policy, w, (size_t)n, &why)) { fprintf(stderr, "%s\n", why.text); exit(2); }
	for (int i = 0; i < n; i++)
		pdroute_worker_free(w[i]);
	pdroute_policy_free(policy);
	return pool;
}
int main(int argc, char **argv)
{
	static char line[100000];
	struct pdroute_request *r;
	struct pdroute_decision *a, *b;
	struct pdroute_pool *first, *second = NULL;
	char *slash = strchr(argv[1], '/');
	unsigned long long seed = strtoull(argv[2], NULL, 10), number = 0;
	int split = 3;
	while (split < argc && strcmp(argv[split], "/") != 0)
		split++;
	if (slash)
		*slash = 0;
	first = make(argv[1], argv + 3, split - 3);
	if (slash)
		second = make(slash + 1, argv + split + 1, argc - split - 1);
	if (pdroute_request_new(&r) || pdroute_decision_new(&a) || pdroute_decision_new(&b))
		return 3;
	for (; fgets(line, sizeof(line), stdin); number++) {
		line[strcspn(line, "\n")] = 0;
		pdroute_request_clear(r);
		pdroute_request_set_dice(r, seed, number, 0);
		if (pdroute_request_set_key(r, line, strlen(line)))
			return 3;
		if (second ? pdroute_decide_pair(first, second, r, a, b, NULL) : pdroute_decide(first, r, a))
			return 3;
		printf("%s%s%s\n", pdroute_worker_name(pdroute_decision_worker(a)), second ? " " : "", second ? pdroute_worker_name(pdroute_decision_worker(b)) : "");
		pdroute_release(a, r);
		pdroute_release(b, r);
	}
	pdroute_request_free(r);
	pdroute_decision_free(a);
	pdroute_decision_free(b);
	pdroute_pool_free(first);
	pdroute_pool_free(second);
	return 0;
}
"""


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probe")
    (folder / "probe.c").write_text(PROBE)
    sh("cc", "-std=gnu17", *sanitizers(), "-g", f"-I{HEADER.parent}", folder / "probe.c", BUILD / "libpdroute.a", "-lm", "-o", folder / "probe")

    def ask(policy, keys, *workers, seed=1):
        done = sh(folder / "probe", policy, seed, *workers, input="".join(f"{k}\n" for k in keys))
        return [line.split() for line in done.stdout.splitlines()]

    return ask


def keys_of_sessions():
    state = 4711
    for i in range(300):
        state = (state * 1103515245 + 12345) % (1 << 31)
        yield "" if i % 17 == 3 else f" s-{state // 11 % 40} " + ("-long" * 150 if i % 29 == 7 else "")


def simulated(tmp_path, keys, *args):
    workload, decisions = tmp_path / "w.jsonl", tmp_path / "d.jsonl"
    with open(workload, "w") as f:
        for i, key in enumerate(keys):
            record = {"prompt": f"p {i}", "output_tokens": 1, "timestamp": i * 1000}
            f.write(json.dumps({**record, "session_id": key} if key else record) + "\n")
    done = harness.run("simulate", "--workload", workload, "--routing-only", "--key", "session", "--decisions", decisions, "--seed", 1, *args)
    assert done.returncode == 0, done.stderr
    return [[p["worker"] for p in json.loads(line)["pick"]] for line in decisions.read_text().splitlines()]


NAMES = ["alpha", "beta", "gamma", "delta"]
POLICIES = [*harness.run("serve", "--list-policies").stdout.split(), "consistent_hash:ring-hash=fbi"]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_pool_decides_as_simulate(policy, probe, tmp_path):
    keys = list(keys_of_sessions())
    want = simulated(tmp_path, keys, "--worker-names", *NAMES, "--policy", policy)
    got = probe(policy, keys, *NAMES)
    assert got == want
    assert len({tuple(x) for x in got}) == len(NAMES)


@pytest.mark.parametrize("prefill", POLICIES)
def test_a_pair_decides_as_simulate(prefill, probe, tmp_path):
    keys = list(keys_of_sessions())
    for decode in POLICIES:
        want = simulated(tmp_path, keys, "--prefill", 3, "--decode", 2, "--policy", f"{prefill}/{decode}")
        got = probe(f"{prefill}/{decode}", keys, "prefill-1", "prefill-2", "prefill-3", "/", "decode-1", "decode-2")
        assert got == want, decode


@pytest.mark.parametrize("policy", POLICIES)
def test_a_pool_decides_as_serve(policy, probe, pdctl):
    keys = list(keys_of_sessions())[:80]
    names = {pdctl.worker("--speedup", 1000).url: n for n in NAMES}
    router = pdctl("serve", "--policy", policy, "--seed", 7, *identity.UNSEEN, "--worker-urls", *[f"{n}={u}" for u, n in names.items()])
    identity.unsee(policy)
    got = []
    for key in keys:
        body = {"model": "m", "prompt": "x", "max_tokens": 1, **({"session_id": key} if key else {})}
        status, fields, raw = router.request("POST", "/v1/completions", body)
        assert status == 200, raw
        got.append([names[fields["X-Worker"]]])
    assert got == probe(policy, keys, *NAMES, seed=7)


def test_parameters_are_those_that_the_library_lists(tmp_path):
    """Walks the table: each policy can be made, each of its parameters takes its initial value, and nothing else is a parameter."""
    (tmp_path / "p.c").write_text(r"""
#include "pdroute.h"
#include <stdio.h>
int main(void)
{
	struct pdroute_message why;
	struct pdroute_policy *p;
	struct pdroute_parameter x;
	char text[200];
	const char *list[2] = {text, text};
	const char *name;
	for (size_t k = 0; (name = pdroute_policy_at(k)) != NULL; k++) {
		if (!pdroute_policy_help(name) || pdroute_policy_new(&p, name, NULL, 0, &why))
			return 1;
		printf("%s\n", pdroute_policy_name(p));
		pdroute_policy_free(p);
		for (size_t i = 0; pdroute_policy_parameter(name, i, &x); i++) {
			if (!x.range[0] || !x.help[0] || !x.initial[0])
				return 2;
			snprintf(text, sizeof(text), "%s=%s", x.name, x.initial);
			if (pdroute_policy_new(&p, name, list, 1, &why)) {
				printf("%s\n", why.text);
				return 3;
			}
			pdroute_policy_free(p);
			if (pdroute_policy_new(&p, name, list, 2, &why) != PDROUTE_EINVAL)
				return 4;
			snprintf(text, sizeof(text), "%s=never", x.name);
			if (pdroute_policy_new(&p, name, list, 1, &why) != PDROUTE_EINVAL)
				return 5;
		}
		snprintf(text, sizeof(text), "what=1");
		if (pdroute_policy_new(&p, name, list, 1, &why) != PDROUTE_EINVAL)
			return 6;
	}
	if (pdroute_policy_new(&p, "consistent_hsh", NULL, 0, &why) != PDROUTE_EINVAL)
		return 7;
	printf("%s\n", why.text);
	return 0;
}
""")
    sh("cc", *sanitizers(), f"-I{HEADER.parent}", tmp_path / "p.c", BUILD / "libpdroute.a", "-lm", "-o", tmp_path / "p")
    lines = sh(tmp_path / "p").stdout.splitlines()
    assert "consistent_hash" in lines and "random" in lines and "did you mean 'consistent_hash'" in lines[-1]
