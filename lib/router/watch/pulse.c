#include "lib/router/watch/pulse.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "lib/base/buf.h"
#include "lib/base/clock.h"

#define LOOK_EVERY  (200 * NS_PER_MS)
#define SAY_EVERY   NS_PER_S
#define DRAIN_EVERY (5 * NS_PER_S)

struct pulse {
	struct pulse_config cfg;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	pthread_t thread;
	bool stop;
	struct pulse_look said; /* what the lines so far told */
	int64_t said_at, lost_at, drain_at;
};

static const char *const causes[PULSE_CAUSES][2] = {
	[PULSE_QUEUE_FULL] = {"queue_full", "the admission queue was full"},
	[PULSE_QUEUE_TIMEOUT] = {"queue_timeout", "timed out in the admission queue"},
	[PULSE_WORKERS_FULL] = {"workers_full", "all workers at --worker-max-in-flight"},
	[PULSE_CONNECTIONS] = {"connections", "connections over --max-connections"},
	[PULSE_CONNECTIONS_ADDRESS] = {"connections_per_ip",
				       "connections over --max-connections-per-ip"},
	[PULSE_DESCRIPTORS] = {"descriptors", "this router was out of descriptors for clients"},
	[PULSE_LOCAL] = {"local", "this router was out of descriptors or memory for workers"},
};

/* "overloaded: 12 refused in 1.0 s: 10 the admission queue was full, ...", or fields. */
static void say_refusals(struct pulse *p, const struct pulse_look *now, int64_t at, uint64_t all)
{
	bool json = log_is_json(p->cfg.log);
	int64_t span = p->said_at ? at - p->said_at : 0;
	const char *joint = json ? "," : ": ";
	struct buf b;
	int err;

	span = span < 2 * SAY_EVERY ? span : 0; /* the first for a while */
	buf_init(&b, 4096);
	err = buf_printf(&b, json ? "\"refused\":%llu,\"seconds\":%.1f" : "%llu refused in %.1f s",
			 (unsigned long long)all, (double)(span ? span : LOOK_EVERY) / 1e9);
	for (int i = 0; !err && i < PULSE_CAUSES; i++) {
		uint64_t n = now->count[i] - p->said.count[i];

		if (n == 0)
			continue;
		err = json ? buf_printf(&b, "%s\"%s\":%llu", joint, causes[i][0],
					(unsigned long long)n)
			   : buf_printf(&b, "%s%llu %s", joint, (unsigned long long)n,
					causes[i][1]);
		joint = json ? "," : ", ";
	}
	err = err ? err
		  : buf_printf(&b,
			       json ? ",\"in_flight\":%u,\"queued\":%u"
				    : "; %u requests in flight, %u queued",
			       now->in_flight, now->queued);
	if (err)
		log_lost(p->cfg.log);
	else if (json)
		log_json(p->cfg.log, LOG_WARN, "overloaded", b.data);
	else
		log_line(p->cfg.log, LOG_WARN, "overloaded: %s", b.data);
	buf_release(&b);
}

static void look(struct pulse *p, bool last)
{
	struct pulse_look now = {0};
	int64_t at = clock_now();
	uint64_t all = 0, lost;

	p->cfg.look(p->cfg.ctx, &now);
	for (int i = 0; i < PULSE_CAUSES; i++)
		all += now.count[i] - p->said.count[i];
	if (all > 0 && (last || at - p->said_at >= SAY_EVERY)) {
		say_refusals(p, &now, at, all);
		p->said_at = at;
		for (int i = 0; i < PULSE_CAUSES; i++)
			p->said.count[i] = now.count[i];
	}
	lost = now.count[PULSE_ACCESS_LOST] - p->said.count[PULSE_ACCESS_LOST];
	if (lost > 0 && (last || at - p->lost_at >= SAY_EVERY)) {
		log_event(p->cfg.log, LOG_WARN, "access_log_dropped",
			  LOG_FIELDS(LOG_NUMBER("lines", lost)),
			  "access log: %llu lines dropped: its file or reader is too slow",
			  (unsigned long long)lost);
		p->lost_at = at;
		p->said.count[PULSE_ACCESS_LOST] = now.count[PULSE_ACCESS_LOST];
	}
	if (now.draining && !last && now.in_flight > 0 &&
	    (p->drain_at == 0 || at - p->drain_at >= DRAIN_EVERY)) {
		log_event(p->cfg.log, LOG_INFO, "draining",
			  LOG_FIELDS(LOG_NUMBER("in_flight", now.in_flight)),
			  "draining: waiting for %u requests in flight", now.in_flight);
		p->drain_at = at;
	}
}

static void *run(void *arg)
{
	struct pulse *p = arg;

	(void)pthread_setname_np(pthread_self(), "pdctl-pulse");
	(void)pthread_mutex_lock(&p->lock);
	while (!p->stop) {
		int64_t until = clock_now() + LOOK_EVERY;
		struct timespec ts = {.tv_sec = until / NS_PER_S, .tv_nsec = until % NS_PER_S};

		(void)pthread_cond_timedwait(&p->wake, &p->lock, &ts);
		(void)pthread_mutex_unlock(&p->lock);
		look(p, false);
		(void)pthread_mutex_lock(&p->lock);
	}
	(void)pthread_mutex_unlock(&p->lock);
	return NULL;
}

int pulse_start(struct pulse **out, const struct pulse_config *c)
{
	struct pulse *p = calloc(1, sizeof(*p));
	pthread_condattr_t attr;

	if (!p)
		return PD_ENOMEM;
	p->cfg = *c;
	(void)pthread_mutex_init(&p->lock, NULL);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&p->wake, &attr);
	(void)pthread_condattr_destroy(&attr);
	if (pthread_create(&p->thread, NULL, run, p) != 0) {
		free(p);
		return PD_ENOMEM;
	}
	*out = p;
	return PD_OK;
}

void pulse_stop(struct pulse *p)
{
	if (!p)
		return;
	(void)pthread_mutex_lock(&p->lock);
	p->stop = true;
	(void)pthread_cond_signal(&p->wake);
	(void)pthread_mutex_unlock(&p->lock);
	(void)pthread_join(p->thread, NULL);
	look(p, true);
	(void)pthread_mutex_destroy(&p->lock);
	(void)pthread_cond_destroy(&p->wake);
	free(p);
}
