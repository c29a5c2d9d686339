/*
 * One thread asks one name after the other. A name has its own set of workers, which a good answer
 * replaces; what is published is all sets together.
 */
#include "lib/discovery/dns_source.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <resolv.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/discovery/dns_answer.h"
#include "lib/discovery/source_thread.h"

#define AGAIN_MIN NS_PER_S /* between two questions for a name */
#define PORT_DNS  53
#define CLASS_IN  1

struct asked {
	struct dns_wanted wanted;
	char name[DNS_NAME_MAX]; /* without the port */
	uint16_t port;		 /* 0: SRV */
	struct discovery_list set;
	int64_t next; /* when it is asked again */
	bool failing; /* which was said */
};

struct dns_source {
	struct discovery_sink sink;
	struct source_thread thread;
	struct sockaddr_in server; /* sin_port 0: those of the system */
	int64_t interval;
	struct asked *asked; /* owned */
	size_t n;
	struct discovery_list published;
	bool said_full;
	unsigned char packet[DNS_ANSWER_MAX];
};

/* -- what is asked for -- */

static int split(struct asked *a, const char *text, struct pd_msg *msg)
{
	bool srv = text[0] == '_';
	const char *colon = srv ? NULL : strrchr(text, ':');
	size_t n = colon ? (size_t)(colon - text) : strlen(text);
	unsigned long port = colon ? strtoul(colon + 1, NULL, 10) : 0;
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789-_.";

	if (n == 0 || n >= sizeof(a->name) || strspn(text, allowed) != n ||
	    (!srv && (!colon || !colon[1] || strlen(colon + 1) > 5 ||
		      strspn(colon + 1, "0123456789") != strlen(colon + 1) || port == 0 ||
		      port > UINT16_MAX)))
		return pd_fail(msg, PD_EINVAL,
			       "found '%.200s', expected NAME:PORT, or _PORT._PROTO.NAME for SRV "
			       "records",
			       text);
	(void)snprintf(a->name, sizeof(a->name), "%.*s", (int)n, text);
	a->port = (uint16_t)port;
	return PD_OK;
}

int dns_wanted_check(const char *text, struct pd_msg *msg)
{
	struct asked a;

	return split(&a, text, msg);
}

static int server_of(struct sockaddr_in *out, const char *text, struct pd_msg *msg)
{
	const char *colon = strrchr(text, ':');
	unsigned long port = colon ? strtoul(colon + 1, NULL, 10) : PORT_DNS;
	size_t n = colon ? (size_t)(colon - text) : strlen(text);
	char ip[INET_ADDRSTRLEN] = "";

	*out = (struct sockaddr_in){.sin_family = AF_INET};
	if (n < sizeof(ip))
		memcpy(ip, text, n);
	if (inet_pton(AF_INET, ip, &out->sin_addr) != 1 || port == 0 || port > UINT16_MAX ||
	    (colon && strspn(colon + 1, "0123456789") != strlen(colon + 1)))
		return pd_fail(msg, PD_EINVAL,
			       "found '%.200s', expected an IPv4 address, or "
			       "ADDRESS:PORT",
			       text);
	out->sin_port = htons((uint16_t)port);
	return PD_OK;
}

int dns_server_check(const char *server, struct pd_msg *msg)
{
	struct sockaddr_in at;

	return server_of(&at, server, msg);
}

/* -- a question -- */

/* /etc/resolv.conf as it is now. */
static int open_resolver(const struct dns_source *s, struct __res_state *state)
{
	*state = (struct __res_state){0};
	if (res_ninit(state))
		return PD_EIO;
	/* A question takes 3 s at most with one name server, 5 s with three. */
	state->retrans = 1;
	state->retry = 2;
	state->options |= RES_USE_EDNS0;
	if (s->server.sin_port) {
		state->nscount = 1;
		state->nsaddr_list[0] = s->server;
	}
	return PD_OK;
}

/* PD_ENOENT: there is no such record; PD_EIO: nobody knows now; with a clause. */
static int ask(struct dns_source *s, struct __res_state *state, const char *name,
	       enum dns_type type, struct dns_answer *out, struct pd_msg *msg)
{
	const char *kind = type == DNS_A ? "A" : type == DNS_AAAA ? "AAAA" : "SRV";
	int n;

	*out = (struct dns_answer){0};
	if (source_thread_stopped(&s->thread))
		return pd_fail(msg, PD_ECANCELED, "cut");
	n = res_nsearch(state, name, CLASS_IN, (int)type, s->packet, sizeof(s->packet));
	if (n < 0 && (state->res_h_errno == HOST_NOT_FOUND || state->res_h_errno == NO_DATA))
		return pd_fail(msg, PD_ENOENT, "%.200s: found no %s record", name, kind);
	if (n < 0)
		return pd_fail(msg, PD_EIO, "%.200s: no name server answered the question for %s",
			       name, kind);
	if ((size_t)n > sizeof(s->packet))
		return pd_fail(msg, PD_EIO, "%.200s: the answer is too long", name);
	return dns_answer_read(out, (struct span){(const char *)s->packet, (size_t)n}, msg) ? PD_EIO
											    : PD_OK;
}

