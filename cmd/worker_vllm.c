#include "cmd/worker_vllm.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum effect { WORKS, NO_EFFECT };

static const struct flag {
	const char *name;
	enum opt_type type;
	enum effect effect;
	const char *note; /* may be NULL */
} flags[] = {
	{"model", OPT_LIST, WORKS, "also the word after `serve`"},
	{"served-model-name", OPT_LIST, WORKS, "instead of `--model`"},
	{"lora-modules", OPT_LIST, WORKS,
	 "served as models of their own, with the model as parent"},
	{"host", OPT_TEXT, WORKS, NULL},
	{"port", OPT_INT, WORKS, NULL},
	{"api-key", OPT_TEXT, WORKS, NULL},
	{"ssl-certfile", OPT_TEXT, WORKS, NULL},
	{"ssl-keyfile", OPT_TEXT, WORKS, NULL},
	{"ssl-ca-certs", OPT_TEXT, WORKS, NULL},
	{"max-model-len", OPT_INT, WORKS, NULL},
	{"block-size", OPT_INT, WORKS, "both workers of a pair need the same"},
	{"num-gpu-blocks-override", OPT_INT, WORKS, NULL},
	{"max-num-seqs", OPT_INT, WORKS, NULL},
	{"max-num-batched-tokens", OPT_INT, WORKS, NULL},
	{"enable-prefix-caching", OPT_FLAG, WORKS, "on unless `--no-enable-prefix-caching`"},
	{"tensor-parallel-size", OPT_INT, WORKS,
	 "in hand-overs and registrations; a `--profile` has its times"},
	{"data-parallel-size", OPT_INT, WORKS, "so many engines, by `X-data-parallel-rank`"},
	{"kv-transfer-config", OPT_TEXT, WORKS, "see above"},
	{"kv-events-config", OPT_TEXT, WORKS, NULL},
	{"no-async-scheduling", OPT_FLAG, WORKS, NULL},
	{"seed", OPT_INT, WORKS, "of the injected faults"},
	{"gpu-memory-utilization", OPT_TEXT, NO_EFFECT,
	 "`--num-gpu-blocks` says how much there is"},
	{"kv-cache-memory-bytes", OPT_TEXT, NO_EFFECT, "as above"},
	{"async-scheduling", OPT_FLAG, NO_EFFECT, "is the default"},
	{"enable-chunked-prefill", OPT_FLAG, NO_EFFECT, "is the default"},
	{"no-enable-chunked-prefill", OPT_FLAG, NO_EFFECT, "prompts are always chunked"},
	{"pipeline-parallel-size", OPT_TEXT, NO_EFFECT, NULL},
	{"prefill-context-parallel-size", OPT_TEXT, NO_EFFECT, NULL},
	{"decode-context-parallel-size", OPT_TEXT, NO_EFFECT, NULL},
	{"data-parallel-size-local", OPT_TEXT, NO_EFFECT, "all ranks are local"},
	{"data-parallel-start-rank", OPT_TEXT, NO_EFFECT, NULL},
	{"data-parallel-address", OPT_TEXT, NO_EFFECT, NULL},
	{"data-parallel-rpc-port", OPT_TEXT, NO_EFFECT, NULL},
	{"data-parallel-backend", OPT_TEXT, NO_EFFECT, NULL},
	{"data-parallel-hybrid-lb", OPT_FLAG, NO_EFFECT, NULL},
	{"data-parallel-external-lb", OPT_FLAG, NO_EFFECT, NULL},
	{"enable-expert-parallel", OPT_FLAG, NO_EFFECT, "ranks do not wait for each other"},
	{"enable-eplb", OPT_FLAG, NO_EFFECT, NULL},
	{"all2all-backend", OPT_TEXT, NO_EFFECT, NULL},
	{"distributed-executor-backend", OPT_TEXT, NO_EFFECT, NULL},
	{"api-server-count", OPT_TEXT, NO_EFFECT, NULL},
	{"headless", OPT_FLAG, NO_EFFECT, NULL},
	{"dtype", OPT_TEXT, NO_EFFECT, NULL},
	{"quantization", OPT_TEXT, NO_EFFECT, NULL},
	{"kv-cache-dtype", OPT_TEXT, NO_EFFECT, NULL},
	{"enforce-eager", OPT_FLAG, NO_EFFECT, NULL},
	{"compilation-config", OPT_TEXT, NO_EFFECT, NULL},
	{"attention-backend", OPT_TEXT, NO_EFFECT, NULL},
	{"attention-config", OPT_TEXT, NO_EFFECT, NULL},
	{"moe-backend", OPT_TEXT, NO_EFFECT, NULL},
	{"load-format", OPT_TEXT, NO_EFFECT, "no weights are loaded"},
	{"download-dir", OPT_TEXT, NO_EFFECT, NULL},
	{"revision", OPT_TEXT, NO_EFFECT, NULL},
	{"hf-overrides", OPT_TEXT, NO_EFFECT, NULL},
	{"hf-token", OPT_TEXT, NO_EFFECT, NULL},
	{"trust-remote-code", OPT_FLAG, NO_EFFECT, NULL},
	{"generation-config", OPT_TEXT, NO_EFFECT, NULL},
	{"tokenizer", OPT_TEXT, NO_EFFECT, "tokens are those of docs/worker.md"},
	{"tokenizer-mode", OPT_TEXT, NO_EFFECT, NULL},
	{"skip-tokenizer-init", OPT_FLAG, NO_EFFECT, NULL},
	{"chat-template", OPT_TEXT, NO_EFFECT, NULL},
	{"limit-mm-per-prompt", OPT_TEXT, NO_EFFECT, NULL},
	{"speculative-config", OPT_TEXT, NO_EFFECT, NULL},
	{"enable-lora", OPT_FLAG, NO_EFFECT, NULL},
	{"max-loras", OPT_TEXT, NO_EFFECT, NULL},
	{"max-lora-rank", OPT_TEXT, NO_EFFECT, NULL},
	{"max-cpu-loras", OPT_TEXT, NO_EFFECT, NULL},
	{"enable-auto-tool-choice", OPT_FLAG, NO_EFFECT, NULL},
	{"tool-call-parser", OPT_TEXT, NO_EFFECT, NULL},
	{"reasoning-parser", OPT_TEXT, NO_EFFECT, NULL},
	{"swap-space", OPT_TEXT, NO_EFFECT, NULL},
	{"cpu-offload-gb", OPT_TEXT, NO_EFFECT, NULL},
	{"scheduling-policy", OPT_TEXT, NO_EFFECT, "first come, first served"},
	{"long-prefill-token-threshold", OPT_TEXT, NO_EFFECT, NULL},
	{"max-num-partial-prefills", OPT_TEXT, NO_EFFECT, NULL},
	{"disable-hybrid-kv-cache-manager", OPT_FLAG, NO_EFFECT, NULL},
	{"prefix-caching-hash-algo", OPT_TEXT, NO_EFFECT, "blocks are named by XXH3"},
	{"enable-prompt-tokens-details", OPT_FLAG, NO_EFFECT, "they are always there"},
	{"enable-server-load-tracking", OPT_FLAG, NO_EFFECT, "`/load` is always there"},
	{"enable-tokenizer-info-endpoint", OPT_FLAG, NO_EFFECT, "it is always there"},
	{"disable-log-requests", OPT_FLAG, NO_EFFECT, "`GET /pdctl/requests` shows them"},
	{"enable-log-requests", OPT_FLAG, NO_EFFECT, "as above"},
	{"disable-log-stats", OPT_FLAG, NO_EFFECT, NULL},
	{"disable-uvicorn-access-log", OPT_FLAG, NO_EFFECT, NULL},
	{"uvicorn-log-level", OPT_TEXT, NO_EFFECT, NULL},
	{"max-log-len", OPT_TEXT, NO_EFFECT, NULL},
	{"otlp-traces-endpoint", OPT_TEXT, NO_EFFECT, NULL},
	{"root-path", OPT_TEXT, NO_EFFECT, NULL},
	{"middleware", OPT_TEXT, NO_EFFECT, NULL},
	{"allowed-origins", OPT_TEXT, NO_EFFECT, NULL},
	{"disable-frontend-multiprocessing", OPT_FLAG, NO_EFFECT, NULL},
	{"additional-config", OPT_TEXT, NO_EFFECT, NULL},
	{"structured-outputs-config", OPT_TEXT, NO_EFFECT, NULL},
};
#define FLAGS (sizeof(flags) / sizeof(flags[0]))

