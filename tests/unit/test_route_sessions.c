/*
 * Policies that remember sessions, and the memories below them: what is promised of their bounds,
 * of racing first requests, of workers that come and go.
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
#include "lib/route/memory/bindings.h"
#include "lib/route/policy/sessions.h"
#include "tests/unit/route_kit.h"

#define MOST   8
#define SECOND INT64_C(1000000000)

struct fixture {
	struct route_slot slot[MOST];
	struct route_pool *pool;
};

static const char *const names[MOST] = {"http://w1:8000", "http://w2:8000", "http://w3:8000",
					"http://w4:8000", "http://w5:8000", "http://w6:8000",
					"http://w7:8000", "http://w8:8000"};

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

/* The worker of a request of this session at this time; it stays in flight. */
static uint32_t ask(struct fixture *f, const char *session, int64_t now)
{
	struct route_key key = key_of(session);
	struct route_request rq = {.key = &key, .now_ns = now};
	struct route_decision d;

	assert_int_equal(route_decide(f->pool, &rq, &d), PD_OK);
	return d.worker;
}

static void end(struct fixture *f, uint32_t worker)
{
	route_end(f->pool, worker, NULL);
}

static uint32_t once(struct fixture *f, const char *session, int64_t now)
{
	uint32_t w = ask(f, session, now);

	end(f, w);
	return w;
}

static void tell(struct fixture *f, enum route_event_kind kind, uint32_t worker,
		 const char *session)
{
	struct route_key key = key_of(session ? session : "");
	struct route_request rq = {.key = &key};

	route_tell(f->pool->state,
		   &(struct route_event){.kind = kind,
					 .worker = session ? 0 : f->pool->worker[worker].id,
					 .request = session ? &rq : NULL});
}

static const char *const binders[] = {"sticky", "sticky_least_loaded"};

/* -- sticky_least_loaded -- */

/* The order of vllm-router 0.1.17 for the same names and sessions. */
static void test_golden_sequence(void **state)
{
	static const uint32_t worker[] = {0, 1, 2, 1, 2, 0, 2, 0, 1};
	struct fixture f;

	(void)state;
	make(&f, "sticky_least_loaded", 3);
	for (unsigned i = 0; i < 9; i++) {
		char id[4] = {'s', (char)('0' + i), 0};

		assert_int_equal(once(&f, id, SECOND), worker[i]);
	}
	/* All of them again, in another order: nobody moves. */
	for (unsigned i = 9; i-- > 0;) {
		char id[4] = {'s', (char)('0' + i), 0};

		assert_int_equal(once(&f, id, 2 * SECOND), worker[i]);
	}
	route_pool_free(f.pool);
}

/* A key as --key-compat vllm-router writes it is the same id. */
static void test_compat_text(void **state)
{
	static const struct {
		const char *text, *source;
	} forms[] = {{"s3", ""},
		     {"header:x-session-id:s3", "header:x-session-id"},
		     {"session:s3", "body:session_id"},
		     {"user:s3", "body:user"}};

	(void)state;
	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		struct route_key key = key_of(forms[i].text);
		struct route_request rq = {.key = &key, .now_ns = 1};
		struct route_decision d;
		struct fixture f;

		(void)snprintf(key.source, sizeof(key.source), "%s", forms[i].source);
		make(&f, "sticky_least_loaded", 3);
		(void)once(&f, "s0", 1);
		(void)once(&f, "s1", 1);
		(void)once(&f, "s2", 1);
		assert_int_equal(route_decide(f.pool, &rq, &d), PD_OK);
		assert_int_equal(d.worker, 1);
		/* POST /finish_session names the id as the client does. */
		tell(&f, ROUTE_FINISHED, 0, "s3");
		assert_int_equal(
			bindings_count(((struct sessions *)f.pool->state->memory)->bindings), 3);
		route_pool_free(f.pool);
	}
}

