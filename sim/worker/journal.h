/*
 * The last requests of a worker as they arrived (headers, body bytes by hash), for tests and for
 * debugging. A ring of JOURNAL_MAX entries; long headers are cut, so
 * the memory is bounded. Thread-safe.
 */
#ifndef PD_SIM_WORKER_JOURNAL_H
#define PD_SIM_WORKER_JOURNAL_H

#include <pthread.h>
#include <stdint.h>

#include "lib/http/head.h"
#include "lib/json/scan.h"
#include "sim/worker/jout.h"

#define JOURNAL_MAX	    1000
#define JOURNAL_HEADERS_MAX 8192 /* bytes of JSON text per entry */
#define JOURNAL_SESSION_MAX 2048

struct journal_entry {
	uint64_t number;
	int64_t wall_ns;
	char *text;	     /* constant part, JSON members; owned */
	const char *leg;     /* plain, prefill, decode */
	const char *outcome; /* running, ok, aborted, rejected, fault */
	int status;
	size_t prompt_tokens, cached_tokens, output_tokens;
};

struct journal {
	pthread_mutex_t lock;
	struct journal_entry ring[JOURNAL_MAX];
	uint64_t next;
};

void journal_init(struct journal *j);
void journal_release(struct journal *j);
/* Describes the request into *e (a local of the caller); the ring is not changed yet. */
void journal_describe(struct journal_entry *e, const struct http_head *head, struct span body);
/* Adds session fields, once the body is known to be an object. */
void journal_session(struct journal_entry *e, const struct json_object *body);
/* Puts the entry into the ring (the text moves there) and numbers it; journal_update changes it
 * later, if it is still there. */
void journal_add(struct journal *j, struct journal_entry *e);
void journal_update(struct journal *j, const struct journal_entry *e);
/* {"total":N,"requests":[...]}: the last `last` entries, oldest first. */
void journal_write(struct journal *j, size_t last, struct jout *o);

#endif
