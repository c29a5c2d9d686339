/* What a decision of four scorers costs: 64 workers, prompts of 4 kB out of 512. Prints nanoseconds
 * of processor time. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/epp/epp_config.h"
#include "lib/route/prefix.h"

#define WORKERS	  64
#define PROMPTS	  512
#define DECISIONS 1000000
#define BLOCKS	  64

static const char text[] =
	"apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n"
	"- type: active-request-scorer\n- type: queue-scorer\n- type: kv-cache-utilization-scorer\n"
	"- type: prefix-cache-scorer\n- type: max-score-picker\n";

static void must(int err, const struct pd_msg *msg)
{
	if (err) {
		(void)fprintf(stderr, "%s\n", msg->text);
		exit(1);
	}
}

int main(void)
{
	static struct route_slot slot[WORKERS];
	static uint64_t block[PROMPTS][BLOCKS];
	static char prompt[4096];
	struct route_member member[WORKERS];
	char name[WORKERS][40];
	struct epp_config *config;
	struct route_state *state;
	struct route_decision d;
	struct route_pool *pool;
	struct route_spec spec;
	struct pd_msg msg = {"no memory"};
	clock_t from;

	must(epp_config_parse(&config, text, sizeof(text) - 1, "text", &msg), &msg);
	spec = score_spec(&config->profile[0]);
	must(route_state_new(&state, &spec), &msg);
	for (int i = 0; i < WORKERS; i++) {
		(void)snprintf(name[i], sizeof(name[i]), "http://10.0.0.%d:8000", i);
		member[i] = (struct route_member){.name = name[i], .slot = &slot[i]};
		slot[i].available = true;
	}
	must(route_pool_new(&pool, member, WORKERS, state, &msg), &msg);
	for (int i = 0; i < PROMPTS; i++) {
		memset(prompt, 'a', sizeof(prompt));
		(void)snprintf(prompt, 16, "%d", i / 4);
		(void)snprintf(prompt + 2000, 16, "%d", i);
		(void)route_blocks(0, prompt, sizeof(prompt), ROUTE_BLOCK_BYTES, block[i], BLOCKS);
	}
	from = clock();
	for (uint64_t i = 0; i < DECISIONS; i++) {
		struct route_request rq = {.block = block[i * 7 % PROMPTS],
					   .nblocks = BLOCKS,
					   .tokens = 1024,
					   .model = SPAN("m"),
					   .draw = i * 0x9e3779b97f4a7c15u};

		must(route_decide(pool, &rq, &d), &msg);
		rq.counted = d.tokens;
		route_end(pool, d.worker, &rq);
	}
	printf("%.0f\n", (double)(clock() - from) / CLOCKS_PER_SEC * 1e9 / DECISIONS);
	route_pool_free(pool);
	route_state_unref(state);
	epp_config_free(config);
	return 0;
}