/* The text of a request is no session: nothing is remembered of it. */
static void test_text_is_no_session(void **state)
{
	(void)state;
	for (size_t b = 0; b < 2; b++) {
		struct route_key key = key_of("request:hello");
		struct route_request rq = {.key = &key, .now_ns = 1};
		struct route_decision d;
		struct fixture f;

		key.level = ROUTE_KEY_PREFIX;
		(void)snprintf(key.source, sizeof(key.source), "request");
		make(&f, binders[b], 3);
		for (int i = 0; i < 20; i++) {
			assert_int_equal(route_decide(f.pool, &rq, &d), PD_OK);
			route_end(f.pool, d.worker, &rq);
		}
		assert_int_equal(
			bindings_count(((struct sessions *)f.pool->state->memory)->bindings), 0);
		route_pool_free(f.pool);
	}
}

/* -- both -- */

/* Sessions spread to within one of each other, stay, and end by time, by word and by loss. */
static void test_life_of_a_session(void **state)
{
	(void)state;
	for (size_t b = 0; b < 2; b++) {
		struct sessions *s;
		uint32_t at[64];
		unsigned count[4] = {0};
		struct fixture f;

		make(&f, binders[b], 4);
		s = f.pool->state->memory;
		for (unsigned i = 0; i < 64; i++) {
			char id[8];

			(void)snprintf(id, sizeof(id), "n%u", i);
			at[i] = once(&f, id, SECOND);
			count[at[i]]++;
		}
		for (unsigned w = 0; w < 4; w++)
			assert_int_equal(count[w], 16);
		for (unsigned i = 0; i < 64; i++) {
			char id[8];

			(void)snprintf(id, sizeof(id), "n%u", i);
			assert_int_equal(once(&f, id, (int64_t)i * SECOND), at[i]);
		}
		assert_int_equal(bindings_count(s->bindings), 64);
		/* Finished: its worker has one less, so the next new one goes there. */
		tell(&f, ROUTE_FINISHED, 0, "n7");
		tell(&f, ROUTE_FINISHED, 0, "never seen");
		assert_int_equal(bindings_count(s->bindings), 63);
		assert_int_equal(once(&f, "new", SECOND), at[7]);
		/* A worker that is down: its sessions move, the others stay; they do not come back.
		 */
		atomic_store(&f.slot[2].available, false);
		for (unsigned i = 0; i < 64; i++) {
			char id[8];
			uint32_t now;

			if (i == 7)
				continue;
			(void)snprintf(id, sizeof(id), "n%u", i);
			now = once(&f, id, 70 * SECOND);
			assert_true(at[i] == 2 ? now != 2 : now == at[i]);
			at[i] = now;
		}
		atomic_store(&f.slot[2].available, true);
		for (unsigned i = 8; i < 64; i++) {
			char id[8];

			(void)snprintf(id, sizeof(id), "n%u", i);
			assert_int_equal(once(&f, id, 71 * SECOND), at[i]);
		}
		/* A worker that left: nothing is bound to it. */
		tell(&f, ROUTE_LEFT, 0, NULL);
		assert_int_equal(tally_value(tally_find(s->tally, f.pool->worker[0].id)), 0);
		/* Idle for the time to live, the default of two hours: forgotten. */
		assert_true(bindings_count(s->bindings) > 0);
		for (unsigned i = 0; i < 70; i++)
			bindings_sweep(s->bindings, (7300 + (int64_t)i) * SECOND);
		assert_int_equal(bindings_count(s->bindings), 0);
		for (unsigned w = 0; w < 4; w++)
			assert_int_equal(tally_value(tally_find(s->tally, f.pool->worker[w].id)),
					 0);
		route_pool_free(f.pool);
	}
}

/* sticky moves a session whose worker has more than its share, once and for good. */
static void test_saturated_home(void **state)
{
	struct fixture f;
	uint32_t home, other;

	(void)state;
	make(&f, "sticky", 4);
	home = ask(&f, "hot", SECOND);
	assert_int_equal(ask(&f, "hot", SECOND), home); /* 2 there, 0 elsewhere: the third moves */
	other = ask(&f, "hot", SECOND);
	assert_int_not_equal(other, home);
	end(&f, home);
	end(&f, home);
	end(&f, other);
	assert_int_equal(once(&f, "hot", SECOND), other);
	route_pool_free(f.pool);
	/* sticky_least_loaded never does. */
	make(&f, "sticky_least_loaded", 4);
	home = ask(&f, "hot", SECOND);
	for (int i = 0; i < 20; i++)
		assert_int_equal(ask(&f, "hot", SECOND), home);
	route_pool_free(f.pool);
}

