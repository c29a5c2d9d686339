/*
 * One thread makes all changes that a request asked for, one after the other: each is an errand
 * (lib/net/errand.h), so a client that leaves takes nothing away from the thread. A look-up that
 * hangs delays later changes and nothing else.
 */
#include "lib/router/fleet/changes.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"

#define LOOK_EVERY (30 * NS_PER_S) /* nothing waits for it */
#define REAP_EVERY (25 * NS_PER_MS)
#define STOP_WAIT  NS_PER_S

struct pending {
	struct errand errand; /* first member */
	struct change change;
	void (*after)(void); /* called when it is done, or NULL */
};

struct changes {
	struct changes_config cfg;
	struct errands *errands;
	_Atomic bool reap;
	int64_t next_reap; /* the thread's own */
};

static void pending_free(struct errand *e)
{
	struct pending *p = (struct pending *)(void *)e;

	route_labels_release(&p->change.labels);
	free(p);
}

/* -- the thread -- */

static void carry_out(struct changes *s, struct change *ch)
{
	const struct changes_config *c = &s->cfg;

	if (ch->kind == CHANGE_RELOAD) {
		ch->err = c->reload(c->ctx, &ch->msg);
		return;
	}
	ch->err = fleet_add(c->fleet, c->router, ch->role, ch->text, ch->bootstrap, &ch->labels,
			    &ch->msg);
	if (ch->err) {
		log_event(c->router->log, LOG_WARN, "worker_not_added",
			  LOG_FIELDS(LOG_TEXT("error", ch->msg.text)), "cannot add a worker: %s",
			  ch->msg.text);
		return;
	}
	log_event(c->router->log, LOG_INFO, "worker_added",
		  LOG_FIELDS(LOG_TEXT("role", worker_role_name(ch->role)),
			     LOG_TEXT("worker", ch->text), LOG_TEXT("source", "added")),
		  "%s worker %s added: it gets requests after its first successful health check",
		  worker_role_name(ch->role), ch->text);
	health_nudge(c->health);
}

static void carry_out_all(struct changes *s, struct errands *errands)
{
	struct errand *e;

	while ((e = errand_take(errands))) {
		struct pending *p = (struct pending *)(void *)e;

		carry_out(s, &p->change);
		if (p->after)
			p->after();
		errand_done(e);
	}
}

static void reap(struct changes *s)
{
	const struct changes_config *c = &s->cfg;
	size_t gone;

	if (clock_now() < s->next_reap || !atomic_exchange(&s->reap, false))
		return;
	if (fleet_reap(c->fleet, c->router, &gone) > 0) {
		atomic_store(&s->reap, true);
		s->next_reap = clock_now() + REAP_EVERY;
	}
	/* Another one may have waited for the name or the URL. */
	if (gone > 0 && c->health)
		health_nudge(c->health);
}

static void round_of_changes(struct errands *errands, void *ctx)
{
	struct changes *s = ctx;

	carry_out_all(s, errands);
	reap(s);
	errands_pause(errands, atomic_load(&s->reap) ? s->next_reap : clock_now() + LOOK_EVERY);
}

/* -- start and stop -- */

int changes_start(struct changes **out, const struct changes_config *c, struct pd_msg *msg)
{
	struct changes *s = calloc(1, sizeof(*s));
	const struct errands_config ec = {
		.name = "pdctl-changes", .max = CHANGES_QUEUE, .round = round_of_changes, .ctx = s};

	if (!s)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	s->cfg = *c;
	if (errands_start(&s->errands, &ec)) {
		free(s);
		return pd_fail(msg, PD_ENOMEM, "cannot start the thread for changes");
	}
	*out = s;
	return PD_OK;
}

bool changes_stop(struct changes *s)
{
	if (!s)
		return true;
	if (!errands_stop(s->errands, clock_now() + STOP_WAIT))
		return false;
	errands_free(s->errands);
	free(s);
	return true;
}

/* -- for handlers -- */

static struct pending *pending_new(const struct change *ch, void (*after)(void))
{
	struct pending *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	errand_init(&p->errand, pending_free);
	p->change = *ch;
	p->after = after;
	if (route_labels_copy(&p->change.labels, &ch->labels)) {
		free(p);
		return NULL;
	}
	return p;
}

int changes_do(struct changes *s, struct http_conn *c, struct change *ch)
{
	const struct errand_sleeper who = http_conn_sleeper(c);
	struct pending *p = pending_new(ch, NULL);
	int err;

	if (!p)
		return PD_ENOMEM;
	err = errand_do(s->errands, &p->errand, &who, clock_now() + CHANGE_WAIT_S * NS_PER_S);
	if (!err) {
		ch->err = p->change.err;
		ch->msg = p->change.msg;
	}
	errand_drop(&p->errand);
	return err;
}

bool changes_reload(struct changes *s, void (*done)(void))
{
	struct pending *p = pending_new(&(struct change){.kind = CHANGE_RELOAD}, done);
	bool begun = p && errand_post(s->errands, &p->errand) == PD_OK;

	if (p)
		errand_drop(&p->errand);
	return begun;
}

void changes_reap(struct changes *s)
{
	atomic_store(&s->reap, true);
	errands_wake(s->errands);
}
