/*
 * A workload: the requests of a file, in file order, as bench sends them and simulate replays them.
 *
 * The format is recognised by the header or the content of the file, never by its name; the known
 * ones are the rows of workload_formats() (docs/workloads.md lists them). A file may be plain, gzip
 * or zstd. What a reader had to decide (a unit of time, an estimate) and what it did not use is
 * said in `notes`, which both commands print and write into their documents: nothing is read
 * differently from what the file says without a word.
 *
 * Only the texts of prompts stay in memory, not the file; a trace without text costs about 200
 * bytes a request and 8 a hash id. Everything is owned by struct workload and valid until
 * workload_release. Reading is single-threaded; afterwards reading by many threads is safe.
 */
#ifndef PD_WORKLOAD_WORKLOAD_H
#define PD_WORKLOAD_WORKLOAD_H

#include <stdint.h>

#include "lib/base/buf.h"
#include "lib/base/err.h"
#include "lib/base/span.h"
#include "lib/workload/arena.h"

#define WORKLOAD_LINE_MAX     ((size_t)64 << 20) /* bytes of one record */
#define WORKLOAD_FILE_MAX     ((size_t)8 << 30)	 /* bytes of a file after unpacking */
#define WORKLOAD_REQUESTS_MAX 50000000u
#define WORKLOAD_BLOCK_TOKENS                                                                      \
	512u /* tokens per hash id when neither the record, the format nor the caller says */
#define WORKLOAD_NO_SESSION UINT32_MAX
#define WORKLOAD_NO_REQUEST UINT32_MAX
#define WORKLOAD_NOTES_MAX  64

struct workload_request {
	int64_t arrival_ns;    /* since the start of the workload; -1: the file says nothing */
	int64_t delay_ns;      /* think time after the session's previous answer; -1: not stated */
	int64_t input_tokens;  /* -1: not stated */
	int64_t output_tokens; /* -1: not stated */
	int64_t turn;  /* 0-based turn in its session: stated, else counted; 0 without a session */
	int64_t group; /* prefix group; -1: not stated */
	struct span key; /* routing key for the wire: prompt_cache_key, else the session's name; n
			    == 0: none */
	struct span session; /* the name of its session, else its prompt_cache_key; n == 0: none */
	uint32_t session_no; /* dense number of the session in order of appearance, or
				WORKLOAD_NO_SESSION */
	uint32_t before;     /* the request that must have ended before this one, or
				WORKLOAD_NO_REQUEST: the turn before, or the parent of a branch */
	uint32_t block_tokens; /* tokens per hash id; the last block may be partial */
	struct span prompt;   /* a JSON value: text, token ids, or a list of either; n == 0: none */
	struct span messages; /* a JSON array of messages, the whole conversation so far; n == 0:
				 none */
	struct span fresh;    /* the messages that are new in this turn, as JSON array; n == 0: not
				 known */
	struct span extra;    /* a JSON object: further members of the request body, as the file has
				 them ({"temperature":0.2,"tools":[...]}); n == 0: none */
	struct span picked;   /* captures: JSON array of the workers that a router chose, prefill
				 before decode, null for none; n == 0: not stated */
	struct span draws;    /* captures: the states of its random numbers before, 64 hex digits */
	const uint64_t *hash_ids; /* NULL when nhash is 0 */
	uint32_t nhash;
	bool ordered;	 /* the file states a session or a parent: a turn waits for `before` */
	bool key_hashed; /* the key is a stand-in: it says what belongs together, not where it goes
			  */
	uint32_t line;	 /* 1-based, where its record begins, for messages */
};

enum workload_unit {
	WORKLOAD_UNIT_AUTO, /* the format's; times since 1970 are told by their size */
	WORKLOAD_UNIT_S,
	WORKLOAD_UNIT_MS,
	WORKLOAD_UNIT_US,
	WORKLOAD_UNIT_NS
};

struct workload_options {
	size_t max_requests;	 /* stop after that many; 0: no limit */
	uint32_t block_tokens;	 /* 0: the record's own, else the format's */
	int64_t run;		 /* of a capture; 0: its last one */
	const char *format;	 /* name of a format instead of recognising one; NULL: recognise */
	enum workload_unit unit; /* of time stamps; think times have the unit of their member */
	/* of the header of a TraceV2, set by its reader */
	uint32_t tracev2_block;
	bool tracev2_grows, tracev2_warm;
};

struct workload {
	struct workload_request *req; /* owned, n of them */
	size_t n;
	uint32_t nsessions;
	size_t nids;	      /* hash ids in all requests together */
	bool has_arrivals;    /* every request has arrival_ns >= 0 */
	bool has_hash_ids;    /* every request has hash ids */
	bool has_text;	      /* every request has a prompt or messages */
	bool has_picks;	      /* some request says which workers were chosen */
	const char *format;   /* name of the format that was read */
	struct span endpoint; /* the path that all requests name, "/v1/chat/completions"; n == 0:
				 none */
	uint64_t hash;	      /* XXH3 of the content of the file, unpacked */
	char **note;	      /* owned; sentences for the user, each once */
	size_t nnotes;
	struct arena texts; /* behind the spans */
	uint64_t *ids;	    /* owned; behind hash_ids */
};

void workload_init(struct workload *w);
void workload_release(struct workload *w);

/*
 * Reads a file; "-" is standard input; "gen:KIND,option=value,..." is the file that `pdctl gen KIND
 * --option value` would write. On failure the message starts with "FILE:LINE:COLUMN: " when a
 * record is wrong, and the workload is empty. PD_EINVAL for a wrong record, an unknown format or an
 * empty file, PD_ETOOBIG for a record or file over its limit, else the error of the file. opt may
 * be NULL.
 */
int workload_read(struct workload *w, const char *path, const struct workload_options *opt,
		  struct pd_msg *msg) PD_MUST;

/* The same from memory; takes over the text (text is empty afterwards, also on failure). `name` is
 * used in messages. */
int workload_parse_take(struct workload *w, struct buf *text, const char *name,
			const struct workload_options *opt, struct pd_msg *msg) PD_MUST;

/* Appends `, "workload": {"format": ..., "notes": [...]}` for the "pdctl" object of a document. */
int workload_describe(const struct workload *w, struct buf *out) PD_MUST;

/* "s", "ms", "us", "ns" or "auto" of an option. */
int workload_unit_parse(const char *text, enum workload_unit *out) PD_MUST;

#endif
