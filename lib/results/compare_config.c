/*
 * Every run is compared with the first run of the base, so runs of one side that do not belong
 * together are found as well. The input's token total varies with the seed of the data set (about 3
 * % in real repeated runs), so the sides' means are compared: above INPUT_NOTE it is noted, above
 * INPUT_REFUSE refused.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "lib/results/compare_config.h"

#define INPUT_NOTE   0.01
#define INPUT_REFUSE 0.05

static const char *const settings[] = {
	"model_id",	      "num_prompts",	      "request_rate",	     "max_concurrency",
	"pdctl.dataset_hash", "pdctl.dataset_sha256", "pdctl.workload_hash", NULL,
};
static const char input_tokens[] = "total_input_tokens";
static const char simulated[] = "pdctl.simulated";
static const char client_ok[] = "client_ok";

struct finding {
	struct compare *c;
	const char *allow;
	struct pd_msg *msg;
	struct pd_msg keys; /* the refused keys, comma-separated */
	unsigned refused;
};

static bool listed(const char *list, const char *word)
{
	size_t n = strlen(word);

	while (list && *list) {
		size_t len = strcspn(list, ",");

		if ((len == n && memcmp(list, word, n) == 0) ||
		    (len == 3 && memcmp(list, "all", 3) == 0))
			return true;
		list += len + (list[len] == ',');
	}
	return false;
}

/* Appends as much of separator and text as fits. */
static void append(struct pd_msg *m, const char *separator, const char *text)
{
	const char *const parts[] = {m->text[0] ? separator : "", text};
	size_t n = strlen(m->text);

	for (int i = 0; i < 2; i++)
		for (const char *p = parts[i]; *p && n + 1 < sizeof(m->text); p++)
			m->text[n++] = *p;
	m->text[n] = '\0';
}

static void doubt(struct finding *f, const char *key, const char *text)
{
	if (listed(f->allow, key)) {
		compare_note(f->c, "%s", text);
		return;
	}
	f->refused++;
	if (listed(f->keys.text, key))
		return;
	append(&f->keys, ",", key);
	if (f->msg)
		append(f->msg, "; ", text);
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

static bool is_true(const struct result_doc *d, const char *key)
{
	const struct result_field *f = result_get(d, key);

	return f && f->type == RESULT_BOOL && f->number > 0;
}

static bool is_false(const struct result_doc *d, const char *key)
{
	const struct result_field *f = result_get(d, key);

	return f && f->type == RESULT_BOOL && !(f->number > 0);
}

static void check_setting(struct finding *f, const struct result_doc *base,
			  const struct result_doc *run, const char *key)
{
	char text[512];

	if (same_value(base, run, key))
		return;
	(void)snprintf(text, sizeof(text), "%s differs: %.60s in '%.60s', %.60s in '%.60s'", key,
		       shown(base, key), tail(base->source), shown(run, key), tail(run->source));
	/* A key that one of two different tools never writes is no difference in what was run. */
	if (!result_get(base, key) || !result_get(run, key))
		compare_note(f->c, "%s", text);
	else
		doubt(f, key, text);
}

static void check_run(struct finding *f, const struct result_doc *base,
		      const struct result_doc *run)
{
	char text[256];

	for (const char *const *key = settings; run != base && *key; key++)
		check_setting(f, base, run, *key);
	if (is_true(base, simulated) != is_true(run, simulated)) {
		(void)snprintf(
			text, sizeof(text), "%s differs: '%.60s' is %s, '%.60s' is %s", simulated,
			tail(base->source), is_true(base, simulated) ? "simulated" : "measured",
			tail(run->source), is_true(run, simulated) ? "simulated" : "measured");
		doubt(f, simulated, text);
	}
	if (is_false(run, "pdctl.client_ok") || is_false(run, client_ok)) {
		(void)snprintf(text, sizeof(text),
			       "client_ok is false in '%.60s': the load generator could not keep "
			       "its schedule",
			       tail(run->source));
		doubt(f, client_ok, text);
	}
	if (run != base && fabs(result_number(base, "failed") - result_number(run, "failed")) > 0)
		compare_note(f->c, "failed requests differ: %s in '%s', %s in '%s'",
			     shown(base, "failed"), base->source, shown(run, "failed"),
			     run->source);
}

static double mean_input(const struct result_set *s)
{
	double sum = 0;

	for (size_t r = 0; r < s->n; r++)
		sum += result_number(&s->doc[r], input_tokens);
	return sum / (double)s->n;
}

static void check_input(struct finding *f, const struct compare_side *base,
			const struct compare_side *side)
{
	double a = mean_input(&base->runs), b = mean_input(&side->runs);
	double off = a > 0 ? fabs(b - a) / a : fabs(b - a);
	char text[256];

	if (!(off > INPUT_NOTE))
		return;
	(void)snprintf(text, sizeof(text), "%s differs: %.0f in %s, %.0f in %s (mean per run)",
		       input_tokens, a, base->label, b, side->label);
	if (off > INPUT_REFUSE)
		doubt(f, input_tokens, text);
	else
		compare_note(f->c, "%s", text);
}

static bool is_setting(const char *word, size_t n)
{
	const char *const extra[] = {input_tokens, simulated, client_ok, "all"};

	for (const char *const *key = settings; *key; key++)
		if (strlen(*key) == n && memcmp(*key, word, n) == 0)
			return true;
	for (unsigned i = 0; i < sizeof(extra) / sizeof(extra[0]); i++)
		if (strlen(extra[i]) == n && memcmp(extra[i], word, n) == 0)
			return true;
	return false;
}

static int check_allow(const char *allow, struct pd_msg *msg)
{
	while (allow && *allow) {
		size_t n = strcspn(allow, ",");

		if (!is_setting(allow, n))
			return pd_fail(msg, PD_EINVAL,
				       "--allow-different: found '%.*s', expected model_id, "
				       "num_prompts, request_rate, max_concurrency, "
				       "total_input_tokens, pdctl.dataset_hash, pdctl.simulated, "
				       "client_ok or all",
				       (int)n, allow);
		allow += n + (allow[n] == ',');
	}
	return PD_OK;
}

int compare_config(struct compare *c, const char *allow, struct pd_msg *msg)
{
	struct finding f = {.c = c, .allow = allow, .msg = msg};
	char hint[PD_MSG_MAX + 64];
	int err = check_allow(allow, msg);

	if (err)
		return err;
	if (msg)
		msg->text[0] = '\0';
	for (size_t i = 0; i < c->nsides; i++)
		for (size_t r = 0; r < c->side[i].runs.n; r++)
			check_run(&f, &c->side[0].runs.doc[0], &c->side[i].runs.doc[r]);
	for (size_t i = 1; i < c->nsides; i++)
		check_input(&f, &c->side[0], &c->side[i]);
	if (f.refused == 0)
		return PD_OK;
	(void)snprintf(hint, sizeof(hint), "compare anyway with --allow-different %s", f.keys.text);
	if (msg) {
		/* The hint matters more than the tenth difference: make room for it. */
		size_t room = sizeof(msg->text) - 1 - strlen(hint) - 6;

		if (strlen(hint) + 6 < sizeof(msg->text) && strlen(msg->text) > room)
			(void)snprintf(msg->text + room, 4, "...");
		append(msg, "; ", hint);
	}
	return PD_ENOENT;
}
