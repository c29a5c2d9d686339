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

#define BODY_MAX	   ((size_t)512 << 20)
#define BODY_KEY_PATHS_MAX 8

enum body_endpoint { BODY_CHAT, BODY_COMPLETIONS, BODY_EMBEDDINGS, BODY_RESPONSES, BODY_MESSAGES };

struct body_options {
	enum body_endpoint endpoint;
	const char *model;
	bool stream;
	bool continuous_usage; /* ask for the token count with every event */
	bool ignore_eos;
	const char *const
		*key_path; /* where a session key goes: "user", "session_params.session_id" */
	size_t nkey_paths;
	double temperature;	/* NaN: not sent */
	int64_t output_tokens;	/* > 0: for every request; 0: the record's own */
	int64_t default_output; /* when the record states none */
	double scale;		/* of synthesised text and of stated output lengths of traces */
	bool token_ids;		/* made prompts are lists of token ids, not text */
	double token_scale;	/* words per token of synthesised text, as calibrated; 0: 1 */
	uint64_t seed;
	struct json_object extra; /* members that override the built ones; n == 0 when none.
				     Released by the owner */
};

/* What differs between two sendings of one record. */
struct body_turn {
	struct span key;	   /* session key; n == 0: none */
	struct span salt;	   /* put before the prompt's first text; n == 0: none */
	const char *const *answer; /* JSON strings without quotes: the real answers of the turns */
	size_t nanswers;	   /* before, in place of the messages of the assistant */
};

/* Can this record be sent there? PD_EINVAL with a sentence that names the line. */
int body_check(const struct body_options *o, const struct workload_request *r,
	       struct pd_msg *msg) PD_MUST;

/* Appends the body. */
int body_build(const struct body_options *o, const struct workload_request *r,
	       const struct body_turn *t, struct buf *out) PD_MUST;

/* What max_tokens this request asks for. */
int64_t body_output_tokens(const struct body_options *o, const struct workload_request *r);

#endif
