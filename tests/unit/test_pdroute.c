/* The contract of pdroute.h: who owns what, what happens to wrong arguments, and threads. That its
 * decisions are lib/route's is shown from outside, by tests/blackbox/test_pdroute.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <pthread.h>

#include "lib/pdroute/pdroute.h"

#define THREADS 4
#define ROUNDS	3000

static struct pdroute_message why;

static struct pdroute_worker *worker(const char *name)
{
	struct pdroute_worker *w;

	assert_int_equal(pdroute_worker_new(&w, name, &why), 0);
	return w;
}

static struct pdroute_policy *policy(const char *name)
{
	struct pdroute_policy *p;

	assert_int_equal(pdroute_policy_new(&p, name, NULL, 0, &why), 0);
	return p;
}

static struct pdroute_pool *pool(struct pdroute_policy *p, struct pdroute_worker *const *w,
				 size_t n)
{
	struct pdroute_pool *out;

	assert_int_equal(pdroute_pool_new(&out, p, w, n, &why), 0);
	return out;
}

static struct pdroute_request *request(const char *key)
{
	struct pdroute_request *r;

	assert_int_equal(pdroute_request_new(&r), 0);
	assert_int_equal(pdroute_request_set_key(r, key, strlen(key)), 0);
	return r;
}

static struct pdroute_decision *decision(void)
{
	struct pdroute_decision *d;

	assert_int_equal(pdroute_decision_new(&d), 0);
	return d;
}

static struct pdroute_body *body(const char *text)
{
	struct pdroute_body *b;

	assert_int_equal(pdroute_body_new(&b, text, strlen(text), &why), 0);
	return b;
}

/* -- ownership -- */

static void what_is_held_lives(void **state)
{
	struct pdroute_worker *w[] = {worker("a"), worker("b")};
	struct pdroute_policy *p = policy("consistent_hash");
	struct pdroute_pool *old = pool(p, w, 2), *new = pool(p, w, 1);
	struct pdroute_request *r = request("k");
	struct pdroute_decision *d = decision();

	(void)state;
	pdroute_worker_set_available(w[0], false);
	assert_int_equal(pdroute_decide(old, r, d), 0);
	pdroute_pool_free(old);
	pdroute_policy_free(p);
	pdroute_worker_free(w[0]);
	pdroute_worker_free(w[1]); /* only the decision's pool has it */
	assert_string_equal(pdroute_worker_name(pdroute_decision_worker(d)), "b");
	assert_int_equal(pdroute_worker_in_flight(pdroute_decision_worker(d)), 1);
	pdroute_release(d, r);
	assert_null(pdroute_decision_worker(d));
	assert_int_equal(pdroute_decide(new, r, d), PDROUTE_ENOENT);
	pdroute_worker_set_available(pdroute_pool_worker(new, 0), true);
	assert_int_equal(pdroute_decide(new, r, d), 0);
	pdroute_pool_free(new);
	pdroute_decision_free(d); /* releases */
	pdroute_request_free(r);
}

static void a_release_counts_once(void **state)
{
	struct pdroute_worker *w = worker("a");
	struct pdroute_policy *p = policy("round_robin");
	struct pdroute_pool *one = pool(p, &w, 1);
	struct pdroute_request *r = request("");
	struct pdroute_decision *d = decision(), *e = decision();

	(void)state;
	assert_int_equal(pdroute_decide(one, r, d), 0);
	assert_int_equal(pdroute_decide(one, r, d), PDROUTE_EINVAL); /* held */
	assert_int_equal(pdroute_decide(one, r, e), 0);
	assert_int_equal(pdroute_worker_in_flight(w), 2);
	pdroute_release(d, NULL);
	pdroute_release(d, NULL);
	pdroute_release(NULL, NULL);
	assert_int_equal(pdroute_worker_in_flight(w), 1);
	pdroute_decision_free(e);
	assert_int_equal(pdroute_worker_in_flight(w), 0);
	assert_int_equal(pdroute_worker_picks(w), 2);
	pdroute_decision_free(d);
	pdroute_request_free(r);
	pdroute_pool_free(one);
	pdroute_policy_free(p);
	pdroute_worker_free(w);
}

