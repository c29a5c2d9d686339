/*
 * A workload: the requests of a JSON Lines file, in file order, as bench sends them and simulate
 * replays them.
 *
 * The kind of a record is recognised by its fields, record by record, so files may be mixed:
 *   vLLM custom         prompt [, output_tokens]
 *   InfiniLM            prompt, messages, prompt_cache_key, conversation_id, message_index
 *   Mooncake            timestamp (ms), input_length, output_length, hash_ids [, session_id, delay
 * | delay_ms (ms)] LLMServingSim flat  input_toks, output_toks, arrival_time_ns pdctl gen all of
 * the above, plus turn, prefix_group, prompt_chars, prompt_tokens_approx Unknown members are
 * ignored. Empty lines and CR before LF are accepted. A record without a prompt, messages or an
 * input length is an error, and so is a member that is there with another type.
 *
 * A capture of `pdctl serve --capture` (an SQLite file) is read as well, see capture_file.h.
 *
 * The file's text is kept; prompts and messages are spans into it, verbatim, and never decoded.
 * Everything is owned by struct workload and valid until workload_release. Reading is
 * single-threaded; afterwards reading by many threads is safe.
 */
#ifndef PD_WORKLOAD_WORKLOAD_H
#define PD_WORKLOAD_WORKLOAD_H

#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"
#include "lib/base/span.h"

#define WORKLOAD_LINE_MAX     ((size_t)64 << 20) /* bytes of one record */
#define WORKLOAD_FILE_MAX     ((size_t)8 << 30)	 /* bytes of a file, held in memory */
#define WORKLOAD_REQUESTS_MAX 50000000u
#define WORKLOAD_BLOCK_TOKENS                                                                      \
	512u /* tokens per hash id when neither the record nor the caller says (Mooncake) */
#define WORKLOAD_NO_SESSION UINT32_MAX

struct workload_request {
	int64_t arrival_ns;    /* since the start of the workload; -1: the file says nothing */
	int64_t delay_ns;      /* think time after the session's previous answer; -1: not stated */
	int64_t input_tokens;  /* -1: not stated */
	int64_t output_tokens; /* -1: not stated */
	int64_t turn;  /* 0-based turn in its session: stated, else counted; 0 without a session */
	int64_t group; /* prefix group; -1: not stated */
	struct span key; /* routing key for the wire: prompt_cache_key, else the session's name; n
			    == 0: none */
	struct span session;   /* session_id, else conversation_id, else prompt_cache_key, else
				  chat_id; n == 0: none */
	uint32_t session_no;   /* dense number of the session in order of appearance, or
				  WORKLOAD_NO_SESSION */
	uint32_t block_tokens; /* tokens per hash id; the last block may be partial */
	struct span
		prompt; /* the JSON value of "prompt", quotes or brackets included; n == 0: none */
	struct span messages; /* the JSON array of "messages"; n == 0: none */
	struct span picked;   /* captures: JSON array of the workers that a router chose, prefill
				 before decode, null for none; n == 0: not stated */
	struct span draws;    /* captures: the states of its random numbers before, 64 hex digits */
	const uint64_t *hash_ids; /* NULL when nhash is 0 */
	uint32_t nhash;
	bool ordered;	 /* a session_id, conversation_id or chat_id is stated: a turn waits for the
			    turn before it */
	bool key_hashed; /* the key is a stand-in: it says what belongs together, not where it goes
			  */
	uint32_t line;	 /* 1-based, for messages */
};

struct workload_options {
	size_t max_requests;   /* stop after that many; 0: no limit */
	uint32_t block_tokens; /* 0: WORKLOAD_BLOCK_TOKENS, or the record's own block_tokens */
	int64_t run;	       /* of a capture; 0: its last one */
};

struct workload {
	struct workload_request *req; /* owned, n of them */
	size_t n;
	uint32_t nsessions;
	size_t nids;	   /* hash ids in all requests together */
	bool has_arrivals; /* every request has arrival_ns >= 0 */
	bool has_hash_ids; /* every request has hash ids */
	bool has_text;	   /* every request has a prompt or messages */
	bool has_picks;	   /* some request says which workers were chosen */
	struct buf text;   /* the file; session names and keys with escapes are decoded in place */
	uint64_t *ids;	   /* arena behind hash_ids */
};

void workload_init(struct workload *w);
void workload_release(struct workload *w);

/*
 * Reads a file ("-" is standard input). On failure the message starts with "FILE:LINE:COLUMN: "
 * when a record is wrong, and the workload is empty. PD_EINVAL for a wrong record or an empty file,
 * PD_ETOOBIG for a line or file over its limit, else the error of the file. opt may be NULL.
 */
int workload_read(struct workload *w, const char *path, const struct workload_options *opt,
		  struct pd_msg *msg) PD_MUST;

/* The same from memory; takes over the text (text is empty afterwards, also on failure). `name` is
 * used in messages. */
int workload_parse_take(struct workload *w, struct buf *text, const char *name,
			const struct workload_options *opt, struct pd_msg *msg) PD_MUST;

#endif
