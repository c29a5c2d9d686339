/*
 * Decisions: which worker, why, and that what is counted is exactly what was picked, with many
 * threads too.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/base/rng.h"
#include "lib/route/hash.h"
#include "lib/route/policy/ring.h"
#include "tests/unit/route_kit.h"

#define MOST 8

struct fixture {
	struct route_slot slot[MOST];
	struct route_pool *pool;
	uint64_t decisions; /* number of the next one */
};

static void make(struct fixture *f, size_t n, const char *policy)
{
	static const char *const names[MOST] = {
		"http://w1:8000", "http://w2:8000", "http://w3:8000", "http://w4:8000",
		"http://w5:8000", "http://w6:8000", "http://w7:8000", "http://w8:8000"};
	struct route_slot *slots[MOST];
	struct route_spec spec = spec_named(policy);

	memset(f, 0, sizeof(*f));
	for (size_t i = 0; i < n; i++) {
		slots[i] = &f->slot[i];
		atomic_store(&f->slot[i].available, true);
	}
	assert_int_equal(pool_of(&f->pool, &spec, names, slots, n, NULL), PD_OK);
}

static int decide(struct fixture *f, const char *key, const bool *tried, struct route_decision *d)
{
	struct route_key k = key ? key_of(key) : (struct route_key){.level = ROUTE_KEY_NONE};
	struct route_request rq = {
		.key = &k, .tried = tried, .draw = route_dice(42, 0, f->decisions++, 0)};

	return route_decide(f->pool, &rq, d);
}

static void test_hash_failover(void **state)
{
	(void)state;
	for (size_t p = 0; route_policies[p]; p++) {
		struct fixture f;

		/* The order of the others depends on who can be picked, or on what was before. */
		if (!(route_policies[p]->flags & ROUTE_BY_KEY) || route_policies[p]->memory_new ||
		    strcmp(route_policies[p]->name, "modulo") == 0)
			continue;
		make(&f, 6, route_policies[p]->name);
		for (unsigned i = 0; i < 300; i++) {
			struct route_decision d;
			uint32_t order[MOST];
			struct route_key k;
			char text[16];

			(void)snprintf(text, sizeof(text), "s%u", i);
			k = key_of(text);
			assert_int_equal(route_order(f.pool, &k, order), PD_OK);
			for (unsigned down = 0; down < 6;
			     down++) { /* the first `down` of the order are gone */
				bool tried[MOST] = {false};

				for (unsigned at = 0; at < down; at++) {
					struct route_slot *s = &f.slot[order[at]];

					/* three ways to be passed over */
					if (at % 3 == 0)
						atomic_store(&s->available, false);
					else if (at % 3 == 1)
						tried[order[at]] = true;
					else
						atomic_store(&s->cap,
							     atomic_fetch_add(&s->in_flight, 1) +
								     1);
				}
				assert_int_equal(decide(&f, text, tried, &d), PD_OK);
				assert_int_equal(d.worker, order[down]);
				assert_int_equal(d.home, order[0]);
				assert_int_equal(d.reason,
						 down ? ROUTE_REASON_FAILOVER : ROUTE_REASON_KEY);
				assert_int_equal(d.ncandidates, 4);
				assert_int_equal(d.candidate[down < 4 ? down : 3].worker,
						 order[down]);
				assert_true(down == 5 ? d.margin == 0.0 : d.margin > 0);
				route_end(f.pool, d.worker, NULL);
				for (unsigned at = 0; at < down; at++) {
					atomic_store(&f.slot[order[at]].available, true);
					atomic_store(&f.slot[order[at]].cap, 0);
					atomic_store(&f.slot[order[at]].in_flight, 0);
				}
			}
		}
		route_pool_free(f.pool);
	}
}

