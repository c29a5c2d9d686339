/* Tables only. No string may be empty. Ranges are checked after loading, where the message can name
 * them. */
#include "sim/scenario/schema.h"

#include <string.h>

#include "lib/base/yamlload.h"

#define OPT	 (CYAML_FLAG_OPTIONAL | CYAML_FLAG_POINTER)
#define MUST	 CYAML_FLAG_POINTER
#define TEXT_MAX 1000

#define TEXT(S, M)	CYAML_FIELD_STRING_PTR(#M, OPT, struct S, M, 1, TEXT_MAX)
#define TEXT_MUST(S, M) CYAML_FIELD_STRING_PTR(#M, MUST, struct S, M, 1, TEXT_MAX)
#define UINT(S, M)	CYAML_FIELD_UINT_PTR(#M, OPT, struct S, M)
#define REAL(S, M)	CYAML_FIELD_FLOAT_PTR(#M, OPT, struct S, M)
#define BOOL(S, M)	CYAML_FIELD_BOOL_PTR(#M, OPT, struct S, M)
#define LIST(S, M, N, FLAGS, ENTRY, MIN, MAX)                                                      \
	CYAML_FIELD_SEQUENCE_COUNT(#M, FLAGS, struct S, M, N, ENTRY, MIN, MAX)

static const cyaml_schema_value_t text_entry = {
	CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 1, TEXT_MAX)};
static const cyaml_schema_value_t uint_entry = {CYAML_VALUE_UINT(CYAML_FLAG_DEFAULT, uint64_t)};

static const cyaml_schema_field_t generate_fields[] = {UINT(y_generate, sessions),
						       UINT(y_generate, turns),
						       UINT(y_generate, active),
						       UINT(y_generate, groups),
						       UINT(y_generate, prefix_tokens),
						       UINT(y_generate, turn_tokens),
						       UINT(y_generate, output_tokens),
						       UINT(y_generate, block_tokens),
						       REAL(y_generate, zipf),
						       REAL(y_generate, request_rate),
						       UINT(y_generate, system_tokens),
						       UINT(y_generate, think_ms),
						       REAL(y_generate, session_zipf),
						       REAL(y_generate, burstiness),
						       BOOL(y_generate, single_turns),
						       TEXT(y_generate, assign),
						       TEXT(y_generate, key),
						       TEXT(y_generate, order),
						       CYAML_FIELD_END};

static const cyaml_schema_field_t gen_fields[] = {
	TEXT_MUST(y_gen, kind),		UINT(y_gen, num_prompts), UINT(y_gen, num_prefixes),
	UINT(y_gen, prefix_len),	UINT(y_gen, suffix_len),  UINT(y_gen, num_conversations),
	UINT(y_gen, messages_per_conv), UINT(y_gen, context_len), UINT(y_gen, new_msg_len),
	UINT(y_gen, output_tokens),	CYAML_FIELD_END};

static const cyaml_schema_field_t workload_fields[] = {
	CYAML_FIELD_MAPPING_PTR("gen", OPT, struct y_workload, gen, gen_fields),
	TEXT(y_workload, file),
	TEXT(y_workload, key),
	TEXT(y_workload, format),
	TEXT(y_workload, timestamp_unit),
	BOOL(y_workload, timestamps),
	CYAML_FIELD_MAPPING_PTR("generate", OPT, struct y_workload, generate, generate_fields),
	REAL(y_workload, request_rate),
	REAL(y_workload, speedup),
	BOOL(y_workload, spread),
	UINT(y_workload, requests),
	UINT(y_workload, block_tokens),
	UINT(y_workload, output_tokens),
	CYAML_FIELD_END};

static const cyaml_schema_field_t engine_fields[] = {TEXT(y_engine, profile),
						     REAL(y_engine, prefill_tokens_per_s),
						     REAL(y_engine, decode_ms_per_token),
						     REAL(y_engine, decode_us_per_request),
						     REAL(y_engine, decode_us_per_context_token),
						     REAL(y_engine, transfer_ms),
						     REAL(y_engine, transfer_us_per_token),
						     UINT(y_engine, max_num_seqs),
						     UINT(y_engine, max_num_batched_tokens),
						     UINT(y_engine, kv_tokens),
						     CYAML_FIELD_END};

static const cyaml_schema_field_t node_fields[] = {
	TEXT_MUST(y_node, worker),
	TEXT(y_node, host),
	CYAML_FIELD_MAPPING_PTR("engine", OPT, struct y_node, engine, engine_fields),
	REAL(y_node, speed),
	UINT(y_node, cache_blocks),
	LIST(y_node, labels, nlabels, OPT, &text_entry, 0, 32),
	CYAML_FIELD_END};

static const cyaml_schema_value_t node_entry = {
	CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct y_node, node_fields)};

static const cyaml_schema_field_t link_fields[] = {
	TEXT(y_link, kind), REAL(y_link, bandwidth_gb_s), REAL(y_link, set_up_ms),
	UINT(y_link, kv_bytes_per_token), CYAML_FIELD_END};

static const cyaml_schema_field_t routers_fields[] = {UINT(y_routers, count), TEXT(y_routers, by),
						      CYAML_FIELD_END};

static const cyaml_schema_field_t signals_fields[] = {REAL(y_signals, scrape_ms),
						      REAL(y_signals, delay_ms), CYAML_FIELD_END};

static const cyaml_schema_field_t retries_fields[] = {UINT(y_retries, attempts),
						      REAL(y_retries, backoff_ms), CYAML_FIELD_END};

