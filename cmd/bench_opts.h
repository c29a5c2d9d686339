/* The options of pdctl bench: their table, and what they must agree on. */
#ifndef PD_CMD_BENCH_OPTS_H
#define PD_CMD_BENCH_OPTS_H

#include "cmd/store_opts.h"
#include "lib/base/cli.h"
#include "lib/load/load.h"
#include "lib/load/loadplan.h"
#include "lib/results/result.h"

struct bench_options {
	/* target */
	const char *base_url, *unix_socket, *transport, *proxy, *ca_file, *model, *endpoint,
		*api_key;
	bool insecure, http2;
	struct opt_list headers, ab;
	double timeout_s;
	/* load */
	const char *dataset, *extra_body, *salt;
	int64_t capture_run, num_prompts, input_len, output_len;
	double scale, temperature;
	bool stream, continuous_usage, ignore_eos, calibrate, token_ids, oversample;
	/* sessions and keys */
	int64_t sessions, turns, concurrent_sessions;
	const char *session_pattern, *session_field, *affinity, *echo, *prompt_cache_key;
	bool carry;
	/* when */
	double request_rate, burstiness, speedup, session_rate, duration_s;
	struct opt_list phases;
	bool timestamps, spread;
	int64_t max_concurrency, warmups, seed, repeat;
	double warmup_s, cooldown_s;
	bool sweep;
	const char *shard;
	/* results */
	const char *label, *output, *html, *bars, *metric_list, *percentile_list, *max_failures,
		*asserts;
	bool detailed, json, verify, vllm_markdown;
	struct store_opts store;
	struct opt_list goodput, metadata;
};

extern struct bench_options bench_options;
extern const struct opt_command bench_command;

/* What stands when nothing is given. */
void bench_options_defaults(void);
void bench_options_release(void);

/* From the options to what the engine and the result need. Everything here borrows from the
 * options, but for what it says is owned. */
struct bench_setup {
	struct load_options load;
	struct load_plan_options plan;
	struct result_run run;
	struct arrivals_phase phase[ARRIVALS_PHASES_MAX];
	const char *key_path[BODY_KEY_PATHS_MAX];
	const char *key_header[BODY_KEY_PATHS_MAX];
	const char *echo[16];
	char *fields, *echoes; /* owned copies that the three lists above point into */
	int64_t shard, shards; /* 1 of 1 */
	double max_failures;   /* a share when below 1 and given with %, else a count */
	bool max_failures_share;
};

/* PD_EINVAL with a message that names the flag. */
int bench_setup_make(struct bench_setup *s, int argc, char **argv, struct pd_msg *msg) PD_MUST;
void bench_setup_release(struct bench_setup *s);

#endif
