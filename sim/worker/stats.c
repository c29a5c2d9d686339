/*
 * Names, labels and bucket limits are vLLM's, so that dashboards and autoscalers for vLLM work with
 * this worker.
 */
#include "sim/worker/stats.h"

#include <string.h>

#include "lib/base/clock.h"

/* vLLM's bucket limits, in seconds. */
static const double ttft_bounds[] = {0.001, 0.005, 0.01, 0.02,	0.04,  0.06,  0.08, 0.1,
				     0.25,  0.5,   0.75, 1.0,	2.5,   5.0,   7.5,  10.0,
				     20.0,  40.0,  80.0, 160.0, 640.0, 2560.0};
static const double e2e_bounds[] = {0.3,  0.5,	 0.8,	1.0,   1.5,   2.0,    2.5,
				    5.0,  10.0,	 15.0,	20.0,  30.0,  40.0,   50.0,
				    60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0};

static const char *const finish_names[FINISH_COUNT] = {"stop", "length", "abort"};
static const char *const leg_names[LEG_COUNT] = {"plain", "prefill", "decode"};
static const char *const mistake_names[MISTAKE_COUNT] = {
#define X(name) #name,
	WORKER_MISTAKES(X)
#undef X
};

const char *stats_mistake_name(enum worker_mistake kind)
{
	return mistake_names[kind];
}

const char *stats_leg_name(enum worker_leg leg)
{
	return leg_names[leg];
}

static void histogram_init(struct worker_histogram *h, const double *bound, size_t n)
{
	h->bound = bound;
	h->n = n;
}

void stats_init(struct worker_stats *s)
{
	memset(s, 0, sizeof(*s));
	histogram_init(&s->ttft, ttft_bounds, sizeof(ttft_bounds) / sizeof(ttft_bounds[0]));
	histogram_init(&s->e2e, e2e_bounds, sizeof(e2e_bounds) / sizeof(e2e_bounds[0]));
	histogram_init(&s->queue, e2e_bounds, sizeof(e2e_bounds) / sizeof(e2e_bounds[0]));
	histogram_init(&s->prefill, e2e_bounds, sizeof(e2e_bounds) / sizeof(e2e_bounds[0]));
}

void stats_observe(struct worker_histogram *h, int64_t ns)
{
	double s = (double)ns / (double)NS_PER_S;
	size_t i = 0;

	while (i < h->n && s > h->bound[i])
		i++;
	(void)atomic_fetch_add(&h->bucket[i], 1);
	(void)atomic_fetch_add(&h->sum_ns, (unsigned long long)(ns > 0 ? ns : 0));
}