struct opt worker_vllm_rows[FLAGS + 1];

/* What was given for flags[i]. */
static struct {
	bool on;
	const char *text;
} given[FLAGS];

void worker_vllm_defaults(void)
{
	struct opt *row = worker_vllm_rows;

	memset(given, 0, sizeof(given));
	for (size_t i = 0; i < FLAGS; i++)
		if (flags[i].effect == NO_EFFECT)
			*row++ = (struct opt){.type = flags[i].type,
					      .name = flags[i].name,
					      .value = flags[i].type == OPT_FLAG
							       ? (void *)&given[i].on
							       : (void *)&given[i].text};
	*row = (struct opt){.type = OPT_END};
}

/* -- words -- */

static const char *long_name(const char *word)
{
	static const char *const names[][2] = {{"-tp", "--tensor-parallel-size"},
					       {"-dp", "--data-parallel-size"},
					       {"-pp", "--pipeline-parallel-size"},
					       {"-q", "--quantization"}};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (strcmp(word, names[i][0]) == 0)
			return names[i][1];
	return word;
}

int worker_vllm_words(int argc, char **argv, int *n, char ***words, char **texts)
{
	size_t bytes = 1;
	char *at;

	for (int i = 0; i < argc; i++)
		bytes += strlen(argv[i]) + 32;
	*n = 0;
	*words = calloc((size_t)argc + 1, sizeof(**words));
	*texts = at = malloc(bytes);
	if (!*words || !*texts)
		return PD_ENOMEM;
	for (int i = 0; i < argc; i++) {
		const char *word = long_name(argv[i]);
		size_t len = strlen(word);

		if (i == 1 && strcmp(word, "serve") == 0)
			continue;
		memcpy(at, word, len + 1);
		if (strncmp(at, "--", 2) == 0)
			for (char *c = at; *c && *c != '='; c++)
				*c = *c == '_' ? '-' : *c;
		(*words)[(*n)++] = at;
		at += len + 1;
	}
	return PD_OK;
}

