/*
 * What stands in the queue between requests and the writer of a capture: fixed fields, then the
 * texts one after the other. Private to the files capture*.c. Times are monotonic nanoseconds.
 */
#ifndef PD_ROUTER_CAPTURE_RECORD_H
#define PD_ROUTER_CAPTURE_RECORD_H

#include "lib/base/log.h"
#include "lib/pd/usage.h"
#include "lib/router/capture/capture.h"
#include "lib/router/capture/capture_ring.h"
#include "lib/workload/capture_schema.h"

enum capture_kind { CAPTURE_REQUEST, CAPTURE_DECISION, CAPTURE_RELEASE, CAPTURE_KINDS };
enum capture_outcome { OUTCOME_OK, OUTCOME_ERROR, OUTCOME_CUT, OUTCOME_LEFT, OUTCOME_REFUSED };

struct capture_decision {
	uint32_t kind; /* enum capture_kind, first in every record */
	uint32_t attempt;
	uint64_t request;
	int64_t at;
	uint64_t fleet;
	uint32_t role, reason;
	uint32_t worker, home, ties, ncandidates;
	bool trial, has_draw;
	double score, margin;
	struct {
		uint32_t worker;
		double score;
	} candidate[CAPTURE_CANDIDATES];
	uint64_t draw;	      /* only for policies that draw */
	uint64_t began, tick; /* see capture_clock() */
	uint64_t turn;
	uint32_t turns, nworkers;
	bool overlapped;
	/* a bit per worker, in (nworkers + 63) / 64 words each: uint64_t usable[], tried[],
	 * barred[]; overlapped: uint32_t in_flight[nworkers] */
};

/* A pick has ended, or its prompt is computed. */
struct capture_release {
	uint32_t kind;
	uint32_t role, worker;
	bool computed; /* else ended */
	uint64_t request, fleet;
	int64_t at;
	uint64_t began, tick;
};

/* The texts of a request, in this order. */
enum capture_text {
	TEXT_ID,
	TEXT_METHOD,
	TEXT_MODEL,
	TEXT_KEY,
	TEXT_SOURCE,
	TEXT_ERROR,
	TEXT_BODY,
	CAPTURE_TEXTS
};

struct capture_request {
	uint32_t kind;
	uint32_t outcome;
	uint64_t id;
	const char *route; /* static */
	int64_t accepted, head, body, decided, dispatched, prefill, first, last, ended;
	int64_t max_tokens;   /* -1: not stated */
	int64_t prompt_bytes; /* -1: no prompt found */
	uint64_t body_bytes, events, bytes;
	struct pd_tokens usage;
	int32_t status;
	uint32_t attempts, decisions, level;
	bool streaming;
	bool secret; /* the key contains text of the prompt: hashed in any case */
	uint32_t nblocks;
	uint32_t tokens, output; /* as policies saw them; 0: not asked for */
	uint32_t nseen;		 /* blocks that policies saw */
	uint32_t len[CAPTURE_TEXTS];
	/* uint64_t blocks[nblocks], seen[nseen], then the texts */
};

/* Records that were lost, by kind. */
enum capture_loss { LOSS_QUEUE, LOSS_WRITE, CAPTURE_LOSSES };

struct capture_losses {
	uint64_t n[CAPTURE_LOSSES][CAPTURE_KINDS];
};

/* -- capture.c, for capture_note.c -- */

struct capture {
	struct capture_config cfg;
	const struct router_config *rc;
	struct capture_ring ring;
	uint64_t block_seed; /* of this run; kept nowhere */
	_Atomic uint64_t requests;
	_Atomic uint64_t clock;		      /* capture_clock() */
	_Atomic uint64_t lost[CAPTURE_KINDS]; /* the queue was full */
	_Atomic bool closed;
	/* what only the writer changes */
	_Atomic uint64_t written[CAPTURE_KINDS], unwritten[CAPTURE_KINDS], failures;
	_Atomic bool failing;
	_Atomic bool nudged; /* the writer was woken for a queue that fills up */
	struct capture_writer *writer;
};

/* Room in the queue for a record of n bytes, or NULL: it was counted as lost. */
void *capture_reserve(struct capture *c, enum capture_kind kind, size_t n);
void capture_commit(struct capture *c, void *record);

#endif
