#include "cmd/bench_vllm.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cmd/bench_opts.h"

#define o	 bench_options
#define RAMP_MAX 200  /* steps that a ramp by request number is made of */
#define HEADERS	 64   /* NAME=VALUE words that are respelt */
#define PROMPTS	 1000 /* vLLM's default with a data set of a name */

static struct vllm_options {
	const char *backend, *host, *dataset_name, *served_model, *result_dir, *result_filename,
		*ramp_strategy, *request_id_prefix, *ignored, *refused;
	int64_t port, custom_output, sharegpt_output, random_input, random_output, random_prefix,
		repetition_prefix, repetition_suffix, repetition_prefixes, repetition_output;
	double range_ratio, ramp_start, ramp_end, ready_s, top_p, top_k, min_p, frequency_penalty,
		presence_penalty, repetition_penalty;
	bool save, append, quiet, flag, refused_flag, disable_shuffle, no_oversample;
	char *base_url, *extra; /* owned, as the next */
	struct arrivals_phase *ramp;
	char *header[HEADERS];
	size_t nheaders;
} v;

enum effect { WORKS, NO_EFFECT, REFUSED };

#define N    9e15
#define TEXT OPT_TEXT
#define SAME(n)                                                                                    \
	{                                                                                          \
		n, WORKS, "as here",                                                               \
		{                                                                                  \
			0                                                                          \
		}                                                                                  \
	}

