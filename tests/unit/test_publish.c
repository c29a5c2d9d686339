/* Lists of sources: one rule says whose a worker is, who joins, and who leaves. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/router/fleet/fleet.h"

static struct router_config config;

static void list(struct worker_list *l, enum worker_source source, const char *const *texts)
{
	struct pd_msg msg;

	*l = (struct worker_list){0};
	for (; *texts; texts++)
		assert_int_equal(worker_list_add(l, ROLE_REGULAR, *texts, 1, &msg), PD_OK);
	for (size_t i = 0; i < l->n; i++)
		l->spec[i].source = source;
}

static void load(struct fleet_holder *h, const char *const *texts)
{
	struct fleet_config fc = {0};
	struct pd_msg msg;

	for (int r = 0; r < ROLES; r++)
		fc.policy[r] = route_spec_of(route_policy_find(SPAN("random")));
	list(&fc.workers, SOURCE_LISTED, texts);
	assert_int_equal(fleet_load(h, &config, &fc, &msg), PD_OK);
	worker_list_release(&fc.workers);
}

static void publish(struct fleet_holder *h, enum worker_source source, const char *const *texts)
{
	struct worker_list l;
	struct pd_msg msg;

	list(&l, source, texts);
	assert_int_equal(fleet_publish(h, &config, source, &l, &msg), PD_OK);
	worker_list_release(&l);
}

#define LOAD(h, ...)	    load(h, (const char *const[]){__VA_ARGS__, NULL})
#define PUBLISH(h, of, ...) publish(h, of, (const char *const[]){__VA_ARGS__, NULL})

/* Until nobody leaves any more; an idle worker needs more than one look. */
static void reap(struct fleet_holder *h)
{
	size_t gone, looks = 0;

	while (fleet_reap(h, &config, &gone) > 0)
		assert_true(++looks < 10);
}

/* "name:port of its URL:first letter of its source", "-" behind one that leaves. */
static const char *now(struct fleet_holder *h)
{
	static char text[200];
	struct fleet *f = fleet_get(h);
	size_t len = 0;

	text[0] = '\0';
	for (size_t i = 0; i < f->pool[ROLE_REGULAR].n; i++) {
		struct worker *w = f->pool[ROLE_REGULAR].worker[i];

		len += (size_t)snprintf(
			text + len, sizeof(text) - len, "%s%s:%s:%c%s", i ? " " : "", w->name,
			strrchr(w->url, ':') + 1,
			worker_source_name((enum worker_source)atomic_load(&w->source))[0],
			worker_is_leaving(w) ? "-" : "");
	}
	fleet_put(f);
	return text;
}

static struct worker *find(struct fleet_holder *h, struct span name)
{
	struct fleet *f = fleet_get(h);
	struct worker *w = NULL;

	(void)fleet_match(f, ROLES, name, &w, 1);
	fleet_put(f);
	assert_non_null(w);
	return w;
}

static void each_source_replaces_its_own(void **state)
{
	struct fleet_holder h;

	(void)state;
	assert_int_equal(fleet_holder_init(&h), PD_OK);
	LOAD(&h, "a=http://127.0.0.1:1");
	PUBLISH(&h, SOURCE_KUBERNETES, "k=http://127.0.0.1:2");
	PUBLISH(&h, SOURCE_DNS, "d=http://127.0.0.1:3");
	assert_string_equal(now(&h), "a:1:c k:2:k d:3:d");
	PUBLISH(&h, SOURCE_KUBERNETES, NULL);
	assert_string_equal(now(&h), "a:1:c k:2:k- d:3:d");
	/* It is back before it was idle: as if it had never been away. */
	PUBLISH(&h, SOURCE_KUBERNETES, "k=http://127.0.0.1:2");
	assert_string_equal(now(&h), "a:1:c k:2:k d:3:d");
	PUBLISH(&h, SOURCE_KUBERNETES, NULL);
	reap(&h);
	assert_string_equal(now(&h), "a:1:c d:3:d");
	fleet_holder_release(&h);
}

