/*
 * Every run is compared with the first run of the base, so runs of one side that do not belong
 * together are found as well. What varies by chance is compared by its mean over a side: the
 * input's token total varies with the seed of the data set (about 3 % in real repeated runs).
 */
#include "lib/results/compare_config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define INPUT_NOTE     0.01
#define INPUT_REFUSE   0.05
#define OUTPUT_REFUSE  0.02
#define FAILURE_REFUSE 0.01 /* of requests */
#define CACHED_REFUSE  0.05 /* of input tokens */
#define LOAD_PREFIX    "pdctl.load."

/* Equal in all runs. */
static const char *const settings[] = {
	"model_id",
	"backend",
	"num_prompts",
	"request_rate",
	"burstiness",
	"max_concurrency",
	"ramp_up_strategy",
	"ramp_up_start_rps",
	"ramp_up_end_rps",
	"strategy",
	"pdctl.dataset_hash",
	"pdctl.dataset_sha256",
	"pdctl.workload_hash",
	"pdctl.endpoint",
	"pdctl.stream",
	"pdctl.warmups",
	"pdctl.affinity",
	"pdctl.session_field",
	"pdctl.session_pattern",
	"pdctl.token_basis",
	"pdctl.carry_answers",
	"pdctl.transport",
	"pdctl.speedup",
	"pdctl.session_rate",
	"pdctl.duration_limit",
	"pdctl.concurrent_sessions",
	NULL,
};
/* Names of the other checks. */
static const char input_tokens[] = "total_input_tokens", output_tokens[] = "total_output_tokens",
		  failed[] = "failed", cached[] = "cached_tokens", simulated[] = "simulated",
		  interrupted[] = "interrupted", client_ok[] = "client_ok";
static const char *const checks[] = {input_tokens, output_tokens, failed,     cached, simulated,
				     interrupted,  client_ok,	  "settings", "all",  NULL};

struct finding {
	struct compare *c;
	const char *allow;
	char keys[PD_MSG_MAX]; /* the refused keys, comma-separated */
};

bool compare_list_has(const char *list, const char *word, size_t n)
{
	while (list && *list) {
		size_t len = strcspn(list, ",");

		if (len == n && memcmp(list, word, n) == 0)
			return true;
		list += len + (list[len] == ',');
	}
	return false;
}

static bool allowed(const struct finding *f, const char *key)
{
	const char *own = strncmp(key, "pdctl.", 6) == 0 ? key + 6 : key;

	return compare_list_has(f->allow, key, strlen(key)) ||
	       compare_list_has(f->allow, own, strlen(own)) || compare_list_has(f->allow, "all", 3);
}

static void doubt(struct finding *f, const char *key, const char *text)
{
	size_t used = strlen(f->keys);

	if (allowed(f, key)) {
		compare_note(f->c, "%s", text);
		return;
	}
	compare_refuse(f->c, "%s", text);
	if (!compare_list_has(f->keys, key, strlen(key)) &&
	    used + strlen(key) + 2 < sizeof(f->keys))
		(void)snprintf(f->keys + used, sizeof(f->keys) - used, "%s%s", used ? "," : "",
			       key);
}

/* The value for people and for comparing; absent and null are the same ("not given"). */
static const char *shown(const struct result_doc *d, const char *key)
{
	const struct result_field *f = result_get(d, key);

	return !f || f->type == RESULT_NULL ? "not given" : f->text;
}

/* The end of a long path: the file name is there. */
static const char *tail(const char *path)
{
	size_t n = strlen(path);

	return n > 60 ? path + n - 60 : path;
}

static bool same_value(const struct result_doc *a, const struct result_doc *b, const char *key)
{
	double x = result_number(a, key), y = result_number(b, key);

	if (!isnan(x) && !isnan(y))
		return !(x < y) && !(x > y);
	return strcmp(shown(a, key), shown(b, key)) == 0;
}