/* -- configurations in JSON -- */

/* A string, or a number as text; NULL: neither. Owned. */
static char *text_of(const cJSON *o, const char *name)
{
	const cJSON *m = cJSON_GetObjectItemCaseSensitive(o, name);
	char number[32];

	if (cJSON_IsString(m))
		return strdup(m->valuestring);
	if (!cJSON_IsNumber(m))
		return NULL;
	(void)snprintf(number, sizeof(number), "%.15g", m->valuedouble);
	return strdup(number);
}

static int port_of(const cJSON *o, const char *name, const char *flag, int *out, struct pd_msg *msg)
{
	char *text = text_of(o, name), *end = text;
	long port = text ? strtol(text, &end, 10) : 0;
	int err = PD_OK;

	if (text && (end == text || *end || port < 1 || port > 65535))
		err = pd_fail(msg, PD_EINVAL, "--%s: found %s '%.40s', expected a port", flag, name,
			      text);
	*out = (int)port;
	free(text);
	return err;
}

static int parse(const char *flag, const char *text, cJSON **out, struct pd_msg *msg)
{
	const char *end = NULL;

	*out = cJSON_ParseWithOpts(text, &end, 1);
	if (cJSON_IsObject(*out))
		return PD_OK;
	return pd_fail(msg, PD_EINVAL,
		       "--%s: found '%.100s', expected a JSON object (wrong from column %zu on)",
		       flag, text, *out || !end ? (size_t)1 : (size_t)(end - text) + 1);
}

static int read_transfer(const cJSON *o, struct worker_vllm_config *c, struct pd_msg *msg)
{
	static const char *const flag = "kv-transfer-config";
	const cJSON *extra = cJSON_GetObjectItemCaseSensitive(o, "kv_connector_extra_config");
	const cJSON *read_mode = cJSON_GetObjectItemCaseSensitive(extra, "read_mode");
	char *mode = text_of(extra, "transfer_mode"), *disk;
	int err;

	c->connector = text_of(o, "kv_connector");
	c->role = text_of(o, "kv_role");
	c->proxy_ip = text_of(extra, "proxy_ip");
	disk = text_of(extra, "lmcache.local_disk");
	if (disk && strncmp(disk, "file://", 7) == 0)
		c->shared_path = strdup(disk + 7);
	free(disk);
	if (!c->shared_path)
		c->shared_path = text_of(extra, "shared_storage_path");
	c->push = mode && strcmp(mode, "push") == 0;
	free(mode);
	c->read_mode = cJSON_IsBool(read_mode) ? cJSON_IsTrue(read_mode) : -1;
	if (!c->connector)
		return pd_fail(msg, PD_EINVAL, "--%s: found no \"kv_connector\"", flag);
	if (c->role && strcmp(c->role, "kv_both") != 0 && strcmp(c->role, "kv_producer") != 0 &&
	    strcmp(c->role, "kv_consumer") != 0)
		return pd_fail(msg, PD_EINVAL,
			       "--%s: found kv_role '%.40s', expected kv_both, kv_producer or "
			       "kv_consumer",
			       flag, c->role);
	err = port_of(o, "kv_port", flag, &c->kv_port, msg);
	err = err ? err : port_of(extra, "http_port", flag, &c->http_port, msg);
	err = err ? err : port_of(extra, "handshake_port", flag, &c->handshake_port, msg);
	err = err ? err : port_of(extra, "proxy_port", flag, &c->proxy_port, msg);
	return err || c->proxy_port ? err
				    : port_of(extra, "proxy_ping_port", flag, &c->proxy_port, msg);
}