/* Options of vllm bench serve. Those with an empty row are bench's own, of the same name. */
static const struct flag {
	const char *name;
	enum effect effect;
	const char *note;
	struct opt row;
} flags[] = {
	{"backend",
	 WORKS,
	 "`openai` and `vllm` mean `/v1/completions`, `openai-chat` `/v1/chat/completions`, "
	 "`openai-embeddings` `/v1/embeddings`; `--endpoint` wins and decides the body too",
	 {TEXT, NULL, &v.backend, NULL, NULL, NULL, 0, 0, "endpoint-type"}},
	SAME("base-url"),
	{"host", WORKS, "with `--port`", {TEXT, NULL, &v.host, NULL, NULL, NULL, 0, 0, NULL}},
	{"port",
	 WORKS,
	 "8000 when only `--host` is given",
	 {OPT_INT, NULL, &v.port, NULL, NULL, NULL, 1, 65535, NULL}},
	SAME("endpoint"),
	SAME("model"),
	{"served-model-name",
	 WORKS,
	 "what is sent as `model`",
	 {TEXT, NULL, &v.served_model, NULL, NULL, NULL, 0, 0, NULL}},
	{"tokenizer",
	 NO_EFFECT,
	 "the server counts (`usage`); `--calibrate` for made text",
	 {TEXT, NULL, &v.ignored, NULL, NULL, NULL, 0, 0, NULL}},
	{"tokenizer-mode",
	 NO_EFFECT,
	 "as `--tokenizer`",
	 {TEXT, NULL, &v.ignored, NULL, NULL, NULL, 0, 0, NULL}},
	{"trust-remote-code",
	 NO_EFFECT,
	 "nothing is loaded",
	 {OPT_FLAG, NULL, &v.flag, NULL, NULL, NULL, 0, 0, NULL}},
	{"dataset-name",
	 WORKS,
	 "`random` and `prefix_repetition` are made here; files are recognised by their content "
	 "whatever the name says; without `--num-prompts` 1000, as there",
	 {TEXT, NULL, &v.dataset_name, NULL, NULL, NULL, 0, 0, NULL}},
	SAME("dataset-path"),
	SAME("num-prompts"),
	{"no-oversample",
	 WORKS,
	 "with `--dataset-name` records repeat up to `--num-prompts`",
	 {OPT_FLAG, NULL, &v.no_oversample, NULL, NULL, NULL, 0, 0, NULL}},
	{"disable-shuffle",
	 WORKS,
	 "it is always so: records keep the order of the file",
	 {OPT_FLAG, NULL, &v.disable_shuffle, NULL, NULL, NULL, 0, 0, NULL}},
	{"skip-chat-template",
	 NO_EFFECT,
	 "prompts are sent as they are; the server has the template",
	 {OPT_FLAG, NULL, &v.flag, NULL, NULL, NULL, 0, 0, NULL}},
	{"custom-output-len",
	 WORKS,
	 "default 256 with `--dataset-name custom`; -1: the record's",
	 {OPT_INT, NULL, &v.custom_output, NULL, NULL, NULL, -1, 1e7, NULL}},
	{"sharegpt-output-len",
	 WORKS,
	 NULL,
	 {OPT_INT, NULL, &v.sharegpt_output, NULL, NULL, NULL, 1, 1e7, NULL}},
	{"random-input-len",
	 WORKS,
	 "default 1024 with `--dataset-name random`",
	 {OPT_INT, NULL, &v.random_input, NULL, NULL, NULL, 1, 1e7, NULL}},
	{"random-output-len",
	 WORKS,
	 "default 128",
	 {OPT_INT, NULL, &v.random_output, NULL, NULL, NULL, 1, 1e7, NULL}},
	{"random-range-ratio",
	 WORKS,
	 "lengths are uniform in len * (1 ± ratio)",
	 {OPT_REAL, NULL, &v.range_ratio, NULL, NULL, NULL, 0, 0.999, NULL}},
	{"random-prefix-len",
	 WORKS,
	 "in whole blocks of 16 tokens",
	 {OPT_INT, NULL, &v.random_prefix, NULL, NULL, NULL, 0, 1e7, NULL}},
	{"prefix-repetition-prefix-len",
	 WORKS,
	 "default 256; in whole blocks of 16 tokens",
	 {OPT_INT, NULL, &v.repetition_prefix, NULL, NULL, NULL, 1, 1e7, NULL}},
	{"prefix-repetition-suffix-len",
	 WORKS,
	 "default 256; likewise",
	 {OPT_INT, NULL, &v.repetition_suffix, NULL, NULL, NULL, 1, 1e7, NULL}},
	{"prefix-repetition-num-prefixes",
	 WORKS,
	 "default 10",
	 {OPT_INT, NULL, &v.repetition_prefixes, NULL, NULL, NULL, 1, 1e6, NULL}},
	{"prefix-repetition-output-len",
	 WORKS,
	 "default 128",
	 {OPT_INT, NULL, &v.repetition_output, NULL, NULL, NULL, 1, 1e7, NULL}},
	SAME("input-len"),
	SAME("output-len"),
	{"request-rate", WORKS, "a true Poisson process: not rescaled to a round total", {0}},
	SAME("burstiness"),
	{"ramp-up-strategy",
	 WORKS,
	 "`linear` or `exponential`, by request number",
	 {OPT_CHOICE, NULL, &v.ramp_strategy, NULL, NULL, "linear|exponential", 0, 0, NULL}},
	{"ramp-up-start-rps",
	 WORKS,
	 NULL,
	 {OPT_REAL, NULL, &v.ramp_start, NULL, NULL, NULL, 1e-6, 1e9, NULL}},
	{"ramp-up-end-rps",
	 WORKS,
	 NULL,
	 {OPT_REAL, NULL, &v.ramp_end, NULL, NULL, NULL, 1e-6, 1e9, NULL}},
	{"max-concurrency",
	 WORKS,
	 "the wait is in `client_queue_time` and in the figures from the "
	 "intended time",
	 {0}},
	{"num-warmups", WORKS, "with other prompts than the measured ones", {0}},
	{"ready-check-timeout-sec",
	 WORKS,
	 "waits until `GET /v1/models` answers",
	 {OPT_REAL, NULL, &v.ready_s, NULL, NULL, NULL, 0, 1e6, NULL}},
	SAME("seed"),
	SAME("ignore-eos"),
	SAME("temperature"),
	{"top-p", WORKS, NULL, {OPT_REAL, NULL, &v.top_p, NULL, NULL, NULL, 0, 1, NULL}},
	{"top-k", WORKS, NULL, {OPT_REAL, NULL, &v.top_k, NULL, NULL, NULL, -1, 1e9, NULL}},
	{"min-p", WORKS, NULL, {OPT_REAL, NULL, &v.min_p, NULL, NULL, NULL, 0, 1, NULL}},
	{"frequency-penalty",
	 WORKS,
	 NULL,
	 {OPT_REAL, NULL, &v.frequency_penalty, NULL, NULL, NULL, -10, 10, NULL}},
	{"presence-penalty",
	 WORKS,
	 NULL,
	 {OPT_REAL, NULL, &v.presence_penalty, NULL, NULL, NULL, -10, 10, NULL}},
	{"repetition-penalty",
	 WORKS,
	 NULL,
	 {OPT_REAL, NULL, &v.repetition_penalty, NULL, NULL, NULL, 0, 10, NULL}},
	SAME("extra-body"),
	{"header", WORKS, "`KEY=VALUE` as there, or `KEY: VALUE`", {0}},
	{"request-id-prefix",
	 WORKS,
	 "`X-Request-Id`: prefix and number",
	 {TEXT, NULL, &v.request_id_prefix, NULL, NULL, NULL, 0, 0, NULL}},
	SAME("insecure"),
	{"save-result",
	 WORKS,
	 "a flag, as there: into `--result-dir`, `--result-filename`",
	 {OPT_FLAG, NULL, &v.save, NULL, NULL, NULL, 0, 0, NULL}},
	{"save-detailed", WORKS, "without `--save-result` or `--output`: in `--json`", {0}},
	{"append-result",
	 WORKS,
	 "one object a line",
	 {OPT_FLAG, NULL, &v.append, NULL, NULL, NULL, 0, 0, NULL}},
	{"result-dir",
	 WORKS,
	 "made when it is missing",
	 {TEXT, NULL, &v.result_dir, NULL, NULL, NULL, 0, 0, NULL}},
	{"result-filename",
	 WORKS,
	 "else vLLM's name, with label, rate, model and date",
	 {TEXT, NULL, &v.result_filename, NULL, NULL, NULL, 0, 0, NULL}},
	SAME("metadata"),
	SAME("label"),
	SAME("percentile-metrics"),
	SAME("metric-percentiles"),
	SAME("goodput"),
	{"disable-tqdm",
	 WORKS,
	 "no progress line",
	 {OPT_FLAG, NULL, &v.quiet, NULL, NULL, NULL, 0, 0, NULL}},
	{"logprobs",
	 REFUSED,
	 "use `--extra-body '{\"logprobs\": …}'`",
	 {TEXT, NULL, &v.refused, NULL, NULL, NULL, 0, 0, NULL}},
	{"use-beam-search",
	 REFUSED,
	 "use `--extra-body`",
	 {OPT_FLAG, NULL, &v.refused_flag, NULL, NULL, NULL, 0, 0, NULL}},
	{"lora-modules",
	 REFUSED,
	 "a run has one model",
	 {TEXT, NULL, &v.refused, NULL, NULL, NULL, 0, 0, NULL}},
	{"profile",
	 REFUSED,
	 "the server's profiler is not driven from here",
	 {OPT_FLAG, NULL, &v.refused_flag, NULL, NULL, NULL, 0, 0, NULL}},
	{"probe-request-rate",
	 REFUSED,
	 "run a second `pdctl bench` beside this one",
	 {TEXT, NULL, &v.refused, NULL, NULL, NULL, 0, 0, NULL}},
	{"self-timed",
	 REFUSED,
	 "use `--timestamps`",
	 {OPT_FLAG, NULL, &v.refused_flag, NULL, NULL, NULL, 0, 0, NULL}},
	{"hf-split",
	 REFUSED,
	 "data sets are files",
	 {TEXT, NULL, &v.refused, NULL, NULL, NULL, 0, 0, NULL}},
	{"hf-subset",
	 REFUSED,
	 "data sets are files",
	 {TEXT, NULL, &v.refused, NULL, NULL, NULL, 0, 0, NULL}},
	{"hf-name",
	 REFUSED,
	 "data sets are files",
	 {TEXT, NULL, &v.refused, NULL, NULL, NULL, 0, 0, NULL}},
};
#define FLAGS (sizeof(flags) / sizeof(flags[0]))

