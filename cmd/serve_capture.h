/* The options of `pdctl serve` about --capture: values, rows of the option table, and what they
 * become. */
#ifndef PD_CMD_SERVE_CAPTURE_H
#define PD_CMD_SERVE_CAPTURE_H

#include "lib/base/opt.h"
#include "lib/router/capture/capture.h"

struct serve_capture {
	const char *file, *keys;
	int64_t body_max, block_tokens, queue, queue_bytes, max_bytes;
	bool prompts;
};

extern struct serve_capture serve_capture;

/* clang-format off */
#define SERVE_CAPTURE_OPTIONS \
	{.type = OPT_HEADING, .help = "capture (docs/capture.md)"}, \
	{OPT_TEXT, "capture", &serve_capture.file, "FILE", \
	 "write decisions and outcomes into this SQLite file, for simulate and bench to replay", NULL, \
	 0, 0, NULL}, \
	{OPT_CHOICE, "capture-keys", &serve_capture.keys, NULL, \
	 "session keys as they are, or hashed with a secret of this run (plain)", "plain|hash", 0, 0, \
	 NULL}, \
	{OPT_FLAG, "capture-prompts", &serve_capture.prompts, NULL, \
	 "store request bodies too, with their prompt text", NULL, 0, 0, NULL}, \
	{OPT_INT, "capture-body-max", &serve_capture.body_max, "BYTES", \
	 "bytes stored of a body with --capture-prompts (65536)", NULL, 1, 1 << 26, NULL}, \
	{OPT_INT, "capture-block-tokens", &serve_capture.block_tokens, "N", \
	 "tokens (of 4 bytes) per hashed block of the prompt; 0: no hashes (64)", NULL, 0, 1 << 16, \
	 NULL}, \
	{OPT_INT, "capture-queue", &serve_capture.queue, "N", \
	 "records pending for the file; more are dropped and counted (65536)", NULL, 1, 1 << 24, \
	 NULL}, \
	{OPT_INT, "capture-queue-bytes", &serve_capture.queue_bytes, "BYTES", \
	 "memory for pending records, rounded up to a power of two (33554432)", NULL, 65536, 1 << 30, \
	 NULL}, \
	{OPT_INT, "capture-max-bytes", &serve_capture.max_bytes, "BYTES", \
	 "largest file; later records are dropped and counted; 0: no limit (10737418240)", NULL, 0, \
	 9e15, NULL}
/* clang-format on */

void serve_capture_defaults(void);
/* Opens the file; *out stays NULL without --capture. Last of all checks, so that no other mistake
 * leaves a new file behind. */
int serve_capture_open(struct capture **out, const struct opt_command *command, int argc,
		       char **argv, struct pd_msg *msg) PD_MUST;

#endif
