/* What a capture measured of one engine: when its requests were sent, and when their answers began
 * and ended. */
#ifndef PD_WORKLOAD_CAPTURE_TIMED_H
#define PD_WORKLOAD_CAPTURE_TIMED_H

#include "lib/workload/capture_file.h"

struct capture_timed {
	int64_t sent_ns;	  /* to the worker, from the start of the run */
	int64_t first_ns, end_ns; /* after that: the first byte of the answer, and its last */
	int64_t prompt, output;	  /* tokens, as the engine counted them */
};

/*
 * The streamed requests that the busiest worker of a plain pool answered at the first attempt, by
 * the time at which they were sent; *name is it. *out and *name are the caller's. PD_EINVAL: no
 * capture, no such run, prefill/decode, or no request with token counts.
 */
int capture_timed_read(const char *path, int64_t run, struct capture_timed **out, size_t *n,
		       char **name, struct pd_msg *msg) PD_MUST;

#endif
