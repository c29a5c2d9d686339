#include "lib/load/hists.h"

#include <stdlib.h>

#include "lib/results/merge_values.h"

static const char *const names[HISTS_KINDS] = {"ttft", "ttft_from_intended", "tpot",	    "itl",
					       "e2el", "e2el_from_intended", "schedule_lag"};

static void add(struct hist *h, int64_t ns)
{
	if (ns >= 0)
		hist_add(h, (uint64_t)ns);
}

/* One value per token; a piece without tokens hands its time on to the next one. */
static void add_gaps(struct hist *h, const struct result_request *r)
{
	int64_t carried = 0;

	for (size_t i = 0; i < r->ngaps; i++) {
		int64_t tokens = r->gap[i].tokens < 0 ? 1 : r->gap[i].tokens,
			ns = r->gap[i].ns + carried;

		carried = tokens == 0 ? ns : 0;
		for (int64_t k = 0; k < tokens; k++)
			add(h, ns / tokens);
	}
}

void hists_fill(struct hist *h, const struct result_run *run, enum hists_kind kind)
{
	hist_init(h);
	for (size_t i = 0; i < run->n; i++) {
		const struct result_request *r = &run->req[i];

		if (kind == HISTS_LAG && r->sent_ns >= 0)
			add(h, r->sent_ns - r->eligible_ns);
		if (kind == HISTS_LAG || r->failure || r->sent_ns < 0 || r->last_token_ns < 0)
			continue;
		if (kind == HISTS_E2EL)
			add(h, r->last_token_ns - r->sent_ns);
		else if (kind == HISTS_E2EL_INTENDED && run->scheduled)
			add(h, r->last_token_ns - r->intended_ns);
		else if (kind == HISTS_ITL)
			add_gaps(h, r);
		else if (r->first_token_ns < 0)
			continue;
		else if (kind == HISTS_TTFT)
			add(h, r->first_token_ns - r->sent_ns);
		else if (kind == HISTS_TTFT_INTENDED && run->scheduled)
			add(h, r->first_token_ns - r->intended_ns);
		else if (kind == HISTS_TPOT && r->output_tokens > 1)
			add(h, (r->last_token_ns - r->first_token_ns) / (r->output_tokens - 1));
	}
}

int hists_json(const struct result_run *run, struct buf *out)
{
	struct hist *h = malloc(sizeof(*h));
	int err = h ? buf_printf(out, "\"histograms\": {\"unit\": \"ns\", \"sub_bits\": %d",
				 HIST_SUB_BITS)
		    : PD_ENOMEM;

	for (unsigned k = 0; !err && k < HISTS_KINDS; k++) {
		hists_fill(h, run, (enum hists_kind)k);
		err = hist_json(h, names[k], out);
	}
	free(h);
	return err ? err : buf_puts(out, "}");
}
