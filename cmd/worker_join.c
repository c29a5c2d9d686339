#include "cmd/worker_join.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/discovery/announce.h"
#include "lib/discovery/enlist.h"
#include "lib/discovery/register.h"
#include "lib/net/net.h"
#include "sim/worker/played.h"

static struct opt_list to, metadata;
static const char *registry_url, *registry_name;
static double heartbeat_s;
static int64_t health_port;
static struct announce *announce;
static struct enlist *enlist;
static bool curl_ready;

const struct opt worker_join_rows[] = {
	{OPT_LIST, "register", &to, "HOST:PORT",
	 "register at routers that listen there (--vllm-discovery-address) every 3 s; needs a role",
	 NULL, 0, 0, NULL},
	{OPT_TEXT, "registry-url", &registry_url, "URL",
	 "register in this service registry, with heartbeats, and leave it at the end", NULL, 0, 0,
	 NULL},
	{OPT_TEXT, "registry-name", &registry_name, "NAME",
	 "names there: NAME, with the health pages, and NAME-server (default: pdctl-HOST-PORT)",
	 NULL, 0, 0, NULL},
	{OPT_LIST, "registry-metadata", &metadata, "KEY=VALUE",
	 "further metadata there: cache_type, weight, labels", NULL, 0, 0, NULL},
	{OPT_REAL, "registry-heartbeat", &heartbeat_s, "S", "between two heartbeats (default: 30)",
	 NULL, 0.05, 3600, NULL},
	{OPT_INT, "health-port", &health_port, "N",
	 "/health, /models and /info as a babysitter of InfiniLM-SVC has them; 0 takes a free port "
	 "(default: with --registry-url the port above --port)",
	 NULL, 0, 65535, NULL},
	{.type = OPT_END},
};

void worker_join_defaults(void)
{
	to = metadata = (struct opt_list){0};
	registry_url = registry_name = NULL;
	heartbeat_s = ENLIST_HEARTBEAT_S;
	health_port = -1;
}

/* vLLM's own way to name a router. */
static bool has_proxy(const struct worker_vllm_config *v)
{
	return v->proxy_ip && v->proxy_ip[0] && v->proxy_port > 0;
}

static void proxy_address(const struct worker_vllm_config *v, char out[300])
{
	bool any = strcmp(v->proxy_ip, "0.0.0.0") == 0;

	(void)snprintf(out, 300, "%.200s:%d", any ? "127.0.0.1" : v->proxy_ip, v->proxy_port);
}

int worker_join_check(struct worker_config *cfg, const struct worker_vllm_config *v,
		      struct pd_msg *msg)
{
	bool registers = to.n > 0 || has_proxy(v);
	char proxy[300];
	struct pd_msg why = {0};
	struct net_url url;

	for (size_t i = 0; i < to.n; i++)
		if (register_check(to.items[i], &why))
			return pd_fail(msg, PD_EINVAL, "--register: %.400s", why.text);
	if (to.n + has_proxy(v) > ANNOUNCE_TO_MAX)
		return pd_fail(msg, PD_EINVAL, "--register: found %zu routers, expected at most %d",
			       to.n + has_proxy(v), ANNOUNCE_TO_MAX);
	if (has_proxy(v)) {
		proxy_address(v, proxy);
		if (register_check(proxy, &why))
			return pd_fail(msg, PD_EINVAL, "--kv-transfer-config: proxy_ip: %.400s",
				       why.text);
	}
	if (registers && cfg->role == WORKER_BOTH)
		return pd_fail(msg, PD_EINVAL,
			       "%s: found a worker for both roles, expected --role prefill or "
			       "decode (kv_producer or kv_consumer)",
			       to.n ? "--register" : "--kv-transfer-config: proxy_ip");
	if (!registry_url && (registry_name || metadata.n > 0))
		return pd_fail(msg, PD_EINVAL, "%s requires --registry-url URL",
			       registry_name ? "--registry-name" : "--registry-metadata");
	if (registry_url && net_url_parse(&url, registry_url, &why))
		return pd_fail(msg, PD_EINVAL, "--registry-url: %.400s", why.text);
	if (registry_url && health_port < 0 && cfg->port == UINT16_MAX)
		return pd_fail(msg, PD_EINVAL,
			       "--registry-url: there is no port above 65535, expected "
			       "--health-port N");
	if (registry_name && enlist_check_name(registry_name, &why))
		return pd_fail(msg, PD_EINVAL, "--registry-name: %.400s", why.text);
	for (size_t i = 0; i < metadata.n; i++)
		if (enlist_check_metadata(metadata.items[i], &why))
			return pd_fail(msg, PD_EINVAL, "--registry-metadata: %.400s", why.text);
	cfg->health = registry_url || health_port >= 0;
	cfg->health_port = (uint16_t)(health_port >= 0 ? health_port
				      : cfg->port      ? cfg->port + 1
						       : 0);
	cfg->name = registry_name;
	return PD_OK;
}

