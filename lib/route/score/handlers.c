/*
 * Plugins that say what belongs together rather than how a worker is chosen: profile handlers,
 * producers, and the policies of flow control (lib/router/flow does those).
 */
#include "lib/route/score/handlers.h"

#include "lib/route/prefix.h"
#include "lib/route/score/stage.h"

/* -- profile handlers -- */

struct disagg_params {
	struct score_handler handler; /* first member */
	struct yamlnode profiles, deciders;
	const char *order, *decode, *prefill, *encode, *prefill_decider, *encode_decider, *decider;
};

#define FLAT(as, member)                                                                           \
	{                                                                                          \
		.type = SCORE_PARAM_TEXT, .name = as,                                              \
		.offset = offsetof(struct disagg_params, member)                                   \
	}
static const struct score_param disagg_params[] = {
	{.type = SCORE_PARAM_NODE,
	 .name = "profiles",
	 .offset = offsetof(struct disagg_params, profiles)},
	{.type = SCORE_PARAM_NODE,
	 .name = "deciders",
	 .offset = offsetof(struct disagg_params, deciders)},
	FLAT("stageOrder", order),
	FLAT("decodeProfile", decode),
	FLAT("prefillProfile", prefill),
	FLAT("encodeProfile", encode),
	FLAT("prefillDeciderPluginName", prefill_decider),
	FLAT("encodeDeciderPluginName", encode_decider),
	FLAT("deciderPluginName", decider),
	{.type = SCORE_PARAM_END},
};

static int read_names(struct score_reader *r, struct yamlnode map, const char *const *keys,
		      const char **out, size_t n)
{
	if (map.pos && yamlnode_kind(map) != YAMLPOS_MAPPING)
		return yamlnode_fail(map, r->file, r->msg, "expected a mapping of names");
	for (struct yamlnode k = yamlnode_first(map); k.pos; k = yamlnode_next(k)) {
		size_t i = 0;

		while (i < n && strcmp(keys[i], yamlnode_key(k)) != 0)
			i++;
		if (i == n)
			return yamlnode_fail_key(k, r->file, r->msg,
						 "unknown key '%.60s', expected %s, %s%s%s",
						 yamlnode_key(k), keys[0], keys[1],
						 n > 2 ? " or " : "", n > 2 ? keys[2] : "");
		if (!yamlnode_null(k) && yamlnode_string(k, &out[i]))
			return yamlnode_fail(k, r->file, r->msg, "'%s': expected a name", keys[i]);
	}
	return PD_OK;
}

static int disagg_check(struct score_reader *r, void *params)
{
	static const char *const profile_keys[] = {"prefill", "decode", "encode"};
	static const char *const decider_keys[] = {"prefill", "encode"};
	struct disagg_params *p = params;
	const char *profile[3] = {p->prefill, p->decode, p->encode};
	const char *decider[2] = {p->prefill_decider ? p->prefill_decider : p->decider,
				  p->encode_decider};
	bool flat = profile[0] || profile[1] || profile[2] || decider[0] || decider[1];
	int err;

	if (flat && (p->profiles.pos || p->deciders.pos))
		return score_wrong(r, NULL,
				   "found profiles or deciders beside the older keys, expected one "
				   "form");
	err = read_names(r, p->profiles, profile_keys, profile, 3);
	err = err ? err : read_names(r, p->deciders, decider_keys, decider, 2);
	if (err)
		return err;
	p->handler = (struct score_handler){
		.prefill = profile[0] ? profile[0] : "prefill",
		.decode = profile[1] ? profile[1] : "decode",
		.decider = decider[0],
		.prefill_first = p->order && strcmp(p->order, "prefill-first") == 0,
		.threshold = -1,
	};
	if (decider[1])
		return score_wrong(r, NULL,
				   "found a decider for encode, expected none: the router has no "
				   "encode workers");
	if (p->order && !p->handler.prefill_first && strcmp(p->order, "decode-first") != 0)
		return score_wrong(r, "stageOrder",
				   "found '%.60s', expected decode-first or prefill-first",
				   p->order);
	if (p->handler.prefill_first && decider[0])
		return score_wrong(r, "deciders",
				   "found a decider with stageOrder prefill-first, expected none");
	return PD_OK;
}

struct pd_params {
	struct score_handler handler; /* first member */
	int64_t threshold, block, port;
	const char *decode, *prefill, *prefix, *decider;
};

