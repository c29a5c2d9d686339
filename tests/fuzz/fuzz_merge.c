/* Any bytes as shards of a result: a refusal says why; what is merged is one valid document that is
 * read again, with twice the requests when it is merged with itself. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/json/scan.h"
#include "lib/results/document.h"
#include "lib/results/merge.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static double completed(struct span text, const char *key)
{
	struct result_set s;
	double v;

	result_set_init(&s);
	if (result_parse(&s, "m", text, NULL) || s.n != 1)
		abort();
	v = result_number(&s.doc[0], key);
	result_set_release(&s);
	return v;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	const struct span text = {(const char *)data, n};
	const struct merge_input in[] = {{"a", text}, {"b", text}};
	struct buf once, twice;
	struct pd_msg msg = {""};
	int err;

	buf_init(&once, 1 << 24);
	buf_init(&twice, 1 << 24);
	err = result_merge(in, 1, true, &once, &msg);
	if (err == PD_EINVAL && !msg.text[0])
		abort();
	if (!err) {
		double one, two;

		if (json_validate(once.data, once.len, NULL))
			abort();
		msg.text[0] = '\0';
		err = result_merge(in, 2, true, &twice, &msg);
		if (err && !msg.text[0] && err != PD_ETOOBIG && err != PD_ENOMEM)
			abort();
		one = completed(buf_span(&once), "completed");
		two = err ? NAN : completed(buf_span(&twice), "completed");
		if (one >= 0 && one < 1e15 && two < 2 * one - 1)
			abort();
	}
	buf_release(&once);
	buf_release(&twice);
	return 0;
}
