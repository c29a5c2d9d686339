/*
 * The NIXL two-phase protocol (vLLM NixlConnector, pull): what the prefill request gets, what comes
 * back, what the decode request gets. Pure text transformations, no I/O; thread-safe. Source:
 * vLLM's toy proxy and vllm-router 0.1.17.
 */
#ifndef PD_PD_NIXL_H
#define PD_PD_NIXL_H

#include "lib/json/edit.h"

enum pd_path {
	PD_PATH_OTHER,
	PD_PATH_CHAT,
	PD_PATH_COMPLETIONS,
	PD_PATH_RESPONSES,
	PD_PATH_GENERATE
};

/* By request path ("/v1/chat/completions" -> CHAT; contains inference/v1/generate -> GENERATE ...).
 */
enum pd_path pd_path_of(struct span path);

/*
 * Edits for the prefill copy: max_tokens = 1 and min_tokens = 1, max_completion_tokens = 1 if
 * present, stream = false, stream_options removed, kv_transfer_params set; RESPONSES:
 * max_output_tokens = 1; GENERATE: sampling_params.max_tokens/min_tokens = 1. PD_EINVAL with a
 * sentence when a field that we edit occurs twice, also when spelled with escapes. The caller
 * finishes the edit.
 */
int pd_nixl_prefill(struct json_edit *e, enum pd_path path, struct pd_msg *msg) PD_MUST;
/* Edits for the decode copy: kv_transfer_params = params verbatim (params.n == 0: none, the body
 * stays untouched). */
int pd_nixl_decode(struct json_edit *e, struct span params) PD_MUST;

/* What a prefill response says. Spans point into the response. */
struct pd_prefill_result {
	struct span
		params; /* top-level kv_transfer_params object; n == 0 when absent, null or empty */
	struct span usage;     /* the usage object; n == 0 when absent */
	int64_t prompt_tokens; /* -1 unknown */
	int64_t cached_tokens; /* -1 unknown */
	double expiry_s;       /* remote_blocks_expiry_time when it is a number, else 0 */
};
int pd_nixl_prefill_result(struct pd_prefill_result *r, const char *body, size_t n,
			   struct pd_msg *msg) PD_MUST;

/*
 * True when the client put kv_transfer_params where engines take them from besides the top level:
 * extra_args and vllm_xargs, there or in sampling_params. They name the host that an engine
 * connects to, so they are the router's alone. At the top level they are replaced or removed.
 */
bool pd_nixl_hidden_params(const struct json_object *body);

#endif