/* -- wrong arguments -- */

static void nothing_is_freed_twice(void **state)
{
	(void)state;
	pdroute_worker_free(NULL);
	pdroute_policy_free(NULL);
	pdroute_pool_free(NULL);
	pdroute_keys_free(NULL);
	pdroute_body_free(NULL);
	pdroute_request_free(NULL);
	pdroute_decision_free(NULL);
	pdroute_transfer_free(NULL);
	pdroute_text_free(NULL);
}

static void wrong_arguments_change_nothing(void **state)
{
	struct pdroute_worker *w[] = {worker("a"), worker("a"), NULL}, *none = NULL;
	struct pdroute_policy *p = policy("random"), *no_policy = NULL;
	struct pdroute_pool *no_pool = NULL;
	struct pdroute_body *no_body = NULL;
	struct pdroute_keys *keys = NULL;
	struct pdroute_decision *d = decision();
	char name[PDROUTE_NAME_MAX + 2];

	(void)state;
	memset(name, 'n', sizeof(name));
	name[sizeof(name) - 1] = '\0';
	assert_int_equal(pdroute_worker_new(&none, "", &why), PDROUTE_EINVAL);
	assert_int_equal(pdroute_worker_new(&none, NULL, NULL), PDROUTE_EINVAL);
	assert_int_equal(pdroute_worker_new(&none, name, &why), PDROUTE_EINVAL);
	name[PDROUTE_NAME_MAX] = '\0';
	assert_int_equal(pdroute_worker_new(&none, name, &why), 0);
	pdroute_worker_free(none);
	assert_int_equal(pdroute_policy_new(&no_policy, "best", NULL, 0, &why), PDROUTE_EINVAL);
	assert_non_null(strstr(why.text, "unknown policy 'best'"));
	assert_int_equal(pdroute_policy_new(&no_policy, NULL, NULL, 0, &why), PDROUTE_EINVAL);
	assert_true(why.text[0]);
	assert_int_equal(pdroute_pool_new(&no_pool, p, w, 2, &why), PDROUTE_EINVAL);
	assert_int_equal(pdroute_pool_new(&no_pool, p, w + 1, 2, &why), PDROUTE_EINVAL);
	assert_int_equal(pdroute_pool_new(&no_pool, NULL, w, 1, &why), PDROUTE_EINVAL);
	assert_int_equal(pdroute_pool_new(&no_pool, p, w, PDROUTE_WORKERS_MAX + 1, &why),
			 PDROUTE_EINVAL);
	assert_int_equal(pdroute_body_new(&no_body, "[1]", 3, &why), PDROUTE_EINVAL);
	assert_int_equal(pdroute_keys_new(&keys, "cookie:x", NULL, &why), PDROUTE_EINVAL);
	assert_int_equal(pdroute_keys_new(&keys, NULL, "llm-router", &why), PDROUTE_EINVAL);
	assert_int_equal(pdroute_decide(NULL, NULL, d), PDROUTE_EINVAL);
	assert_int_equal(pdroute_tell(NULL, PDROUTE_STORED, NULL, NULL, NULL, 0, 0),
			 PDROUTE_EINVAL);
	assert_true(!no_policy && !no_pool && !no_body && !keys);
	assert_null(pdroute_decision_worker(d));
	assert_null(pdroute_decision_reason(d));
	assert_null(pdroute_decision_candidate(d, 0, NULL));
	assert_string_equal(pdroute_error_text(PDROUTE_ENOMEM), "out of memory");
	assert_true(pdroute_error_text(12345)[0]);
	pdroute_decision_free(d);
	pdroute_policy_free(p);
	pdroute_worker_free(w[0]);
	pdroute_worker_free(w[1]);
}

/* -- decisions -- */

