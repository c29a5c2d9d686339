/* Any bytes as a workload file: refused with a place in the message, or requests whose spans lie
 * inside the file. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/json/scan.h"
#include "lib/workload/schedule_plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* Each byte is looked at, so that a sanitizer sees a span that points elsewhere. */
static size_t sum;

static void inside(struct span s)
{
	for (size_t i = 0; i < s.n; i++)
		sum += (unsigned char)s.p[i];
}

static void json(struct span s, char first)
{
	inside(s);
	if (s.n > 0 && json_validate(s.p, s.n, NULL))
		abort();
	if (s.n > 0 && first && s.p[0] != first)
		abort();
}

static void check(const struct workload *w)
{
	size_t ids = 0;

	for (size_t i = 0; i < w->n; i++) {
		const struct workload_request *r = &w->req[i];

		json(r->prompt, 0);
		json(r->messages, '[');
		json(r->fresh, '[');
		json(r->extra, '{');
		inside(r->key);
		inside(r->session);
		if (r->session_no != WORKLOAD_NO_SESSION && r->session_no >= w->nsessions)
			abort();
		if (r->before != WORKLOAD_NO_REQUEST && r->before >= w->n)
			abort();
		if (r->nhash > 0 && r->hash_ids != w->ids + ids)
			abort();
		ids += r->nhash;
	}
	if (ids != w->nids || !w->format)
		abort();
}

/* What a schedule is made of holds for every workload. */
static void check_order(const struct workload *w)
{
	struct schedule_options o = {.speedup = 1, .request_rate = INFINITY, .burstiness = 1};
	struct schedule_limits limits = {.in_flight_max = 3, .sessions_max = 2};
	struct schedule_plan p;
	struct schedule_input in;
	struct schedule *s;
	size_t n = 0;

	if (schedule_plan_make(&p, w, &o, NULL))
		abort();
	in = schedule_plan_input(&p);
	if (schedule_new(&s, &in, &limits, NULL))
		abort();
	while (!schedule_finished(s)) {
		struct schedule_entry e;

		if (schedule_due(s) == SCHEDULE_NEVER)
			abort();
		e = schedule_take(s);
		if (schedule_ended(s, e.item, (int64_t)n++))
			abort();
	}
	if (n != w->n)
		abort();
	schedule_free(s);
	schedule_plan_release(&p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct workload w;
	struct buf text;
	struct pd_msg msg = {""};

	buf_init(&text, 1 << 24);
	if (buf_append(&text, data, n))
		return 0;
	workload_init(&w);
	if (workload_parse_take(&w, &text, "f", NULL, &msg) == PD_OK)
		check(&w), check_order(&w);
	else if (strncmp(msg.text, "f:", 2) != 0 && strncmp(msg.text, "cannot read 'f'", 15) != 0)
		abort();
	workload_release(&w);
	return 0;
}