struct opt bench_vllm_rows[FLAGS + 1];

void bench_vllm_defaults(void)
{
	size_t n = 0;

	v = (struct vllm_options){.custom_output = 0,
				  .top_p = NAN,
				  .top_k = NAN,
				  .min_p = NAN,
				  .frequency_penalty = NAN,
				  .presence_penalty = NAN,
				  .repetition_penalty = NAN,
				  .random_input = 1024,
				  .random_output = 128,
				  .repetition_prefix = 256,
				  .repetition_suffix = 256,
				  .repetition_prefixes = 10,
				  .repetition_output = 128};
	for (size_t i = 0; i < FLAGS; i++) {
		if (!flags[i].row.value)
			continue;
		bench_vllm_rows[n] = flags[i].row;
		bench_vllm_rows[n++].name = flags[i].name;
	}
	bench_vllm_rows[n] = (struct opt){.type = OPT_END};
}

void bench_vllm_release(void)
{
	free(v.base_url);
	free(v.extra);
	free(v.ramp);
	for (size_t i = 0; i < v.nheaders; i++)
		free(v.header[i]);
}

static bool given(int argc, char **argv, const char *name)
{
	return opt_given(&bench_command, argc, argv, name);
}

static bool named(const char *dataset)
{
	return v.dataset_name && strcmp(v.dataset_name, dataset) == 0;
}