static void test_hash_score(void **state)
{
	struct route_decision d;
	struct fixture f;

	(void)state;
	make(&f, 3, "consistent_hash");
	assert_int_equal(decide(&f, "abc", NULL, &d), PD_OK);
	{
		uint64_t h = route_hash(ROUTE_HASH_XXH3, "abc", 3);
		const struct ring *r = f.pool->table;
		const struct ring_point *p = &r->point[ring_lookup(r, h)];

		assert_int_equal(d.worker, p->worker);
		assert_true(d.score == (double)(p->pos - h) / 18446744073709551616.0);
		assert_int_equal(d.ncandidates, 3);
		assert_true(d.candidate[1].score == d.score + d.margin);
		assert_true(d.candidate[2].score > d.candidate[1].score);
	}
	route_pool_free(f.pool);
	make(&f, 3, "rendezvous_hash");
	assert_int_equal(decide(&f, "abc", NULL, &d), PD_OK);
	for (uint32_t i = 0; i < 3; i++) {
		char text[64];
		int n = snprintf(text, sizeof(text), "abc:%s",
				 f.pool->worker[d.candidate[i].worker].name);
		double want = (double)route_hash(ROUTE_HASH_XXH3, text, (size_t)n) /
			      18446744073709551616.0;

		assert_true(d.candidate[i].score == want);
		assert_true(i == 0 || want < d.candidate[i - 1].score);
	}
	assert_true(d.margin == d.candidate[0].score - d.candidate[1].score);
	route_pool_free(f.pool);
}

/* Nobody there is not the same as nobody free; nothing is counted then. */
static void test_nobody(void **state)
{
	(void)state;
	for (size_t p = 0; route_policies[p]; p++) {
		const char *kind = route_policies[p]->name;
		bool tried[MOST] = {true, true, true};
		struct route_decision d;
		struct fixture f;

		make(&f, 3, kind);
		assert_int_equal(decide(&f, "k", tried, &d), PD_ENOENT);
		for (unsigned i = 0; i < 3; i++) {
			atomic_store(&f.slot[i].cap, 2);
			atomic_store(&f.slot[i].in_flight, 2);
		}
		assert_int_equal(decide(&f, "k", NULL, &d), PD_EBUSY);
		assert_int_equal(decide(&f, NULL, NULL, &d), PD_EBUSY);
		atomic_store(&f.slot[1].in_flight, 1);
		assert_int_equal(decide(&f, "k", NULL, &d), PD_OK);
		assert_int_equal(d.worker, 1);
		assert_int_equal(decide(&f, "k", NULL, &d), PD_EBUSY);
		for (unsigned i = 0; i < 3; i++)
			atomic_store(&f.slot[i].available, false);
		assert_int_equal(decide(&f, "k", NULL, &d), PD_ENOENT);
		for (unsigned i = 0; i < 3; i++) {
			assert_int_equal(atomic_load(&f.slot[i].in_flight), 2);
			assert_int_equal(atomic_load(&f.slot[i].picks), i == 1);
		}
		route_pool_free(f.pool);
		make(&f, 0, kind);
		assert_int_equal(decide(&f, "k", NULL, &d), PD_ENOENT);
		route_pool_free(f.pool);
	}
}

static void test_least_request(void **state)
{
	struct route_decision d;
	struct fixture f;

	(void)state;
	make(&f, 5, "least_request");
	for (unsigned i = 0; i < 5; i++)
		atomic_store(&f.slot[i].in_flight, 9 - i); /* 9 8 7 6 5 */
	assert_int_equal(decide(&f, NULL, NULL, &d), PD_OK);
	assert_int_equal(d.worker, 4);
	assert_int_equal(d.home, 4);
	assert_int_equal(d.reason, ROUTE_REASON_LOAD);
	assert_true(d.score == 5.0 && d.margin == 1.0);
	assert_int_equal(d.ties, 0);
	assert_int_equal(d.ncandidates, 4);
	for (uint32_t i = 0; i < 4; i++) {
		assert_int_equal(d.candidate[i].worker, 4 - i);
		assert_true(d.candidate[i].score == 5.0 + i);
	}
	assert_int_equal(atomic_load(&f.slot[4].in_flight), 6);
	assert_int_equal(decide(&f, NULL, NULL, &d), PD_OK); /* 9 8 7 6 6: a tie */
	assert_int_equal(d.ties, 1);
	assert_true(d.margin == 0.0);
	route_pool_free(f.pool);
}

