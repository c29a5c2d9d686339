/*
 * What a router is told: every limit and duration in one plain structure, with vllm-router's
 * defaults where vllm-router has the option. Durations are nanoseconds. The texts are borrowed and
 * must outlive the router.
 */
#ifndef PD_ROUTER_CONFIG_H
#define PD_ROUTER_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/log.h"
#include "lib/net/tls.h"
#include "lib/route/key/key_extract.h"
#include "lib/route/policy/decider.h"
#include "lib/route/policy/policies.h"

enum worker_role { ROLE_REGULAR, ROLE_PREFILL, ROLE_DECODE, ROLES };

/* Who names a worker. Each source but the first replaces its own workers only, and no workers file
 * takes them away. */
enum worker_source {
	SOURCE_LISTED,	   /* flags or the workers file */
	SOURCE_HAND,	   /* the admin port */
	SOURCE_REGISTERED, /* --vllm-discovery-address */
	SOURCE_REGISTRY,   /* --registry-url */
	SOURCE_KUBERNETES, /* --service-discovery */
	SOURCE_DNS,	   /* --dns-workers and its like */
	WORKER_SOURCES
};

/* One worker as configured. */
struct worker_spec {
	enum worker_role role;
	char *name;    /* owned */
	char *url;     /* owned; with "@rank" when it has one */
	int bootstrap; /* port of a prefill worker's bootstrap server; 0: none. NIXL has no use for
			  it */
	enum worker_source source;
	bool dismissed;		    /* what a source has, and an operator removed */
	struct route_labels labels; /* owned; a role of prefill/decode mode is one of them */
};

struct worker_list {
	struct worker_spec *spec; /* owned */
	size_t n;
};

/* What a reload can change. */
struct fleet_config {
	struct worker_list workers;
	struct route_spec policy[ROLES];
};

struct pd_connector;
struct epp_config;
struct sources_config;

enum pd_fallback { PD_FALLBACK_DECODE_ONLY, PD_FALLBACK_FAIL };
enum keyless { KEYLESS_LEAST_REQUEST, KEYLESS_PREFIX };

/* What becomes of a client's X-Forwarded-For, and of Forwarded and its kind. */
enum forwarded {
	FORWARDED_PASS,
	FORWARDED_APPEND, /* the client's address behind what X-Forwarded-For says */
	FORWARDED_SET,	  /* all of them go, X-Forwarded-For is the client's address */
	FORWARDED_DROP
};

struct router_config {
	const char *host;
	uint16_t port;
	int listen_fd; /* -1, or inherited */
	const char *metrics_host;
	int metrics_port;		 /* -1: none */
	const char *admin_keys_file;	 /* NULL: none; read again on reload */
	const char *scrape_host;	 /* a port for metrics and probes only */
	int scrape_port;		 /* -1: none */
	bool admin_on_data_port;	 /* workers are added, removed and drained there too */
	bool compat;			 /* admin routes answer with vllm-router's statuses */
	const char *const *cors_origins; /* as cors_init has them */
	size_t cors_origins_n;
	int64_t startup_timeout; /* longest wait for the health of an added worker */
	bool pd;
	struct fleet_config fleet;
	const struct sources_config
		*sources;	  /* where workers come from besides; NULL: from nowhere */
	const char *workers_file; /* NULL: none; read again on reload */
	unsigned dp_size;

	struct route_keyspec keys;
	enum keyless keyless;
	struct route_settings settings; /* parameters of policies that flags gave */
	bool has_shadow;		/* `shadow` decides beside the policies, without effect */
	struct route_spec shadow[ROLES];
	uint64_t seed; /* of random choices; 0: from the system */
	const char *const *request_id_headers;
	size_t request_id_headers_n;

	size_t max_body;
	unsigned max_connections;
	unsigned max_per_address; /* connections; 0: no limit */
	unsigned max_concurrent;
	unsigned queue_size;
	int64_t queue_timeout;
	double rate; /* requests that begin per second; 0: no limit */
	const char *priority_header, *fairness_header; /* of who waits; NULL: none */
	unsigned worker_cap;

	int64_t connect_timeout;
	int64_t first_byte_timeout;
	int64_t inter_token_timeout;
	int64_t request_timeout;
	int64_t write_stall_timeout;
	int64_t head_timeout;
	int64_t client_idle_timeout;
	int64_t pool_idle_timeout;
	unsigned pool_size;

