/* The form of a scenario file as libcyaml fills it. Optional values are pointers: NULL means "not
 * stated". Used by scenario.c only. */
#ifndef PD_SIM_SCENARIO_SCHEMA_H
#define PD_SIM_SCENARIO_SCHEMA_H

#include <stdbool.h>
#include <stdint.h>

#include <cyaml/cyaml.h>

#include "lib/route/policy/policies.h"

struct y_generate {
	uint64_t *sessions, *turns, *active, *groups;
	uint64_t *prefix_tokens, *turn_tokens, *output_tokens, *block_tokens;
	uint64_t *system_tokens, *think_ms;
	double *zipf, *session_zipf, *request_rate, *burstiness;
	bool *single_turns;
	char *assign, *key, *order;
};

struct y_gen {
	char *kind;
	uint64_t *num_prompts, *num_prefixes, *prefix_len, *suffix_len;
	uint64_t *num_conversations, *messages_per_conv, *context_len, *new_msg_len, *output_tokens;
};

struct y_workload {
	struct y_gen *gen;
	char *file, *key, *format, *timestamp_unit;
	struct y_generate *generate;
	double *request_rate, *speedup;
	bool *spread, *timestamps;
	uint64_t *requests, *block_tokens, *output_tokens;
};

struct y_engine {
	char *profile;
	double *prefill_tokens_per_s, *decode_ms_per_token, *decode_us_per_request;
	double *decode_us_per_context_token, *transfer_ms, *transfer_us_per_token;
	uint64_t *max_num_seqs, *max_num_batched_tokens, *kv_tokens;
};

/* A worker that differs from the others of its pool. */
struct y_node {
	char *worker, *host;
	struct y_engine *engine;
	double *speed;
	uint64_t *cache_blocks;
	char **labels;
	uint32_t nlabels;
};

struct y_link {
	char *kind;
	double *bandwidth_gb_s, *set_up_ms;
	uint64_t *kv_bytes_per_token;
};

struct y_routers {
	uint64_t *count;
	char *by;
};

struct y_signals {
	double *scrape_ms, *delay_ms;
};

struct y_retries {
	uint64_t *attempts;
	double *backoff_ms;
};

struct y_pool {
	struct y_engine *engine;
	struct y_node *each;
	uint32_t neach;
	uint64_t *hosts;
	uint64_t *count;
	uint64_t *counts;
	uint32_t ncounts;
	char **names;
	uint32_t nnames;
	char *pattern;
};

struct y_ring {
	char *hash;
	char *vnodes;
};

struct y_parameters {
	char *value[ROUTE_SETTINGS_MAX];
};

struct y_cache {
	uint64_t *blocks;
	uint32_t nblocks;
};

struct y_event {
	char *action, *worker, *pool;
	uint64_t *at_request, *times;
	double *at_ms, *factor, *down, *period;
};

struct y_decider {
	char *kind;
	uint64_t *non_cached_tokens, *prompt_tokens, *max_local_prefill;
	double *prefill_busy, *decode_busy;
};

struct y_goals {
	double *ttft_ms, *tpot_ms, *e2el_ms, *share;
};

struct y_scenario {
	char *name, *description, *epp_config, *objective, *base;
	uint64_t *seed, *repetitions;
	struct y_goals *goals;
	struct y_workload *workload;
	struct y_pool *workers, *prefill, *decode;
	char **policies;
	uint32_t npolicies;
	struct y_ring *ring;
	struct y_parameters *parameters;
	struct y_cache *cache;
	struct y_engine *engine;
	uint64_t *max_concurrency, *concurrent_sessions;
	bool *routing_only, *hide_keys;
	struct y_decider *decider;
	struct y_link *link, *host_link;
	struct y_routers *routers;
	struct y_signals *signals;
	struct y_retries *retries;
	struct y_event *events;
	uint32_t nevents;
	char **expect;
	uint32_t nexpect;
};

/* The tables, and a field for each parameter of a policy. */
struct scenario_schema {
	struct route_param_keys keys;
	cyaml_schema_field_t parameter[ROUTE_SETTINGS_MAX + 1];
	cyaml_schema_field_t field[40];
	cyaml_schema_value_t top;
};
void scenario_schema_make(struct scenario_schema *s);

#endif
