/*
 * What surrounds a decision: the table of policies and their parameters, the memory of a policy and
 * what it is told, pairs, dice, prefix blocks and the text of keys.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "lib/route/hash.h"
#include "lib/route/key/key_extract.h"
#include "lib/route/prefix.h"
#include "tests/unit/pupil.h"
#include "tests/unit/route_kit.h"

#define MOST 6

struct fixture {
	struct route_slot slot[MOST];
	struct route_slot *slots[MOST];
	struct route_pool *pool;
};

static const char *const names[MOST] = {"a", "b", "c", "d", "e", "f"};

static void make_of(struct fixture *f, const struct route_spec *spec, size_t n)
{
	memset(f, 0, sizeof(*f));
	for (size_t i = 0; i < n; i++) {
		f->slots[i] = &f->slot[i];
		atomic_store(&f->slot[i].available, true);
	}
	if (pool_of(&f->pool, spec, names, f->slots, n, NULL) || !f->pool)
		abort();
}

static void make(struct fixture *f, const char *policy, size_t n)
{
	struct route_spec spec = spec_named(policy);

	make_of(f, &spec, n);
}

/* -- the table -- */

/* What each row promises, and that one parameter name means one thing in the whole table. */
static void test_rows(void **state)
{
	struct route_param list[ROUTE_SETTINGS_MAX + 1];
	size_t n = route_param_list(list);

	(void)state;
	for (size_t i = 0; route_policies[i]; i++) {
		const struct route_policy_type *t = route_policies[i];

		assert_string_equal(route_policy_names[i], t->name);
		assert_ptr_equal(route_policy_find(span_of(t->name)), t);
		assert_true(strspn(t->name, "abcdefghijklmnopqrstuvwxyz0123456789_") ==
			    strlen(t->name));
		assert_true(t->help && t->help[0] && !strchr(t->help, '|'));
		assert_true(t->begin && t->next);
		assert_true(t->walk_size <= ROUTE_WALK_MAX && t->params_size <= ROUTE_PARAMS_SIZE);
		assert_true(!t->table_new == !t->table_free && !t->memory_new == !t->memory_free);
		assert_true(!(t->flags & ROUTE_BY_KEY) == !t->keyless);
		assert_true(!t->keyless || !(t->keyless->flags & ROUTE_BY_KEY));
		for (const struct route_param *p = t->params; p && p->type; p++) {
			size_t k = 0;

			assert_true(p->offset + 8 <= t->params_size);
			assert_true(p->help && p->arg && p->name);
			while (k < n && strcmp(list[k].name, p->name) != 0)
				k++;
			assert_true(k < n);
			assert_true(list[k].type == p->type && list[k].min == p->min &&
				    list[k].max == p->max && list[k].fallback == p->fallback);
			assert_string_equal(list[k].help, p->help);
		}
	}
	assert_int_equal(list[n].type, ROUTE_PARAM_END);
	assert_null(route_policy_find(SPAN("round_robi")));
}

/* The ith of some requests: keys, prompts with a common beginning, and requests without either. */
static struct route_request some_request(size_t i, struct route_key *key, uint64_t block[4])
{
	char text[32];

	(void)snprintf(text, sizeof(text), "k%zu", i % 17);
	*key = key_of(text);
	for (uint64_t b = 0; b < 4; b++)
		block[b] = 1 + (b < 2 ? b : b * 1000 + i % 13);
	return (struct route_request){.key = i % 5 ? key : NULL,
				      .block = block,
				      .nblocks = i % 3 ? 4 : 0,
				      .tokens = 64,
				      .now_ns = (int64_t)i + 1,
				      .draw = route_dice(1, 0, i, 0)};
}

