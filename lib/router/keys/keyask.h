/*
 * Keys that a validation service knows: each is sent to the validation URLs (GET with
 * "Authorization: Bearer KEY", 200 means valid), by one thread with libcurl, so that no request's
 * thread waits in a look-up. Answers are remembered for a time, under a keyed hash; a key in
 * question is asked about once however many requests bring it. Bounded: keys remembered (separately
 * for good and bad ones, so that invented keys push no good one out), keys in question, requests
 * that wait.
 */
#ifndef PD_ROUTER_KEYASK_H
#define PD_ROUTER_KEYASK_H

#include "lib/base/log.h"
#include "lib/base/span.h"
#include "lib/http/server.h"

#define KEYASK_URLS_MAX	   16
#define KEYASK_QUESTIONS   512	/* keys in question at once */
#define KEYASK_TRANSFERS   64	/* of them on the wire */
#define KEYASK_WAITERS_MAX 4096 /* requests that wait for an answer */

struct keyask;

struct keyask_config {
	const char *const *urls; /* borrowed */
	size_t nurls;
	int64_t timeout;		/* for one key, all URLs */
	int64_t valid_ttl, invalid_ttl; /* how long an answer is believed */
	unsigned cache;			/* good keys remembered, and as many bad ones */
	struct log *log;
};

enum key_verdict {
	KEY_VALID,
	KEY_INVALID,
	KEY_UNKNOWN, /* no URL called it valid, and not every one answered */
	KEY_BUSY,    /* too many keys are in question */
	KEY_CLIENT_LEFT
};

struct keyask_stats {
	uint64_t asked, hits, failed;
	unsigned waiting;
};

/* PD_EINVAL names a URL that is none. */
int keyask_check_url(const char *url, struct pd_msg *msg) PD_MUST;
int keyask_start(struct keyask **out, const struct keyask_config *cfg, struct pd_msg *msg) PD_MUST;
/* From the connection's own thread: answers from memory, or sleeps until the answer is there. */
enum key_verdict keyask(struct keyask *a, struct http_conn *c, struct span key);
void keyask_stats(const struct keyask *a, struct keyask_stats *out);
/* After the last request. Accepts NULL. */
void keyask_stop(struct keyask *a);

#endif