/* A list that changes: sessions and their counts go on; the order of the list means nothing. */
static void test_reload(void **state)
{
	(void)state;
	for (size_t b = 0; b < 2; b++) {
		static const uint32_t order[] = {3, 1, 0, 2};
		const char *list[4], *was[32];
		struct route_slot *slots[4];
		struct route_pool *next;
		struct fixture f;

		make(&f, binders[b], 4);
		for (unsigned i = 0; i < 32; i++) {
			char id[8];

			(void)snprintf(id, sizeof(id), "n%u", i);
			was[i] = names[once(&f, id, SECOND)];
		}
		for (unsigned i = 0; i < 4; i++) {
			list[i] = names[order[i]];
			slots[i] = &f.slot[order[i]];
		}
		assert_int_equal(pool_with(&next, list, slots, 4, f.pool->state, NULL), PD_OK);
		route_pool_announce(f.pool, next, SECOND);
		route_pool_free(f.pool);
		f.pool = next;
		for (unsigned i = 0; i < 32; i++) {
			char id[8];

			(void)snprintf(id, sizeof(id), "n%u", i);
			assert_string_equal(list[once(&f, id, SECOND)], was[i]);
		}
		for (unsigned w = 0; w < 4; w++) {
			struct sessions *s = next->state->memory;

			assert_int_equal(tally_value(tally_find(s->tally, next->worker[w].id)), 8);
		}
		route_pool_free(f.pool);
	}
}

/* First requests of one session at once: all end on one worker, from then on. */
#define RACERS	 8
#define SESSIONS 2000

static struct fixture racing;
static pthread_barrier_t start;

static void *race(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < SESSIONS; i++) {
		char id[16];

		if (i % 100 == 0)
			(void)pthread_barrier_wait(&start);
		(void)snprintf(id, sizeof(id), "race-%u", i);
		(void)once(&racing, id, SECOND);
	}
	return NULL;
}

static void test_racing_first_requests(void **state)
{
	(void)state;
	for (size_t b = 0; b < 2; b++) {
		pthread_t thread[RACERS];
		struct sessions *s;
		int64_t sum = 0;

		make(&racing, binders[b], 4);
		s = racing.pool->state->memory;
		(void)pthread_barrier_init(&start, NULL, RACERS);
		for (size_t t = 0; t < RACERS; t++)
			assert_int_equal(pthread_create(&thread[t], NULL, race, NULL), 0);
		for (size_t t = 0; t < RACERS; t++)
			(void)pthread_join(thread[t], NULL);
		(void)pthread_barrier_destroy(&start);
		assert_int_equal(bindings_count(s->bindings), SESSIONS);
		for (unsigned w = 0; w < 4; w++)
			sum += tally_value(tally_find(s->tally, racing.pool->worker[w].id));
		assert_int_equal(sum, SESSIONS);
		route_pool_free(racing.pool);
	}
}

/* Claims at once have one winner. */
static struct bindings *claimed;
static uint64_t winner[RACERS][SESSIONS];

static void *claim(void *arg)
{
	size_t me = (size_t)(uintptr_t)arg;

	(void)pthread_barrier_wait(&start);
	for (uint64_t i = 0; i < SESSIONS; i++)
		winner[me][i] =
			bindings_claim(claimed, i * UINT64_C(0x9e3779b97f4a7c15), me + 1, SECOND);
	return NULL;
}

