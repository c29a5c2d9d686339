#include "lib/router/config/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/clock.h"
#include "lib/net/net.h"
#include "lib/pd/connector.h"

static const char *const default_id_headers[] = {"x-request-id", "x-correlation-id", "x-trace-id",
						 "request-id"};

void router_config_default(struct router_config *c)
{
	*c = (struct router_config){
		.host = "127.0.0.1",
		.port = 30000,
		.listen_fd = -1,
		.metrics_host = "127.0.0.1",
		.metrics_port = 29000,
		.startup_timeout = 600 * NS_PER_S,
		.dp_size = 1,
		.request_id_headers = default_id_headers,
		.request_id_headers_n = 4,
		.max_body = 512u << 20,
		.max_concurrent = 32768,
		.queue_size = 100,
		.queue_timeout = 60 * NS_PER_S,
		.connect_timeout = 10 * NS_PER_S,
		.first_byte_timeout = 600 * NS_PER_S,
		.inter_token_timeout = 120 * NS_PER_S,
		.request_timeout = 1800 * NS_PER_S,
		.write_stall_timeout = 30 * NS_PER_S,
		.head_timeout = 10 * NS_PER_S,
		.client_idle_timeout = 75 * NS_PER_S,
		.pool_idle_timeout = 2 * NS_PER_S,
		.pool_size = 500,
		.worker_headers = true,
		.remember_ids = 65536,
		.retry_max = 5,
		.retry_initial = 50 * NS_PER_MS,
		.retry_cap = 30 * NS_PER_S,
		.retry_multiplier = 1.5,
		.retry_jitter = 0.2,
		.retry_budget = 0.5,
		.log_requests = true,
		.scrape_host = "127.0.0.1",
		.scrape_port = -1,
		.cb_failures = 10,
		.cb_successes = 3,
		.cb_timeout = 60 * NS_PER_S,
		.panic_threshold = 50,
		.health_failures = 3,
		.health_successes = 2,
		.health_timeout = 5 * NS_PER_S,
		.health_interval = 60 * NS_PER_S,
		.health_endpoint = "/health",
		.key_timeout = 5 * NS_PER_S,
		.key_valid_ttl = 300 * NS_PER_S,
		.key_invalid_ttl = 60 * NS_PER_S,
		.key_cache = 65536,
		.pd_lease = 30 * NS_PER_S,
		.connector = pd_connectors[0],
		.drain_timeout = 30 * NS_PER_S,
		.batch_threads = true,
		.scrape_interval = 100 * NS_PER_MS,
		.scrape_stale = 2 * NS_PER_S,
		.version = "",
	};
	route_keyspec_default(&c->keys);
	for (int r = 0; r < ROLES; r++)
		c->fleet.policy[r] = route_spec_of(route_policies[0]);
}

const char *worker_source_name(enum worker_source s)
{
	static const char *const names[WORKER_SOURCES] = {"configured", "added",      "registered",
							  "registry",	"kubernetes", "dns"};

	return names[s];
}

const char *worker_role_name(enum worker_role r)
{
	static const char *const names[] = {"regular", "prefill", "decode"};

	return names[r];
}

/* The name before "=" when that comes before "://". */
static const char *split_name(const char *text, char *name, size_t cap)
{
	const char *eq = strchr(text, '='), *scheme = strstr(text, "://");

	name[0] = '\0';
	if (!eq || (scheme && scheme < eq) || (size_t)(eq - text) >= cap)
		return text;
	memcpy(name, text, (size_t)(eq - text));
	name[eq - text] = '\0';
	return eq + 1;
}

static int add_one(struct worker_list *l, enum worker_role role, const char *name, const char *url)
{
	struct worker_spec *spec = realloc(l->spec, (l->n + 1) * sizeof(*spec));

	if (!spec)
		return PD_ENOMEM;
	l->spec = spec;
	spec[l->n] = (struct worker_spec){.role = role, .name = strdup(name), .url = strdup(url)};
	if (!spec[l->n].name || !spec[l->n].url) {
		free(spec[l->n].name);
		free(spec[l->n].url);
		return PD_ENOMEM;
	}
	l->n++;
	return role == ROLE_REGULAR
		       ? PD_OK
		       : route_labels_set(&spec[l->n - 1].labels, SPAN(ROUTE_LABEL_ROLE),
					  span_of(worker_role_name(role)));
}

int worker_list_copy(struct worker_list *l, const struct worker_spec *from)
{
	if (add_one(l, from->role, from->name, from->url))
		return PD_ENOMEM;
	l->spec[l->n - 1].bootstrap = from->bootstrap;
	l->spec[l->n - 1].source = from->source;
	route_labels_release(&l->spec[l->n - 1].labels);
	return route_labels_copy(&l->spec[l->n - 1].labels, &from->labels);
}

int worker_list_add(struct worker_list *l, enum worker_role role, const char *text, unsigned dp,
		    struct pd_msg *msg)
{
	char name[256], ranked[640], ranked_url[NET_URL_TEXT], one[NET_URL_TEXT];
	const char *url = split_name(text, name, sizeof(name));
	struct net_url parsed;
	int err = net_url_parse(&parsed, url, msg);

	if (err)
		return err;
	if (!name[0] && url != text)
		return pd_fail(msg, PD_EINVAL,
			       "worker '%s': found no name before '=', expected [NAME=]URL", text);
	if (strlen(url) > 600)
		return pd_fail(
			msg, PD_EINVAL,
			"worker '%.100s...': found a URL of %zu characters, expected at most 600",
			text, strlen(url));
	if (l->n + dp > ROUTE_WORKERS_MAX)
		return pd_fail(msg, PD_EINVAL, "worker '%s': found more than %d workers", text,
			       ROUTE_WORKERS_MAX);
	/* The URL in one spelling, so that two of one server are found; a name that is made of it
	 * is kept as it was written, because it says where keys go. */
	net_url_text(&parsed, one);
	if (dp <= 1 || parsed.rank >= 0)
		return add_one(l, role, name[0] ? name : url, one)
			       ? pd_fail(msg, PD_ENOMEM, "out of memory")
			       : PD_OK;
	for (unsigned r = 0; !err && r < dp; r++) {
		parsed.rank = (int)r;
		net_url_text(&parsed, ranked_url);
		(void)snprintf(ranked, sizeof(ranked), "%s@%u", name[0] ? name : url, r);
		err = add_one(l, role, ranked, ranked_url);
	}
	return err ? pd_fail(msg, err, "out of memory") : PD_OK;
}

int worker_list_check(const struct worker_list *l, size_t from, struct pd_msg *msg)
{
	for (size_t a = from; a < l->n; a++)
		for (size_t b = 0; b < a; b++) {
			const struct worker_spec *new = &l->spec[a], *old = &l->spec[b];
			bool name = strcmp(new->name, old->name) == 0;

			if (new->role != old->role || (!name && strcmp(new->url, old->url) != 0))
				continue;
			if (name)
				return pd_fail(msg, PD_EINVAL, "duplicate name '%.200s'",
					       new->name);
			return pd_fail(
				msg, PD_EINVAL,
				"found '%.150s' and '%.150s' for %.200s: a worker has one name",
				old->name, new->name, new->url);
		}
	return PD_OK;
}

void worker_list_release(struct worker_list *l)
{
	for (size_t i = 0; i < l->n; i++) {
		free(l->spec[i].name);
		free(l->spec[i].url);
		route_labels_release(&l->spec[i].labels);
	}
	free(l->spec);
	*l = (struct worker_list){0};
}