static int read_count(const cJSON *o, const char *name, int64_t fallback, int64_t max, int64_t *out,
		      struct pd_msg *msg)
{
	const cJSON *m = cJSON_GetObjectItemCaseSensitive(o, name);

	*out = fallback;
	if (!m)
		return PD_OK;
	if (!cJSON_IsNumber(m) || m->valuedouble < 0 || m->valuedouble > (double)max)
		return pd_fail(msg, PD_EINVAL, "--kv-events-config: expected %s to be 0 to %lld",
			       name, (long long)max);
	*out = (int64_t)m->valuedouble;
	return PD_OK;
}

static int read_events(const cJSON *o, struct worker_vllm_config *c, struct pd_msg *msg)
{
	const cJSON *on = cJSON_GetObjectItemCaseSensitive(o, "enable_kv_cache_events");
	char *publisher = text_of(o, "publisher");
	int err;

	c->events = cJSON_IsTrue(on);
	if (publisher && strcmp(publisher, "null") == 0)
		c->events = false;
	err = publisher && strcmp(publisher, "zmq") != 0 && strcmp(publisher, "null") != 0
		      ? pd_fail(msg, PD_EINVAL,
				"--kv-events-config: found publisher '%.40s', expected zmq or null",
				publisher)
		      : PD_OK;
	free(publisher);
	c->endpoint = text_of(o, "endpoint");
	c->replay_endpoint = text_of(o, "replay_endpoint");
	c->topic = text_of(o, "topic");
	err = err ? err : read_count(o, "buffer_steps", 10000, 1000000, &c->buffer_steps, msg);
	return err ? err : read_count(o, "hwm", 100000, 10000000, &c->hwm, msg);
}

int worker_vllm_config(const char *transfer, const char *events, struct worker_vllm_config *out,
		       struct pd_msg *msg)
{
	cJSON *o = NULL;
	int err = PD_OK;

	*out = (struct worker_vllm_config){.read_mode = -1};
	if (transfer) {
		err = parse("kv-transfer-config", transfer, &o, msg);
		err = err ? err : read_transfer(o, out, msg);
		cJSON_Delete(o);
	}
	o = NULL;
	if (!err && events) {
		err = parse("kv-events-config", events, &o, msg);
		err = err ? err : read_events(o, out, msg);
		cJSON_Delete(o);
	}
	return err;
}

void worker_vllm_release(struct worker_vllm_config *c)
{
	char *const texts[] = {c->connector, c->role,  c->proxy_ip,	  c->shared_path,
			       c->endpoint,  c->topic, c->replay_endpoint};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		free(texts[i]);
	*c = (struct worker_vllm_config){0};
}

/* -- what is said -- */

void worker_vllm_announce(struct log *log)
{
	struct buf names;
	int err = PD_OK;

	buf_init(&names, 8192);
	for (size_t i = 0; !err && i < FLAGS; i++)
		if (flags[i].effect == NO_EFFECT && (given[i].on || given[i].text))
			err = buf_printf(&names, "%s--%s", names.len ? ", " : "", flags[i].name);
	if (!err && names.len)
		log_event(log, LOG_WARN, "flags_without_effect",
			  LOG_FIELDS(LOG_TEXT("flags", names.data), LOG_TEXT("until", "")),
			  "accepted without effect: %s", names.data);
	buf_release(&names);
}

int worker_vllm_markdown(struct buf *out)
{
	int err = buf_puts(out, "| flag of vllm serve | here | note |\n|---|---|---|\n");

	for (size_t i = 0; !err && i < FLAGS; i++)
		err = buf_printf(out, "| `--%s` | %s | %s |\n", flags[i].name,
				 flags[i].effect == WORKS ? "works" : "accepted without effect",
				 flags[i].note ? flags[i].note : "");
	return err;
}