/* No policy picks a barred worker, calls it home, or shows it; with all barred there is none. */
static void test_barred_workers(void **state)
{
	const bool barred[MOST] = {true, false, true, false, true, false},
		   all[MOST] = {true, true, true, true, true, true};

	(void)state;
	for (size_t p = 0; route_policies[p]; p++) {
		struct fixture f;

		make(&f, route_policies[p]->name, MOST);
		for (size_t i = 0; i < 300; i++) {
			struct route_decision d;
			struct route_key key;
			uint64_t block[4];
			struct route_request rq = some_request(i, &key, block);

			rq.barred = barred;
			assert_int_equal(route_decide(f.pool, &rq, &d), PD_OK);
			assert_false(barred[d.worker] || barred[d.home]);
			for (uint32_t c = 0; c < d.ncandidates; c++)
				assert_false(barred[d.candidate[c].worker]);
			rq.barred = all;
			assert_true(route_decide(f.pool, &rq, &d) < 0);
		}
		route_pool_free(f.pool);
	}
}

/* A session that names two models, on workers of their own, has a home for each. */
static void test_two_models_of_a_session(void **state)
{
	static const char *const policies[] = {
		"sticky",	   "sticky_least_loaded",
		"affinity",	   "kv_aware:kv-aware-session-affinity-ttl-secs=60",
		"consistent_hash", "maglev"};
	const bool barred[2][MOST] = {{true, false, true, false, true, false},
				      {false, true, false, true, false, true}};
	static const struct span model[2] = {{"a", 1}, {"b", 1}};

	(void)state;
	for (size_t p = 0; p < sizeof(policies) / sizeof(policies[0]); p++) {
		uint32_t home[2] = {ROUTE_NO_WORKER, ROUTE_NO_WORKER};
		struct route_key key = key_of("session");
		struct fixture f;

		make(&f, policies[p], MOST);
		for (size_t i = 0; i < 40; i++) {
			struct route_request rq = {.key = &key,
						   .model = model[i % 2],
						   .barred = barred[i % 2],
						   .now_ns = (int64_t)i + 1,
						   .draw = route_dice(1, 0, i, 0)};
			struct route_decision d;

			assert_int_equal(route_decide(f.pool, &rq, &d), PD_OK);
			if (i >= 2 && d.worker != home[i % 2])
				fail_msg("%s: request %zu", policies[p], i);
			home[i % 2] = d.worker;
			rq.counted = d.tokens;
			route_end(f.pool, d.worker, &rq);
		}
		route_pool_free(f.pool);
	}
}

/* What a shadow decides is what would be decided, and no slot knows of it. */
static void test_shadow_decisions(void **state)
{
	(void)state;
	for (size_t p = 0; route_policies[p]; p++) {
		struct fixture f, twin;

		make(&f, route_policies[p]->name, MOST);
		make(&twin, route_policies[p]->name, MOST);
		for (size_t i = 0; i < 300; i++) {
			struct route_decision d, real;
			struct route_key key;
			uint64_t block[4];
			struct route_request rq = some_request(i, &key, block);

			assert_int_equal(route_decide(twin.pool, &rq, &real), PD_OK);
			rq.counted = real.tokens;
			route_end(twin.pool, real.worker, &rq);
			rq.counted = 0;
			rq.shadow = true;
			assert_int_equal(route_decide(f.pool, &rq, &d), PD_OK);
			if (d.worker != real.worker)
				fail_msg("%s: request %zu", route_policies[p]->name, i);
			route_end(f.pool, d.worker, &rq);
			for (size_t w = 0; w < MOST; w++)
				assert_true(route_load(&f.slot[w]) == 0 && !f.slot[w].picks &&
					    route_tokens(&f.slot[w]) == 0);
		}
		route_pool_free(f.pool);
		route_pool_free(twin.pool);
	}
}

static void check_refused(const char *text, const char *want)
{
	struct route_spec spec = spec_named("random"), before = spec;
	struct pd_msg msg = {.text = ""};

	assert_int_equal(route_spec_parse(&spec, text, NULL, &msg), PD_EINVAL);
	if (!strstr(msg.text, want))
		fail_msg("'%s': found \"%s\", expected \"%s\"", text, msg.text, want);
	assert_memory_equal(&spec, &before, sizeof(spec));
}