/* -- sets -- */

static int add_worker(struct discovery_list *l, enum discovery_role role, const char *ip,
		      uint16_t port, const char *name, struct pd_msg *msg)
{
	bool v6 = strchr(ip, ':') != NULL;
	struct discovery_worker *w;
	char url[DISCOVERY_URL_MAX];

	(void)snprintf(url, sizeof(url), "http://%s%s%s:%u", v6 ? "[" : "", ip, v6 ? "]" : "",
		       port);
	for (size_t i = 0; i < l->n; i++)
		if (strcmp(l->worker[i].url, url) == 0)
			return PD_OK;
	w = discovery_add(l);
	if (!w)
		return pd_fail(msg, PD_ENOMEM, "found more than %d workers, or out of memory",
			       DISCOVERY_WORKERS_MAX);
	w->role = role;
	(void)snprintf(w->url, sizeof(w->url), "%s", url);
	if (strlen(name) < sizeof(w->name))
		memcpy(w->name, name, strlen(name) + 1);
	return PD_OK;
}

static void shorter(uint32_t *ttl, const struct dns_answer *a)
{
	*ttl = a->ttl < *ttl ? a->ttl : *ttl;
}

/* Addresses of a name, each a worker. IPv6 only without IPv4: with both a server would be two. */
static int by_address(struct dns_source *s, struct __res_state *state, const struct asked *a,
		      const char *name, uint16_t port, const char *called,
		      struct discovery_list *out, uint32_t *ttl, struct pd_msg *msg)
{
	static const enum dns_type types[] = {DNS_A, DNS_AAAA};
	struct dns_answer answer;
	int err = PD_ENOENT;

	for (size_t t = 0; err == PD_ENOENT && t < 2; t++) {
		bool any = false;

		err = ask(s, state, name, types[t], &answer, msg);
		if (err)
			continue;
		for (size_t i = 0; !err && i < answer.n; i++) {
			const struct dns_record *r = &answer.record[i];

			if (r->type != types[t] || r->additional)
				continue;
			any = true;
			err = add_worker(out, a->wanted.role, r->ip, port, called, msg);
			if (called[0])
				break; /* it has one address at a time */
		}
		shorter(ttl, &answer);
		dns_answer_release(&answer);
		if (!err && !any)
			err = pd_fail(msg, PD_ENOENT, "%.200s: found no address", name);
	}
	return err;
}

/* The address that came along with a SRV record, or NULL. */
static const char *brought(const struct dns_answer *a, const char *target)
{
	const char *v6 = NULL;

	for (size_t i = 0; i < a->n; i++) {
		const struct dns_record *r = &a->record[i];

		if (!r->additional || strcmp(r->owner, target) != 0)
			continue;
		if (r->type == DNS_A)
			return r->ip;
		if (r->type == DNS_AAAA)
			v6 = r->ip;
	}
	return v6;
}

/* A SRV record that names a server. */
static bool is_service(const struct dns_record *r)
{
	return r->type == DNS_SRV && !r->additional && r->target[0] && r->port != 0;
}

static int by_service(struct dns_source *s, struct __res_state *state, const struct asked *a,
		      struct discovery_list *out, uint32_t *ttl, struct pd_msg *msg)
{
	unsigned lowest = UINT16_MAX;
	struct dns_answer answer;
	int err = ask(s, state, a->name, DNS_SRV, &answer, msg);

	for (size_t i = 0; !err && i < answer.n; i++)
		if (is_service(&answer.record[i]) && answer.record[i].priority < lowest)
			lowest = answer.record[i].priority;
	for (size_t i = 0; !err && i < answer.n; i++) {
		const struct dns_record *r = &answer.record[i];
		char called[DNS_NAME_MAX + 8];
		const char *ip;

		if (!is_service(r) || r->priority != lowest)
			continue;
		ip = brought(&answer, r->target);
		(void)snprintf(called, sizeof(called), "%s:%u", r->target, r->port);
		err = ip ? add_worker(out, a->wanted.role, ip, r->port, called, msg)
			 : by_address(s, state, a, r->target, r->port, called, out, ttl, msg);
	}
	if (!err && out->n == 0)
		err = pd_fail(msg, PD_ENOENT, "%.200s: found no SRV record with a target", a->name);
	if (answer.record)
		shorter(ttl, &answer);
	dns_answer_release(&answer);
	return err;
}

