/* Any bytes as a workload file: refused with a place in the message, or requests whose spans lie
 * inside the file. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/workload/workload.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void inside(const struct workload *w, struct span s)
{
	if (s.n > 0 && (s.p < w->text.data || s.p + s.n > w->text.data + w->text.len))
		abort();
}

static void check(const struct workload *w)
{
	size_t ids = 0;

	for (size_t i = 0; i < w->n; i++) {
		const struct workload_request *r = &w->req[i];

		inside(w, r->prompt);
		inside(w, r->messages);
		inside(w, r->key);
		inside(w, r->session);
		if (r->session_no != WORKLOAD_NO_SESSION && r->session_no >= w->nsessions)
			abort();
		if (r->nhash > 0 && r->hash_ids != w->ids + ids)
			abort();
		ids += r->nhash;
	}
	if (ids != w->nids)
		abort();
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
		check(&w);
	else if (strncmp(msg.text, "f:", 2) != 0)
		abort();
	workload_release(&w);
	return 0;
}