static void tried_full_and_gone(void **state)
{
	struct pdroute_worker *w[] = {worker("a"), worker("b")};
	struct pdroute_policy *p = policy("rendezvous_hash");
	struct pdroute_pool *both = pool(p, w, 2), *empty = pool(p, NULL, 0), *failed = NULL;
	struct pdroute_request *r = request("k");
	struct pdroute_decision *d = decision(), *e = decision();
	struct pdroute_worker *home;
	size_t order[2];

	(void)state;
	assert_int_equal(pdroute_order(both, r, order), 0);
	home = w[order[0]];
	assert_int_equal(pdroute_decide(both, r, d), 0);
	assert_ptr_equal(pdroute_decision_worker(d), home);
	assert_ptr_equal(pdroute_decision_candidate(d, 1, NULL), w[order[1]]);
	assert_int_equal(pdroute_decision_index(d), order[0]);
	assert_string_equal(pdroute_decision_reason(d), "key");
	pdroute_release(d, r);
	assert_int_equal(pdroute_request_add_tried(r, home), 0);
	assert_int_equal(pdroute_decide(both, r, d), 0);
	assert_ptr_equal(pdroute_decision_worker(d), w[order[1]]);
	assert_ptr_equal(pdroute_decision_home(d), home);
	assert_string_equal(pdroute_decision_reason(d), "failover");
	pdroute_worker_set_cap(w[order[1]], 1);
	assert_int_equal(pdroute_decide(both, r, e), PDROUTE_EBUSY);
	pdroute_release(d, r);
	assert_int_equal(pdroute_request_add_tried(r, w[order[1]]), 0);
	assert_int_equal(pdroute_decide(both, r, e), PDROUTE_ENOENT);
	pdroute_request_clear(r);
	assert_int_equal(pdroute_request_key_level(r), PDROUTE_KEY_NONE);
	assert_int_equal(pdroute_order(both, r, order), PDROUTE_EINVAL);
	/* A pair that cannot be made counts nothing. */
	assert_int_equal(pdroute_decide_pair(empty, both, r, d, e, &failed), PDROUTE_ENOENT);
	assert_ptr_equal(failed, empty);
	assert_int_equal(pdroute_decide_pair(both, empty, r, d, e, &failed), PDROUTE_ENOENT);
	assert_int_equal(pdroute_decide_pair(both, both, r, d, d, NULL), PDROUTE_EINVAL);
	assert_null(pdroute_decision_worker(d));
	assert_int_equal(pdroute_worker_in_flight(w[0]) + pdroute_worker_in_flight(w[1]), 0);
	pdroute_worker_set_available(w[0], false);
	pdroute_worker_set_trials(w[0], 1);
	pdroute_worker_set_available(w[1], false);
	assert_int_equal(pdroute_decide(both, r, d), 0);
	assert_true(pdroute_decision_trial(d) && pdroute_worker_trials(w[0]) == 0);
	assert_int_equal(pdroute_decide(both, r, e), PDROUTE_ENOENT);
	pdroute_decision_free(d);
	pdroute_decision_free(e);
	pdroute_request_free(r);
	pdroute_pool_free(both);
	pdroute_pool_free(empty);
	pdroute_policy_free(p);
	pdroute_worker_free(w[0]);
	pdroute_worker_free(w[1]);
}

static void keys(void **state)
{
	const struct pdroute_field header = {"X-SESSION-ID", 12, " s1 ", 4};
	struct pdroute_keys *k, *order;
	struct pdroute_request *r = request(" s1\t");
	struct pdroute_body *b = body("{\"session_id\":\"s2\",\"user\":\"u\",\"prompt\":\"p\"}");
	char text[2000];
	size_t size;

	(void)state;
	assert_string_equal(pdroute_request_key(r, &size), "s1");
	assert_int_equal(size, 2);
	assert_int_equal(pdroute_request_key_level(r), PDROUTE_KEY_SESSION);
	assert_int_equal(pdroute_keys_new(&k, NULL, NULL, &why), 0);
	assert_int_equal(pdroute_keys_new(&order, "body:user", NULL, &why), 0);
	assert_int_equal(pdroute_request_find_key(r, k, &header, 1, b), 0);
	assert_string_equal(pdroute_request_key(r, NULL), "s1");
	assert_string_equal(pdroute_request_key_source(r), "header:x-session-id");
	assert_int_equal(pdroute_request_find_key(r, k, NULL, 0, b), 0);
	assert_string_equal(pdroute_request_key(r, NULL), "s2");
	assert_int_equal(pdroute_request_find_key(r, order, &header, 1, b), 0);
	assert_int_equal(pdroute_request_key_level(r), PDROUTE_KEY_USER);
	assert_int_equal(pdroute_request_find_key(r, k, NULL, 0, NULL), 0);
	assert_int_equal(pdroute_request_key_level(r), PDROUTE_KEY_NONE);
	assert_string_equal(pdroute_request_key(r, NULL), "");
	assert_int_equal(pdroute_request_key_from_prompt(r, b), 0);
	assert_int_equal(pdroute_request_key_level(r), PDROUTE_KEY_PREFIX);
	memset(text, 'k', sizeof(text));
	assert_int_equal(pdroute_request_set_key(r, text, sizeof(text)), 0);
	assert_memory_equal(pdroute_request_key(r, &size), "xxh3:", 5);
	assert_true(size <= PDROUTE_KEY_MAX);
	pdroute_keys_free(k);
	pdroute_keys_free(order);
	pdroute_body_free(b);
	pdroute_request_free(r);
}

