/*
 * What changed the pools of a captured router, in order: picks, prompts that were computed, ends.
 * From this a replay has the state that each decision found (docs/capture.md).
 *
 * An event happened in the span (began, seq]: events with disjoint spans happened in the order of
 * `seq`; spans that overlap are those of several threads. Plain data in memory; not thread-safe.
 */
#ifndef PD_WORKLOAD_CAPTURE_LOG_H
#define PD_WORKLOAD_CAPTURE_LOG_H

#include "lib/workload/capture_file.h"

#define CAPTURE_EVENTS_MAX 100000000u

enum capture_change { CAPTURE_PICKED, CAPTURE_COMPUTED, CAPTURE_ENDED };

struct capture_event {
	uint64_t began, seq;
	int64_t at_ns;	/* since the start of the run */
	uint64_t draw;	/* PICKED; 0: the policy draws nothing */
	uint64_t turn;	/* PICKED; the policy's counter when it began */
	uint32_t turns; /* how far it came meanwhile */
	uint32_t ties;	/* PICKED; with the score: how it looked to the router */
	double score;
	uint32_t call, fleet; /* places in the log's arrays */
	uint32_t worker;      /* place in the fleet's list of the role */
	uint32_t attempt;     /* PICKED; from 0 */
	/* PICKED; places in `word`, CAPTURE_NONE: not there. A bit per worker: available; tried by
	 * this request before, and behind these words: cannot take it. Then requests in flight of
	 * each, two in a word. */
	size_t usable, tried, in_flight;
	enum capture_change what;
	enum capture_role role;
};

#define CAPTURE_NONE SIZE_MAX

/* A request as the policies saw it. */
struct capture_call {
	int64_t id;
	size_t key, source; /* NUL-terminated texts in `text`; level 0: no key */
	size_t model;	    /* likewise: JSON text inside the quotes, "" for none */
	unsigned level;	    /* enum route_key_level */
	bool key_hashed;    /* the text is a stand-in */
	uint32_t tokens, output_tokens;
	size_t block, nblocks; /* in `word` */
};

struct capture_peer {
	char *name; /* owned */
	uint32_t weight, cap;
};

struct capture_fleet_row {
	int64_t version, at_ns;
	char policy[CAPTURE_ROLES][256];
	struct capture_peer *peer[CAPTURE_ROLES]; /* owned */
	size_t n[CAPTURE_ROLES];
};

struct capture_log {
	struct capture_event *event; /* owned; by seq */
	size_t nevents, event_cap;
	struct capture_call *call; /* owned; by id */
	size_t ncalls, call_cap;
	struct capture_fleet_row *fleet; /* owned; by version */
	size_t nfleets;
	uint64_t *word; /* owned */
	size_t nwords, word_cap;
	struct buf text;
	uint64_t dropped; /* records that the file lacks */
};

/* `run` 0: the last one. PD_EINVAL: no capture, no such run, or of a version that has no order of
 * events. On failure nothing has to be released. */
int capture_log_read(struct capture_log *out, const char *path, int64_t run,
		     struct pd_msg *msg) PD_MUST;
void capture_log_release(struct capture_log *l);

#endif
