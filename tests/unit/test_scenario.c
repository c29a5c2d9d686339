/* Scenario files and expectations: what is accepted, and where each mistake is said to be. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sim/figures/expect.h"
#include "sim/scenario/scenario.h"

#define HEAD "name: a\nworkload: {generate: {sessions: 3, turns: 2}}\n"
#define POOL "workers: {count: 2}\n"
#define MINI HEAD POOL "policies: [random]\n"

static void accept(const char *text)
{
	struct scenario *s;
	struct pd_msg msg = {.text = ""};

	if (scenario_parse(&s, text, strlen(text), "f.yaml", &msg))
		fail_msg("refused: %s\n%s", msg.text, text);
	scenario_free(s);
}

static void refuse_n(const char *text, size_t n, const char *place, const char *part)
{
	struct scenario *s;
	struct pd_msg msg = {.text = ""};

	if (scenario_parse(&s, text, n, "f.yaml", &msg) != PD_EINVAL)
		fail_msg("accepted:\n%s", text);
	assert_null(s);
	if (strncmp(msg.text, place, strlen(place)) != 0 || !strstr(msg.text, part))
		fail_msg("found '%s'\nexpected '%s' and '%s' for\n%s", msg.text, place, part, text);
}

static void refuse(const char *text, const char *place, const char *part)
{
	refuse_n(text, strlen(text), place, part);
}

static void test_accepts(void **state)
{
	(void)state;
	accept(MINI);
	accept("# comment\n---\n" MINI "...\n");
	accept(MINI "seed: 0\nmax_concurrency: 3\nrouting_only: no\ncache: {blocks: [0, 10]}\n");
	accept(HEAD "workers: {counts: [1, 2, 4]}\npolicies: [random, consistent_hash@fbi]\n"
		    "ring: {hash: fbi, vnodes: 10}\n");
	accept(HEAD "workers: {names: [\"http://a:1\", 'http://b:1']}\npolicies: [random]\n"
		    "events:\n  - {action: fail, worker: \"http://b:1\", at_ms: 1.5}\n");
	accept(HEAD "prefill: {count: 1}\ndecode: {count: 2, pattern: \"d{i}\"}\n"
		    "policies: [consistent_hash/round_robin]\n"
		    "events: [{action: leave, pool: decode, worker: d2, at_request: 1}]\n"
		    "expect: [\"decode.peak_to_mean <= 2\"]\n");
	accept(HEAD POOL "policies: [random]\nengine: {prefill_tokens_per_s: 1e4, max_num_seqs: "
			 "3}\nexpect: []\n");
	accept("name: a\nworkload: {generate: {request_rate: inf}}\n" POOL "policies: [random]\n");
}

static void test_keys_and_types(void **state)
{
	(void)state;
	refuse(MINI "polices: 3\n", "f.yaml:5:1: ", "did you mean 'policies'");
	refuse("name: a\nworkload: {generate: {sesions: 3}}\n" POOL "policies: [random]\n",
	       "f.yaml:2:23: ", "did you mean 'sessions'");
	refuse(MINI "zzzzzzzz: 3\n", "f.yaml:5:1: ", "expected one of name,");
	refuse(MINI "name: b\n", "f.yaml:5:1: ", "duplicate key 'name'");
	refuse(HEAD POOL, "f.yaml:1:1: ", "missing 'policies'");
	refuse("name: a\n" POOL "policies: [random]\n", "f.yaml:1:1: ", "missing 'workload'");
	refuse(MINI "seed: x\n", "f.yaml:5:7: ", "whole number");
	refuse(MINI "seed: 1.5\n", "f.yaml:5:7: ", "whole number");
	refuse(MINI "seed: 3x\n", "f.yaml:5:7: ", "whole number");
	refuse(MINI "seed: 0x10\n", "f.yaml:5:7: ", "whole number");
	refuse(MINI "engine: {transfer_ms: 3x}\n", "f.yaml:5:23: ", "a number");
	refuse(MINI "cache: {blocks: [1, 2.5]}\n", "f.yaml:5:21: ", "whole number");
	refuse(MINI "seed: -1\n", "f.yaml:5:7: ", "found -1");
	refuse(MINI "seed: 99999999999999999999\n", "f.yaml:5:7: ", "whole number");
	refuse(MINI "routing_only: maybe\n", "f.yaml:5:15: ", "true or false");
	refuse(MINI "cache: 3\n", "f.yaml:5:8: ", "a mapping of keys");
	refuse(MINI "cache: {blocks: 3}\n", "f.yaml:5:17: ", "a list");
	refuse(MINI "cache: {blocks: [1, x]}\n", "f.yaml:5:21: ", "whole number");
	refuse(MINI "cache: {}\n", "f.yaml:5:1: ", "missing 'blocks' in cache");
	refuse(MINI "expect: [{a: b}]\n", "f.yaml:5:10: ", "expected text");
	refuse(MINI "events: [{worker: 1, at_ms: 1}]\n", "f.yaml:5:10: ", "missing 'action'");
	refuse(MINI "events:\n- {action: fail, worker: 1, at_ms: 1}\n"
		    "- {action: fail, wrker: 1, at_ms: 1}\n",
	       "f.yaml:7:18: ", "did you mean 'worker'");
	refuse("- a\n", "f.yaml:1:1: ", "a mapping of keys");
	refuse("just text\n", "f.yaml:1:1: ", "a mapping of keys");
}

static void test_yaml_that_is_refused(void **state)
{
	char deep[200] = "a: ";

	(void)state;
	refuse("", "f.yaml:1:1: ", "empty");
	refuse("# only a comment\n", "f.yaml:1:1: ", "empty");
	refuse(MINI "\tseed: 1\n", "f.yaml:5:1: ", "cannot start any token");
	refuse("name: [a\n", "f.yaml:2:1: ", "");
	refuse("name: &x a\n", "f.yaml:1:7: ", "found an anchor");
	refuse("name: *x\n", "f.yaml:1:7: ", "found an alias");
	refuse(MINI "---\nname: b\n", "f.yaml:5:1: ", "second document");
	refuse(MINI "seed: 077\n", "f.yaml:5:7: ", "leading zero");
	refuse("? [a]\n: b\n", "f.yaml:1:3: ", "found a key that is not plain text");
	for (int i = 0; i < 20; i++)
		deep[3 + i] = '[';
	refuse(deep, "f.yaml:1:", "too deep");
	refuse_n("name: a\0b\n", 10, "f.yaml:1:", "");
	refuse_n("name: \xff\n", 8, "f.yaml:1:", "");
}

static void test_values(void **state)
{
	(void)state;
	refuse(HEAD "workers: {count: 0}\npolicies: [random]\n", "f.yaml:3:18: ", "from 1 to 1024");
	refuse(HEAD "workers: {counts: [1, 2000]}\npolicies: [random]\n", "f.yaml:3:23: ", "1024");
	refuse(HEAD "workers: {}\npolicies: [random]\n", "f.yaml:3:10: ", "expected one");
	refuse(HEAD "workers: {count: 1, names: [a]}\npolicies: [random]\n",
	       "f.yaml:3:10: ", "expected one");
	refuse(HEAD "workers: {names: [a, a]}\npolicies: [consistent_hash]\n"
		    "expect: []\nseed: 1\nring: {vnodes: 0}\n",
	       "f.yaml:7:16: ", "from 1 to");
	refuse(HEAD "policies: [random]\n", "f.yaml:1:7: ", "either 'workers'");
	refuse(HEAD POOL "prefill: {count: 1}\ndecode: {count: 1}\npolicies: [random]\n",
	       "f.yaml:3:10: ", "either 'workers'");
	refuse(HEAD "prefill: {count: 1}\npolicies: [random]\n", "f.yaml:3:10: ", "both");
	refuse(HEAD POOL "policies: [ranndom]\n", "f.yaml:4:12: ", "random");
	refuse(HEAD POOL "policies: [random, consistnt_hash]\n",
	       "f.yaml:4:20: ", "consistent_hash");
	refuse(HEAD POOL "policies: [consistent_hash@md5]\n", "f.yaml:4:12: ", "one of xxh3|fbi");
	refuse(HEAD POOL "policies: [random/random]\n", "f.yaml:4:12: ", "two pools");
	refuse("name: a\nworkload: {}\n" POOL "policies: [random]\n",
	       "f.yaml:2:11: ", "found 0 of");
	refuse("name: a\nworkload: {file: x, generate: {}}\n" POOL "policies: [random]\n",
	       "f.yaml:2:11: ", "found 2 of");
	refuse("name: a\nworkload: {gen: {kind: multi-prefx}}\n" POOL "policies: [random]\n",
	       "f.yaml:2:24: ", "did you mean 'multi-prefix'");
	refuse("name: a\nworkload: {gen: {kind: multi-prefix, num_prompts: 0}}\n" POOL
	       "policies: [random]\n",
	       "f.yaml:2:51: ", "from 1 to");
	refuse("name: a\nworkload: {spread: yes, generate: {}}\n" POOL "policies: [random]\n",
	       "f.yaml:2:20: ", "goes with 'file' or 'gen'");
	refuse("name: a\nworkload: {generate: {key: group}}\n" POOL "policies: [random]\n",
	       "f.yaml:2:28: ", "groups");
	refuse("name: a\nworkload: {generate: {order: shufled}}\n" POOL "policies: [random]\n",
	       "f.yaml:2:30: ", "did you mean 'shuffled'");
	refuse("name: a\nworkload: {generate: {zipf: nan}}\n" POOL "policies: [random]\n",
	       "f.yaml:2:29: ", "from 0 to 10");
	refuse("name: a\nworkload: {generate: {sessions: 9000000, turns: 90000}}\n" POOL
	       "policies: [random]\n",
	       "f.yaml:2:22: ", "at most");
	refuse("name: a\nworkload: {file: x, key: first-blocks:0}\n" POOL "policies: [random]\n",
	       "f.yaml:2:26: ", "from 1 to");
	refuse(MINI "engine: {decode_ms_per_token: 0}\n", "f.yaml:5:31: ", "from 0.001");
	refuse(MINI "events: [{action: fail, worker: 3, at_ms: 1}]\n",
	       "f.yaml:5:9: ", "from 1 to 2");
	refuse(MINI "events: [{action: fail, worker: 1}]\n", "f.yaml:5:10: ", "at_request");
	refuse(MINI "events: [{action: fail, pool: decode, worker: 1, at_ms: 1}]\n",
	       "f.yaml:5:9: ", "prefill and decode pools");
}

static void test_expectations_point_at_the_column(void **state)
{
	(void)state;
	refuse(MINI "expect:\n  - \"random: sesion_consistency >= 1\"\n",
	       "f.yaml:6:14: ", "did you mean 'session_consistency'");
	refuse(MINI "expect: [\"cv => 1\"]\n", "f.yaml:5:14: ", "expected >=");
	refuse(MINI "expect: [\"cv >= \"]\n", "f.yaml:5:", "ends here");
	refuse(MINI "expect: [\"cv >= 1 2\"]\n", "f.yaml:5:19: ", "end of the expectation");
	refuse(MINI "expect: [\"random workers=x: cv >= 1\"]\n", "f.yaml:5:18: ", "whole number");
	refuse(MINI "expect: [\"prefill.completed == 1\"]\n", "f.yaml:5:19: ", "metric of a pool");
	refuse(MINI "expect: [cv >= 1x]\n", "f.yaml:5:", "");
}

static void parses(const char *text)
{
	struct expect e;
	size_t column;
	struct pd_msg msg;

	if (expect_parse(&e, text, &column, &msg))
		fail_msg("'%s' refused at column %zu: %s", text, column, msg.text);
	assert_string_equal(e.text, text);
}

static void test_expectation_forms(void **state)
{
	struct expect e;
	size_t column;

	(void)state;
	parses("cv<=0.5");
	parses("  consistent_hash : cv <= .5  ");
	parses("consistent_hash workers=4 cache=0: prefill.block_hit_rate >= 1.5 * "
	       "decode.block_hit_rate of round_robin workers=8");
	parses("keys_moved_join <= keys_moved_join_ideal");
	parses("workers=4: cv < 1e-3");
	assert_int_equal(expect_parse(&e, "a b: cv < 1", &column, NULL), PD_EINVAL);
	assert_int_equal(column, 3);
	assert_int_equal(expect_parse(&e, "", &column, NULL), PD_EINVAL);
	assert_int_equal(expect_parse(&e, "cv < inf", &column, NULL), PD_EINVAL);
}

/* Expectations are evaluated on real arms, missed ones are counted and lines that fit nothing are
 * errors. */
