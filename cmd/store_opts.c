/* Where runs are kept; see the header. */
#include "cmd/store_opts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/results/store.h"

const char *store_opts_path(const struct store_opts *o)
{
	const char *env = getenv("PDCTL_STORE");

	if (o->off)
		return NULL;
	if (o->path)
		return o->path;
	if (env && (!env[0] || strcmp(env, "none") == 0))
		return NULL;
	return env ? env : STORE_DEFAULT;
}

int64_t store_opts_save(const struct store_opts *o, const char *command, const struct span *doc,
			size_t n)
{
	const char *path = store_opts_path(o);
	struct pd_msg msg = {""};
	int64_t first = 0;
	int err;

	if (!path || n == 0)
		return 0;
	err = store_save(path, doc, n, clock_wall(), &first, &msg);
	if (err)
		(void)fprintf(stderr, "pdctl %s: warning: the run is not in the store: %s\n",
			      command, msg.text[0] ? msg.text : pd_err_text(err));
	return err ? 0 : first;
}