static int by_url(const void *a, const void *b)
{
	return strcmp(((const struct discovery_worker *)a)->url,
		      ((const struct discovery_worker *)b)->url);
}

/* -- the thread -- */

static void say(struct dns_source *s, struct asked *a, int err, const char *why)
{
	discovery_note(&s->sink, !err);
	if (err && !a->failing)
		log_event(s->sink.log, LOG_WARN, "dns_failed",
			  LOG_FIELDS(LOG_TEXT("name", a->name), LOG_TEXT("error", why),
				     LOG_NUMBER("workers", a->set.n)),
			  "dns: %s: the last %zu workers of %s stay", why, a->set.n, a->name);
	else if (!err && a->failing)
		log_event(s->sink.log, LOG_INFO, "dns_answers",
			  LOG_FIELDS(LOG_TEXT("name", a->name)), "dns: %s has addresses again",
			  a->name);
	a->failing = err != PD_OK;
}

static void look(struct dns_source *s, struct asked *a)
{
	struct discovery_list fresh = {0};
	struct __res_state state;
	struct pd_msg why = {0};
	uint32_t ttl = UINT32_MAX;
	int64_t wait = s->interval;
	int err = open_resolver(s, &state);

	if (err) {
		(void)pd_fail(&why, err, "cannot read /etc/resolv.conf");
	} else {
		err = a->port ? by_address(s, &state, a, a->name, a->port, "", &fresh, &ttl, &why)
			      : by_service(s, &state, a, &fresh, &ttl, &why);
		res_nclose(&state);
	}
	if (err != PD_ECANCELED)
		say(s, a, err, why.text);
	if (!err && ttl * NS_PER_S < wait)
		wait = ttl * NS_PER_S;
	a->next = clock_now() + (wait > AGAIN_MIN || wait == s->interval ? wait : AGAIN_MIN);
	if (err) {
		discovery_release(&fresh);
		return;
	}
	qsort(fresh.worker, fresh.n, sizeof(*fresh.worker), by_url);
	discovery_release(&a->set);
	a->set = fresh;
}

static void publish(struct dns_source *s)
{
	struct discovery_list all = {0};
	int err = PD_OK;

	for (size_t k = 0; k < s->n; k++) {
		for (size_t i = 0; !err && i < s->asked[k].set.n; i++) {
			struct discovery_worker *w = discovery_add(&all);

			err = w ? PD_OK : PD_ENOMEM;
			if (w)
				*w = s->asked[k].set.worker[i]; /* without labels */
		}
	}
	if (err && !s->said_full)
		log_event(s->sink.log, LOG_WARN, "dns_full",
			  LOG_FIELDS(LOG_NUMBER("workers", all.n)),
			  "dns: more than %zu workers, or out of memory: further ones are ignored",
			  all.n);
	s->said_full = err != PD_OK;
	discovery_publish(&s->sink, &s->published, &all);
}

static void run(void *arg)
{
	struct dns_source *s = arg;
	int64_t next;

	do {
		int64_t now = clock_now();

		next = now + s->interval;
		for (size_t i = 0; i < s->n; i++) {
			struct asked *a = &s->asked[i];

			if (a->next <= now)
				look(s, a);
			next = a->next < next ? a->next : next;
		}
		if (!source_thread_stopped(&s->thread))
			publish(s);
	} while (source_thread_rest(&s->thread, next));
}

static void release(struct dns_source *s)
{
	for (size_t i = 0; i < s->n; i++)
		discovery_release(&s->asked[i].set);
	free(s->asked);
	discovery_release(&s->published);
	free(s);
}

int dns_source_start(struct dns_source **out, const struct dns_wanted *w, size_t n,
		     const char *server, double interval_s, const struct discovery_sink *sink,
		     struct pd_msg *msg)
{
	struct dns_source *s = calloc(1, sizeof(*s));
	int err = PD_OK;

	if (s)
		s->asked = calloc(n, sizeof(*s->asked));
	if (!s || !s->asked) {
		free(s);
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	}
	s->sink = *sink;
	s->interval = (int64_t)(interval_s * (double)NS_PER_S);
	s->n = n;
	if (server)
		err = server_of(&s->server, server, msg);
	for (size_t i = 0; !err && i < n; i++) {
		s->asked[i].wanted = w[i];
		err = split(&s->asked[i], w[i].text, msg);
	}
	if (!err && source_thread_start(&s->thread, "pdctl-dns", run, s))
		err = pd_fail(msg, PD_ENOMEM, "cannot start the thread that asks DNS");
	if (err) {
		release(s);
		return err;
	}
	*out = s;
	return PD_OK;
}

void dns_source_stop(struct dns_source *s)
{
	if (!s)
		return;
	source_thread_stop(&s->thread, NULL, NULL);
	release(s);
}
