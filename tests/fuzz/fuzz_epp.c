/*
 * Endpoint picker configurations and pages of engine metrics; the first byte says which. A
 * configuration that is accepted makes a pool and decides; one that is refused says where, in few
 * enough words. A page that is refused changes nothing.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/epp/engine_metrics.h"
#include "lib/epp/epp_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define WORKERS 5

static void expect(bool ok, const char *what)
{
	if (!ok) {
		fprintf(stderr, "fuzz_epp: %s\n", what);
		abort();
	}
}

static void decide(const struct score_profile *p)
{
	static const char *const name[WORKERS] = {"http://h:1", "http://h:2", "http://h:3", "b",
						  "c"};
	struct route_slot slot[WORKERS] = {0};
	struct route_member member[WORKERS];
	const struct route_spec spec = score_spec(p);
	struct field header = {SPAN("x-session-token"), SPAN("aHR0cDovL2g6Mg=="), 0};
	const uint64_t block[8] = {1, 2, 3, 4, 5, 6, 7, 8};
	struct route_state *state;
	struct route_pool *pool;
	struct route_decision d;

	for (int i = 0; i < WORKERS; i++) {
		member[i] = (struct route_member){.name = name[i], .slot = &slot[i]};
		slot[i].available = true;
	}
	expect(route_state_new(&state, &spec) == PD_OK, "no state");
	expect(route_pool_new(&pool, member, WORKERS, state, NULL) == PD_OK, "no pool");
	for (uint64_t i = 0; i < 4; i++) {
		struct route_request rq = {.header = &header,
					   .nheaders = 1,
					   .block = block,
					   .nblocks = 8,
					   .tokens = 130,
					   .now_ns = 1,
					   .draw = i};
		int err = route_decide(pool, &rq, &d);

		expect(err == PD_OK || err == PD_EPROTO, "an idle pool has no worker");
		if (err)
			continue;
		expect(d.worker < WORKERS && slot[d.worker].in_flight > 0, "not counted");
		rq.counted = d.tokens;
		route_end(pool, d.worker, &rq);
	}
	for (int i = 0; i < WORKERS; i++)
		expect(slot[i].in_flight == 0 && slot[i].tokens == 0, "still counted");
	route_pool_free(pool);
	route_state_unref(state);
}

static void read_config(const char *text, size_t n)
{
	struct pd_msg msg = {""};
	struct epp_config *c;

	if (epp_config_parse(&c, text, n, "f", &msg)) {
		expect(strncmp(msg.text, "f:", 2) == 0 && !c, "refused without a place");
		return;
	}
	for (size_t i = 0; i < c->nprofiles; i++)
		decide(&c->profile[i]);
	expect(c->nprofiles > 0 && epp_profile_decode(c), "no profile");
	epp_config_free(c);
}

static void read_page(const char *text, size_t n)
{
	struct engine_metrics m = {.waiting = 7, .max_adapters = 3}, before = m;
	struct route_slot slot = {0};
	bool complete;

	if (engine_metrics_read(&m, text, n, &complete)) {
		expect(memcmp(&m, &before, sizeof(m)) == 0, "a refused page changed something");
		return;
	}
	engine_metrics_publish(&m, &slot, 5);
	expect(slot.signal.waiting == m.waiting && slot.signal.at_ns == 5, "not published");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	if (n == 0)
		return 0;
	if (data[0] == 'm')
		read_page((const char *)data + 1, n - 1);
	else
		read_config((const char *)data + 1, n - 1);
	return 0;
}