	unsigned retry_max; /* attempts in all */
	int64_t retry_initial, retry_cap;
	double retry_multiplier, retry_jitter;
	double retry_budget; /* retries per request */
	bool retries_off;

	unsigned cb_failures, cb_successes;
	int64_t cb_timeout;
	unsigned panic_threshold; /* percent of a pool's reachable workers; 0: no panic */
	bool cb_off;

	unsigned health_failures, health_successes;
	int64_t health_timeout, health_interval;
	const char *health_endpoint;
	int64_t models_interval;	  /* of /v1/models of workers; 0: not asked */
	const char *const *model_aliases; /* "NAME=MODEL" */
	size_t model_aliases_n;
	int64_t scrape_interval, scrape_stale; /* of /metrics of workers */
	bool scrape_always;		       /* whatever the policies look at: the gate does */
	/* KV events of workers: "URL=ENDPOINT[,...]", as kvfollow_check takes them. */
	const char *const *kv_sources, *const *kv_replays;
	size_t kv_sources_n, kv_replays_n;
	uint32_t kv_block_tokens; /* 0: as the first engine says */

	const char *api_key;	      /* sent to workers; NULL: none */
	const char *client_keys_file; /* NULL: none; read again on reload */
	const char *const *key_urls;
	size_t key_urls_n;
	int64_t key_timeout, key_valid_ttl, key_invalid_ttl;
	unsigned key_cache;
	enum forwarded forwarded;
	bool forward_credentials; /* workers see a checked client's key */

	struct tls_context *tls;	/* of the listener; borrowed; NULL: plain HTTP */
	struct tls_context *worker_tls; /* to https:// workers; borrowed */
	bool worker_tls_insecure;	/* their certificates are not looked at */

	enum pd_fallback pd_fallback;
	struct route_decider_spec decider; /* of P/D */
	bool prefill_first;		   /* P/D: pick the prefill worker first */
	bool prefiller_header;		   /* P/D: x-prefiller-host-port names the prefill worker */
	const char *pair_label;		   /* P/D: pairs share its value if they can; NULL: any */
	const struct pd_connector *connector; /* static */
	/* What its prefill workers are asked for, at which port when they name none; NULL: nothing.
	 */
	const char *inquiry;
	int inquiry_port;
	const struct epp_config *epp; /* borrowed; NULL: none. What the policy `scores` does */
	int64_t pd_lease;
	bool allow_ec_params; /* clients may name the host that an engine fetches encodings from */
	int64_t drain_delay, drain_timeout;
	bool io_threads;  /* a kernel thread per request in work instead of event loops */
	unsigned threads; /* event loops, 0: one for each processor; or most threads */
	bool batch_threads;
	bool half_close_ok;
	bool expose_workers, worker_headers; /* to clients: in bodies and errors, in X-Worker... */
	size_t remember_ids;		     /* that one worker knows; 0: none */
	bool generate_traceparent;	     /* for requests that bring none */
	const char *otlp_url;		     /* of the collector, complete; NULL: no spans */
	double otlp_ratio;		     /* of requests without a traceparent */
	const char *version;		     /* of the program, for the metrics page */
	struct log *log;
	struct log *access_log; /* NULL: none */
	bool access_json;
	bool log_requests; /* a line in `log` for each request */
};

void router_config_default(struct router_config *c);

/* Adds "[name=]URL"; with dp > 1 one worker per rank. PD_EINVAL names what is wrong. */
int worker_list_add(struct worker_list *l, enum worker_role role, const char *text, unsigned dp,
		    struct pd_msg *msg) PD_MUST;
/* Appends a copy of one entry. */
int worker_list_copy(struct worker_list *l, const struct worker_spec *from) PD_MUST;
/* Has one of the workers from place `from` on the name or the URL of another of its role? PD_EINVAL
 * names both. */
int worker_list_check(const struct worker_list *l, size_t from, struct pd_msg *msg) PD_MUST;
void worker_list_release(struct worker_list *l);

const char *worker_role_name(enum worker_role r);
/* "configured", "added", "registered", "registry", "kubernetes", "dns" */
const char *worker_source_name(enum worker_source s);

#endif