/* Everything that is copied or made is freed, whatever is set again. */
static void facts(void **state)
{
	const struct pdroute_field header = {"X-A", 3, "1", 1};
	uint64_t block[3] = {1, 2, 3}, made[2];
	struct pdroute_request *r = request("k");
	struct pdroute_policy *p = policy("round_robin");
	struct pdroute_worker *w, *stranger;
	struct pdroute_pool *one;
	struct pdroute_body *b;
	char text[400];

	(void)state;
	(void)snprintf(text, sizeof(text), "{\"prompt\":\"%0200d\"}", 7);
	b = body(text);
	assert_false(pdroute_policy_wants_blocks(p));
	for (int i = 0; i < 2; i++) {
		assert_int_equal(pdroute_request_set_input(r, &header, 1, text, strlen(text)), 0);
		assert_int_equal(pdroute_request_set_model(r, "m", 1), 0);
		assert_int_equal(pdroute_request_set_blocks(r, block, 3), 0);
		assert_int_equal(pdroute_request_find_blocks(r, b), 0);
		pdroute_request_set_time(r, 5);
		pdroute_request_set_tokens(r, 6);
	}
	assert_int_equal(pdroute_request_set_input(r, NULL, 1, NULL, 0), PDROUTE_EINVAL);
	assert_int_equal(pdroute_request_set_blocks(r, NULL, 3), PDROUTE_EINVAL);
	assert_int_equal(pdroute_blocks(0, text, 128, 64, made, 2), 2);
	assert_int_equal(pdroute_blocks(made[0], text + 64, 64, 64, block, 3), 1);
	assert_int_equal(block[0], made[1]); /* chained */
	w = worker("a");
	stranger = worker("b");
	one = pool(p, &w, 1);
	pdroute_pool_announce(NULL, one, 1);
	pdroute_pool_announce(one, one, 2);
	pdroute_worker_set_signal(w, 1, 2, 500, 3);
	assert_int_equal(pdroute_tell(one, PDROUTE_STORED, w, NULL, block, 2, 4), 0);
	assert_int_equal(pdroute_tell(one, PDROUTE_STORED, stranger, NULL, block, 2, 4),
			 PDROUTE_ENOENT);
	assert_int_equal(pdroute_tell(one, PDROUTE_EVICTED, NULL, NULL, block, 2, 4),
			 PDROUTE_EINVAL);
	assert_int_equal(pdroute_tell(one, PDROUTE_FINISHED, NULL, r, NULL, 0, 4), 0);
	assert_int_equal(pdroute_tell(one, PDROUTE_FINISHED, NULL, NULL, NULL, 0, 4),
			 PDROUTE_EINVAL);
	pdroute_pool_free(one);
	pdroute_worker_free(w);
	pdroute_worker_free(stranger);
	pdroute_request_clear(r);
	assert_int_equal(pdroute_request_set_model(r, NULL, 0), 0);
	pdroute_request_free(r);
	pdroute_body_free(b);
	pdroute_policy_free(p);
}

/* -- prefill and decode -- */

