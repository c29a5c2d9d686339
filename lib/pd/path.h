/*
 * The paths that two workers can serve, and what every connector does to the prefill copy of their
 * bodies: one token, no stream. Pure text transformations; thread-safe. Source: vLLM's example
 * proxies and vllm-router 0.1.17.
 */
#ifndef PD_PD_PATH_H
#define PD_PD_PATH_H

#include "lib/json/edit.h"

enum pd_path {
	PD_PATH_OTHER,
	PD_PATH_CHAT,
	PD_PATH_COMPLETIONS,
	PD_PATH_RESPONSES,
	PD_PATH_GENERATE,
	PD_PATH_MESSAGES
};

/* By the whole request path: /v1/chat/completions, /v1/completions, /v1/responses,
 * /inference/v1/generate, /v1/messages. */
enum pd_path pd_path_of(struct span path);

/*
 * Edits for the prefill copy: max_tokens = 1 and min_tokens = 1, max_completion_tokens = 1 and
 * n = 1 if present, stream = false, stream_options removed; RESPONSES: max_output_tokens = 1 and
 * store = false; GENERATE: the first ones in sampling_params, when that is an object; MESSAGES:
 * max_tokens = 1 if present. What the client did not send and the engine requires is not made up.
 * PD_EINVAL with a sentence when a field that is edited
 * occurs twice, also when spelled with escapes. The caller finishes the edit.
 */
int pd_path_limit(struct json_edit *e, enum pd_path path, struct pd_msg *msg) PD_MUST;

/* A field that is edited must occur once, because two readers may take different ones of two.
 * PD_EINVAL with a sentence. */
int pd_once(const struct json_object *o, const char *name, struct pd_msg *msg) PD_MUST;

#endif