static int refuse(int argc, char **argv, struct pd_msg *msg)
{
	for (size_t i = 0; i < FLAGS; i++)
		if (flags[i].effect == REFUSED && given(argc, argv, flags[i].name))
			return pd_fail(msg, PD_EINVAL, "--%s: not supported: %s", flags[i].name,
				       flags[i].note);
	return PD_OK;
}

static int set_target(int argc, char **argv, struct pd_msg *msg)
{
	static const char *const endpoints[][2] = {
		{"openai", "/v1/completions"},
		{"vllm", "/v1/completions"},
		{"openai-chat", "/v1/chat/completions"},
		{"vllm-chat", "/v1/chat/completions"},
		{"openai-embeddings", "/v1/embeddings"},
		{"sglang", "/v1/completions"},
		{"sglang-oai-chat", "/v1/chat/completions"},
		{"sglang-oai", "/v1/completions"},
	};
	const char *endpoint = NULL;

	if (v.host || v.port > 0) {
		if (given(argc, argv, "base-url"))
			return pd_fail(msg, PD_EINVAL,
				       "--host and --port cannot be combined with --base-url");
		if (asprintf(&v.base_url, "http://%s:%lld", v.host ? v.host : "127.0.0.1",
			     (long long)(v.port > 0 ? v.port : 8000)) < 0) {
			v.base_url = NULL;
			return PD_ENOMEM;
		}
		o.base_url = v.base_url;
	}
	for (size_t i = 0; v.backend && i < sizeof(endpoints) / sizeof(endpoints[0]); i++)
		if (strcmp(v.backend, endpoints[i][0]) == 0)
			endpoint = endpoints[i][1];
	if (v.backend && !endpoint)
		return pd_fail(msg, PD_EINVAL,
			       "--backend: found '%s', expected openai, openai-chat, "
			       "openai-embeddings or vllm",
			       v.backend);
	if (endpoint && !given(argc, argv, "endpoint"))
		o.endpoint = endpoint;
	o.model = v.served_model ? v.served_model : o.model;
	return PD_OK;
}

static int set_dataset(int argc, char **argv, struct pd_msg *msg)
{
	static const char *const files[] = {"custom",	   "sharegpt", "burstgpt",
					    "timed_trace", "sonnet",   "spec_bench"};
	bool made = named("random") || named("prefix_repetition"), file = false;

	if (!v.dataset_name)
		return PD_OK;
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		file = file || named(files[i]);
	if (!made && !file)
		return pd_fail(msg, PD_EINVAL,
			       "--dataset-name: found '%s', expected custom, sharegpt, burstgpt, "
			       "timed_trace, random or prefix_repetition",
			       v.dataset_name);
	if (made && o.dataset)
		return pd_fail(msg, PD_EINVAL, "--dataset-name %s is made here: no --dataset-path",
			       v.dataset_name);
	if (file && !o.dataset)
		return pd_fail(msg, PD_EINVAL, "--dataset-name %s requires --dataset-path",
			       v.dataset_name);
	if (!given(argc, argv, "num-prompts"))
		o.num_prompts = PROMPTS;
	o.oversample = file && !v.no_oversample;
	if (named("random")) {
		o.input_len = given(argc, argv, "input-len") ? o.input_len : v.random_input;
		o.ignore_eos = true;
	}
	if (named("custom") && v.custom_output == 0)
		v.custom_output = 256;
	if (o.output_len == 0)
		o.output_len = named("custom") && v.custom_output > 0 ? v.custom_output
			       : named("sharegpt")		      ? v.sharegpt_output
			       : named("prefix_repetition")	      ? v.repetition_output
								      : 0;
	return PD_OK;
}

