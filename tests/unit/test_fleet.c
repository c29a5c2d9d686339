/* Snapshots of workers: a reload keeps the workers that stay, and everybody's references. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/base/rng.h"
#include "lib/router/fleet/fleet.h"
#include "tests/unit/pupil.h"

static struct router_config config;

static struct fleet_config no_workers(void)
{
	struct fleet_config fc = {0};

	for (int r = 0; r < ROLES; r++)
		fc.policy[r] = route_spec_of(route_policy_find(SPAN("random")));
	return fc;
}

static void list(struct fleet_config *fc, const char *const *texts)
{
	struct pd_msg msg;

	*fc = no_workers();
	for (; *texts; texts++)
		assert_int_equal(worker_list_add(&fc->workers, ROLE_REGULAR, *texts, 1, &msg),
				 PD_OK);
}

static int load(struct fleet_holder *h, const char *const *texts, struct pd_msg *msg)
{
	struct fleet_config fc;
	int err;

	list(&fc, texts);
	err = fleet_load(h, &config, &fc, msg);
	worker_list_release(&fc.workers);
	return err;
}

#define LOAD(h, ...) load(h, (const char *const[]){__VA_ARGS__, NULL}, &msg)

/* The first that the id means, or NULL. */
static struct worker *find(struct fleet *f, struct span id)
{
	struct worker *w = NULL;

	(void)fleet_match(f, ROLES, id, &w, 1);
	return w;
}

static void a_reload_keeps_who_stays(void **state)
{
	struct fleet_holder h;
	struct fleet *old, *now;
	struct worker *a, *b;
	struct pd_msg msg;

	(void)state;
	assert_int_equal(fleet_holder_init(&h), PD_OK);
	assert_int_equal(LOAD(&h, "a=http://127.0.0.1:1", "b=http://127.0.0.1:2"), PD_OK);
	old = fleet_get(&h);
	a = find(old, SPAN("a"));
	b = find(old, SPAN("http://127.0.0.1:2"));
	assert_non_null(a);
	assert_non_null(b);
	atomic_store(&a->requests, 41);
	worker_set_draining(a, true);
	/* Another order and one more: the same objects with their counters and states. */
	assert_int_equal(
		LOAD(&h, "c=http://127.0.0.1:3", "b=http://127.0.0.1:2", "a=http://127.0.0.1:1"),
		PD_OK);
	now = fleet_get(&h);
	assert_int_equal(now->version, old->version + 1);
	assert_ptr_equal(find(now, SPAN("a")), a);
	assert_ptr_equal(find(now, SPAN("b")), b);
	assert_int_equal(atomic_load(&a->requests), 41);
	assert_false(atomic_load(&a->slot.available));
	fleet_put(now);
	/* The same name at another address is another worker; the old one lives as long as someone
	 * holds it. */
	assert_int_equal(LOAD(&h, "a=http://127.0.0.1:9"), PD_OK);
	now = fleet_get(&h);
	assert_ptr_not_equal(find(now, SPAN("a")), a);
	assert_null(find(now, SPAN("b")));
	assert_string_equal(b->url, "http://127.0.0.1:2");
	fleet_put(now);
	fleet_put(old);
	fleet_holder_release(&h);
}

/* A policy goes on over reloads that leave it as it is, and hears who joins and who leaves. */
static void a_policy_outlives_reloads(void **state)
{
	const struct route_spec spec = route_spec_of(&pupil_type);
	struct fleet_holder h;
	struct fleet_config fc;
	struct pd_msg msg;
	struct fleet *first, *f;
	struct pupil *p;

	(void)state;
	assert_int_equal(fleet_holder_init(&h), PD_OK);
	list(&fc, (const char *const[]){"a=http://127.0.0.1:1", "b=http://127.0.0.1:2", NULL});
	fc.policy[ROLE_REGULAR] = spec;
	assert_int_equal(fleet_load(&h, &config, &fc, &msg), PD_OK);
	worker_list_release(&fc.workers);
	first = fleet_get(&h);
	p = first->pool[ROLE_REGULAR].ring->state->memory;
	assert_int_equal(p->told[ROUTE_JOINED], 2);
	assert_true(p->at > 0);

	list(&fc, (const char *const[]){"c=http://127.0.0.1:3", "b=http://127.0.0.1:2",
					"d=http://127.0.0.1:4", NULL});
	fc.policy[ROLE_REGULAR] = spec;
	assert_int_equal(fleet_load(&h, &config, &fc, &msg), PD_OK);
	f = fleet_get(&h);
	assert_ptr_equal(f->pool[ROLE_REGULAR].ring->state, first->pool[ROLE_REGULAR].ring->state);
	assert_true(p->told[ROUTE_JOINED] == 4 && p->told[ROUTE_LEFT] == 1);
	fleet_put(f);

	fleet_session_finished(first, SPAN(" s "), 9);
	assert_true(p->told[ROUTE_FINISHED] == 1 && p->keyed && p->at == 9);

	/* Another policy has another memory; the old one lives as long as its fleet. */
	fc.policy[ROLE_REGULAR] = route_spec_of(route_policy_find(SPAN("random")));
	assert_int_equal(fleet_load(&h, &config, &fc, &msg), PD_OK);
	worker_list_release(&fc.workers);
	assert_true(p->told[ROUTE_JOINED] == 4 && p->told[ROUTE_LEFT] == 1);
	assert_int_equal(pupils, 1);
	fleet_put(first);
	assert_int_equal(pupils, 0);
	fleet_holder_release(&h);
}

