/* Scorers and filters that compare what a request says with what a worker is: adapter, label,
 * length, address. */
#include <stdlib.h>

#include "lib/route/hash.h"
#include "lib/route/score/stage.h"

/* -- lora-affinity-scorer -- */

static bool has_name(const _Atomic uint64_t *names, const _Atomic uint32_t *n, uint64_t name)
{
	uint32_t count = atomic_load_explicit(n, memory_order_relaxed);

	count = count < ROUTE_ADAPTERS_MAX ? count : ROUTE_ADAPTERS_MAX;
	for (uint32_t i = 0; i < count; i++)
		if (atomic_load_explicit(&names[i], memory_order_relaxed) == name)
			return true;
	return false;
}

/* The adapter is loaded 1, there is room for one more 0.8, it waits for a place 0.6, else 0. */
static void lora(const struct score_call *c, const uint16_t *list, size_t n, double *out)
{
	struct span model = c->run->rq->model;
	uint64_t name = route_hash(ROUTE_HASH_XXH3, model.p, model.n);

	for (size_t i = 0; i < n; i++) {
		const struct route_adapters *a = &c->run->pool->worker[list[i]].slot->adapters;
		uint32_t used = atomic_load_explicit(&a->nactive, memory_order_relaxed) +
				atomic_load_explicit(&a->nwaiting, memory_order_relaxed);

		if (has_name(a->active, &a->nactive, name))
			out[i] = 1;
		else if (used < atomic_load_explicit(&a->max, memory_order_relaxed))
			out[i] = 0.8;
		else
			out[i] = has_name(a->waiting, &a->nwaiting, name) ? 0.6 : 0;
	}
}

/* -- header-label-affinity-scorer -- */

struct header_params {
	const char *header, *label;
};

static const struct score_param header_params[] = {
	{.type = SCORE_PARAM_TEXT,
	 .name = "headerName",
	 .offset = offsetof(struct header_params, header)},
	{.type = SCORE_PARAM_TEXT,
	 .name = "labelKey",
	 .offset = offsetof(struct header_params, label)},
	{.type = SCORE_PARAM_END},
};

static int header_check(struct score_reader *r, void *params)
{
	struct header_params *p = params;

	if (!p->header || !p->header[0])
		return score_wrong(r, "headerName", "found none, expected a header's name");
	if (!p->label || !p->label[0])
		return score_wrong(r, "labelKey", "found none, expected a label's name");
	p->header = score_lower(r->arena, p->header);
	return p->header ? PD_OK : PD_ENOMEM;
}

static void header_fact(const void *params, const struct route_worker *w, struct score_fact *out)
{
	out->text = route_label(&w->labels, span_of(((const struct header_params *)params)->label));
}

static void header_label(const struct score_call *c, const uint16_t *list, size_t n, double *out)
{
	const struct header_params *p = c->params;
	struct span value = score_header(c->run->rq, p->header);

	for (size_t i = 0; i < n; i++)
		out[i] = value.n > 0 && span_eq(c->fact[list[i]].text, value);
}

/* -- header-based-testing-filter -- */

/* The next of "a, b"; false: there is none. */
static bool next_word(struct span *rest, struct span *word)
{
	const char *comma = rest->n ? memchr(rest->p, ',', rest->n) : NULL;
	size_t n = comma ? (size_t)(comma - rest->p) : rest->n;

	if (rest->n == 0)
		return false;
	*word = span_trim((struct span){rest->p, n});
	n += comma != NULL;
	rest->p += n;
	rest->n -= n;
	return true;
}

/* Address and port, or the address alone. */
static bool is_at(const struct route_worker *w, struct span word)
{
	struct span at = span_of(w->address);
	const char *colon = memrchr(at.p, ':', at.n);

	return word.n > 0 &&
	       (span_eq(at, word) ||
		(colon && span_eq((struct span){at.p, (size_t)(colon - at.p)}, word)));
}

static size_t testing(const struct score_call *c, uint16_t *list, size_t n)
{
	struct span all = score_header(c->run->rq, "test-epp-endpoint-selection"), word;
	size_t kept = 0;

	for (size_t i = 0; i < n; i++) {
		struct span rest = all;
		bool named = false;

		while (!named && next_word(&rest, &word))
			named = is_at(&c->run->pool->worker[list[i]], word);
		if (named)
			list[kept++] = list[i];
	}
	return kept;
}

/* -- context-length-aware -- */

struct length_params {
	const char *label;
	bool filter;
};

static const struct score_param length_params[] = {
	{.type = SCORE_PARAM_TEXT,
	 .name = "label",
	 .offset = offsetof(struct length_params, label),
	 .text = "llm-d.ai/context-length-range"},
	{.type = SCORE_PARAM_BOOL,
	 .name = "enableFiltering",
	 .offset = offsetof(struct length_params, filter)},
	{.type = SCORE_PARAM_END},
};