static void transfers(void **state)
{
	struct pdroute_body *b = body("{ \"prompt\":\"a\",\"seed\":1e400,\"max_tokens\":7}");
	struct pdroute_body *evil = body("{\"extra_args\":{\"kv_transfer_params\":{\"a\":1}}}");
	struct pdroute_body *twice = body("{\"max_tokens\":1,\"max_tokens\":2}");
	struct pdroute_transfer *t, *no = NULL;
	struct pdroute_text text = {NULL, 0};
	char answer[] = "{\"kv_transfer_params\":{\"do_remote_prefill\":true,\"remote_port\":5},"
			"\"usage\":{\"prompt_tokens\":9,"
			"\"prompt_tokens_details\":{\"cached_tokens\":4}}}";
	const char doc[] =
		"{\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":3,\"total_tokens\":4}}";

	(void)state;
	struct pdroute_end prefill = {.host = "10.0.0.1", .port = 8000, .rank = -1},
			   decode = {.host = "10.0.0.2", .port = 8000, .rank = 3};
	struct pdroute_field field;

	assert_string_equal(pdroute_connector_at(0), "nixl");
	for (size_t i = 0; pdroute_connector_at(i); i++)
		assert_non_null(pdroute_connector_help(pdroute_connector_at(i)));
	assert_true(pdroute_connector_reads_once("nixl"));
	assert_null(pdroute_connector_help("carrier pigeon"));
	assert_int_equal(pdroute_transfer_new(&no, "carrier pigeon", "/v1/completions", b, &why),
			 PDROUTE_EINVAL);
	assert_int_equal(pdroute_transfer_new(&no, "nixl", "/v1/models", b, &why), PDROUTE_EINVAL);
	assert_int_equal(pdroute_transfer_new(&no, "nixl", "/v1/completions", evil, &why),
			 PDROUTE_EINVAL);
	assert_null(no);
	assert_int_equal(pdroute_transfer_new(&t, "nixl", "/v1/completions", twice, &why), 0);
	assert_int_equal(pdroute_transfer_prefill(t, &text, &why), PDROUTE_EINVAL);
	assert_non_null(strstr(why.text, "max_tokens"));
	assert_null(text.data);
	pdroute_transfer_free(t);

	assert_int_equal(pdroute_transfer_new(&t, "nixl", "/v1/completions", b, &why), 0);
	assert_false(pdroute_transfer_field(t, 0, &field));
	assert_int_equal(pdroute_transfer_set_id(t, "", 0, 1), PDROUTE_EINVAL);
	assert_int_equal(pdroute_transfer_set_id(t, "old", 3, 1), 0);
	assert_int_equal(pdroute_transfer_set_id(t, "req-1", 5, 1), 0);
	assert_int_equal(pdroute_transfer_set_ends(t, &prefill, NULL), PDROUTE_EINVAL);
	assert_int_equal(pdroute_transfer_set_ends(t, &prefill, &decode), 0);
	assert_int_equal(pdroute_transfer_set_ends(t, &prefill, &decode), 0);
	assert_int_equal(pdroute_transfer_prefill(t, &text, &why), 0);
	assert_true(pdroute_transfer_field(t, 0, &field));
	assert_memory_equal(field.name, "X-Request-Id", field.name_size);
	assert_memory_equal(field.value, "req-1", field.value_size);
	assert_int_equal(field.value_size, 5);
	assert_memory_equal(text.data, "{ \"prompt\":\"a\",\"seed\":1e400,\"max_tokens\":1,", 43);
	assert_int_equal(text.size, strlen(text.data));
	pdroute_text_free(&text);
	pdroute_text_free(&text);
	assert_int_equal(pdroute_transfer_prompt_tokens(t), -1);
	assert_false(pdroute_transfer_has_blocks(t));
	assert_int_equal(pdroute_transfer_drop(t, &text, &why), 0);
	assert_null(text.data);
	assert_int_equal(pdroute_transfer_answered(t, "never", 5, &why), PDROUTE_EINVAL);
	assert_int_equal(pdroute_transfer_answered(t, answer, strlen(answer), &why), 0);
	memset(answer, 'x', sizeof(answer) - 1); /* it was copied */
	assert_true(pdroute_transfer_has_blocks(t));
	assert_int_equal(pdroute_transfer_prompt_tokens(t), 9);
	assert_int_equal(pdroute_transfer_cached_tokens(t), 4);
	assert_int_equal(pdroute_transfer_decode(t, &text, &why), 0);
	assert_string_equal(
		text.data,
		"{ \"prompt\":\"a\",\"seed\":1e400,\"max_tokens\":7,"
		"\"kv_transfer_params\":{\"do_remote_prefill\":true,\"remote_port\":5}}");
	pdroute_text_free(&text);
	assert_int_equal(pdroute_transfer_drop(t, &text, &why), 0);
	assert_non_null(strstr(text.data, "\"max_tokens\":1"));
	assert_non_null(strstr(text.data, "{\"do_remote_prefill\":true,\"remote_port\":5}"));
	pdroute_text_free(&text);
	assert_int_equal(pdroute_transfer_usage(t, doc, strlen(doc), &text), 0);
	assert_string_equal(
		text.data, "{\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":3,"
			   "\"total_tokens\":12,\"prompt_tokens_details\":{\"cached_tokens\":4}}}");
	pdroute_text_free(&text);
	assert_int_equal(pdroute_transfer_usage(t, "[DONE]", 6, &text), 0);
	assert_null(text.data);
	pdroute_transfer_free(t);
	pdroute_body_free(b);
	pdroute_body_free(evil);
	pdroute_body_free(twice);
}