/* A rate by request number: steps of equal numbers of requests. */
static int set_ramp(int argc, char **argv, struct pd_msg *msg)
{
	size_t steps =
		o.num_prompts > 0 && o.num_prompts < RAMP_MAX ? (size_t)o.num_prompts : RAMP_MAX;
	double each = (double)(o.num_prompts > 0 ? o.num_prompts : 100) / (double)steps;

	if (!v.ramp_strategy && v.ramp_start == 0 && v.ramp_end == 0)
		return PD_OK;
	if (!v.ramp_strategy || v.ramp_start == 0 || v.ramp_end == 0)
		return pd_fail(msg, PD_EINVAL,
			       "--ramp-up-strategy, --ramp-up-start-rps and --ramp-up-end-rps go "
			       "together");
	if (!isinf(o.request_rate) || o.phases.n > 0 || o.timestamps ||
	    given(argc, argv, "session-rate"))
		return pd_fail(msg, PD_EINVAL,
			       "--ramp-up-strategy sets the rate: no --request-rate, "
			       "--phases, --timestamps or --session-rate");
	v.ramp = calloc(steps, sizeof(*v.ramp));
	if (!v.ramp)
		return PD_ENOMEM;
	for (size_t i = 0; i < steps; i++) {
		double at = ((double)i + 0.5) / (double)steps,
		       rate = strcmp(v.ramp_strategy, "linear") == 0
				      ? v.ramp_start + (v.ramp_end - v.ramp_start) * at
				      : v.ramp_start * pow(v.ramp_end / v.ramp_start, at);

		v.ramp[i] = (struct arrivals_phase){each / rate, rate, rate};
	}
	return PD_OK;
}

const struct arrivals_phase *bench_vllm_ramp(size_t *n)
{
	*n = v.ramp ? (o.num_prompts > 0 && o.num_prompts < RAMP_MAX ? (size_t)o.num_prompts
								     : RAMP_MAX)
		    : 0;
	return v.ramp;
}

/* KEY=VALUE is respelt; a value may have a colon, a name may not. */
static int set_headers(struct pd_msg *msg)
{
	for (size_t i = 0; i < o.headers.n; i++) {
		const char *h = o.headers.items[i], *eq = strchr(h, '='), *colon = strchr(h, ':');

		if (!eq || (colon && colon < eq) || eq == h)
			continue;
		if (v.nheaders == HEADERS)
			return pd_fail(msg, PD_EINVAL, "--header: more than %d as NAME=VALUE",
				       HEADERS);
		if (asprintf(&v.header[v.nheaders], "%.*s: %s", (int)(eq - h), h, eq + 1) < 0)
			return PD_ENOMEM;
		o.headers.items[i] = v.header[v.nheaders++];
	}
	return PD_OK;
}

/* Sampling parameters are members of the body; --extra-body still overrides them. */
static int set_sampling(void)
{
	const struct {
		const char *name;
		double value;
	} all[] = {{"top_p", v.top_p},
		   {"top_k", v.top_k},
		   {"min_p", v.min_p},
		   {"frequency_penalty", v.frequency_penalty},
		   {"presence_penalty", v.presence_penalty},
		   {"repetition_penalty", v.repetition_penalty}};
	const char *extra = o.extra_body ? o.extra_body + strspn(o.extra_body, " \t\r\n") : NULL;
	struct buf text;
	size_t n = 0;
	int err;

	buf_init(&text, 1 << 20);
	err = buf_puts(&text, "{");
	for (size_t i = 0; !err && i < sizeof(all) / sizeof(all[0]); i++)
		if (!isnan(all[i].value))
			err = buf_printf(&text, "%s\"%s\": %.9g", n++ > 0 ? ", " : "", all[i].name,
					 all[i].value);
	if (!err && n > 0 && extra && *extra == '{' &&
	    extra[1 + strspn(extra + 1, " \t\r\n")] != '}')
		err = buf_printf(&text, ", %s", extra + 1);
	else if (!err)
		err = buf_puts(&text, "}");
	if (!err && n > 0 && (!extra || *extra == '{'))
		o.extra_body = v.extra = buf_detach(&text);
	buf_release(&text);
	return err;
}

