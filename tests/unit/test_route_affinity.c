/*
 * Policies that look at prompts: conversations without a key are known by their beginning, shared
 * beginnings neither collapse nor count, memories keep their bounds.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <pthread.h>

#include "lib/base/rng.h"
#include "lib/route/hash.h"
#include "lib/route/memory/anchors.h"
#include "tests/unit/route_kit.h"

#define MOST   8
#define BLOCKS 800

struct fixture {
	struct route_slot slot[MOST];
	struct route_pool *pool;
};

static const char *const names[MOST] = {"w1", "w2", "w3", "w4", "w5", "w6", "w7", "w8"};

static void make(struct fixture *f, const char *policy, size_t n)
{
	struct route_spec spec = spec_named(policy);
	struct route_slot *slots[MOST];

	memset(f, 0, sizeof(*f));
	for (size_t i = 0; i < n; i++) {
		slots[i] = &f->slot[i];
		atomic_store(&f->slot[i].available, true);
	}
	assert_int_equal(pool_of(&f->pool, &spec, names, slots, n, NULL), PD_OK);
}

/* A prompt: `shared` blocks of the beginning number `root`, then `own` blocks of a conversation. */
struct prompt {
	uint64_t block[BLOCKS];
	size_t n;
};

static void compose(struct prompt *p, uint64_t root, size_t shared, uint64_t conversation,
		    size_t own)
{
	uint64_t chain = 0;

	p->n = 0;
	for (size_t i = 0; i < shared + own; i++) {
		chain = route_dice(chain, 1, i < shared ? root : conversation, (unsigned)i);
		p->block[p->n++] = chain;
	}
}

static struct route_request request_of(const struct prompt *p, const struct route_key *key)
{
	return (struct route_request){
		.key = key, .block = p->block, .nblocks = p->n, .tokens = (uint32_t)p->n * 16};
}

static uint32_t ask(struct fixture *f, const struct prompt *p, const struct route_key *key,
		    struct route_decision *d)
{
	struct route_request rq = request_of(p, key);

	assert_int_equal(route_decide(f->pool, &rq, d), PD_OK);
	return d->worker;
}

static void end(struct fixture *f, const struct route_decision *d)
{
	struct route_request rq = {.counted = d->tokens};

	route_end(f->pool, d->worker, &rq);
}

static uint32_t once(struct fixture *f, const struct prompt *p)
{
	struct route_decision d;

	(void)ask(f, p, NULL, &d);
	end(f, &d);
	return d.worker;
}

/* 64 conversations of 12 turns behind one system prompt: each stays where it began, and all workers
 * get as many. The prompt of 512 blocks is the same for all. */
static void test_shared_system_prompt(void **state)
{
	unsigned requests[MOST] = {0}, conversations[MOST] = {0}, moved = 0;
	uint32_t at[64];
	struct prompt p;
	struct fixture f;

	(void)state;
	make(&f, "affinity", MOST);
	for (unsigned turn = 0; turn < 12; turn++) {
		for (unsigned c = 0; c < 64; c++) {
			uint32_t w;

			compose(&p, 7, 512, c + 100, 5 + 20 * turn);
			w = once(&f, &p);
			if (turn == 0) {
				at[c] = w;
				conversations[w]++;
			}
			moved += w != at[c];
			requests[w]++;
		}
	}
	assert_int_equal(moved, 0);
	for (unsigned w = 0; w < MOST; w++) {
		assert_in_range(conversations[w], 6, 10);
		assert_in_range(requests[w], 64 * 12 / MOST * 8 / 10, 64 * 12 / MOST * 12 / 10);
	}
	route_pool_free(f.pool);
}

/* 32 groups, each request with a suffix of its own: a group has one worker, which computes its
 * beginning once, and the groups are level. */
static void test_prefix_groups(void **state)
{
	unsigned groups[MOST] = {0}, moved = 0;
	uint32_t at[32];
	struct prompt p;
	struct fixture f;

	(void)state;
	make(&f, "affinity", MOST);
	for (unsigned i = 0; i < 32 * 20; i++) {
		unsigned g = i % 32;
		uint32_t w;

		compose(&p, g + 1, 125, 1000 + i, 12);
		w = once(&f, &p);
		if (i < 32) {
			at[g] = w;
			groups[w]++;
		}
		moved += w != at[g];
	}
	assert_int_equal(moved, 0);
	for (unsigned w = 0; w < MOST; w++)
		assert_int_equal(groups[w], 4);
	route_pool_free(f.pool);
}

/* One group with half of the traffic needs more than one of eight workers, and not all of them. */
static void test_hot_group(void **state)
{
	bool used[MOST] = {false};
	unsigned n = 0;
	struct prompt p;
	struct fixture f;

	(void)state;
	make(&f, "affinity", MOST);
	for (unsigned i = 0; i < 4000; i++) {
		bool hot = i % 2;
		uint32_t w;

		compose(&p, hot ? 1 : 2 + i % 64, 125, 1000 + i, 12);
		w = once(&f, &p);
		if (hot && i > 2000)
			used[w] = true;
	}
	for (unsigned w = 0; w < MOST; w++)
		n += used[w];
	assert_in_range(n, 3, 7);
	route_pool_free(f.pool);
}