static const struct score_param pd_params[] = {
	{.type = SCORE_PARAM_INT,
	 .name = "threshold",
	 .offset = offsetof(struct pd_params, threshold),
	 .old = true},
	{.type = SCORE_PARAM_TEXT,
	 .name = "decodeProfile",
	 .offset = offsetof(struct pd_params, decode),
	 .text = "decode"},
	{.type = SCORE_PARAM_TEXT,
	 .name = "prefillProfile",
	 .offset = offsetof(struct pd_params, prefill),
	 .text = "prefill"},
	{.type = SCORE_PARAM_TEXT,
	 .name = "prefixPluginName",
	 .offset = offsetof(struct pd_params, prefix),
	 .without = true,
	 .old = true},
	{.type = SCORE_PARAM_INT,
	 .name = "hashBlockSize",
	 .offset = offsetof(struct pd_params, block),
	 .fallback = 64,
	 .old = true},
	{.type = SCORE_PARAM_INT,
	 .name = "primaryPort",
	 .offset = offsetof(struct pd_params, port),
	 .without = true},
	{.type = SCORE_PARAM_TEXT,
	 .name = "deciderPluginName",
	 .offset = offsetof(struct pd_params, decider)},
	{.type = SCORE_PARAM_END},
};

static int pd_check(struct score_reader *r, void *params)
{
	struct pd_params *p = params;

	if (p->threshold < 0)
		return score_wrong(r, "threshold", "found %lld, expected at least 0 bytes",
				   (long long)p->threshold);
	p->handler = (struct score_handler){.prefill = p->prefill,
					    .decode = p->decode,
					    .decider = p->decider,
					    .threshold = p->decider ? -1 : p->threshold,
					    .block = p->block};
	return p->block > 0 ? PD_OK
			    : score_wrong(r, "hashBlockSize", "found %lld, expected at least 1",
					  (long long)p->block);
}

const struct score_handler *score_handler_of(const void *params)
{
	return params;
}

/* -- producers -- */

struct prefix_params {
	struct score_prefix_producer p; /* first member */
	int64_t block;
};

static const struct score_param prefix_params[] = {
	{.type = SCORE_PARAM_INT,
	 .name = "blockSizeTokens",
	 .offset = offsetof(struct prefix_params, p.block_tokens),
	 .fallback = 16},
	{.type = SCORE_PARAM_INT,
	 .name = "blockSize",
	 .offset = offsetof(struct prefix_params, block)},
	{.type = SCORE_PARAM_INT,
	 .name = "maxPrefixTokensToMatch",
	 .offset = offsetof(struct prefix_params, p.max_tokens),
	 .fallback = 131072},
	{.type = SCORE_PARAM_INT,
	 .name = "maxPrefixBlocksToMatch",
	 .offset = offsetof(struct prefix_params, p.max_blocks),
	 .fallback = 2048},
	{.type = SCORE_PARAM_INT,
	 .name = "lruCapacityPerServer",
	 .offset = offsetof(struct prefix_params, p.capacity),
	 .fallback = 31250},
	{.type = SCORE_PARAM_BOOL,
	 .name = "autoTune",
	 .offset = offsetof(struct prefix_params, p.auto_tune),
	 .fallback = 1,
	 .without = true},
	{.type = SCORE_PARAM_END},
};

/* Blocks are at least 64 tokens, as in llm-d, and a multiple of the router's own. */
static int prefix_check(struct score_reader *r, void *params)
{
	struct prefix_params *p = params;

	if (p->block > 0)
		p->p.block_tokens = p->block;
	if (p->p.block_tokens < 1 || p->p.block_tokens > 65536)
		return score_wrong(r, "blockSizeTokens", "found %lld, expected 1 to 65536",
				   (long long)p->p.block_tokens);
	if (p->p.max_tokens < 0 || p->p.max_blocks < 0)
		return score_wrong(r, NULL, "found a negative length, expected at least 0");
	if (p->p.capacity < 1 || p->p.capacity > 1000000)
		return score_wrong(r, "lruCapacityPerServer", "found %lld, expected 1 to 1000000",
				   (long long)p->p.capacity);
	if (p->p.block_tokens < 64)
		p->p.block_tokens = 64;
	p->p.block_tokens += ROUTE_BLOCK_TOKENS - 1;
	p->p.block_tokens -= p->p.block_tokens % ROUTE_BLOCK_TOKENS;
	return PD_OK;
}

struct flight_params {
	struct score_flight flight; /* first member */
	bool sync;
};

static const struct score_param flight_params[] = {
	{.type = SCORE_PARAM_BOOL,
	 .name = "addEstimatedOutputTokens",
	 .offset = offsetof(struct flight_params, flight.output)},
	{.type = SCORE_PARAM_REAL,
	 .name = "outputRatio",
	 .offset = offsetof(struct flight_params, flight.ratio),
	 .fallback = 1.5},
	{.type = SCORE_PARAM_INT,
	 .name = "maxEstimatedOutputTokens",
	 .offset = offsetof(struct flight_params, flight.max)},
	{.type = SCORE_PARAM_BOOL,
	 .name = "syncCrossReplicaState",
	 .offset = offsetof(struct flight_params, sync),
	 .fallback = 1,
	 .without = true},
	{.type = SCORE_PARAM_END},
};

struct token_params {
	struct yamlnode estimate;
	const char *model;
};