static int64_t vnodes_of(const struct route_spec *s)
{
	const struct route_param *p = route_param_find(s->type, SPAN("virtual-nodes"));

	return (int64_t)route_param_number(p, s->params);
}

static void test_specs(void **state)
{
	struct route_settings flags = {{NULL}};
	struct route_spec spec, again;
	struct pd_msg msg;
	struct buf text;
	size_t wrong;

	(void)state;
	check_refused("consistent_hash:", "expected PARAMETER=VALUE");
	check_refused("consistent_hash:virtual-nodes", "expected PARAMETER=VALUE");
	check_refused(
		"consistent_hash:virtual-nodes=",
		"policy consistent_hash: virtual-nodes: found '', expected a whole number from 1 "
		"to 65536");
	check_refused("consistent_hash:virtual-nodes=0", "found '0'");
	check_refused("consistent_hash:virtual-nodes=65537", "found '65537'");
	check_refused("consistent_hash:virtual-nodes=1.5", "found '1.5', expected a whole number");
	check_refused("consistent_hash:virtual-nodes=99999999999999999999999", "expected a whole");
	check_refused("consistent_hash:ring-hash=md5", "found 'md5', expected one of xxh3|fbi");
	check_refused("consistent_hash:ring-hash=xxh", "found 'xxh'");
	check_refused("consistent_hash:nodes=4",
		      "policy consistent_hash has no parameter 'nodes', expected ring-hash, "
		      "virtual-nodes");
	check_refused("random:virtual-nodes=4", "policy random has no parameter 'virtual-nodes'");
	check_refused("radnom:virtual-nodes=4", "unknown policy 'radnom', did you mean 'random'?");

	/* Settings, the spelling of YAML, an alias; what is behind the name wins. */
	assert_int_equal(route_settings_put(&flags, "vnodes", "7"), PD_OK);
	assert_int_equal(route_settings_put(&flags, "ring_hash", "fbi"), PD_OK);
	assert_int_equal(route_settings_put(&flags, "nodes", "7"), PD_ENOENT);
	assert_string_equal(route_setting(&flags, "virtual-nodes"), "7");
	assert_int_equal(route_spec_parse(&spec, "consistent_hash", &flags, NULL), PD_OK);
	assert_int_equal(vnodes_of(&spec), 7);
	assert_int_equal(route_spec_parse(&spec, "consistent_hash:virtual_nodes=9", &flags, NULL),
			 PD_OK);
	assert_int_equal(vnodes_of(&spec), 9);
	assert_int_equal(route_spec_parse(&again, "random", &flags, NULL), PD_OK);

	/* Printed and read again it is the same, with and without what is known anyway. */
	buf_init(&text, 4096);
	assert_int_equal(route_spec_print(&spec, NULL, &text), PD_OK);
	assert_string_equal(text.data, "consistent_hash:ring-hash=fbi:virtual-nodes=9");
	assert_int_equal(route_spec_parse(&again, text.data, NULL, NULL), PD_OK);
	assert_true(route_spec_same(&spec, &again));
	buf_clear(&text);
	assert_int_equal(route_spec_print(&spec, &flags, &text), PD_OK);
	assert_string_equal(text.data, "consistent_hash:virtual-nodes=9");
	assert_int_equal(route_spec_parse(&again, text.data, &flags, NULL), PD_OK);
	assert_true(route_spec_same(&spec, &again));
	buf_release(&text);

	assert_int_equal(route_settings_check(&flags, &wrong, NULL), PD_OK);
	assert_int_equal(route_settings_put(&flags, "virtual-nodes", "x"), PD_OK);
	assert_int_equal(route_settings_check(&flags, &wrong, &msg), PD_EINVAL);
	assert_string_equal(msg.text, "found 'x', expected a whole number from 1 to 65536");
	assert_int_equal(route_spec_parse(&spec, "consistent_hash", &flags, &msg), PD_EINVAL);
}