enum { LENGTH_ANY, LENGTH_BAD, LENGTH_RANGE };

static int length_check(struct score_reader *r, void *params)
{
	const struct length_params *p = params;

	return p->label && p->label[0]
		       ? PD_OK
		       : score_wrong(r, "label", "found none, expected a label's name");
}

/* A whole number with white space around it. */
static bool read_number(struct span s, int64_t *out)
{
	uint64_t v = 0;

	while (s.n > 0 && strchr(" \t\n\r\v\f", s.p[0]))
		s.p++, s.n--;
	while (s.n > 0 && strchr(" \t\n\r\v\f", s.p[s.n - 1]))
		s.n--;
	if (s.n > 0 && s.p[0] == '+')
		s.p++, s.n--;
	if (s.n == 0)
		return false;
	for (size_t i = 0; i < s.n; i++) {
		if (s.p[i] < '0' || s.p[i] > '9' || v > (INT64_MAX - 9) / 10)
			return false;
		v = v * 10 + (uint64_t)(s.p[i] - '0');
	}
	*out = (int64_t)v;
	return true;
}

static void length_fact(const void *params, const struct route_worker *w, struct score_fact *out)
{
	struct span range =
		route_label(&w->labels, span_of(((const struct length_params *)params)->label));
	const char *dash = range.n ? memchr(range.p, '-', range.n) : NULL;
	size_t first = dash ? (size_t)(dash - range.p) : 0;

	out->kind = range.p ? LENGTH_BAD : LENGTH_ANY;
	if (dash && read_number((struct span){range.p, first}, &out->low) &&
	    read_number((struct span){dash + 1, range.n - first - 1}, &out->high) &&
	    out->low <= out->high)
		out->kind = LENGTH_RANGE;
}

static bool in_range(const struct score_fact *f, int64_t n)
{
	return f->kind == LENGTH_RANGE && n >= f->low && n <= f->high;
}

static size_t length_filter(const struct score_call *c, uint16_t *list, size_t n)
{
	size_t kept = 0;

	if (!((const struct length_params *)c->params)->filter)
		return n;
	for (size_t i = 0; i < n; i++)
		if (c->fact[list[i]].kind == LENGTH_ANY ||
		    in_range(&c->fact[list[i]], c->run->rq->tokens))
			list[kept++] = list[i];
	return kept;
}

/* In range: 0.3 + 0.7 * (0.7 / (1 + width / 10000) + 0.3 * (high - n) / width), 1 when the range is
 * one length; outside by d: 0.3 / (1 + d / 1000); without a label 0.5; with one that is no range 0.
 */
static void length(const struct score_call *c, const uint16_t *list, size_t n, double *out)
{
	int64_t tokens = c->run->rq->tokens;

	for (size_t i = 0; i < n; i++) {
		const struct score_fact *f = &c->fact[list[i]];
		double width = (double)(f->high - f->low);
		int64_t off = tokens < f->low ? f->low - tokens : tokens - f->high;

		if (f->kind != LENGTH_RANGE)
			out[i] = f->kind == LENGTH_ANY ? 0.5 : 0;
		else if (!in_range(f, tokens))
			out[i] = 0.3 / (1 + (double)off / 1000);
		else if (width == 0)
			out[i] = 1;
		else
			out[i] = 0.3 + 0.7 * (0.7 * (1 / (1 + width / 10000)) +
					      0.3 * ((double)(f->high - tokens) / width));
	}
}

const struct score_type score_lora = {
	.name = "lora-affinity-scorer",
	.kinds = SCORE_SCORER,
	.wants = SCORE_WANTS_SIGNALS,
	.help = "the request's adapter is loaded, has room, or waits for it",
	.unread = true,
	.score = lora,
};

const struct score_type score_header_label = {
	.name = "header-label-affinity-scorer",
	.kinds = SCORE_SCORER,
	.help = "1 where a header of the request is equal to a label",
	.params = header_params,
	.params_size = sizeof(struct header_params),
	.check = header_check,
	.fact = header_fact,
	.score = header_label,
};

const struct score_type score_header_testing = {
	.name = "header-based-testing-filter",
	.kinds = SCORE_FILTER,
	.help = "the workers whose address the header `test-epp-endpoint-selection` names",
	.filter = testing,
};

const struct score_type score_context_length = {
	.name = "context-length-aware",
	.kinds = SCORE_FILTER | SCORE_SCORER,
	.wants = SCORE_WANTS_TOKENS,
	.help = "the prompt's length fits the range of a label; filters on request",
	.params = length_params,
	.params_size = sizeof(struct length_params),
	.check = length_check,
	.fact = length_fact,
	.filter = length_filter,
	.score = length,
};