static void a_failed_reload_changes_nothing(void **state)
{
	struct fleet_holder h;
	struct fleet *before, *after;
	struct pd_msg msg;

	(void)state;
	assert_int_equal(fleet_holder_init(&h), PD_OK);
	assert_int_equal(LOAD(&h, "a=http://127.0.0.1:1"), PD_OK);
	before = fleet_get(&h);
	assert_int_not_equal(LOAD(&h, "b=http://127.0.0.1:2", "b=http://127.0.0.1:3"), PD_OK);
	assert_non_null(strstr(msg.text, "b"));
	after = fleet_get(&h);
	assert_ptr_equal(before, after);
	assert_int_equal(fleet_available(&after->pool[ROLE_REGULAR]), 1);
	fleet_put(after);
	fleet_put(before);
	fleet_holder_release(&h);
}

/* -- reloads, requests and probes at once -- */

static _Atomic bool stop;

static void *requests(void *arg)
{
	struct fleet_holder *h = arg;
	struct rng rng;
	uintptr_t n = 0;

	rng_seed(&rng, (uint64_t)(uintptr_t)&n);
	for (; !atomic_load(&stop); n++) {
		struct fleet *f = fleet_get(h), *again = fleet_ref(f);
		struct fleet_pool *p = &f->pool[ROLE_REGULAR];
		struct route_key key = {.level = ROUTE_KEY_NONE};
		struct route_request rq = {.key = &key, .draw = rng_u64(&rng)};
		struct route_decision d;

		if (route_decide(p->ring, &rq, &d) == PD_OK) {
			struct worker *w = p->worker[d.worker];

			assert_int_equal(w->url[0], 'h');
			route_end(p->ring, d.worker, &rq);
			worker_report(w, &config, n % 7 ? VERDICT_SUCCESS : VERDICT_FAILURE,
				      d.trial, clock_now());
			if (n % 50 == 0)
				worker_eject(w, clock_now());
			else if (n % 10 == 0)
				worker_probed(w, &config, true, true, clock_now());
		}
		fleet_put(again);
		fleet_put(f);
	}
	return NULL;
}

static void *reloads(void *arg)
{
	struct pd_msg msg;

	for (int i = 0; i < 150; i++)
		if (i % 2)
			assert_int_equal(LOAD(arg, "a=http://127.0.0.1:1", "b=http://127.0.0.1:2"),
					 PD_OK);
		else
			assert_int_equal(LOAD(arg, "b=http://127.0.0.1:2", "c=http://127.0.0.1:3"),
					 PD_OK);
	return NULL;
}

static void reloads_race_with_everything(void **state)
{
	pthread_t reader[4], writer[2];
	struct fleet_holder h;
	struct fleet *f;
	struct pd_msg msg;

	(void)state;
	assert_int_equal(fleet_holder_init(&h), PD_OK);
	assert_int_equal(LOAD(&h, "a=http://127.0.0.1:1"), PD_OK);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&reader[i], NULL, requests, &h), 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&writer[i], NULL, reloads, &h), 0);
	for (int i = 0; i < 2; i++)
		(void)pthread_join(writer[i], NULL);
	atomic_store(&stop, true);
	for (int i = 0; i < 4; i++)
		(void)pthread_join(reader[i], NULL);
	f = fleet_get(&h);
	assert_int_equal(f->version, 301);
	for (size_t i = 0; i < f->pool[ROLE_REGULAR].n; i++)
		assert_int_equal(atomic_load(&f->pool[ROLE_REGULAR].worker[i]->slot.in_flight), 0);
	fleet_put(f);
	fleet_holder_release(&h);
}

