/* --capture and its options. */
#include "cmd/serve_capture.h"

#include <signal.h>
#include <string.h>

struct serve_capture serve_capture;

void serve_capture_defaults(void)
{
	struct capture_config c;

	capture_config_default(&c);
	serve_capture = (struct serve_capture){
		.keys = "plain",
		.body_max = (int64_t)c.body_max,
		.block_tokens = c.block_tokens,
		.queue = c.queue,
		.queue_bytes = (int64_t)c.queue_bytes,
		.max_bytes = c.max_bytes,
	};
}

int serve_capture_open(struct capture **out, const struct opt_command *command, int argc,
		       char **argv, struct pd_msg *msg)
{
	static const char *const more[] = {
		"capture-keys",	 "capture-prompts",	"capture-body-max",  "capture-block-tokens",
		"capture-queue", "capture-queue-bytes", "capture-max-bytes", NULL};
	struct capture_config cc = {
		.path = serve_capture.file,
		.keys = strcmp(serve_capture.keys, "hash") == 0 ? CAPTURE_KEYS_HASH
								: CAPTURE_KEYS_PLAIN,
		.prompts = serve_capture.prompts,
		.body_max = (size_t)serve_capture.body_max,
		.block_tokens = (unsigned)serve_capture.block_tokens,
		.queue = (unsigned)serve_capture.queue,
		.queue_bytes = (size_t)serve_capture.queue_bytes,
		.max_bytes = serve_capture.max_bytes,
	};
	struct pd_msg inner = {0};
	int err;

	for (size_t i = 0; !serve_capture.file && more[i]; i++)
		if (opt_given(command, argc, argv, more[i]))
			return pd_fail(msg, PD_EINVAL, "--%s requires --capture FILE", more[i]);
	if (!serve_capture.file)
		return PD_OK;
	if (!serve_capture.prompts && opt_given(command, argc, argv, "capture-body-max"))
		return pd_fail(msg, PD_EINVAL, "--capture-body-max requires --capture-prompts");
	/* A file-size limit is an error of the write, not the end of the router. */
	(void)signal(SIGXFSZ, SIG_IGN);
	err = capture_new(out, &cc, &inner);
	return err ? pd_fail(msg, err, "--capture: %.480s", inner.text) : PD_OK;
}