static void test_one_winner(void **state)
{
	pthread_t thread[RACERS];

	(void)state;
	assert_int_equal(bindings_new(&claimed, 1 << 16, SECOND, NULL), PD_OK);
	(void)pthread_barrier_init(&start, NULL, RACERS);
	for (size_t t = 0; t < RACERS; t++)
		assert_int_equal(pthread_create(&thread[t], NULL, claim, (void *)(uintptr_t)t), 0);
	for (size_t t = 0; t < RACERS; t++)
		(void)pthread_join(thread[t], NULL);
	(void)pthread_barrier_destroy(&start);
	for (size_t i = 0; i < SESSIONS; i++)
		for (size_t t = 1; t < RACERS; t++)
			assert_int_equal(winner[t][i], winner[0][i]);
	bindings_free(claimed);
}

/* -- the memories -- */

/* Ten million sessions: the table keeps its size, the counts are those of what it holds, and what
 * was seen last is there. */
static void test_bound_of_bindings(void **state)
{
	const uint64_t all = 10000000;
	struct tally *tally;
	struct bindings *b;
	struct fixture f;
	struct tally_row *row;
	size_t bytes, held;
	int64_t sum = 0;
	uint64_t worker, found = 0;

	(void)state;
	make(&f, "random", MOST);
	assert_int_equal(tally_new(&tally), PD_OK);
	assert_int_equal(tally_row_new(&row, tally, f.pool), PD_OK);
	assert_int_equal(bindings_new(&b, 65536, 7200 * SECOND, tally), PD_OK);
	bytes = bindings_bytes(b);
	for (uint64_t i = 0; i < all; i++)
		(void)bindings_claim(b, route_dice(1, 0, i, 0), f.pool->worker[i % MOST].id,
				     SECOND + (int64_t)i);
	assert_int_equal(bindings_bytes(b), bytes);
	assert_true(bytes < 65536 * 24 + 8192);
	held = bindings_count(b);
	assert_in_range(held, 65536 * 99 / 100, 65536);
	for (size_t w = 0; w < MOST; w++)
		sum += tally_value(row->cell[w]);
	assert_int_equal(sum, held);
	for (uint64_t i = all - 16384; i < all; i++)
		found += bindings_find(b, route_dice(1, 0, i, 0), SECOND + (int64_t)all, &worker) &&
			 worker == f.pool->worker[i % MOST].id;
	assert_true(found > 16384 * 98 / 100);
	print_message("10 million sessions: %zu bytes, %zu of them held\n", bytes, held);
	bindings_free(b);
	tally_row_free(row);
	tally_free(tally);
	route_pool_free(f.pool);
}

/* Workers without end: cells are used again, and those in use keep their values. */
static void test_tally(void **state)
{
	struct tally *t;
	struct tally_row *kept;
	struct fixture f;

	(void)state;
	make(&f, "random", 3);
	assert_int_equal(tally_new(&t), PD_OK);
	assert_int_equal(tally_row_new(&kept, t, f.pool), PD_OK);
	for (size_t i = 0; i < 3; i++)
		tally_add(kept->cell[i], (int64_t)i + 1);
	for (uint64_t i = 0; i < 3 * TALLY_CELLS; i++) {
		struct route_worker w = {.id = route_dice(3, 0, i, 0)};
		struct route_pool one = {.n = 1, .worker = &w};
		struct tally_row *row;

		assert_int_equal(tally_row_new(&row, t, &one), PD_OK);
		assert_non_null(row->cell[0]);
		assert_int_equal(tally_value(row->cell[0]), 0);
		tally_add(row->cell[0], 5);
		assert_ptr_equal(tally_find(t, w.id), row->cell[0]);
		tally_row_free(row);
		assert_null(tally_find(t, w.id));
	}
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(tally_value(tally_find(t, f.pool->worker[i].id)), i + 1);
	tally_row_free(kept);
	tally_free(t);
	route_pool_free(f.pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_golden_sequence),
		cmocka_unit_test(test_compat_text),
		cmocka_unit_test(test_text_is_no_session),
		cmocka_unit_test(test_life_of_a_session),
		cmocka_unit_test(test_saturated_home),
		cmocka_unit_test(test_reload),
		cmocka_unit_test(test_racing_first_requests),
		cmocka_unit_test(test_one_winner),
		cmocka_unit_test(test_bound_of_bindings),
		cmocka_unit_test(test_tally),
	};

	return cmocka_run_group_tests_name("route_sessions", tests, NULL, NULL);
}