static size_t names_of(struct fleet_holder *h, char *out, size_t cap)
{
	struct fleet *f = fleet_get(h);
	size_t n = 0;

	out[0] = '\0';
	for (int r = 0; r < ROLES; r++) {
		for (size_t i = 0; i < f->pool[r].n; i++, n++) {
			size_t len = strlen(out);

			assert_true(len + 2 < cap);
			out[len] = f->pool[r].worker[i]->name[0];
			out[len + 1] = '\0';
		}
	}
	fleet_put(f);
	return n;
}

static void workers_added_by_hand_survive_a_reload(void **state)
{
	struct fleet_holder h;
	struct pd_msg msg;
	char names[32];
	struct fleet *f;
	struct worker *c;

	(void)state;
	assert_int_equal(fleet_holder_init(&h), PD_OK);
	assert_int_equal(LOAD(&h, "a=http://127.0.0.1:1", "b=http://127.0.0.1:2"), PD_OK);
	assert_int_equal(
		fleet_add(&h, &config, ROLE_REGULAR, "c=http://127.0.0.1:3", 7, NULL, &msg), PD_OK);
	assert_int_equal(
		fleet_add(&h, &config, ROLE_REGULAR, "c=http://127.0.0.1:4", 0, NULL, &msg),
		PD_EEXIST);
	assert_int_equal(
		fleet_add(&h, &config, ROLE_REGULAR, "d=http://127.0.0.1:1", 0, NULL, &msg),
		PD_EEXIST);
	assert_int_equal(fleet_add(&h, &config, ROLE_REGULAR, "d=nonsense", 0, NULL, &msg),
			 PD_EINVAL);
	assert_int_equal(names_of(&h, names, sizeof(names)), 3);
	assert_string_equal(names, "abc");
	f = fleet_get(&h);
	c = find(f, SPAN("c"));
	assert_non_null(c);
	assert_true(atomic_load(&c->source) == SOURCE_HAND && c->fresh && c->bootstrap == 7);
	assert_false(atomic_load(&c->slot.available));
	worker_probed(c, &config, true, true, 1);
	assert_true(atomic_load(&c->slot.available));
	assert_false(c->fresh);
	assert_int_equal(LOAD(&h, "b=http://127.0.0.1:2", "x=http://127.0.0.1:9"), PD_OK);
	assert_int_equal(names_of(&h, names, sizeof(names)), 3);
	assert_string_equal(names, "bxc");
	fleet_put(f);
	f = fleet_get(&h);
	assert_ptr_equal(find(f, SPAN("c")), c);
	fleet_put(f);
	/* Listed by the file it is the file's, and goes with the file. */
	assert_int_equal(LOAD(&h, "c=http://127.0.0.1:3"), PD_OK);
	assert_int_equal(LOAD(&h, "x=http://127.0.0.1:9"), PD_OK);
	assert_int_equal(names_of(&h, names, sizeof(names)), 1);
	fleet_holder_release(&h);
}