static bool is_bool(const struct result_doc *d, const char *key, bool value)
{
	const struct result_field *f = result_get(d, key);

	return f && f->type == RESULT_BOOL && (f->number > 0) == value;
}

static double version(const struct result_doc *d)
{
	return result_number(d, "pdctl.version");
}

/* A key that one of two different tools, or of two versions, never writes is no difference in what
 * was run; between two files of one version it is "not given". */
static void check_setting(struct finding *f, const struct result_doc *base,
			  const struct result_doc *run, const char *key)
{
	bool both = result_get(base, key) && result_get(run, key);
	char text[512];

	if (same_value(base, run, key))
		return;
	(void)snprintf(text, sizeof(text), "%s differs: %.60s in '%.60s', %.60s in '%.60s'", key,
		       shown(base, key), tail(base->source), shown(run, key), tail(run->source));
	if (both || (version(base) >= 2 && !(version(base) < version(run)) &&
		     !(version(base) > version(run))))
		doubt(f, key, text);
	else
		compare_note(f->c, "%s", text);
}

/* Whatever the tool lists as a setting of the load. */
static void check_load(struct finding *f, const struct result_doc *base,
		       const struct result_doc *run)
{
	const struct result_doc *both[] = {base, run};

	for (int k = 0; k < 2; k++)
		for (size_t i = 0; i < both[k]->n; i++) {
			const char *key = both[k]->field[i].name;

			if (strncmp(key, LOAD_PREFIX, sizeof(LOAD_PREFIX) - 1) == 0 &&
			    (k == 0 || !result_get(base, key)))
				check_setting(f, base, run, key);
		}
}

static void check_run(struct finding *f, const struct result_doc *base,
		      const struct result_doc *run)
{
	bool sim[] = {is_bool(base, "pdctl.simulated", true),
		      is_bool(run, "pdctl.simulated", true)};
	char text[256];

	for (const char *const *key = settings; run != base && *key; key++)
		/* a run that ends by its clock has as many requests as it gets */
		if (strcmp(*key, "num_prompts") != 0 ||
		    isnan(result_number(base, "pdctl.duration_limit")))
			check_setting(f, base, run, *key);
	if (run != base)
		check_load(f, base, run);
	if (sim[0] != sim[1]) {
		(void)snprintf(text, sizeof(text),
			       "simulated differs: '%.60s' is %s, '%.60s' is %s",
			       tail(base->source), sim[0] ? "simulated" : "measured",
			       tail(run->source), sim[1] ? "simulated" : "measured");
		doubt(f, simulated, text);
	}
	if (is_bool(run, "pdctl.client_ok", false) || is_bool(run, "client_ok", false)) {
		(void)snprintf(text, sizeof(text),
			       "client_ok is false in '%.60s': the load generator could not keep "
			       "its schedule",
			       tail(run->source));
		doubt(f, client_ok, text);
	}
	if (is_bool(run, "pdctl.interrupted", true)) {
		(void)snprintf(text, sizeof(text), "interrupted: '%.60s' is not a whole run",
			       tail(run->source));
		doubt(f, interrupted, text);
	}
	if (strcmp(shown(base, "format"), shown(run, "format")) != 0)
		compare_note(f->c,
			     "results of different tools: %s in '%s', %s in '%s'; their clients "
			     "measure differently",
			     shown(base, "format"), base->source, shown(run, "format"),
			     run->source);
}

/* -- what is compared by its mean over a side -- */

static double failed_share(const struct result_doc *d)
{
	double bad = result_number(d, failed), good = result_number(d, "completed");

	if (isnan(good))
		good = result_number(d, "num_prompts") - bad;
	return bad + good > 0 ? bad / (bad + good) : NAN;
}

static double output_per_request(const struct result_doc *d)
{
	double done = result_number(d, "completed");

	return done > 0 ? result_number(d, output_tokens) / done : NAN;
}

static double input_total(const struct result_doc *d)
{
	return result_number(d, input_tokens);
}

