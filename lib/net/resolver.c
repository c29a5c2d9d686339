/*
 * getaddrinfo cannot be interrupted, so a look-up that its asker has given up on goes on in its
 * thread and writes into memory that is its own by then. Callers that ask for one name at the same
 * time share one look-up. Results are not cached: with kept connections look-ups are rare,
 * and a name that moves must be followed.
 */
#include "lib/net/resolver.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"

#define STACK	  (256u << 10) /* of a look-up: name service modules are generous */
#define PAUSE	  (60 * NS_PER_S)
#define STOP_WAIT NS_PER_S

struct resolver {
	struct errands *errands;
	pthread_mutex_t lock;
	struct look_up *under_way; /* a list, under the lock: one for a name and port */
	_Atomic unsigned refs;	   /* the owner's and one for each look-up */
};

struct look_up {
	struct errand errand; /* first member */
	struct resolver *home;
	struct look_up *next;
	char host[256];
	uint16_t port;
	struct net_addrs found;
	int err;
	struct pd_msg msg;
};

static void drop(struct resolver *r)
{
	if (atomic_fetch_sub(&r->refs, 1) > 1)
		return;
	errands_free(r->errands);
	(void)pthread_mutex_destroy(&r->lock);
	free(r);
}

static void look_up_free(struct errand *e)
{
	struct look_up *l = (struct look_up *)(void *)e;
	struct resolver *r = l->home;

	free(l);
	drop(r);
}

/* The result is there: a later call makes a look-up of its own. */
static void finish(struct look_up *l)
{
	struct resolver *r = l->home;
	struct look_up **at = &r->under_way;

	(void)pthread_mutex_lock(&r->lock);
	while (*at != l)
		at = &(*at)->next;
	*at = l->next;
	(void)pthread_mutex_unlock(&r->lock);
	errand_done(&l->errand);
}

static void *look_up(void *arg)
{
	struct look_up *l = arg;

	l->err = net_resolve_all(&l->found, l->host, l->port, &l->msg);
	finish(l);
	return NULL;
}

static void hand_out(struct errands *s, void *ctx)
{
	pthread_attr_t attr;
	struct errand *e;
	pthread_t t;

	(void)ctx;
	(void)pthread_attr_init(&attr);
	(void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	(void)pthread_attr_setstacksize(&attr, STACK);
	while ((e = errand_take(s))) {
		struct look_up *l = (struct look_up *)(void *)e;

		if (pthread_create(&t, &attr, look_up, l) == 0)
			continue;
		l->err = pd_fail(&l->msg, PD_ENOMEM, "cannot start a thread to resolve '%s'",
				 l->host);
		finish(l);
	}
	(void)pthread_attr_destroy(&attr);
	errands_pause(s, clock_now() + PAUSE);
}

int resolver_new(struct resolver **out)
{
	struct resolver *r = calloc(1, sizeof(*r));
	struct errands_config cfg = {
		.name = "pdctl-resolver", .max = RESOLVER_MAX, .round = hand_out};

	*out = NULL;
	if (!r)
		return PD_ENOMEM;
	(void)pthread_mutex_init(&r->lock, NULL);
	atomic_store(&r->refs, 1);
	if (errands_start(&r->errands, &cfg)) {
		(void)pthread_mutex_destroy(&r->lock);
		free(r);
		return PD_ENOMEM;
	}
	*out = r;
	return PD_OK;
}

void resolver_free(struct resolver *r)
{
	if (r && errands_stop(r->errands, clock_now() + STOP_WAIT))
		drop(r);
}

/* The look-up of this name that is under way, else a new one, with a reference for the caller. */
static int join(struct resolver *r, const char *host, uint16_t port, struct look_up **out)
{
	struct look_up *l;
	int err = PD_OK;

	(void)pthread_mutex_lock(&r->lock);
	for (l = r->under_way; l && (l->port != port || strcmp(l->host, host) != 0); l = l->next)
		continue;
	if (l) {
		(void)errand_ref(&l->errand);
	} else if ((l = calloc(1, sizeof(*l)))) {
		errand_init(&l->errand, look_up_free);
		l->home = r;
		memcpy(l->host, host, strlen(host));
		l->port = port;
		l->next = r->under_way;
		r->under_way = l;
		atomic_fetch_add(&r->refs, 1);
		err = errand_post(r->errands, &l->errand);
		if (err) {
			atomic_fetch_sub(&r->refs, 1);
			r->under_way = l->next;
			free(l);
			l = NULL;
		}
	} else {
		err = PD_ENOMEM;
	}
	(void)pthread_mutex_unlock(&r->lock);
	*out = l;
	return err;
}

int resolver_begin(struct resolver *r, const char *host, uint16_t port, struct look_up **out,
		   struct pd_msg *msg)
{
	int err;

	*out = NULL;
	if (strlen(host) >= sizeof((*out)->host))
		return pd_fail(msg, PD_EINVAL, "host name of %zu bytes, at most %zu", strlen(host),
			       sizeof((*out)->host) - 1);
	err = join(r, host, port, out);
	return err ? pd_fail(msg, err, "cannot resolve host '%s': %s", host,
			     err == PD_EBUSY ? "too many look-ups pending" : pd_err_text(err))
		   : PD_OK;
}

static bool sleep_not(void *who, int64_t deadline)
{
	(void)who;
	(void)deadline;
	return false;
}

static void wake_not(void *who)
{
	(void)who;
}

int resolver_look(struct look_up *l, struct net_addrs *out, struct pd_msg *msg)
{
	const struct errand_sleeper who = {sleep_not, wake_not, NULL};
	int err = errand_wait(&l->errand, &who, 0);

	if (err == PD_ETIMEOUT)
		return PD_EAGAIN;
	if (err || l->err)
		return pd_fail(msg, err ? err : l->err, "%s", err ? pd_err_text(err) : l->msg.text);
	*out = l->found;
	return PD_OK;
}

void resolver_drop(struct look_up *l)
{
	if (l)
		errand_drop(&l->errand);
}

int resolver_find(struct resolver *r, const char *host, uint16_t port,
		  const struct errand_sleeper *who, int64_t deadline, struct net_addrs *out,
		  struct pd_msg *msg)
{
	struct look_up *l;
	int err;

	out->n = 1;
	if (net_literal(&out->a[0], host, port))
		return PD_OK;
	out->n = 0;
	err = resolver_begin(r, host, port, &l, msg);
	if (err)
		return err;
	err = errand_wait(&l->errand, who, deadline);
	if (err)
		(void)pd_fail(msg, err, "cannot resolve host '%s': %s", host, pd_err_text(err));
	else if (l->err)
		err = pd_fail(msg, l->err, "%s", l->msg.text);
	else
		*out = l->found;
	errand_drop(&l->errand);
	return err;
}