static void the_first_source_has_it_then_the_other(void **state)
{
	struct fleet_holder h;

	(void)state;
	assert_int_equal(fleet_holder_init(&h), PD_OK);
	LOAD(&h, NULL);
	PUBLISH(&h, SOURCE_REGISTRY, "x=http://127.0.0.1:1");
	PUBLISH(&h, SOURCE_DNS, "http://127.0.0.1:1", "y=http://127.0.0.1:2");
	assert_string_equal(now(&h), "x:1:r y:2:d");
	PUBLISH(&h, SOURCE_REGISTRY, NULL);
	reap(&h);
	assert_string_equal(now(&h), "y:2:d http://127.0.0.1:1:1:d");
	/* Listed it is the file's; when the file drops it, the source's again, the same worker. */
	LOAD(&h, "y=http://127.0.0.1:2");
	assert_string_equal(now(&h), "y:2:c http://127.0.0.1:1:1:d");
	LOAD(&h, NULL);
	assert_string_equal(now(&h), "http://127.0.0.1:1:1:d y:2:d");
	assert_int_equal(find(&h, SPAN("y"))->slot.picks, 0);
	PUBLISH(&h, SOURCE_DNS, NULL);
	reap(&h);
	assert_string_equal(now(&h), "");
	fleet_holder_release(&h);
}

/* A pod of a StatefulSet: the same name at another address. */
static void a_name_that_moves_waits_for_the_old_one(void **state)
{
	struct fleet_holder h;
	struct worker *old;

	(void)state;
	assert_int_equal(fleet_holder_init(&h), PD_OK);
	LOAD(&h, NULL);
	PUBLISH(&h, SOURCE_KUBERNETES, "p0=http://127.0.0.1:1");
	old = find(&h, SPAN("p0"));
	atomic_store(&old->slot.in_flight, 1);
	PUBLISH(&h, SOURCE_KUBERNETES, "p0=http://127.0.0.1:2");
	assert_string_equal(now(&h), "p0:1:k-");
	for (size_t i = 0, gone; i < 5; i++)
		assert_int_equal(fleet_reap(&h, &config, &gone), 1);
	atomic_store(&old->slot.in_flight, 0);
	reap(&h);
	assert_string_equal(now(&h), "p0:2:k");
	fleet_holder_release(&h);
}

static void who_was_removed_by_hand_stays_out(void **state)
{
	struct fleet_holder h;

	(void)state;
	assert_int_equal(fleet_holder_init(&h), PD_OK);
	LOAD(&h, NULL);
	PUBLISH(&h, SOURCE_KUBERNETES, "a=http://127.0.0.1:1", "b=http://127.0.0.1:2");
	worker_leave(find(&h, SPAN("a")), false);
	/* A list that still has it changes nothing about that, now or later. */
	PUBLISH(&h, SOURCE_KUBERNETES, "a=http://127.0.0.1:1", "b=http://127.0.0.1:2",
		"c=http://127.0.0.1:3");
	assert_string_equal(now(&h), "a:1:k- b:2:k c:3:k");
	reap(&h);
	assert_string_equal(now(&h), "b:2:k c:3:k");
	PUBLISH(&h, SOURCE_KUBERNETES, "a=http://127.0.0.1:1", "b=http://127.0.0.1:2");
	reap(&h);
	assert_string_equal(now(&h), "b:2:k");
	LOAD(&h, "z=http://127.0.0.1:9");
	assert_string_equal(now(&h), "z:9:c b:2:k");
	/* Its source has let it go: the next time it is a new one. */
	PUBLISH(&h, SOURCE_KUBERNETES, "b=http://127.0.0.1:2");
	PUBLISH(&h, SOURCE_KUBERNETES, "a=http://127.0.0.1:1", "b=http://127.0.0.1:2");
	assert_string_equal(now(&h), "z:9:c b:2:k a:1:k");
	fleet_holder_release(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_source_replaces_its_own),
		cmocka_unit_test(the_first_source_has_it_then_the_other),
		cmocka_unit_test(a_name_that_moves_waits_for_the_old_one),
		cmocka_unit_test(who_was_removed_by_hand_stays_out),
	};

	router_config_default(&config);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