/* Numbers with a point, and words. */
static void test_param_types(void **state)
{
	struct {
		double real;
		int64_t word;
	} v;
	const struct route_param list[] = {
		{.type = ROUTE_PARAM_REAL, .name = "share", .min = 0, .max = 1, .fallback = 0.25},
		{.type = ROUTE_PARAM_CHOICE,
		 .name = "mode",
		 .choices = "off|on|auto",
		 .offset = 8,
		 .fallback = 2},
		{.type = ROUTE_PARAM_END}};
	struct buf text;

	(void)state;
	route_params_default(list, &v);
	assert_true(v.real == 0.25 && v.word == 2);
	assert_int_equal(route_param_set(&list[0], &v, SPAN("0.125"), NULL), PD_OK);
	assert_int_equal(route_param_set(&list[0], &v, SPAN("1.1"), NULL), PD_EINVAL);
	assert_int_equal(route_param_set(&list[0], &v, SPAN("nan"), NULL), PD_EINVAL);
	assert_int_equal(route_param_set(&list[0], &v, SPAN(""), NULL), PD_EINVAL);
	assert_int_equal(route_param_set(&list[1], &v, SPAN("on"), NULL), PD_OK);
	assert_int_equal(route_param_set(&list[1], &v, SPAN("o"), NULL), PD_EINVAL);
	assert_int_equal(route_param_set(&list[1], &v, SPAN("off|on"), NULL), PD_EINVAL);
	assert_true(v.real == 0.125 && v.word == 1);
	buf_init(&text, 64);
	assert_int_equal(route_param_print(&list[0], &v, &text), PD_OK);
	assert_int_equal(route_param_print(&list[1], &v, &text), PD_OK);
	assert_string_equal(text.data, "0.125on");
	buf_release(&text);
}

/* -- a policy that learns -- */

static uint64_t id_of(const char *name)
{
	return route_hash(ROUTE_HASH_XXH3, name, strlen(name));
}

static void test_events(void **state)
{
	static const char *const later[] = {"b", "g", "a"};
	struct route_spec spec = route_spec_of(&pupil_type);
	struct route_key key = key_of("s");
	struct route_request rq = {.key = &key, .now_ns = 77};
	const uint64_t block[] = {5, 6};
	struct route_decision d;
	struct route_pool *next;
	struct route_slot *slots[3];
	struct fixture f;
	struct pupil *p;

	(void)state;
	make_of(&f, &spec, 2);
	p = f.pool->state->memory;
	route_pool_announce(NULL, f.pool, 5);
	assert_int_equal(p->told[ROUTE_JOINED], 2);
	assert_true(p->worker == id_of("b") && p->at == 5);

	assert_int_equal(route_decide(f.pool, &rq, &d), PD_OK);
	assert_int_equal(p->told[ROUTE_PICKED], 1);
	assert_true(p->worker == id_of("a") && p->at == 77 && p->keyed);
	rq.now_ns = 99;
	route_end(f.pool, d.worker, &rq);
	assert_int_equal(p->told[ROUTE_ENDED], 1);
	assert_true(p->worker == id_of("a") && p->at == 99 && p->keyed);

	/* A refusal is no pick. */
	atomic_store(&f.slot[0].available, false);
	atomic_store(&f.slot[1].available, false);
	assert_int_equal(route_decide(f.pool, &rq, &d), PD_ENOENT);
	assert_int_equal(p->told[ROUTE_PICKED], 1);

	route_tell(f.pool->state, &(struct route_event){.kind = ROUTE_STORED,
							.worker = id_of("b"),
							.block = block,
							.nblocks = 2});
	assert_true(p->told[ROUTE_STORED] == 1 && p->block == 6 && p->worker == id_of("b"));
	route_tell(f.pool->state, &(struct route_event){.kind = ROUTE_EVICTED,
							.worker = id_of("b"),
							.block = block,
							.nblocks = 1});
	assert_true(p->told[ROUTE_EVICTED] == 1 && p->block == 5);
	route_tell(f.pool->state, &(struct route_event){.kind = ROUTE_FINISHED, .request = &rq});
	assert_true(p->told[ROUTE_FINISHED] == 1 && p->keyed);

	/* Another list of workers with the same state: the memory goes on; one joined, none left.
	 */
	for (size_t i = 0; i < 3; i++)
		slots[i] = &f.slot[i];
	assert_int_equal(pool_with(&next, later, slots, 3, f.pool->state, NULL), PD_OK);
	assert_ptr_equal(next->state->memory, p);
	route_pool_announce(f.pool, next, 6);
	assert_true(p->told[ROUTE_JOINED] == 3 && p->told[ROUTE_LEFT] == 0);
	route_pool_announce(next, f.pool, 7);
	assert_true(p->told[ROUTE_JOINED] == 3 && p->told[ROUTE_LEFT] == 1);
	assert_true(p->worker == id_of("g") && p->at == 7);
	route_pool_free(f.pool);
	assert_int_equal(pupils, 1);
	route_pool_free(next);
	assert_int_equal(pupils, 0);
}

