/*
 * What both transports share: which request goes next, what its answer becomes in the records, the
 * stop. A transport has a flight for each request on the wire and fills in what it sees.
 *
 *	while (!load_core_over(c)) {
 *		if (load_core_due(c) <= clock_now())
 *			load_core_take(c, flight), send, flight->sent_ns = …
 *		…
 *		load_core_finish(c, flight, label)         when its answer has ended
 *	}
 *
 * Internal to lib/load. Owner thread only.
 */
#ifndef PD_LOAD_LOAD_CORE_H
#define PD_LOAD_LOAD_CORE_H

#include "lib/load/answer.h"
#include "lib/load/load.h"
#include "lib/load/talks.h"
#include "lib/load/texts.h"

enum flight_worker { FLIGHT_WORKER, FLIGHT_PREFILL, FLIGHT_DECODE, FLIGHT_WORKERS };

#define FLIGHT_WORKER_MAX 512 /* bytes of a worker's name; longer ones are cut */

struct flight {
	uint32_t item;
	int64_t intended_ns, eligible_ns, sent_ns; /* monotonic clock, as the rest */
	int64_t first_byte_ns;			   /* -1: none */
	int64_t end_ns;				   /* the last byte, or the failure */
	struct answer answer;
	struct buf body; /* of the request */
	char worker[FLIGHT_WORKERS][FLIGHT_WORKER_MAX];
	int64_t prefill_ns, decode_ns; /* what the router says they took; -1: nothing */
};

struct load_core {
	const struct load_options *o;
	const struct load_item *items;
	const struct schedule_input *order;
	struct load_outcome *out;
	struct schedule *schedule;
	struct texts texts;
	struct talks talks;
	int64_t origin;
	int64_t stop_at; /* when to abort what is left after a stop, or CLOCK_NEVER */
	size_t in_flight_max;
	struct load_progress p;
	double ttft_sum; /* ms, since the last look */
	size_t ttft_n;
	_Atomic bool enough; /* by options.progress, from another thread */
	int err;
};

int load_core_init(struct load_core *c, const struct load_options *o, const struct load_item *items,
		   const struct schedule_input *order, size_t in_flight_max,
		   struct load_outcome *out) PD_MUST;
/* The transport is ready: makes the schedule, whose time 0 is a few milliseconds from now. */
int load_core_begin(struct load_core *c, struct pd_msg *msg) PD_MUST;
void load_core_release(struct load_core *c);

int flight_init(struct flight *f, const struct load_options *o) PD_MUST;
void flight_release(struct flight *f);

/* When the next request may go; CLOCK_NEVER: one must end first, or nothing more is sent. */
int64_t load_core_due(struct load_core *c);
/* Takes it, and builds its body. */
int load_core_take(struct load_core *c, struct flight *f) PD_MUST;
/* It was handed to the network at `now`. */
void load_core_sent(struct load_core *c, struct flight *f, int64_t now);
/* A field of the head of its answer. */
void load_core_field(struct load_core *c, struct flight *f, struct span name, struct span value);
/* It ended at f->end_ns; label: a constant, or NULL for success. What happened is in the answer. */
void load_core_finish(struct load_core *c, struct flight *f, const char *label);

bool load_core_stopping(const struct load_core *c);
/* What is in flight is to be given up now. */
bool load_core_abort(struct load_core *c, int64_t now);
bool load_core_over(const struct load_core *c);
/* The progress since the last look. */
struct load_progress load_core_look(struct load_core *c, int64_t now);

#endif
