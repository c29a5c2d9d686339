/* All files are written when all is known, so that a failure leaves none behind. */
#include "cmd/simulate_steps.h"

#include <stdio.h>
#include <string.h>

#include "lib/base/file.h"
#include "sim/oracle/enginerun.h"

/* FILE, or of a pair FILE with .prefill or .decode before its .jsonl. */
static int write_part(const char *path, const char *part, const struct buf *b, struct pd_msg *msg)
{
	static const char ending[] = ".jsonl";
	size_t n = strlen(path), cut = n;
	char name[4096];

	if (part && n > sizeof(ending) && strcmp(path + n - (sizeof(ending) - 1), ending) == 0)
		cut = n - (sizeof(ending) - 1);
	if (n > 4000)
		return pd_fail(msg, PD_ETOOBIG, "'%.40s...': the name is too long", path);
	if (part)
		(void)snprintf(name, sizeof(name), "%.*s.%s.jsonl", (int)cut, path, part);
	else
		(void)snprintf(name, sizeof(name), "%s", path);
	return file_write(name, b->data ? b->data : "", b->len, msg);
}

static int write_all(const struct simulate_steps *o, const struct enginecase *c,
		     const struct enginerun_out *out, struct pd_msg *msg)
{
	static const char *const parts[] = {"prefill", "decode"};
	bool pair = c->role == ENGINECASE_PAIR;
	int err = PD_OK;

	for (size_t k = 0; !err && k <= pair; k++) {
		err = write_part(o->steps, pair ? parts[k] : NULL, &out->steps[k], msg);
		if (!err && o->requests)
			err = write_part(o->requests, pair ? parts[k] : NULL, &out->requests[k],
					 msg);
	}
	return err;
}

int simulate_steps_run(const struct simulate_steps *o, const char *workload, struct pd_msg *msg)
{
	struct enginerun_out out;
	struct enginecase c;
	int err = enginecase_load(&c, o->config, workload, msg);

	if (err)
		return err;
	if (c.unused.len > 0)
		(void)fprintf(stderr, "pdctl simulate: %s: not used: %s\n", o->config,
			      c.unused.data);
	enginerun_out_init(&out);
	err = enginerun(&c, &out, msg);
	if (!err)
		err = write_all(o, &c, &out, msg);
	enginerun_out_release(&out);
	enginecase_release(&c);
	return err;
}