/* Idle workers take turns instead of the first one taking all; a key does not matter to
 * least_request. */
static void test_ties_rotate(void **state)
{
	static const char *const kinds[] = {"least_request", "consistent_hash", "rendezvous_hash",
					    "round_robin"};
	(void)state;
	for (size_t k = 0; k < 4; k++) {
		struct route_decision d;
		struct fixture f;

		make(&f, 4, kinds[k]);
		atomic_store(&f.slot[2].available, false);
		for (unsigned i = 0; i < 30; i++) {
			assert_int_equal(decide(&f, NULL, NULL, &d), PD_OK);
			if (k == 3)
				assert_int_equal(d.reason, ROUTE_REASON_ROTATION);
			else
				assert_int_equal(d.reason,
						 k == 0 ? ROUTE_REASON_LOAD : ROUTE_REASON_NO_KEY);
			assert_int_equal(d.home, d.worker);
			route_end(f.pool, d.worker, NULL);
		}
		for (unsigned i = 0; i < 4; i++) {
			assert_int_equal(atomic_load(&f.slot[i].picks), i == 2 ? 0 : 10);
			assert_int_equal(atomic_load(&f.slot[i].in_flight), 0);
		}
		route_pool_free(f.pool);
	}
}

/* A key of level PREFIX is hashed like any other. */
static void test_prefix_key(void **state)
{
	struct route_key k = key_of("prefix:0123456789abcdef");
	struct route_request in = {.key = &k};
	struct route_decision d, again;
	struct fixture f;

	(void)state;
	make(&f, 4, "consistent_hash");
	k.level = ROUTE_KEY_PREFIX;
	assert_int_equal(route_decide(f.pool, &in, &d), PD_OK);
	assert_int_equal(d.reason, ROUTE_REASON_KEY);
	assert_int_equal(route_decide(f.pool, &in, &again), PD_OK);
	assert_int_equal(d.worker, again.worker);
	in.key = NULL;
	assert_int_equal(route_decide(f.pool, &in, &d), PD_OK);
	assert_int_equal(d.reason, ROUTE_REASON_NO_KEY);
	route_pool_free(f.pool);
}

static void test_random(void **state)
{
	struct route_decision d;
	struct fixture f;

	(void)state;
	make(&f, 4, "random");
	atomic_store(&f.slot[0].available, false);
	for (unsigned i = 0; i < 3000; i++) {
		assert_int_equal(decide(&f, "same", NULL, &d), PD_OK);
		assert_int_equal(d.reason, ROUTE_REASON_RANDOM);
	}
	assert_int_equal(atomic_load(&f.slot[0].picks), 0);
	for (unsigned i = 1; i < 4; i++)
		assert_in_range(atomic_load(&f.slot[i].picks), 880, 1120);
	route_pool_free(f.pool);
}

/* Repeats the two draws, so that which two workers were compared is known. */
static void test_power_of_two(void **state)
{
	struct route_decision d;
	unsigned equal = 0;
	struct fixture f;

	(void)state;
	make(&f, 5, "power_of_two");
	for (unsigned i = 0; i < 2000; i++) {
		uint32_t before[MOST], first, second, want;
		uint64_t draw;

		for (unsigned w = 0; w < 5; w++)
			before[w] = atomic_load(&f.slot[w].in_flight);
		draw = route_dice(42, 0, f.decisions, 0);
		assert_int_equal(decide(&f, NULL, NULL, &d), PD_OK);
		first = (uint32_t)route_below(draw, 0, 5);
		second = (uint32_t)route_below(draw, 1, 4);
		second += second >= first;
		want = before[first] <= before[second] ? first : second;
		assert_int_equal(d.worker, want);
		assert_int_equal(d.ncandidates, 2);
		assert_int_equal(d.candidate[0].worker, want);
		assert_int_equal(d.candidate[1].worker, want == first ? second : first);
		assert_int_equal(d.ties, before[first] == before[second]);
		assert_true(d.score == before[want]);
		assert_true(d.margin == d.candidate[1].score - d.score);
		equal += d.ties;
	}
	assert_in_range(equal, 100, 1900);
	for (unsigned w = 0; w < 5; w++)
		assert_in_range(atomic_load(&f.slot[w].in_flight), 390, 410);
	for (unsigned w = 1; w < 5; w++)
		atomic_store(&f.slot[w].available, false);
	assert_int_equal(decide(&f, NULL, NULL, &d), PD_OK);
	assert_int_equal(d.worker, 0);
	assert_int_equal(d.ncandidates, 1);
	assert_true(d.score == atomic_load(&f.slot[0].in_flight) - 1);
	route_pool_free(f.pool);
}