static double cached_share(const struct result_doc *d)
{
	return result_number(d, "pdctl.cached_tokens.share");
}

static double mean_over(const struct result_set *s, double (*of)(const struct result_doc *))
{
	double sum = 0;

	for (size_t r = 0; r < s->n; r++)
		sum += of(&s->doc[r]);
	return sum / (double)s->n;
}

struct outcome {
	const char *key, *what, *unit;
	double (*of)(const struct result_doc *);
	double refuse; /* a difference above this */
	bool relative; /* of the base's value; else in the unit itself */
	double factor; /* for the reader */
	int digits;
};

static const struct outcome outcomes[] = {
	{failed, "share of failed requests", " %", failed_share, FAILURE_REFUSE, false, 100, 4},
	{output_tokens, "total_output_tokens per completed request", "", output_per_request,
	 OUTPUT_REFUSE, true, 1, 5},
	{input_tokens, "total_input_tokens", "", input_total, INPUT_REFUSE, true, 1, 10},
	{cached, "share of cached input tokens", " %", cached_share, CACHED_REFUSE, false, 100, 4},
};

static void check_outcome(struct finding *f, const struct compare_side *side,
			  const struct outcome *o)
{
	const struct compare_side *base = &f->c->side[0];
	double a = mean_over(&base->runs, o->of), b = mean_over(&side->runs, o->of);
	double off = fabs(b - a);
	char text[256];

	if (o->relative && a > 0)
		off /= a;
	(void)snprintf(text, sizeof(text), "%s differs: %.*g%s in %s, %.*g%s in %s", o->what,
		       o->digits, a * o->factor, o->unit, base->label, o->digits, b * o->factor,
		       o->unit, side->label);
	if (off > o->refuse)
		doubt(f, o->key, text);
	else if (o->key == input_tokens && off > INPUT_NOTE)
		compare_note(f->c, "%s", text);
}

/* -- the list of what may differ -- */

static bool known(const char *word, size_t n)
{
	for (const char *const *key = settings; *key; key++)
		if (compare_list_has(*key, word, n) ||
		    (strncmp(*key, "pdctl.", 6) == 0 && compare_list_has(*key + 6, word, n)))
			return true;
	for (const char *const *key = checks; *key; key++)
		if (compare_list_has(*key, word, n))
			return true;
	return n > 6 && strncmp(word, "pdctl.", 6) == 0;
}

int compare_config_allow(const char *allow, struct pd_msg *msg)
{
	while (allow && *allow) {
		size_t n = strcspn(allow, ",");

		if (!known(allow, n))
			return pd_fail(
				msg, PD_EINVAL,
				"--allow-different: found '%.*s', expected model_id, backend, "
				"num_prompts, request_rate, burstiness, max_concurrency, "
				"stream, endpoint, warmups, affinity, session_field, "
				"session_pattern, token_basis, dataset_hash, failed, "
				"total_input_tokens, total_output_tokens, cached_tokens, "
				"simulated, interrupted, client_ok, settings, pdctl.NAME or "
				"all",
				(int)n, allow);
		allow += n + (allow[n] == ',');
	}
	return PD_OK;
}

int compare_config(struct compare *c, const char *allow, struct pd_msg *msg)
{
	struct finding f = {.c = c, .allow = allow};

	for (size_t i = 0; i < c->nsides; i++)
		for (size_t r = 0; r < c->side[i].runs.n; r++)
			check_run(&f, &c->side[0].runs.doc[0], &c->side[i].runs.doc[r]);
	for (size_t i = 1; i < c->nsides; i++)
		for (size_t k = 0; k < sizeof(outcomes) / sizeof(outcomes[0]); k++)
			check_outcome(&f, &c->side[i], &outcomes[k]);
	if (c->nreasons == 0)
		return PD_OK;
	return pd_fail(msg, PD_ENOENT, "%s", f.keys);
}
