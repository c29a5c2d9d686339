/* What a decision costs, of each policy: 64 workers, 512 conversations whose prompts have 4 kB.
 * Prints nanoseconds of processor time for a pick and its end, without making keys and blocks. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/route/policy/policies.h"
#include "lib/route/prefix.h"

#define WORKERS	      64
#define CONVERSATIONS 512
#define DECISIONS     400000
#define BLOCKS	      64

static struct route_slot slot[WORKERS];
static uint64_t block[CONVERSATIONS][BLOCKS];
static struct route_key key[CONVERSATIONS];

static double seconds(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double measure(const struct route_policy_type *type, bool prompts)
{
	struct route_member member[WORKERS] = {0};
	char name[WORKERS][40];
	struct route_spec spec = route_spec_of(type);
	struct route_state *state;
	struct route_pool *pool;
	double from = 0;

	memset(slot, 0, sizeof(slot));
	for (int i = 0; i < WORKERS; i++) {
		(void)snprintf(name[i], sizeof(name[i]), "http://10.0.0.%d:8000", i);
		member[i] = (struct route_member){.name = name[i], .slot = &slot[i]};
		atomic_store(&slot[i].available, true);
		atomic_store(&slot[i].in_flight, (uint32_t)i % 5);
	}
	if (route_state_new(&state, &spec))
		exit(1);
	if (route_pool_new(&pool, member, WORKERS, state, NULL))
		exit(1);
	for (int i = -DECISIONS / 10; i < DECISIONS; i++) {
		unsigned c = (unsigned)(i + DECISIONS) * 2654435761u % CONVERSATIONS;
		struct route_request rq = {.key = &key[c],
					   .block = block[c],
					   .nblocks = prompts ? BLOCKS : 0,
					   .tokens = prompts ? BLOCKS * 16 : 0,
					   .now_ns = 1,
					   .draw = (uint64_t)c * 0x9e3779b97f4a7c15u};
		struct route_decision d;

		if (i == 0)
			from = seconds();
		if (route_decide(pool, &rq, &d))
			exit(1);
		rq.counted = d.tokens;
		route_end(pool, d.worker, &rq);
	}
	from = (seconds() - from) / DECISIONS * 1e9;
	route_pool_free(pool);
	route_state_unref(state);
	return from;
}

int main(void)
{
	for (unsigned c = 0; c < CONVERSATIONS; c++) {
		char prompt[BLOCKS * ROUTE_BLOCK_BYTES];

		memset(prompt, 's', sizeof(prompt)); /* half of it is shared */
		(void)snprintf(prompt + sizeof(prompt) / 2, 40, "conversation %u", c);
		(void)route_blocks(0, prompt, sizeof(prompt), ROUTE_BLOCK_BYTES, block[c], BLOCKS);
		key[c].level = ROUTE_KEY_SESSION;
		key[c].len = (size_t)snprintf(key[c].text, sizeof(key[c].text),
					      "session-%u-of-a-usual-length", c);
	}
	for (size_t i = 0; route_policies[i]; i++) {
		bool prompts = route_policies[i]->flags & ROUTE_WANTS_BLOCKS;

		if (strcmp(route_policies[i]->name, "scores") == 0) /* decide_scores.c */
			continue;
		(void)printf("%-20s %7.0f ns\n", route_policies[i]->name,
			     measure(route_policies[i], prompts));
	}
	return 0;
}