/* -- threads -- */

static struct pdroute_worker *shared[3];
static struct pdroute_policy *shared_policy;

/* Each round over a pool of its own that is freed while the decision is held. */
static void *decide_much(void *arg)
{
	struct pdroute_pool *common = arg, *own;
	struct pdroute_request *r;
	struct pdroute_decision *d;
	uintptr_t good = 0;

	if (pdroute_request_new(&r) || pdroute_decision_new(&d))
		return NULL;
	for (unsigned i = 0; i < ROUNDS; i++) {
		own = NULL;
		if (i % 100 == 0 && pdroute_pool_new(&own, shared_policy, shared, 3, NULL))
			break;
		pdroute_request_set_dice(r, 1, i, 0);
		if (pdroute_decide(own ? own : common, r, d))
			break;
		pdroute_pool_free(own);
		good += pdroute_worker_in_flight(pdroute_decision_worker(d)) > 0;
		pdroute_release(d, r);
	}
	pdroute_request_free(r);
	pdroute_decision_free(d);
	return (void *)good;
}

static void threads_share_workers(void **state)
{
	static const char *const names[] = {"least_request", "power_of_two", "round_robin"};
	uint64_t picks = 0;

	(void)state;
	for (size_t i = 0; i < 3; i++)
		shared[i] = worker((const char *[]){"a", "b", "c"}[i]);
	for (size_t k = 0; k < 3; k++) {
		struct pdroute_pool *common;
		pthread_t thread[THREADS];

		shared_policy = policy(names[k]);
		common = pool(shared_policy, shared, 3);
		for (size_t i = 0; i < THREADS; i++)
			assert_int_equal(pthread_create(&thread[i], NULL, decide_much, common), 0);
		for (size_t i = 0; i < THREADS; i++) {
			void *good;

			assert_int_equal(pthread_join(thread[i], &good), 0);
			assert_int_equal((uintptr_t)good, ROUNDS);
		}
		pdroute_pool_free(common);
		pdroute_policy_free(shared_policy);
	}
	for (size_t i = 0; i < 3; i++) {
		picks += pdroute_worker_picks(shared[i]);
		assert_int_equal(pdroute_worker_in_flight(shared[i]), 0);
		pdroute_worker_free(shared[i]);
	}
	assert_int_equal(picks, 3 * THREADS * ROUNDS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_held_lives),
		cmocka_unit_test(a_release_counts_once),
		cmocka_unit_test(nothing_is_freed_twice),
		cmocka_unit_test(wrong_arguments_change_nothing),
		cmocka_unit_test(tried_full_and_gone),
		cmocka_unit_test(keys),
		cmocka_unit_test(facts),
		cmocka_unit_test(transfers),
		cmocka_unit_test(threads_share_workers),
	};

	return cmocka_run_group_tests_name("pdroute", tests, NULL, NULL);
}
