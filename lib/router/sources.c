#include "lib/router/sources.h"

#include <stdio.h>
#include <stdlib.h>

#include "lib/discovery/register.h"
#include "lib/discovery/registry_source.h"

/* One source: who it is, and what it says of itself. */
struct source {
	struct sources *all;
	enum worker_source kind;
	bool on;
	struct discovery_stats stats;
	_Atomic uint64_t workers; /* of its last list */
};

struct sources {
	const struct router_config *cfg;
	struct fleet_holder *fleet;
	struct changes *changes;
	struct health *health;
	struct source source[WORKER_SOURCES];
	struct register_source *registered; /* each NULL: none */
	struct registry_source *registry;
	struct kube_source *pods;
	struct dns_source *dns;
};

/* One worker of a list, or its ranks. */
static int add(struct sources *s, enum worker_source source, const struct discovery_worker *w,
	       struct worker_list *list)
{
	static const enum worker_role roles[] = {[DISCOVERY_REGULAR] = ROLE_REGULAR,
						 [DISCOVERY_PREFILL] = ROLE_PREFILL,
						 [DISCOVERY_DECODE] = ROLE_DECODE};
	unsigned dp = w->dp_size > s->cfg->dp_size ? w->dp_size : s->cfg->dp_size;
	char text[sizeof(w->name) + sizeof(w->url) + 2];
	struct pd_msg msg = {0};
	size_t from = list->n;
	int err = PD_OK;

	(void)snprintf(text, sizeof(text), "%s%s%s", w->name, w->name[0] ? "=" : "", w->url);
	if (worker_list_add(list, roles[w->role], text, dp, &msg)) {
		log_event(s->cfg->log, LOG_WARN, "worker_ignored",
			  LOG_FIELDS(LOG_TEXT("source", worker_source_name(source)),
				     LOG_TEXT("reason", msg.text)),
			  "a %s worker is ignored: %s", worker_source_name(source), msg.text);
		return PD_OK;
	}
	for (size_t k = from; k < list->n; k++) {
		list->spec[k].source = source;
		list->spec[k].bootstrap = w->bootstrap;
		for (size_t n = 0; !err && n < w->labels.n; n++)
			err = route_labels_set(&list->spec[k].labels, w->labels.label[n].name,
					       w->labels.label[n].value);
	}
	return err;
}

/* A list of a source, on its thread. */
static void take(void *ctx, const struct discovery_list *l)
{
	struct source *from = ctx;
	struct sources *s = from->all;
	struct worker_list list = {0};
	struct pd_msg msg = {0};
	int err = PD_OK;

	atomic_store(&from->workers, l->n);
	for (size_t i = 0; !err && i < l->n; i++)
		err = add(s, from->kind, &l->worker[i], &list);
	err = err ? pd_fail(&msg, err, "too many labels, or out of memory")
		  : fleet_publish(s->fleet, s->cfg, from->kind, &list, &msg);
	if (err)
		log_event(s->cfg->log, LOG_WARN, "worker_list_ignored",
			  LOG_FIELDS(LOG_TEXT("source", worker_source_name(from->kind)),
				     LOG_TEXT("reason", msg.text)),
			  "the list of %s workers is not used: %s", worker_source_name(from->kind),
			  msg.text);
	worker_list_release(&list);
	changes_reap(s->changes);
	health_nudge(s->health);
}

static struct discovery_sink sink_of(struct sources *s, enum worker_source kind)
{
	struct source *to = &s->source[kind];

	to->all = s;
	to->kind = kind;
	to->on = true;
	return (struct discovery_sink){take, to, s->cfg->log, &to->stats};
}

static int start_registrations(struct sources *s, const struct sources_config *c,
			       struct pd_msg *msg)
{
	const struct discovery_sink sink = sink_of(s, SOURCE_REGISTERED);
	struct pd_msg inner = {0};
	uint16_t port;
	int err = register_start(&s->registered, c->register_address, &sink, &port, &inner);

	if (err)
		return pd_fail(msg, err, "--vllm-discovery-address: %.450s", inner.text);
	log_event(s->cfg->log, LOG_INFO, "registrations",
		  LOG_FIELDS(LOG_TEXT("address", c->register_address), LOG_NUMBER("port", port)),
		  "workers register at %s, port %u", c->register_address, (unsigned)port);
	return PD_OK;
}

static int start_all(struct sources *s, const struct sources_config *c, struct pd_msg *msg)
{
	struct pd_msg inner = {0};
	struct discovery_sink sink;
	int err = PD_OK;

	if (c->registry_url) {
		sink = sink_of(s, SOURCE_REGISTRY);
		err = registry_source_start(&s->registry, c->registry_url, s->cfg->pd,
					    c->registry_interval_s, &sink, msg);
	}
	if (!err && c->kubernetes) {
		sink = sink_of(s, SOURCE_KUBERNETES);
		err = kube_source_start(&s->pods, &c->pods, &sink, &inner);
		if (err)
			(void)pd_fail(msg, err, "--service-discovery: %.450s", inner.text);
	}
	if (!err && c->ndns > 0) {
		sink = sink_of(s, SOURCE_DNS);
		err = dns_source_start(&s->dns, c->dns, c->ndns, c->dns_server, c->dns_interval_s,
				       &sink, msg);
	}
	return !err && c->register_address ? start_registrations(s, c, msg) : err;
}

int sources_start(struct sources **out, const struct router_config *c, struct fleet_holder *fleet,
		  struct changes *changes, struct health *health, struct pd_msg *msg)
{
	struct sources *s;
	int err;

	*out = NULL;
	if (!c->sources)
		return PD_OK;
	s = calloc(1, sizeof(*s));
	if (!s)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	s->cfg = c;
	s->fleet = fleet;
	s->changes = changes;
	s->health = health;
	err = start_all(s, c->sources, msg);
	if (err) {
		sources_stop(s);
		return err;
	}
	*out = s;
	return PD_OK;
}

void sources_stop(struct sources *s)
{
	if (!s)
		return;
	register_stop(s->registered);
	registry_source_stop(s->registry);
	kube_source_stop(s->pods);
	dns_source_stop(s->dns);
	free(s);
}

void sources_stats(struct sources *s, struct prom_page *p)
{
	for (int k = 0; s && k < WORKER_SOURCES; k++) {
		struct source *one = &s->source[k];

		p->source[k] = (struct prom_source){.on = one->on,
						    .workers = atomic_load(&one->workers),
						    .failures = atomic_load(&one->stats.failures),
						    .heard = atomic_load(&one->stats.heard)};
	}
}
