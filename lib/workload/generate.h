/*
 * Generators of workload files: prompts that share prefixes, and conversations whose context grows.
 *
 * Lengths are characters (the text is ASCII, so also bytes); each record states characters and
 * approximate tokens. Each record names its routing key and its prefix group, so an experiment can
 * tell what ought to stay together. The same options give the same bytes everywhere. Pure.
 */
#ifndef PD_WORKLOAD_GENERATE_H
#define PD_WORKLOAD_GENERATE_H

#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"

#define GENERATE_RECORDS_MAX 10000000
#define GENERATE_LENGTH_MAX  (16 << 20) /* characters of a prefix, suffix, context or message */

enum generate_kind { GENERATE_SHARED_PREFIX, GENERATE_MULTI_PREFIX, GENERATE_CONVERSATIONS };

struct generate_options {
	enum generate_kind kind;
	int64_t prompts;  /* shared and multi prefix: records */
	int64_t prefixes; /* multi prefix: groups; each record draws one at random */
	int64_t prefix_len;
	int64_t suffix_len;
	int64_t conversations;
	int64_t messages;      /* requests per conversation */
	int64_t context_len;   /* characters of the system message that opens a conversation */
	int64_t new_msg_len;   /* characters of each user message and of each invented answer */
	int64_t output_tokens; /* stated in each record; 0: not stated */
	double arrival_rate; /* requests per second, Poisson, as "timestamp" in ms; 0: no timestamps
			      */
	uint64_t seed;
};

/* The defaults of the generators that this is compatible with: 32 or 64 prompts, 4 prefixes of 8192
 * + 32, 4 conversations of 8, 1024 + 128. */
void generate_defaults(struct generate_options *o, enum generate_kind kind);

/* Appends the file. PD_EINVAL for an option out of range, PD_ETOOBIG when the result would cross
 * out->max. */
int generate(const struct generate_options *o, struct buf *out, struct pd_msg *msg) PD_MUST;

#endif
