#include "sim/report/detail.h"

#include <stdlib.h>

enum list { INPUT, OUTPUT, START, TTFT, ITL, ERROR, LISTS };

static bool push(cJSON *list, cJSON *item)
{
	return cJSON_AddItemToArray(list, item);
}

static const char *error_of(const struct replay_request *q)
{
	static const char *const texts[] = {[REPLAY_LEFT_OVER] = "left over at the end",
					    [REPLAY_COMPLETED] = "",
					    [REPLAY_LOST] = "its worker failed",
					    [REPLAY_REFUSED] = "refused"};

	return texts[q->fate];
}

/* The tokens come in order of time: each goes behind the ones of its request. last: per request,
 * when its latest one came. */
static bool put_gaps(const struct replay_result *r, cJSON **gaps, int64_t *last)
{
	for (size_t i = 0; i < r->ntokens; i++) {
		uint32_t req = r->token[i].req;

		if (last[req] >= 0 &&
		    !push(gaps[req],
			  cJSON_CreateNumber((double)(r->token[i].at_ns - last[req]) / 1e9)))
			return false;
		last[req] = r->token[i].at_ns;
	}
	return true;
}

int simreport_detail(const struct arm *a, const struct simtrace *t, cJSON *doc)
{
	static const char *const names[LISTS] = {"input_lens", "output_lens", "start_times",
						 "ttfts",      "itls",	      "errors"};
	const struct replay_result *r = &a->result;
	cJSON *list[LISTS], **gaps = calloc(t->n + 1, sizeof(*gaps));
	int64_t *last = reallocarray(NULL, t->n + 1, sizeof(*last));
	bool ok = gaps && last && r->request;

	for (int k = 0; k < LISTS; k++)
		ok &= (list[k] = cJSON_AddArrayToObject(doc, names[k])) != NULL;
	for (size_t i = 0; ok && i < t->n; i++) {
		const struct replay_request *q = &r->request[i];
		const struct sim_request s = simtrace_request(t, i);
		bool begun = q->first_ns >= 0, done = q->fate == REPLAY_COMPLETED;

		last[i] = -1;
		ok = push(list[INPUT], cJSON_CreateNumber(s.input_tokens)) &&
		     push(list[OUTPUT], cJSON_CreateNumber(done ? s.output_tokens : 0)) &&
		     push(list[START], q->issued_ns >= 0
					       ? cJSON_CreateNumber((double)q->issued_ns / 1e9)
					       : cJSON_CreateNull()) &&
		     push(list[TTFT],
			  begun ? cJSON_CreateNumber((double)(q->first_ns - q->issued_ns) / 1e9)
				: cJSON_CreateNull()) &&
		     push(list[ITL], gaps[i] = cJSON_CreateArray()) &&
		     push(list[ERROR], cJSON_CreateString(error_of(q)));
	}
	ok = ok && put_gaps(r, gaps, last);
	free(gaps);
	free(last);
	return ok ? PD_OK : PD_ENOMEM;
}
