/* Any bytes as the body of a request to the simulated worker: refused with a complete error, or
 * prompts that lie inside the tokens and within the limits; preparing their answers stays in
 * bounds. The first byte picks the route. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "sim/worker/impl.h"

#define MODEL_LEN 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_run(struct worker *w, const struct gen_request *g, size_t i)
{
	struct gen_run run = {.w = w, .g = g};
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

static void check(struct worker *w, const struct gen_request *g)
{
	size_t at = 0;

	if (g->nprompts < 1 || g->n < 1)
		abort();
	for (size_t i = 0; i < g->nprompts; at += g->prompt[i++].n) {
		if (g->prompt[i].from != at || g->prompt[i].n < 1 || g->prompt[i].n > MODEL_LEN)
			abort();
		if (i < 4)
			check_run(w, g, i);
	}
	if (at != g->tokens.n)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static const char *const models[] = {"m", "other"};
	static struct worker w;
	struct http_request r = {0};
	struct gen_request g;
	struct api_error e = {0};
	int err;

	if (n == 0)
		return 0;
	worker_config_default(&w.cfg);
	w.cfg.models = models;
	w.cfg.nmodels = 2;
	w.cfg.max_model_len = MODEL_LEN;
	w.cfg.strict = true;
	r.head.field = r.head.few;
	r.head.field[0] =
		(struct field){SPAN("Content-Type"), SPAN("application/json"), HTTP_CONTENT_TYPE};
	r.head.nfields = 1;
	r.body = (struct span){(const char *)data + 1, n - 1};
	err = gen_request_parse(&w, &r, (enum gen_kind)(data[0] % 3), &g, &e);
	if (err ? e.status < 400 || !e.type || !e.text[0] : e.status != 0)
		abort();
	if (!err)
		check(&w, &g);
	if (!err && g.kind != GEN_EMBEDDING && nixl_check(&w, &g, &e) != PD_OK && e.status != 400)
		abort();
	gen_request_release(&g);
	return 0;
}