static void test_names(void **state)
{
	struct route_spec k;
	struct pd_msg msg;

	(void)state;
	for (size_t i = 0; route_policies[i]; i++) {
		assert_int_equal(route_spec_parse(&k, route_policies[i]->name, NULL, NULL), PD_OK);
		assert_ptr_equal(k.type, route_policies[i]);
	}
	assert_int_equal(route_spec_parse(&k, "consistent-hash", NULL, &msg), PD_EINVAL);
	assert_non_null(
		strstr(msg.text, "'consistent-hash', did you mean 'consistent_hash'? expected"));
	assert_int_equal(route_spec_parse(&k, "leastrequest", NULL, &msg), PD_EINVAL);
	assert_non_null(strstr(msg.text, "did you mean 'least_request'?"));
	assert_int_equal(route_spec_parse(&k, "", NULL, &msg), PD_EINVAL);
	assert_int_equal(route_spec_parse(&k, "smetric", NULL, &msg), PD_EINVAL);
	assert_non_null(strstr(msg.text, "unknown policy 'smetric', expected "));
	assert_int_equal(route_spec_parse(&k, "random ", NULL, NULL), PD_EINVAL);
	assert_string_equal(route_reason_name(ROUTE_REASON_NO_KEY), "no_key");
	assert_string_equal(route_reason_name(ROUTE_REASON_KEY), "key");
}

/* The order is for hash policies and keys only. */
static void test_order_refused(void **state)
{
	struct route_key k = key_of("x"), none = {.level = ROUTE_KEY_NONE};
	uint32_t order[MOST];
	struct fixture f;

	(void)state;
	make(&f, 3, "round_robin");
	assert_int_equal(route_order(f.pool, &k, order), PD_EINVAL);
	route_pool_free(f.pool);
	make(&f, 3, "consistent_hash");
	assert_int_equal(route_order(f.pool, &none, order), PD_EINVAL);
	assert_int_equal(route_order(f.pool, &k, order), PD_OK);
	assert_int_equal(atomic_load(&f.slot[order[0]].in_flight), 0);
	route_pool_free(f.pool);
}

/*
 * Eight threads decide and release at random while a ninth takes workers away and gives them back.
 * Each thread counts what it holds; at the end counters and holdings are the same, and no worker
 * ever was above its cap.
 */
#define THREADS 8
#define ROUNDS	4000
#define HELD	16
#define CAP	20

struct job {
	struct fixture *f;
	unsigned seed;
	uint64_t picks[MOST];
	uint32_t held[MOST];
	unsigned over; /* times a decision was seen above the cap */
	unsigned busy;
};

static void *run_job(void *arg)
{
	struct job *j = arg;
	uint32_t hand[HELD];
	unsigned n = 0;
	struct rng rng;

	rng_seed(&rng, j->seed);
	for (unsigned i = 0; i < ROUNDS; i++) {
		struct route_key k = {.level = ROUTE_KEY_SESSION, .len = 1};
		struct route_request rq = {.key = &k, .draw = rng_u64(&rng)};
		struct route_decision d;

		k.text[0] = (char)('a' + rng_below(&rng, 26));
		if (n == HELD || (n > 0 && rng_below(&rng, 2))) {
			uint32_t w = hand[--n];

			j->held[w]--;
			route_end(j->f->pool, w, NULL);
		} else if (route_decide(j->f->pool, &rq, &d) == PD_OK) {
			hand[n++] = d.worker;
			j->held[d.worker]++;
			j->picks[d.worker]++;
			j->over +=
				d.worker % 2 && atomic_load(&j->f->slot[d.worker].in_flight) > CAP;
		} else {
			j->busy++;
		}
	}
	return NULL;
}