static void head(struct jout *o, const char *name, const char *type, const char *help)
{
	jout_fmt(o, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void labels_of(struct jout *o, const char *model, size_t engine)
{
	jout_fmt(o, "{engine=\"%zu\",model_name=", engine);
	jout_quote(o, span_of(model));
}

static void labels(struct jout *o, const char *model)
{
	labels_of(o, model, 0);
}

static void vllm(struct jout *o, const char *model, const char *name, const char *type,
		 const char *help, double value)
{
	head(o, name, type, help);
	jout_put(o, name);
	labels(o, model);
	jout_fmt(o, "} %.17g\n", value);
}

/* A gauge that each engine has. */
static void of_each(struct jout *o, const char *model, const char *name, const char *type,
		    const char *help, const struct worker_gauges *g, size_t n,
		    double (*value)(const struct worker_gauges *g))
{
	head(o, name, type, help);
	for (size_t i = 0; i < n; i++) {
		jout_put(o, name);
		labels_of(o, model, i);
		jout_fmt(o, "} %.17g\n", value(&g[i]));
	}
}

static double running(const struct worker_gauges *g)
{
	return (double)g->running;
}

static double waiting(const struct worker_gauges *g)
{
	return (double)g->waiting;
}

static double cache_usage(const struct worker_gauges *g)
{
	return g->cache_usage;
}

static double queried_tokens(const struct worker_gauges *g)
{
	return (double)g->queried_tokens;
}

static double hit_tokens(const struct worker_gauges *g)
{
	return (double)g->hit_tokens;
}

static void own(struct jout *o, const char *name, const char *type, const char *help,
		uint64_t value)
{
	head(o, name, type, help);
	jout_fmt(o, "%s %llu\n", name, (unsigned long long)value);
}

static void histogram(struct jout *o, const char *model, const char *name, const char *help,
		      struct worker_histogram *h)
{
	unsigned long long sum = 0;

	head(o, name, "histogram", help);
	for (size_t i = 0; i <= h->n; i++) {
		sum += atomic_load(&h->bucket[i]);
		jout_fmt(o, "%s_bucket", name);
		labels(o, model);
		if (i < h->n)
			jout_fmt(o, ",le=\"%g\"} %llu\n", h->bound[i], sum);
		else
			jout_fmt(o, ",le=\"+Inf\"} %llu\n", sum);
	}
	jout_fmt(o, "%s_sum", name);
	labels(o, model);
	jout_fmt(o, "} %.9f\n%s_count", (double)atomic_load(&h->sum_ns) / (double)NS_PER_S, name);
	labels(o, model);
	jout_fmt(o, "} %llu\n", sum);
}

static void by_finish(struct worker_stats *s, const char *model, struct jout *o)
{
	head(o, "vllm:request_success_total", "counter", "Requests by finish reason.");
	for (size_t i = 0; i < FINISH_COUNT; i++) {
		jout_put(o, "vllm:request_success_total");
		labels(o, model);
		jout_fmt(o, ",finished_reason=\"%s\"} %llu\n", finish_names[i],
			 (unsigned long long)atomic_load(&s->finished[i]));
	}
}

static void own_labelled(struct worker_stats *s, struct jout *o)
{
	head(o, "pdctl_worker_protocol_mistakes_total", "counter",
	     "P/D protocol mistakes seen, by kind.");
	for (size_t i = 0; i < MISTAKE_COUNT; i++)
		jout_fmt(o, "pdctl_worker_protocol_mistakes_total{kind=\"%s\"} %llu\n",
			 mistake_names[i], (unsigned long long)atomic_load(&s->mistakes[i]));
	head(o, "pdctl_worker_requests_total", "counter",
	     "Generation requests accepted, by leg: plain, prefill (do_remote_decode), decode "
	     "(do_remote_prefill).");
	for (size_t i = 0; i < LEG_COUNT; i++)
		jout_fmt(o, "pdctl_worker_requests_total{leg=\"%s\"} %llu\n", leg_names[i],
			 (unsigned long long)atomic_load(&s->legs[i]));
}

static void own_page(struct worker_stats *s, const struct worker_gauges *g, size_t n,
		     unsigned connections, struct jout *o)
{
	uint64_t all_running = 0, leases = 0, evictions = 0;
	struct kvevents_stats sent = {0};

	for (size_t i = 0; i < n; i++) {
		all_running += g[i].running;
		leases += g[i].leases;
		evictions += g[i].evictions;
		sent.events += g[i].published.events;
		sent.batches += g[i].published.batches;
		sent.dropped += g[i].published.dropped;
		sent.replays += g[i].published.replays;
	}
	own(o, "pdctl_worker_running", "gauge", "Requests in the engine, waiting ones not counted.",
	    all_running);
	own(o, "pdctl_worker_aborted_requests_total", "counter",
	    "Requests whose client disconnected before the end.", atomic_load(&s->aborted));
	own(o, "pdctl_worker_rejected_requests_total", "counter", "Requests answered with 4xx.",
	    atomic_load(&s->rejected));
	own(o, "pdctl_worker_faults_total", "counter", "Requests that failed by an injected fault.",
	    atomic_load(&s->faults));
	own(o, "pdctl_worker_kv_leases", "gauge",
	    "Prefilled requests whose blocks have not been read yet.", leases);
	own(o, "pdctl_worker_kv_reads_total", "counter",
	    "KV reads from a prefill worker that succeeded.", atomic_load(&s->kv_reads_ok));
	own(o, "pdctl_worker_kv_read_failures_total", "counter",
	    "KV reads that failed (connection, deadline).", atomic_load(&s->kv_read_failures));
	own(o, "pdctl_worker_kv_blocks_read_total", "counter", "Blocks read from prefill workers.",
	    atomic_load(&s->kv_blocks_read));
	own(o, "pdctl_worker_kv_blocks_served_total", "counter",
	    "Blocks that decode workers have read.", atomic_load(&s->kv_blocks_served));
	own(o, "pdctl_worker_kv_stored_total", "counter",
	    "Entries written to the shared directory (lmcache, example).",
	    atomic_load(&s->kv_stored));
	own(o, "pdctl_worker_kv_events_total", "counter",
	    "KV events that happened, when they are published.", sent.events);
	own(o, "pdctl_worker_kv_event_batches_total", "counter", "Batches of KV events published.",
	    sent.batches);
	own(o, "pdctl_worker_kv_event_batches_dropped_total", "counter",
	    "Batches of KV events that could not be published: a gap in the sequence.",
	    sent.dropped);
	own(o, "pdctl_worker_kv_event_replays_total", "counter",
	    "Requests for a replay of KV events that were answered.", sent.replays);
	own(o, "pdctl_worker_kv_evictions_total", "counter", "Cached blocks that were evicted.",
	    evictions);
	own(o, "pdctl_worker_connections", "gauge", "Open client connections.", connections);
}

void stats_page(struct worker_stats *s, const char *m, const struct worker_gauges *g, size_t n,
		unsigned connections, struct jout *o)
{
	of_each(o, m, "vllm:num_requests_running", "gauge", "Requests in model execution batches.",
		g, n, running);
	of_each(o, m, "vllm:num_requests_waiting", "gauge", "Requests waiting to be processed.", g,
		n, waiting);
	of_each(o, m, "vllm:kv_cache_usage_perc", "gauge",
		"KV-cache usage. 1 means 100 percent usage.", g, n, cache_usage);
	of_each(o, m, "vllm:prefix_cache_queries_total", "counter",
		"Prefix cache queries, in tokens.", g, n, queried_tokens);
	of_each(o, m, "vllm:prefix_cache_hits_total", "counter", "Prefix cache hits, in tokens.", g,
		n, hit_tokens);
	vllm(o, m, "vllm:prompt_tokens_total", "counter", "Prefill tokens processed.",
	     (double)atomic_load(&s->prompt_tokens));
	vllm(o, m, "vllm:generation_tokens_total", "counter", "Generation tokens processed.",
	     (double)atomic_load(&s->generation_tokens));
	histogram(o, m, "vllm:time_to_first_token_seconds", "Time to first token in seconds.",
		  &s->ttft);
	histogram(o, m, "vllm:e2e_request_latency_seconds",
		  "End to end request latency in seconds.", &s->e2e);
	histogram(o, m, "vllm:request_queue_time_seconds", "Time in the waiting queue in seconds.",
		  &s->queue);
	histogram(o, m, "vllm:request_prefill_time_seconds", "Time in prefill in seconds.",
		  &s->prefill);
	by_finish(s, m, o);
	own_labelled(s, o);
	own_page(s, g, n, connections, o);
}