static void who_leaves_goes_when_nothing_needs_it(void **state)
{
	struct fleet_holder h;
	struct pd_msg msg;
	struct fleet *f;
	struct worker *a, *b;
	size_t gone;

	(void)state;
	assert_int_equal(fleet_holder_init(&h), PD_OK);
	assert_int_equal(LOAD(&h, "a=http://127.0.0.1:1", "b=http://127.0.0.1:2"), PD_OK);
	f = fleet_get(&h);
	a = find(f, SPAN("a"));
	b = find(f, SPAN("b"));
	assert_int_equal(fleet_reap(&h, &config, &gone), 0);
	atomic_store(&a->slot.in_flight, 1);
	worker_leave(a, false);
	assert_false(atomic_load(&a->slot.available));
	for (int i = 0; i < 4; i++)
		assert_int_equal(fleet_reap(&h, &config, &gone), 1);
	/* Its request has ended, but somebody still reads the blocks that it computed. */
	atomic_store(&a->handovers, 1);
	atomic_store(&a->slot.in_flight, 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(fleet_reap(&h, &config, &gone), 1);
	atomic_store(&a->handovers, 0);
	assert_int_equal(fleet_reap(&h, &config, &gone), 1); /* idle once is not enough */
	assert_int_equal(gone, 0);
	assert_int_equal(fleet_reap(&h, &config, &gone), 0);
	assert_int_equal(gone, 1);
	/* Forced it goes at once, whatever runs; a drain that is taken back keeps it. */
	atomic_store(&b->slot.in_flight, 1);
	worker_leave(b, false);
	worker_set_draining(b, false);
	assert_int_equal(fleet_reap(&h, &config, &gone), 0);
	assert_int_equal(gone, 0);
	worker_leave(b, true);
	assert_int_equal(fleet_reap(&h, &config, &gone), 0);
	assert_int_equal(gone, 1);
	atomic_store(&b->slot.in_flight, 0);
	fleet_put(f);
	f = fleet_get(&h);
	assert_int_equal(f->pool[ROLE_REGULAR].n, 0);
	fleet_put(f);
	/* What leaves and is listed again stays. */
	assert_int_equal(LOAD(&h, "a=http://127.0.0.1:1"), PD_OK);
	f = fleet_get(&h);
	a = find(f, SPAN("a"));
	worker_leave(a, true);
	assert_int_equal(LOAD(&h, "a=http://127.0.0.1:1"), PD_OK);
	assert_int_equal(fleet_reap(&h, &config, &gone), 0);
	assert_int_equal(gone, 0);
	assert_true(atomic_load(&a->slot.available));
	fleet_put(f);
	fleet_holder_release(&h);
}

static void ids_mean_a_worker_or_all_ranks(void **state)
{
	struct fleet_holder h;
	struct worker *out[8];
	struct fleet *f;
	struct pd_msg msg;

	(void)state;
	assert_int_equal(fleet_holder_init(&h), PD_OK);
	assert_int_equal(LOAD(&h, "a@0=http://127.0.0.1:1@0", "a@1=http://127.0.0.1:1@1",
			      "ab=http://127.0.0.1:11"),
			 PD_OK);
	f = fleet_get(&h);
	assert_int_equal(fleet_match(f, ROLES, SPAN("a"), out, 8), 2);
	assert_int_equal(fleet_match(f, ROLES, SPAN("a@1"), out, 8), 1);
	assert_string_equal(out[0]->name, "a@1");
	assert_int_equal(fleet_match(f, ROLES, SPAN("http://127.0.0.1:1"), out, 1), 2);
	assert_int_equal(fleet_match(f, ROLES, SPAN("http://127.0.0.1:11"), out, 8), 1);
	assert_int_equal(fleet_match(f, ROLES, SPAN("a@"), out, 8), 0);
	assert_int_equal(fleet_match(f, ROLES, SPAN(""), out, 8), 0);
	assert_int_equal(fleet_match(f, ROLES, SPAN("http://127.0.0.1:1@"), out, 8), 0);
	fleet_put(f);
	fleet_holder_release(&h);
}

static void one_url_in_two_roles_is_two_workers(void **state)
{
	struct fleet_config fc = no_workers();
	struct fleet_holder h;
	struct worker *out[8];
	struct fleet *f;
	struct pd_msg msg;

	(void)state;
	assert_int_equal(fleet_holder_init(&h), PD_OK);
	assert_int_equal(worker_list_add(&fc.workers, ROLE_PREFILL, "http://127.0.0.1:1", 2, &msg),
			 PD_OK);
	assert_int_equal(worker_list_add(&fc.workers, ROLE_DECODE, "http://127.0.0.1:2", 1, &msg),
			 PD_OK);
	assert_int_equal(fleet_load(&h, &config, &fc, &msg), PD_OK);
	worker_list_release(&fc.workers);
	assert_int_equal(fleet_add(&h, &config, ROLE_DECODE, "http://127.0.0.1:1@0", 0, NULL, &msg),
			 PD_OK);
	f = fleet_get(&h);
	assert_int_equal(fleet_match(f, ROLES, SPAN("http://127.0.0.1:1"), out, 8), 3);
	assert_int_equal(fleet_match(f, ROLE_PREFILL, SPAN("http://127.0.0.1:1"), out, 8), 2);
	assert_int_equal(fleet_match(f, ROLES, SPAN("http://127.0.0.1:1@0"), out, 8), 2);
	assert_int_equal(fleet_match(f, ROLE_DECODE, SPAN("http://127.0.0.1:1@0"), out, 8), 1);
	assert_int_equal(out[0]->role, ROLE_DECODE);
	assert_int_equal(fleet_match(f, ROLE_REGULAR, SPAN("http://127.0.0.1:1"), out, 8), 0);
	fleet_put(f);
	fleet_holder_release(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_reload_keeps_who_stays),
		cmocka_unit_test(a_policy_outlives_reloads),
		cmocka_unit_test(a_failed_reload_changes_nothing),
		cmocka_unit_test(reloads_race_with_everything),
		cmocka_unit_test(workers_added_by_hand_survive_a_reload),
		cmocka_unit_test(who_leaves_goes_when_nothing_needs_it),
		cmocka_unit_test(ids_mean_a_worker_or_all_ranks),
		cmocka_unit_test(one_url_in_two_roles_is_two_workers),
	};

	router_config_default(&config);
	config.cb_failures = 3;
	config.cb_timeout = NS_PER_MS;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
