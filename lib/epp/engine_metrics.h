/*
 * What an engine says about its load on its /metrics page, as llm-d's core-metrics-extractor reads
 * vLLM's: num_requests_waiting, num_requests_running, kv_cache_usage_perc, cache_config_info and
 * lora_requests_info. Of several series of one metric (several engines of one server) the newest
 * counts, else the first; of lora_requests_info that with the highest value. A metric that is not
 * on the page keeps its last value; one without "# TYPE NAME gauge" (or counter) reads 0. Pure.
 */
#ifndef PD_EPP_ENGINE_METRICS_H
#define PD_EPP_ENGINE_METRICS_H

#include "lib/route/pool.h"

/* Names of adapters as hashes; `n` counts those beyond the array too. */
struct engine_adapters {
	uint32_t n;
	uint64_t name[ROUTE_ADAPTERS_MAX];
};

struct engine_metrics {
	int32_t waiting, running;
	double kv_usage;
	int64_t block_size, num_blocks;
	uint32_t max_adapters;
	struct engine_adapters active, queued;
};

/* PD_EPROTO: it is no Prometheus text, *m stays. *complete: every metric but that of adapters was
 * there and could be read. */
int engine_metrics_read(struct engine_metrics *m, const char *text, size_t n,
			bool *complete) PD_MUST;
/* Writes them where policies read them, with the time. */
void engine_metrics_publish(const struct engine_metrics *m, struct route_slot *s, int64_t now);

#endif