static const cyaml_schema_field_t pool_fields[] = {
	UINT(y_pool, count),
	LIST(y_pool, counts, ncounts, OPT, &uint_entry, 1, 64),
	LIST(y_pool, names, nnames, OPT, &text_entry, 1, 1024),
	TEXT(y_pool, pattern),
	CYAML_FIELD_MAPPING_PTR("engine", OPT, struct y_pool, engine, engine_fields),
	LIST(y_pool, each, neach, OPT, &node_entry, 0, 1024),
	UINT(y_pool, hosts),
	CYAML_FIELD_END};

static const cyaml_schema_field_t ring_fields[] = {TEXT(y_ring, hash), TEXT(y_ring, vnodes),
						   CYAML_FIELD_END};

/* Stands for those that scenario_schema_make fills in. */
static const cyaml_schema_field_t no_fields[] = {CYAML_FIELD_END};

static const cyaml_schema_field_t cache_fields[] = {
	LIST(y_cache, blocks, nblocks, MUST, &uint_entry, 1, 64), CYAML_FIELD_END};

static const cyaml_schema_field_t event_fields[] = {
	TEXT_MUST(y_event, action), TEXT_MUST(y_event, worker),
	TEXT(y_event, pool),	    UINT(y_event, at_request),
	REAL(y_event, at_ms),	    REAL(y_event, factor),
	UINT(y_event, times),	    REAL(y_event, down),
	REAL(y_event, period),	    CYAML_FIELD_END};

static const cyaml_schema_value_t event_entry = {
	CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct y_event, event_fields)};

static const cyaml_schema_field_t decider_fields[] = {TEXT_MUST(y_decider, kind),
						      UINT(y_decider, non_cached_tokens),
						      UINT(y_decider, prompt_tokens),
						      UINT(y_decider, max_local_prefill),
						      REAL(y_decider, prefill_busy),
						      REAL(y_decider, decode_busy),
						      CYAML_FIELD_END};

static const cyaml_schema_field_t goals_fields[] = {REAL(y_goals, ttft_ms), REAL(y_goals, tpot_ms),
						    REAL(y_goals, e2el_ms), REAL(y_goals, share),
						    CYAML_FIELD_END};

static const cyaml_schema_field_t scenario_fields[] = {
	TEXT_MUST(y_scenario, name),
	TEXT(y_scenario, description),
	TEXT(y_scenario, epp_config),
	TEXT(y_scenario, objective),
	TEXT(y_scenario, base),
	UINT(y_scenario, seed),
	UINT(y_scenario, repetitions),
	CYAML_FIELD_MAPPING_PTR("goals", OPT, struct y_scenario, goals, goals_fields),
	CYAML_FIELD_MAPPING_PTR("workload", MUST, struct y_scenario, workload, workload_fields),
	CYAML_FIELD_MAPPING_PTR("workers", OPT, struct y_scenario, workers, pool_fields),
	CYAML_FIELD_MAPPING_PTR("prefill", OPT, struct y_scenario, prefill, pool_fields),
	CYAML_FIELD_MAPPING_PTR("decode", OPT, struct y_scenario, decode, pool_fields),
	LIST(y_scenario, policies, npolicies, MUST, &text_entry, 1, 64),
	CYAML_FIELD_MAPPING_PTR("ring", OPT, struct y_scenario, ring, ring_fields),
	CYAML_FIELD_MAPPING_PTR("parameters", OPT, struct y_scenario, parameters, no_fields),
	CYAML_FIELD_MAPPING_PTR("cache", OPT, struct y_scenario, cache, cache_fields),
	CYAML_FIELD_MAPPING_PTR("engine", OPT, struct y_scenario, engine, engine_fields),
	UINT(y_scenario, max_concurrency),
	UINT(y_scenario, concurrent_sessions),
	BOOL(y_scenario, routing_only),
	BOOL(y_scenario, hide_keys),
	CYAML_FIELD_MAPPING_PTR("decider", OPT, struct y_scenario, decider, decider_fields),
	CYAML_FIELD_MAPPING_PTR("link", OPT, struct y_scenario, link, link_fields),
	CYAML_FIELD_MAPPING_PTR("host_link", OPT, struct y_scenario, host_link, link_fields),
	CYAML_FIELD_MAPPING_PTR("routers", OPT, struct y_scenario, routers, routers_fields),
	CYAML_FIELD_MAPPING_PTR("signals", OPT, struct y_scenario, signals, signals_fields),
	CYAML_FIELD_MAPPING_PTR("retries", OPT, struct y_scenario, retries, retries_fields),
	LIST(y_scenario, events, nevents, OPT, &event_entry, 0, 256),
	LIST(y_scenario, expect, nexpect, OPT, &text_entry, 0, 256),
	CYAML_FIELD_IGNORE("sweep", CYAML_FLAG_OPTIONAL), /* see sweep.h */
	CYAML_FIELD_END};

void scenario_schema_make(struct scenario_schema *s)
{
	_Static_assert(sizeof(scenario_fields) <= sizeof(s->field), "room for the fields");
	route_param_keys(&s->keys);
	yamlload_text_fields(s->parameter, s->keys.key, s->keys.n,
			     offsetof(struct y_parameters, value));
	memcpy(s->field, scenario_fields, sizeof(scenario_fields));
	for (cyaml_schema_field_t *f = s->field; f->key; f++)
		if (f->value.type == CYAML_MAPPING && f->value.mapping.fields == no_fields)
			f->value.mapping.fields = s->parameter;
	s->top = (cyaml_schema_value_t){
		CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct y_scenario, s->field)};
}