static void check(const char *lines, size_t results, size_t missed, const char *error)
{
	char text[1000];
	struct scenario *s;
	struct experiment e;
	struct pd_msg msg = {.text = ""};
	int err;

	(void)snprintf(text, sizeof(text),
		       HEAD "workers: {counts: [2, 3]}\npolicies: [consistent_hash, round_robin]\n"
			    "expect: [%s]\n",
		       lines);
	assert_int_equal(scenario_parse(&s, text, strlen(text), "f.yaml", &msg), PD_OK);
	err = experiment_run(scenario_spec(s), 1, NULL, &e, &msg);
	if (error) {
		assert_int_equal(err, PD_EINVAL);
		assert_non_null(strstr(msg.text, error));
	} else {
		assert_int_equal(err, PD_OK);
		assert_int_equal(e.expected.n, results);
		assert_int_equal(e.expected.missed, missed);
		experiment_release(&e);
	}
	scenario_free(s);
}

static void test_expectations_are_checked(void **state)
{
	(void)state;
	check("\"completed == 6\"", 4, 0, NULL);
	check("\"completed == 7\"", 4, 4, NULL);
	check("\"consistent_hash: session_consistency == 1\"", 2, 0, NULL);
	check("\"consistent_hash workers=3: completed < 6\"", 1, 1, NULL);
	check("\"round_robin: cv <= cv of consistent_hash\"", 2, 0, NULL);
	check("\"consistent_hash workers=3: cv <= 0.1 * cv of workers=3\"", 1, 1, NULL);
	/* not defined for round robin, so it is missed and not skipped */
	check("\"round_robin: keys_moved_leave >= 0\"", 2, 2, NULL);
	check("\"random: cv < 1\"", 0, 0, "fits no combination");
	check("\"cv < cv of random\"", 0, 0, "right side");
	check("\"decode.cv < 1\"", 0, 0, "names a pool");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_accepts),
		cmocka_unit_test(test_keys_and_types),
		cmocka_unit_test(test_yaml_that_is_refused),
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_expectations_point_at_the_column),
		cmocka_unit_test(test_expectation_forms),
		cmocka_unit_test(test_expectations_are_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