int bench_vllm_apply(int argc, char **argv, struct pd_msg *msg)
{
	int err = refuse(argc, argv, msg);

	err = err ? err : set_target(argc, argv, msg);
	err = err ? err : set_dataset(argc, argv, msg);
	err = err ? err : set_ramp(argc, argv, msg);
	err = err ? err : set_headers(msg);
	err = err ? err : set_sampling();
	if (!err && v.save && o.output)
		err = pd_fail(msg, PD_EINVAL, "--save-result and --output cannot be combined");
	if (!err && (v.append || v.result_dir || v.result_filename) && !v.save &&
	    !(v.append && o.output))
		err = pd_fail(msg, PD_EINVAL,
			      "--append-result, --result-dir and --result-filename require "
			      "--save-result");
	return err;
}

int64_t bench_vllm_default_output(void)
{
	return named("random") ? v.random_output : 128;
}

const char *bench_vllm_request_id_prefix(void)
{
	return v.request_id_prefix;
}

double bench_vllm_ready_s(void)
{
	return v.ready_s;
}

bool bench_vllm_quiet(void)
{
	return v.quiet;
}

bool bench_vllm_append(void)
{
	return v.append;
}

static int make_folder(const char *path, struct pd_msg *msg)
{
	char text[128];

	if (mkdir(path, 0777) == 0 || errno == EEXIST)
		return PD_OK;
	return pd_fail(msg, PD_EINVAL, "--result-dir: cannot make '%s': %s", path,
		       pd_errno_text(errno, text, sizeof(text)));
}

/* {label|backend}-{rate}qps[-concurrency{N}]-{model's last part}-{date}.json */
int bench_vllm_path(char **path, const char *model, const char *date, struct pd_msg *msg)
{
	const char *slash = strrchr(model, '/'), *what = o.label ? o.label : v.backend;
	struct buf name;
	int err = PD_OK;

	*path = NULL;
	if (!v.save)
		return PD_OK;
	buf_init(&name, 65536);
	if (v.result_dir) {
		err = make_folder(v.result_dir, msg);
		err = err ? err : buf_printf(&name, "%s/", v.result_dir);
	}
	if (!err && v.result_filename) {
		err = buf_puts(&name, v.result_filename);
	} else if (!err) {
		err = buf_printf(&name, "%s-", what ? what : "openai-chat");
		if (!err && v.ramp)
			err = buf_printf(&name, "ramp-up-%s-%gqps-%gqps", v.ramp_strategy,
					 v.ramp_start, v.ramp_end);
		else if (!err)
			err = isinf(o.request_rate) ? buf_puts(&name, "infqps")
						    : buf_printf(&name, "%gqps", o.request_rate);
		if (!err && o.max_concurrency > 0)
			err = buf_printf(&name, "-concurrency%lld", (long long)o.max_concurrency);
		if (!err)
			err = buf_printf(&name, "-%s-%s.json", slash ? slash + 1 : model, date);
	}
	*path = err ? NULL : buf_detach(&name);
	buf_release(&name);
	return err ? err : *path ? PD_OK : PD_ENOMEM;
}

void bench_vllm_builtin(struct load_builtin *b)
{
	b->range = named("random") ? v.range_ratio : 0;
	if (named("random")) {
		b->output_tokens = o.output_len > 0 ? o.output_len : v.random_output;
		b->prefix_tokens = v.random_prefix;
		b->prefixes = v.random_prefix > 0 ? 1 : 0;
		b->input_tokens += v.random_prefix;
	} else if (named("prefix_repetition")) {
		b->prefixes = v.repetition_prefixes;
		b->prefix_tokens = v.repetition_prefix;
		b->input_tokens = v.repetition_prefix + v.repetition_suffix;
	}
}

int bench_vllm_markdown(struct buf *out)
{
	static const char *const effects[] = {
		[WORKS] = "works", [NO_EFFECT] = "accepted, no effect", [REFUSED] = "exit 2"};
	int err = buf_puts(out, "| option | here | |\n|---|---|---|\n");

	for (size_t i = 0; !err && i < FLAGS; i++)
		err = buf_printf(out, "| `--%s` | %s | %s |\n", flags[i].name,
				 effects[flags[i].effect], flags[i].note ? flags[i].note : "");
	return err;
}