/* Counts its tries in the walk, which is kept from try to try. */
static void endless_begin(const struct route_view *v, void *walk)
{
	uint32_t *tries = walk;

	*tries = v->tries ? *tries + 1 : 0;
	assert_int_equal(*tries, v->tries);
}

/* What begins and never ends with something that can be picked. */
static bool endless_next(const struct route_view *v, void *walk, struct route_choice *c)
{
	(void)walk;
	*c = (struct route_choice){.worker = 0, .seen = 1000 + v->tries};
	return true;
}

/* A policy by load that always sees another number loses every race; the cap decides in the end. */
static void test_lost_races_end(void **state)
{
	static const struct route_policy_type type = {.name = "late",
						      .flags = ROUTE_BY_LOAD,
						      .walk_size = 4,
						      .begin = endless_begin,
						      .next = endless_next};
	struct route_spec spec = route_spec_of(&type);
	struct route_request rq = {.key = NULL};
	struct route_decision d;
	struct fixture f;

	(void)state;
	make_of(&f, &spec, 1);
	assert_int_equal(route_decide(f.pool, &rq, &d), PD_OK);
	assert_int_equal(atomic_load(&f.slot[0].in_flight), 1);
	route_end(f.pool, 0, NULL);
	route_pool_free(f.pool);
}

static void test_state_refuses(void **state)
{
	struct route_policy_type type = pupil_type;
	struct route_spec spec = {.type = &type};
	struct route_state *s;

	(void)state;
	type.walk_size = ROUTE_WALK_MAX + 1;
	assert_int_equal(route_state_new(&s, &spec), PD_EINVAL);
	type = pupil_type;
	type.params_size = ROUTE_PARAMS_SIZE + 1;
	assert_int_equal(route_state_new(&s, &spec), PD_EINVAL);
	type = pupil_type;
	type.flags = ROUTE_BY_KEY; /* and no policy for requests without a key */
	assert_int_equal(route_state_new(&s, &spec), PD_EINVAL);
	assert_null(s);
}

/* A reload that keeps the policy keeps whose turn it is. */
static void test_turns_outlive_a_pool(void **state)
{
	struct route_request rq = {.key = NULL};
	struct route_decision d;
	struct route_pool *next;
	struct fixture f;

	(void)state;
	make(&f, "round_robin", 3);
	for (uint32_t i = 0; i < 4; i++) {
		assert_int_equal(route_decide(f.pool, &rq, &d), PD_OK);
		assert_int_equal(d.worker, i % 3);
		route_end(f.pool, d.worker, NULL);
	}
	assert_int_equal(pool_with(&next, names, f.slots, 3, f.pool->state, NULL), PD_OK);
	route_pool_free(f.pool);
	assert_int_equal(route_decide(next, &rq, &d), PD_OK);
	assert_int_equal(d.worker, 1);
	route_pool_free(next);
}

/* -- pairs -- */

static const struct route_worker *seen_partner[2];
static unsigned seen_n;

static void looking_begin(const struct route_view *v, void *walk)
{
	seen_partner[seen_n++ % 2] = v->rq->partner;
	*(uint32_t *)walk = 0;
}

