/*
 * Request bodies. Prompts and messages of a data set are copied byte for byte; a trace without text
 * gets synthesised text. The options are immutable while requests are built. Pure.
 */
#ifndef PD_LOAD_BODY_H
#define PD_LOAD_BODY_H

#include "lib/base/buf.h"
#include "lib/base/err.h"
#include "lib/json/scan.h"
#include "lib/workload/workload.h"

#define BODY_MAX ((size_t)512 << 20)

enum body_endpoint { BODY_CHAT, BODY_COMPLETIONS, BODY_EMBEDDINGS };

/* Where a session key goes; bits, because several places may be filled at once. A header's name is
 * kept by the caller. */
enum body_key_place {
	BODY_KEY_SESSION_PARAMS = 1, /* "session_params": {"session_id": KEY} */
	BODY_KEY_USER = 2,
	BODY_KEY_PROMPT_CACHE_KEY = 4,
	BODY_KEY_SESSION_ID = 8
};

struct body_options {
	enum body_endpoint endpoint;
	const char *model;
	bool stream;
	bool continuous_usage; /* ask for the token count with every event */
	bool ignore_eos;
	unsigned key_places;
	int64_t output_tokens;	/* > 0: for every request; 0: the record's own */
	int64_t default_output; /* when the record states none */
	double scale;		/* of synthesised text and of stated output lengths of traces */
	uint64_t seed;
	struct json_object extra; /* members that override the built ones; n == 0 when none.
				     Released by the owner */
};

/* Can this record be sent there? PD_EINVAL with a sentence that names the line. */
int body_check(const struct body_options *o, const struct workload_request *r,
	       struct pd_msg *msg) PD_MUST;

/* Appends the body; key.n == 0: without a session key. */
int body_build(const struct body_options *o, const struct workload_request *r, struct span key,
	       struct buf *out) PD_MUST;

/* What max_tokens this request asks for. */
int64_t body_output_tokens(const struct body_options *o, const struct workload_request *r);

#endif