static const struct score_param token_params[] = {
	{.type = SCORE_PARAM_NODE,
	 .name = "estimate",
	 .offset = offsetof(struct token_params, estimate)},
	{.type = SCORE_PARAM_TEXT,
	 .name = "modelName",
	 .offset = offsetof(struct token_params, model),
	 .without = true},
	{.type = SCORE_PARAM_END},
};

struct names_params {
	const char *prefill, *encode;
};

static const struct score_param names_params[] = {
	{.type = SCORE_PARAM_TEXT,
	 .name = "prefillProfile",
	 .offset = offsetof(struct names_params, prefill),
	 .without = true},
	{.type = SCORE_PARAM_TEXT,
	 .name = "encodeProfile",
	 .offset = offsetof(struct names_params, encode),
	 .without = true},
	{.type = SCORE_PARAM_END},
};

const struct score_type score_single_handler = {
	.name = "single-profile-handler",
	.kinds = SCORE_HANDLER,
	.help = "one profile",
};

const struct score_type score_disagg_handler = {
	.name = "disagg-profile-handler",
	.kinds = SCORE_HANDLER,
	.help = "a profile for decode and one for prefill; without a decider decode alone",
	.params = disagg_params,
	.params_size = sizeof(struct disagg_params),
	.check = disagg_check,
};

const struct score_type score_pd_handler = {
	.name = "pd-profile-handler",
	.kinds = SCORE_HANDLER,
	.help = "the same in its older form; `threshold` in bytes, 0 is always both",
	.params = pd_params,
	.params_size = sizeof(struct pd_params),
	.check = pd_check,
};

const struct score_type score_prefix_producer = {
	.name = "approx-prefix-cache-producer",
	.kinds = SCORE_PRODUCER,
	.wants = SCORE_WANTS_PREFIX,
	.help = "remembers which worker got which prefix; blocks of at least 64 tokens",
	.params = prefix_params,
	.params_size = sizeof(struct prefix_params),
	.check = prefix_check,
};

const struct score_type score_flight_producer = {
	.name = "inflight-load-producer",
	.kinds = SCORE_PRODUCER,
	.help = "the router counts requests and prompt tokens in flight by itself",
	.params = flight_params,
	.params_size = sizeof(struct flight_params),
};

const struct score_type score_token_producer = {
	.name = "token-producer",
	.kinds = SCORE_PRODUCER,
	.help = "tokens are estimated, four bytes each",
	.params = token_params,
	.params_size = sizeof(struct token_params),
};

#define KNOWN(as, kind, text)                                                                      \
	{                                                                                          \
		.name = as, .kinds = kind, .help = text                                            \
	}
const struct score_type score_metrics_source =
	KNOWN("metrics-data-source", SCORE_OTHER, "`/metrics` of workers is read without it");
const struct score_type score_core_metrics =
	KNOWN("core-metrics-extractor", SCORE_OTHER, "its figures are read without it");

#define NAMES(as, text)                                                                            \
	{                                                                                          \
		.name = as, .kinds = SCORE_OTHER, .help = text, .params = names_params,            \
		.params_size = sizeof(struct names_params)                                         \
	}
const struct score_type score_disagg_headers =
	NAMES("disagg-headers-handler", "the router sends both legs itself");
const struct score_type score_prefill_header =
	NAMES("prefill-header-handler", "the router sends both legs itself");

/* -- flow control -- */

struct limit_params {
	double threshold;
};

static const struct score_param limit_params[] = {
	{.type = SCORE_PARAM_REAL,
	 .name = "threshold",
	 .offset = offsetof(struct limit_params, threshold),
	 .fallback = 1},
	{.type = SCORE_PARAM_END},
};

static int limit_check(struct score_reader *r, void *params)
{
	const struct limit_params *p = params;

	return p->threshold > 0 ? PD_OK
				: score_wrong(r, "threshold", "found %g, expected more than 0",
					      p->threshold);
}

const struct score_type score_strict_fairness = KNOWN(
	"global-strict-fairness-policy", SCORE_FAIRNESS, "the best request of all flows of a band");
const struct score_type score_turns_fairness =
	KNOWN("round-robin-fairness-policy", SCORE_FAIRNESS, "the flows of a band take turns");
const struct score_type score_fcfs_ordering =
	KNOWN("fcfs-ordering-policy", SCORE_ORDERING, "who came first");
const struct score_type score_edf_ordering =
	KNOWN("edf-ordering-policy", SCORE_ORDERING, "whose time to live ends first");
const struct score_type score_slo_ordering =
	KNOWN("slo-deadline-ordering-policy", SCORE_ORDERING,
	      "arrival and `x-llm-d-slo-ttft-ms`, the earliest first");
const struct score_type score_static_limit = {
	.name = "static-usage-limit-policy",
	.kinds = SCORE_CEILING,
	.help = "one ceiling of saturation for all bands",
	.params = limit_params,
	.params_size = sizeof(struct limit_params),
	.check = limit_check,
};