static const struct route_policy_type looking_type = {.name = "looking",
						      .walk_size = sizeof(uint32_t),
						      .begin = looking_begin,
						      .next = pupil_next};

static struct route_pair pair_of(const struct fixture *p, const struct fixture *d)
{
	struct route_pair pair = {.pool = {p->pool, d->pool}, .failed = -1};

	return pair;
}

static void test_pair(void **state)
{
	struct route_policy_type after = looking_type;
	struct route_spec looking = route_spec_of(&looking_type), wants = {.type = &after};
	struct fixture p, d, w;
	struct route_pair pair;

	(void)state;
	after.flags = ROUTE_WANTS_PARTNER;
	make_of(&p, &looking, 3);
	make_of(&d, &looking, 2);
	make_of(&w, &wants, 2);

	/* Decode first; prefill sees its partner. */
	pair = pair_of(&p, &d);
	assert_int_equal(route_decide_pair(&pair), PD_OK);
	assert_null(seen_partner[0]);
	assert_ptr_equal(seen_partner[1], &d.pool->worker[0]);
	assert_true(pair.picked[ROUTE_PREFILL] && pair.picked[ROUTE_DECODE]);
	assert_int_equal(p.slot[0].in_flight + d.slot[0].in_flight, 2);
	/* The other order, asked for by the caller or by the policy. */
	for (int i = 0; i < 2; i++) {
		pair = pair_of(&p, i ? &w : &d);
		pair.prefill_first = i == 0;
		assert_int_equal(route_decide_pair(&pair), PD_OK);
		assert_null(seen_partner[0]);
		assert_ptr_equal(seen_partner[1], &p.pool->worker[0]);
	}
	p.slot[0].in_flight = d.slot[0].in_flight = w.slot[0].in_flight = 0;

	/* No worker for the second: nothing is counted, and a permit is given back. */
	for (unsigned i = 0; i < 3; i++)
		p.slot[i].cap = p.slot[i].in_flight = 1;
	d.slot[0].available = d.slot[1].available = false;
	d.slot[1].permits = 1;
	pair = pair_of(&p, &d);
	pair.decode_alone = true;
	assert_int_equal(route_decide_pair(&pair), PD_EBUSY);
	assert_int_equal(pair.failed, ROUTE_PREFILL);
	assert_true(!pair.picked[0] && !pair.picked[1]);
	assert_true(d.slot[1].in_flight == 0 && d.slot[1].permits == 1);
	/* No prefill worker at all: decode alone, if that is allowed. */
	for (unsigned i = 0; i < 3; i++)
		p.slot[i].available = false;
	pair = pair_of(&p, &d);
	assert_int_equal(route_decide_pair(&pair), PD_ENOENT);
	assert_int_equal(pair.failed, ROUTE_PREFILL);
	assert_true(d.slot[1].in_flight == 0 && d.slot[1].permits == 1);
	for (int first = 0; first < 2; first++) {
		d.slot[1].permits = 1;
		pair = pair_of(&p, &d);
		pair.decode_alone = true;
		pair.prefill_first = first;
		assert_int_equal(route_decide_pair(&pair), PD_OK);
		assert_true(!pair.picked[ROUTE_PREFILL] && pair.picked[ROUTE_DECODE]);
		assert_true(pair.decision[ROUTE_DECODE].worker == 1 &&
			    pair.decision[ROUTE_DECODE].trial);
		route_end(d.pool, 1, NULL);
	}
	/* No decode worker: never half. */
	d.slot[1].permits = 0;
	p.slot[2].available = true;
	p.slot[2].in_flight = 0;
	for (int first = 0; first < 2; first++) {
		pair = pair_of(&p, &d);
		pair.decode_alone = true;
		pair.prefill_first = first;
		assert_int_equal(route_decide_pair(&pair), PD_ENOENT);
		assert_int_equal(pair.failed, ROUTE_DECODE);
		assert_int_equal(p.slot[2].in_flight, 0);
	}
	route_pool_free(p.pool);
	route_pool_free(d.pool);
	route_pool_free(w.pool);
}

