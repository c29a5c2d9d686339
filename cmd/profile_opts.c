#include "cmd/profile_opts.h"

#include <stdio.h>

int profile_opts_read(const struct opt_command *command, int argc, char **argv, const char *path,
		      struct profile *p, struct engine_params *e, struct pd_msg *msg)
{
	const struct engine_params given = *e;
	struct pd_msg warning;
	int err = profile_load(p, path, &warning, msg);

	if (err)
		return err;
	if (warning.text[0])
		(void)fprintf(stderr, "pdctl %s: %s: %s\n", command->name, path, warning.text);
	profile_apply(p, e);
	if (opt_given(command, argc, argv, "decode-ms-per-token"))
		e->step_ms = given.step_ms;
	if (opt_given(command, argc, argv, "decode-us-per-request"))
		e->request_us = given.request_us;
	if (opt_given(command, argc, argv, "decode-us-per-context-token"))
		e->context_us = given.context_us;
	return PD_OK;
}