/* What others reach it by. */
static const char *host_of(const struct worker_config *cfg)
{
	bool any = strcmp(cfg->host, "0.0.0.0") == 0 || strcmp(cfg->host, "::") == 0;

	return cfg->kv_host ? cfg->kv_host : any ? "127.0.0.1" : cfg->host;
}

static void address(const char *host, unsigned port, char out[300])
{
	bool v6 = strchr(host, ':') != NULL;

	(void)snprintf(out, 300, "%s%s%s:%u", v6 ? "[" : "", host, v6 ? "]" : "", port);
}

static int start_announce(struct worker *w, const struct worker_config *cfg,
			  const struct worker_vllm_config *v, struct pd_msg *msg)
{
	const char *host = host_of(cfg), *all[ANNOUNCE_TO_MAX];
	char http[300], zmq[400], proxy[300];
	bool moriio = strcmp(played_of(cfg)->name, "moriio") == 0;
	unsigned kv = worker_side_port(w, SIDE_KV);
	struct announce_config a = {.to = all,
				    .prefill = cfg->role == WORKER_PREFILL,
				    .http_address = http,
				    .zmq_address = zmq,
				    .tp_size = cfg->tp_size,
				    .dp_size = cfg->dp_size,
				    .transfer_mode = !moriio	      ? NULL
						     : cfg->kv_writes ? "WRITE"
								      : "READ",
				    .log = cfg->log};
	struct pd_msg why = {0};
	int err;

	for (size_t i = 0; i < to.n; i++)
		all[a.n++] = to.items[i];
	if (has_proxy(v)) {
		proxy_address(v, proxy);
		all[a.n++] = proxy;
	}
	if (a.n == 0)
		return PD_OK;
	address(host, v->http_port ? (unsigned)v->http_port : worker_port(w), http);
	if (moriio)
		(void)snprintf(zmq, sizeof(zmq), "host:%.255s,handshake:%u,notify:%u", host, kv,
			       kv);
	else
		address(host, kv, zmq);
	err = announce_start(&announce, &a, &why);
	return err ? pd_fail(msg, err, "--register: %.400s", why.text) : PD_OK;
}

static int start_enlist(struct worker *w, const struct worker_config *cfg, struct pd_msg *msg)
{
	char name[128];
	struct buf models;
	struct pd_msg why = {0};
	struct enlist_config e = {
		.registry = registry_url,
		.name = name,
		.host = host_of(cfg),
		.port = worker_port(w),
		.health_port = worker_side_port(w, SIDE_HEALTH),
		.tls = cfg->tls != NULL,
		.role = cfg->role == WORKER_PREFILL  ? "prefill"
			: cfg->role == WORKER_DECODE ? "decode"
						     : NULL,
		.type = WORKER_TYPE,
		.models = cfg->models,
		.nmodels = cfg->nmodels,
		.metadata = metadata.items,
		.nmetadata = metadata.n,
		.heartbeat_s = heartbeat_s,
		.log = cfg->log,
	};
	int err;

	if (!registry_url)
		return PD_OK;
	if (registry_name)
		(void)snprintf(name, sizeof(name), "%.120s", registry_name);
	else
		(void)snprintf(name, sizeof(name), "pdctl-%.100s-%u", e.host, e.port);
	for (char *c = name; *c && !registry_name; c++)
		*c = *c == ':' ? '-' : *c;
	buf_init(&models, 1 << 20);
	if (!curl_ready && curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		err = pd_fail(msg, PD_EIO, "cannot initialise libcurl");
	else
		err = PD_OK;
	curl_ready |= err == PD_OK;
	if (!err && worker_models(w, &models))
		err = pd_fail(msg, PD_ENOMEM, "out of memory");
	if (!err)
		err = buf_putc(&models, '\0');
	if (!err) {
		e.models_list = models.data;
		err = enlist_start(&enlist, &e, &why);
		if (err)
			(void)pd_fail(msg, err, "--registry-url: %.400s", why.text);
	}
	buf_release(&models);
	return err;
}

int worker_join_start(struct worker *w, const struct worker_config *cfg,
		      const struct worker_vllm_config *v, struct pd_msg *msg)
{
	int err = start_announce(w, cfg, v, msg);

	err = err ? err : start_enlist(w, cfg, msg);
	if (err)
		worker_join_stop();
	return err;
}

void worker_join_stop(void)
{
	announce_stop(announce);
	enlist_stop(enlist);
	announce = NULL;
	enlist = NULL;
}

void worker_join_release(void)
{
	opt_list_release(&to);
	opt_list_release(&metadata);
	if (curl_ready)
		curl_global_cleanup();
	curl_ready = false;
}