static void *flip_job(void *arg)
{
	struct fixture *f = arg;

	for (unsigned i = 0; i < 2000; i++)
		atomic_store(&f->slot[i % MOST].available, i / MOST % 2);
	for (unsigned i = 0; i < MOST; i++)
		atomic_store(&f->slot[i].available, true);
	return NULL;
}

static void test_threads(void **state)
{
	(void)state;
	for (size_t p = 0; route_policies[p]; p++) {
		struct job job[THREADS] = {0};
		pthread_t thread[THREADS], flipper;
		struct fixture f;

		make(&f, MOST, route_policies[p]->name);
		for (unsigned w = 0; w < MOST; w++)
			atomic_store(&f.slot[w].cap, w % 2 ? CAP : 0);
		for (unsigned t = 0; t < THREADS; t++) {
			job[t].f = &f;
			job[t].seed = t;
			assert_int_equal(pthread_create(&thread[t], NULL, run_job, &job[t]), 0);
		}
		assert_int_equal(pthread_create(&flipper, NULL, flip_job, &f), 0);
		for (unsigned t = 0; t < THREADS; t++)
			assert_int_equal(pthread_join(thread[t], NULL), 0);
		assert_int_equal(pthread_join(flipper, NULL), 0);
		for (unsigned w = 0; w < MOST; w++) {
			uint64_t picks = 0, held = 0;

			for (unsigned t = 0; t < THREADS; t++) {
				picks += job[t].picks[w];
				held += job[t].held[w];
			}
			assert_int_equal(atomic_load(&f.slot[w].picks), picks);
			assert_int_equal(atomic_load(&f.slot[w].in_flight), held);
			if (w % 2)
				assert_true(held <= CAP);
		}
		for (unsigned t = 0; t < THREADS; t++)
			assert_int_equal(job[t].over, 0);
		route_pool_free(f.pool);
	}
}

/*
 * A burst does not herd: what 8 threads take at once from idle workers is level to within one, and
 * no two of them take the same place, that is a worker with the same number in flight before.
 */
#define BURST 4000

static _Atomic bool taken[MOST][THREADS * BURST];

static void *burst_job(void *arg)
{
	struct job *j = arg;
	struct route_request rq = {.key = NULL};
	struct route_decision d;

	for (unsigned i = 0; i < BURST; i++) {
		if (route_decide(j->f->pool, &rq, &d) != PD_OK)
			j->busy++;
		else
			j->over += atomic_exchange(&taken[d.worker][(size_t)d.score], true);
	}
	return NULL;
}

static void test_burst(void **state)
{
	struct job job[THREADS] = {0};
	pthread_t thread[THREADS];
	struct fixture f;

	(void)state;
	make(&f, 5, "least_request");
	for (unsigned t = 0; t < THREADS; t++) {
		job[t].f = &f;
		assert_int_equal(pthread_create(&thread[t], NULL, burst_job, &job[t]), 0);
	}
	for (unsigned t = 0; t < THREADS; t++) {
		assert_int_equal(pthread_join(thread[t], NULL), 0);
		assert_int_equal(job[t].busy, 0);
		assert_int_equal(job[t].over, 0);
	}
	for (unsigned w = 0; w < 5; w++)
		assert_in_range(atomic_load(&f.slot[w].in_flight), THREADS * BURST / 5 - 1,
				THREADS * BURST / 5 + 1);
	route_pool_free(f.pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hash_failover), cmocka_unit_test(test_hash_score),
		cmocka_unit_test(test_nobody),	      cmocka_unit_test(test_least_request),
		cmocka_unit_test(test_ties_rotate),   cmocka_unit_test(test_prefix_key),
		cmocka_unit_test(test_random),	      cmocka_unit_test(test_power_of_two),
		cmocka_unit_test(test_names),	      cmocka_unit_test(test_order_refused),
		cmocka_unit_test(test_threads),	      cmocka_unit_test(test_burst),
	};

	return cmocka_run_group_tests_name("route_decide", tests, NULL, NULL);
}