/* -- dice -- */

static void test_dice(void **state)
{
	unsigned count[7] = {0}, equal = 0;
	uint64_t first = route_dice(1, 0, 0, 0);

	(void)state;
	/* serve, simulate and captures of another build must agree: pinned. */
	assert_int_equal(first, UINT64_C(0xb18a02f46d8d86c3));
	assert_true(route_dice(2, 0, 0, 0) != first && route_dice(1, 1, 0, 0) != first &&
		    route_dice(1, 0, 1, 0) != first && route_dice(1, 0, 0, 1) != first);
	for (uint64_t i = 0; i < 70000; i++) {
		uint64_t draw = route_dice(9, 2, i, 0), a = route_below(draw, 0, 7);

		assert_true(a < 7);
		count[a]++;
		equal += a == route_below(draw, 1, 7);
	}
	for (unsigned i = 0; i < 7; i++)
		assert_in_range(count[i], 9600, 10400);
	assert_in_range(equal, 9600,
			10400); /* the two numbers of a draw know nothing of each other */
	assert_int_equal(route_below(123, 0, 1), 0);
	assert_int_equal(route_below(123, 0, 0), 0);
}

/* -- prefix blocks -- */

static void test_blocks(void **state)
{
	char text[300], other[300];
	uint64_t a[8], b[8];

	(void)state;
	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)('a' + i * 7 % 26);
	memcpy(other, text, sizeof(text));
	other[130] = '#';
	assert_int_equal(route_blocks(0, text, 300, 64, a, 8), 4);
	assert_int_equal(route_blocks(0, text, 255, 64, b, 8), 3);
	assert_memory_equal(a, b, 3 * sizeof(*a));
	assert_int_equal(route_blocks(0, text, 300, 64, b, 2), 2);
	assert_int_equal(route_blocks(0, other, 300, 64, b, 8), 4);
	assert_true(a[0] == b[0] && a[1] == b[1] && a[2] != b[2] && a[3] != b[3]);
	assert_int_equal(route_blocks(1, text, 300, 64, b, 8), 4);
	for (int i = 0; i < 4; i++)
		assert_true(a[i] != b[i]);
	assert_int_equal(a[1], route_block(a[0], text + 64, 64));
	assert_int_equal(route_blocks(0, text, 300, 0, b, 8), 0);
	assert_int_equal(route_blocks(0, NULL, 0, 64, b, 8), 0);
}

/* -- keys -- */

static struct route_key in_header(const char *text, size_t n)
{
	const struct field f = {.name = SPAN("x-session-id"), .value = {text, n}};
	struct route_keyspec spec;
	struct route_key k;

	route_keyspec_default(&spec);
	route_key_extract(&spec, &f, 1, NULL, &k);
	return k;
}

static struct route_key in_body(const char *json)
{
	struct route_keyspec spec;
	struct json_object o;
	struct route_key k;

	route_keyspec_default(&spec);
	assert_int_equal(json_object_scan(&o, json, strlen(json), NULL), PD_OK);
	route_key_extract(&spec, NULL, 0, &o, &k);
	json_object_release(&o);
	return k;
}

static void same_key(const struct route_key *a, const struct route_key *b)
{
	assert_int_equal(a->level, b->level);
	assert_int_equal(a->len, b->len);
	assert_memory_equal(a->text, b->text, a->len);
}

