/* Any bytes as the body of a request to the simulated worker: refused with a complete error, or
 * prompts that lie inside the tokens and within the limits; preparing their answers stays in
 * bounds. The first byte picks the route. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "sim/worker/nixl.h"
#include "sim/worker/run.h"

#define MODEL_LEN 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_run(const struct worker_config *cfg, const struct gen_request *g, size_t i)
{
	struct gen_run run = {.cfg = cfg, .g = g};
	struct api_error e = {0};

	if (run_prepare(&run, i, &e) != PD_OK)
		abort();
	if (run.job.output_tokens < 1 ||
	    run.job.prompt_tokens + run.job.output_tokens > MODEL_LEN + 1)
		abort();
	if (g->max_tokens > 0 && run.job.output_tokens > g->max_tokens)
		abort();
	free(run.ids);
	free(run.hash);
}

static void check(const struct worker_config *cfg, const struct gen_request *g)
{
	size_t at = 0;

	if (g->nprompts < 1 || g->n < 1)
		abort();
	for (size_t i = 0; i < g->nprompts; at += g->prompt[i++].n) {
		if (g->prompt[i].from != at || g->prompt[i].n < 1 || g->prompt[i].n > MODEL_LEN)
			abort();
		if (i < 4)
			check_run(cfg, g, i);
	}
	if (at != g->tokens.n)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const char *const models[] = {"m", "other"};
	static struct worker_config cfg;
	static struct core core;
	static struct worker_stats stats;
	static struct nixl nixl = {.cfg = &cfg, .core = &core, .stats = &stats};
	struct http_request r = {0};
	struct gen_request g;
	struct api_error e = {0};
	int err;

	if (n == 0)
		return 0;
	worker_config_default(&cfg);
	cfg.models = models;
	cfg.nmodels = 2;
	cfg.max_model_len = MODEL_LEN;
	cfg.strict = true;
	r.head.field = r.head.few;
	r.head.field[0] =
		(struct field){SPAN("Content-Type"), SPAN("application/json"), HTTP_CONTENT_TYPE};
	r.head.nfields = 1;
	r.body = (struct span){(const char *)data + 1, n - 1};
	err = gen_request_parse(&g, &cfg, &core, &r, (enum gen_kind)(data[0] % GEN_KINDS), &e);
	if (err ? e.status < 400 || !e.type || !e.text[0] : e.status != 0)
		abort();
	if (!err)
		check(&cfg, &g);
	if (!err && g.kind != GEN_EMBEDDING && nixl_check(&nixl, &g, &e) != PD_OK &&
	    e.status != 400)
		abort();
	gen_request_release(&g);
	return 0;
}
