/*
 * --capture: decisions and outcomes into an SQLite file, for `simulate` to replay.
 *
 * A request never waits for the file: it copies what is known into a bounded queue
 * (capture_ring.h), and one thread of our own writes the queue in transactions, at least every
 * CAPTURE_PERIOD. When the queue is full or the file cannot be written, records are dropped and
 * counted: in the metrics, in the log and in the file's table `dropped`. The tables are in
 * lib/workload/capture_schema.h and docs/capture.md.
 *
 * Prompt text never gets here unless `prompts` is set: only lengths, and hashes of blocks with a
 * seed that is kept nowhere.
 */
#ifndef PD_ROUTER_CAPTURE_H
#define PD_ROUTER_CAPTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "lib/base/buf.h"
#include "lib/base/clock.h"
#include "lib/router/config/config.h"
#include "lib/router/watch/prom.h"

#define CAPTURE_PERIOD	   (100 * NS_PER_MS)
#define CAPTURE_BLOCKS_MAX 4096u /* block hashes kept of one prompt */

enum capture_keys { CAPTURE_KEYS_PLAIN, CAPTURE_KEYS_HASH };

struct capture_config {
	const char *path; /* borrowed */
	enum capture_keys keys;
	bool prompts;	       /* request bodies, too */
	size_t body_max;       /* bytes kept of one */
	unsigned block_tokens; /* of the prompt's block hashes; 0: none */
	unsigned queue;	       /* records that may wait */
	size_t queue_bytes;
	int64_t max_bytes; /* of the file; 0: no limit */
};

struct capture;
struct fleet;

void capture_config_default(struct capture_config *c);
/*
 * Opens or creates the file; nothing is written to a file that is not a capture of our version. The
 * message names the file. PD_EINVAL, PD_EIO, PD_ENOMEM.
 */
int capture_new(struct capture **out, const struct capture_config *c, struct pd_msg *msg) PD_MUST;
/* Starts the writer; the run is described by `rc`, which must live on. */
int capture_start(struct capture *c, const struct router_config *rc, struct pd_msg *msg) PD_MUST;
/* Writes what is queued, says that the run has ended and closes the file. Records that come later
 * are dropped. Accepts NULL, and a capture that was not started. */
void capture_stop(struct capture *c);
/* After capture_stop, when no request uses it any more. Accepts NULL. */
void capture_free(struct capture *c);

/* -- thread-safe; `c` may be NULL where it is an argument -- */

/* A new set of workers, before a request can see it. Takes a reference. */
void capture_fleet(struct capture *c, struct fleet *f);
/* The number of a request in this run, from 1; 0 without capture. */
uint64_t capture_begin(struct capture *c);
/*
 * The order of what changes a pool. Whoever changes it reads the clock before and ticks after: the
 * numbers from the reading + 1 to the tick are the span in which the change happened. Two changes
 * with disjoint spans happened in the order of their ticks. One atomic counter, no lock.
 */
uint64_t capture_clock(const struct capture *c);
/* n changes at once. Returns the number of the first. */
uint64_t capture_tick(struct capture *c, unsigned n);
/* For the metrics page: records by what became of them, the family numbers. Zeros without capture.
 */
void capture_stats(const struct capture *c, struct prom_page *out);

#endif
