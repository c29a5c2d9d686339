#include "cmd/bench_before.h"

#include <math.h>
#include <string.h>
#include <unistd.h>

#include "lib/results/document.h"

double bench_share_before(const char *path, const char *dataset_hash)
{
	struct result_set set;
	double share = NAN;

	result_set_init(&set);
	if (access(path, R_OK) == 0 && result_read(&set, path, NULL) == PD_OK && set.n > 0) {
		const struct result_doc *d = &set.doc[set.n - 1];
		const char *of = result_text(d, "pdctl.dataset_hash");

		if (of && strcmp(of, dataset_hash) == 0)
			share = result_number(d, "pdctl.cached_tokens.share");
	}
	result_set_release(&set);
	return share;
}