/* Prompts of less than a block, and histories that were rewritten: the session key finds home. */
static void test_session_key(void **state)
{
	struct route_key key = key_of("s"), user = key_of("u");
	struct route_decision d;
	uint32_t home;
	struct prompt p = {.n = 0};
	struct fixture f;

	(void)state;
	make(&f, "affinity", MOST);
	home = ask(&f, &p, &key, &d);
	end(&f, &d);
	for (unsigned i = 0; i < 40; i++) {
		struct route_key other = key_of("0");

		other.text[0] = (char)('A' + i);
		(void)ask(&f, &p, &other, &d);
		end(&f, &d);
	}
	assert_int_equal(ask(&f, &p, &key, &d), home);
	end(&f, &d);
	compose(&p, 0, 0, 5, 40);
	assert_int_equal(ask(&f, &p, &key, &d), home);
	end(&f, &d);
	compose(&p, 0, 0, 6, 30); /* another text, the same session */
	assert_int_equal(ask(&f, &p, &key, &d), home);
	assert_int_equal(d.reason, ROUTE_REASON_KEY);
	end(&f, &d);
	/* A user is not a conversation: with prompts they spread. */
	user.level = ROUTE_KEY_USER;
	{
		bool used[MOST] = {false};
		unsigned n = 0;

		for (unsigned i = 0; i < 64; i++) {
			compose(&p, 0, 0, 1000 + i, 40);
			used[ask(&f, &p, &user, &d)] = true;
			end(&f, &d);
		}
		for (unsigned w = 0; w < MOST; w++)
			n += used[w];
		assert_int_equal(n, MOST);
	}
	/* Finished: it is as if it had never been. */
	{
		struct route_request rq = {.key = &key};

		route_tell(f.pool->state,
			   &(struct route_event){.kind = ROUTE_FINISHED, .request = &rq});
	}
	p.n = 0;
	(void)ask(&f, &p, &key, &d);
	assert_int_equal(d.reason, ROUTE_REASON_LOAD);
	end(&f, &d);
	route_pool_free(f.pool);
}

/* A saturated home is left when the queue costs more than the prefix, for good. */
static void test_saturated(void **state)
{
	struct route_decision d;
	uint32_t home, other;
	struct prompt p;
	struct fixture f;

	(void)state;
	make(&f, "affinity:affinity-saturation=1.5", 4);
	for (unsigned i = 0; i < 100; i++) { /* so that one conversation is not all there is */
		compose(&p, 0, 0, 1000 + i, 10);
		(void)once(&f, &p);
	}
	compose(&p, 0, 0, 1, 100);
	home = once(&f, &p);
	/* Busy, but what waits is less than the prefix is worth. */
	atomic_store(&f.slot[home].in_flight, 4);
	atomic_store(&f.slot[home].tokens, 100);
	compose(&p, 0, 0, 1, 110);
	(void)ask(&f, &p, NULL, &d);
	assert_true(d.worker == home && d.reason == ROUTE_REASON_PREFIX);
	assert_int_equal(d.tokens, 10 * 16);
	end(&f, &d);
	/* A long queue of tokens. */
	atomic_store(&f.slot[home].tokens, 20000);
	compose(&p, 0, 0, 1, 120);
	other = ask(&f, &p, NULL, &d);
	assert_true(other != home && d.reason == ROUTE_REASON_MOVED);
	assert_int_equal(d.tokens, 120 * 16);
	end(&f, &d);
	atomic_store(&f.slot[home].in_flight, 0);
	atomic_store(&f.slot[home].tokens, 0);
	compose(&p, 0, 0, 1, 130);
	(void)ask(&f, &p, NULL, &d);
	assert_true(d.worker == other && d.reason == ROUTE_REASON_PREFIX);
	end(&f, &d);
	/* Down, or tried: the next one, and it comes back as nothing was lost. */
	atomic_store(&f.slot[other].available, false);
	compose(&p, 0, 0, 1, 140);
	assert_int_not_equal(once(&f, &p), other);
	route_pool_free(f.pool);
}

/* Tokens wait until they are computed, and nothing is left in the end. */
static void test_tokens_are_counted(void **state)
{
	(void)state;
	for (size_t i = 0; route_policies[i]; i++) {
		static struct route_decision d[50];
		uint64_t sum = 0;
		struct prompt p;
		struct fixture f;

		make(&f, route_policies[i]->name, 4);
		for (unsigned k = 0; k < 50; k++) {
			struct route_key key = key_of("k");

			key.text[0] = (char)('0' + k % 20);
			compose(&p, 1, 10, k % 7, 5 + k);
			(void)ask(&f, &p, &key, &d[k]);
			sum += d[k].tokens;
			if (k % 3 == 0) {
				route_computed(f.pool, d[k].worker, d[k].tokens);
				sum -= d[k].tokens;
				d[k].tokens = 0;
			}
		}
		for (unsigned w = 0; w < 4; w++)
			sum -= route_tokens(&f.slot[w]);
		assert_int_equal(sum, 0);
		for (unsigned k = 0; k < 50; k++)
			end(&f, &d[k]);
		for (unsigned w = 0; w < 4; w++)
			assert_int_equal(route_tokens(&f.slot[w]) + route_load(&f.slot[w]), 0);
		route_pool_free(f.pool);
	}
}