/* One id is one key wherever it stands and however it is written. */
static void test_text_of_a_key(void **state)
{
	static const char *const blank[] = {"", " ", "\t \t"};
	struct route_key plain, k;
	char text[1200];

	(void)state;
	route_key_of_text(SPAN("abc"), &plain);
	assert_int_equal(plain.level, ROUTE_KEY_SESSION);
	assert_string_equal(plain.text, "abc");
	route_key_of_text(SPAN(" \tabc\t "), &k);
	same_key(&k, &plain);
	k = in_header(" abc ", 5);
	same_key(&k, &plain);
	k = in_body("{\"session_id\":\" abc \"}");
	same_key(&k, &plain);
	k = in_body("{\"session_id\":\"\\t \\u0020\\u0061bc\\u0009 \\t\"}");
	same_key(&k, &plain);
	k = in_body("{\"session_id\":\"abc\\\\t\"}"); /* a backslash and a t */
	assert_string_equal(k.text, "abc\\t");
	k = in_body("{\"session_id\":\"abc\\\\ \"}");
	assert_string_equal(k.text, "abc\\");
	k = in_body("{\"session_id\":\"a \\u0020 b\"}");
	assert_string_equal(k.text, "a   b");
	k = in_body("{\"session_id\":\"\\t\\u0020\", \"user\":\"u\"}"); /* blank does not count */
	assert_string_equal(k.text, "u");
	for (size_t i = 0; i < 3; i++) {
		route_key_of_text(span_of(blank[i]), &k);
		assert_int_equal(k.level, ROUTE_KEY_NONE);
	}
	route_key_of_text((struct span){NULL, 0}, &k);
	assert_int_equal(k.level, ROUTE_KEY_NONE);

	/* Around the length from which on it is hashed, and blanks do not count for it. */
	memset(text, 'k', sizeof(text));
	for (size_t n = ROUTE_KEY_MAX - 2; n < ROUTE_KEY_MAX + 700;
	     n += n < ROUTE_KEY_MAX + 3 ? 1 : 93) {
		struct route_key whole, header;

		route_key_of_text((struct span){text, n}, &whole);
		header = in_header(text, n);
		same_key(&whole, &header);
		assert_int_equal(whole.len, n <= ROUTE_KEY_MAX ? n : 37);
		text[n] = ' ';
		route_key_of_text((struct span){text, n + 1}, &k);
		text[n] = 'k';
		same_key(&k, &whole);
		text[n - 1] = 'j'; /* the last byte counts however long it is */
		route_key_of_text((struct span){text, n}, &k);
		assert_true(strcmp(k.text, whole.text) != 0);
		text[n - 1] = 'k';
	}
}

static struct route_key prefix_of(const char *json)
{
	struct json_object o;
	struct route_key k;

	assert_int_equal(json_object_scan(&o, json, strlen(json), NULL), PD_OK);
	route_key_prefix(&o, &k);
	json_object_release(&o);
	return k;
}

/* A prompt has one key, as a chat and as a completion. */
static void test_prefix_of_chat_and_completion(void **state)
{
	struct route_key chat, prompt;

	(void)state;
	chat = prefix_of("{\"messages\":[{\"role\":\"user\",\"content\":\"Tell me\\u0020more\"}]}");
	prompt = prefix_of("{\"model\":\"m\",\"prompt\":\"Tell me more\"}");
	assert_int_equal(chat.level, ROUTE_KEY_PREFIX);
	same_key(&chat, &prompt);
	chat = prefix_of(
		"{\"messages\":[{\"content\":[{\"type\":\"text\",\"text\":\"Tell me more\"}],"
		"\"role\":\"user\"}, {\"role\":\"assistant\",\"content\":\"...\"}]}");
	same_key(&chat, &prompt);
	chat = prefix_of("{\"messages\":[{\"role\":\"user\",\"content\":\"Tell me less\"}]}");
	assert_true(strcmp(chat.text, prompt.text) != 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_barred_workers),
		cmocka_unit_test(test_two_models_of_a_session),
		cmocka_unit_test(test_shadow_decisions),
		cmocka_unit_test(test_specs),
		cmocka_unit_test(test_param_types),
		cmocka_unit_test(test_events),
		cmocka_unit_test(test_lost_races_end),
		cmocka_unit_test(test_state_refuses),
		cmocka_unit_test(test_turns_outlive_a_pool),
		cmocka_unit_test(test_pair),
		cmocka_unit_test(test_dice),
		cmocka_unit_test(test_blocks),
		cmocka_unit_test(test_text_of_a_key),
		cmocka_unit_test(test_prefix_of_chat_and_completion),
	};

	return cmocka_run_group_tests_name("route_policy", tests, NULL, NULL);
}