/* The list changes: who stays keeps its conversations; those of a worker that left find another
 * and stay there. */
static void test_reload(void **state)
{
	static const char *const fewer[] = {"w4", "w2", "w1"};
	struct route_slot *slots[] = {NULL, NULL, NULL};
	const char *was[40];
	struct route_pool *next;
	struct prompt p;
	struct fixture f;

	(void)state;
	make(&f, "affinity", 4);
	for (unsigned c = 0; c < 40; c++) {
		compose(&p, 0, 0, c, 20);
		was[c] = names[once(&f, &p)];
	}
	slots[0] = &f.slot[3];
	slots[1] = &f.slot[1];
	slots[2] = &f.slot[0];
	assert_int_equal(pool_with(&next, fewer, slots, 3, f.pool->state, NULL), PD_OK);
	route_pool_announce(f.pool, next, 1);
	route_pool_free(f.pool);
	f.pool = next;
	for (unsigned turn = 0; turn < 2; turn++) {
		for (unsigned c = 0; c < 40; c++) {
			const char *now;

			compose(&p, 0, 0, c, 30 + 10 * turn);
			now = fewer[once(&f, &p)];
			assert_true(strcmp(was[c], "w3") == 0 || strcmp(was[c], now) == 0);
			was[c] = now;
		}
	}
	route_pool_free(f.pool);
}

/* Which lengths are remembered: all short ones, and of a long prompt few. */
static void test_marks(void **state)
{
	size_t n = 0, last = 0;

	(void)state;
	for (size_t i = 1; i <= 4096; i++) {
		if (!anchors_mark(i))
			continue;
		assert_true(i - last <= (i < 16 ? 1 : i / 8));
		last = i;
		n++;
	}
	assert_in_range(n, 60, 90);
}

/* Ten million prompts of their own: the table keeps its size, and the last ones are known. */
static void test_bound_of_anchors(void **state)
{
	const uint64_t all = 10000000;
	struct anchors *a;
	struct anchor got;
	uint64_t found = 0;
	size_t bytes;

	(void)state;
	assert_int_equal(anchors_new(&a, 262144), PD_OK);
	bytes = anchors_bytes(a);
	for (uint64_t i = 0; i < all; i++) {
		struct anchor in = {.block = route_dice(9, 0, i, 0),
				    .worker = i % 5,
				    .used = (uint32_t)i,
				    .rate = 1,
				    .tail = true};

		anchors_put(a, &in);
	}
	assert_int_equal(anchors_bytes(a), bytes);
	assert_true(bytes < (size_t)262144 * 48);
	for (uint64_t i = all - 65536; i < all; i++)
		found += anchors_get(a, route_dice(9, 0, i, 0), &got) && got.worker == i % 5;
	assert_true(found > 65536 * 97 / 100);
	print_message("10 million prompts: %zu bytes\n", bytes);
	anchors_free(a);
}

/* -- threads -- */

static struct fixture crowd;

static void *talk(void *arg)
{
	struct rng rng;
	struct prompt p;

	rng_seed(&rng, (uint64_t)(uintptr_t)arg);
	for (unsigned i = 0; i < 2000; i++) {
		struct route_decision d;

		compose(&p, 3, 40, rng_below(&rng, 200), 4 + rng_below(&rng, 60));
		(void)ask(&crowd, &p, NULL, &d);
		if (rng_below(&rng, 2)) {
			route_computed(crowd.pool, d.worker, d.tokens);
			d.tokens = 0;
		}
		end(&crowd, &d);
	}
	return NULL;
}

/* Many at once, with every policy that looks at prompts: nothing is lost or counted twice. */
static void test_threads(void **state)
{
	(void)state;
	for (size_t i = 0; route_policies[i]; i++) {
		pthread_t thread[6];

		if (!(route_policies[i]->flags & ROUTE_WANTS_BLOCKS))
			continue;
		make(&crowd, route_policies[i]->name, 5);
		for (size_t t = 0; t < 6; t++)
			assert_int_equal(
				pthread_create(&thread[t], NULL, talk, (void *)(uintptr_t)(t + 1)),
				0);
		for (size_t t = 0; t < 6; t++)
			(void)pthread_join(thread[t], NULL);
		for (unsigned w = 0; w < 5; w++)
			assert_int_equal(route_tokens(&crowd.slot[w]) + route_load(&crowd.slot[w]),
					 0);
		route_pool_free(crowd.pool);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shared_system_prompt),
		cmocka_unit_test(test_prefix_groups),
		cmocka_unit_test(test_hot_group),
		cmocka_unit_test(test_session_key),
		cmocka_unit_test(test_saturated),
		cmocka_unit_test(test_tokens_are_counted),
		cmocka_unit_test(test_reload),
		cmocka_unit_test(test_marks),
		cmocka_unit_test(test_bound_of_anchors),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests_name("route_affinity", tests, NULL, NULL);
}
