#include "lib/epp/engine_metrics.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/route/hash.h"

#define FAMILIES_MAX 4096 /* a power of two, of a page */

enum metric { WAITING, RUNNING, KV, CACHE, ADAPTERS, METRICS };

static const char *const names[METRICS] = {"vllm:num_requests_waiting", "vllm:num_requests_running",
					   "vllm:kv_cache_usage_perc", "vllm:cache_config_info",
					   "vllm:lora_requests_info"};

/* The series of a metric that counts. */
struct series {
	bool typed, there; /* typed: as a gauge or a counter */
	double value;
	int64_t time;
	struct span labels; /* between the braces */
};

struct page {
	struct series of[METRICS];
	uint64_t family[FAMILIES_MAX]; /* hashes of names that were typed or had samples */
	size_t nfamilies;
};

/* False: it was there already, or the page has too many. */
static bool first_time(struct page *p, struct span name)
{
	uint64_t h = route_hash(ROUTE_HASH_XXH3, name.p, name.n) | 1;
	size_t at = h % FAMILIES_MAX;

	while (p->family[at] != 0 && p->family[at] != h)
		at = (at + 1) % FAMILIES_MAX;
	if (p->family[at] == h || p->nfamilies == FAMILIES_MAX / 2)
		return false;
	p->family[at] = h;
	p->nfamilies++;
	return true;
}

static bool is_name_char(char c, bool first)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == ':' ||
	       (!first && c >= '0' && c <= '9');
}

static struct span take_name(struct span *s)
{
	struct span name = {s->p, 0};

	while (name.n < s->n && is_name_char(s->p[name.n], name.n == 0))
		name.n++;
	s->p += name.n;
	s->n -= name.n;
	return name;
}

static void skip_blanks(struct span *s)
{
	while (s->n > 0 && (*s->p == ' ' || *s->p == '\t'))
		s->p++, s->n--;
}

static struct span take_word(struct span *s)
{
	struct span word = {s->p, 0};

	while (word.n < s->n && s->p[word.n] != ' ' && s->p[word.n] != '\t')
		word.n++;
	s->p += word.n;
	s->n -= word.n;
	skip_blanks(s);
	return word;
}

/* One `name="value"` of a label set, and the comma behind it. PD_ENOENT: the set has ended. */
static int take_label(struct span *s, struct span *name, struct span *value)
{
	skip_blanks(s);
	if (s->n > 0 && *s->p == '}')
		return PD_ENOENT;
	*name = take_name(s);
	skip_blanks(s);
	if (name->n == 0 || s->n < 2 || *s->p != '=')
		return PD_EPROTO;
	s->p++, s->n--;
	skip_blanks(s);
	if (s->n == 0 || *s->p != '"')
		return PD_EPROTO;
	s->p++, s->n--;
	*value = (struct span){s->p, 0};
	while (value->n < s->n && s->p[value->n] != '"')
		value->n += s->p[value->n] == '\\' ? 2 : 1;
	if (value->n >= s->n)
		return PD_EPROTO;
	s->p += value->n + 1;
	s->n -= value->n + 1;
	skip_blanks(s);
	if (s->n > 0 && *s->p == ',')
		s->p++, s->n--;
	else if (s->n == 0 || *s->p != '}')
		return PD_EPROTO;
	return PD_OK;
}

static int take_labels(struct span *s, struct span *set)
{
	struct span name, value;
	int err;

	*set = (struct span){"", 0};
	if (s->n == 0 || *s->p != '{')
		return PD_OK;
	s->p++, s->n--;
	*set = *s;
	while ((err = take_label(s, &name, &value)) == PD_OK)
		continue;
	if (err != PD_ENOENT)
		return err;
	set->n -= s->n;
	s->p++, s->n--;
	skip_blanks(s);
	return PD_OK;
}

static int read_double(struct span word, double *out)
{
	char text[64], *end;

	if (word.n == 0 || word.n >= sizeof(text))
		return PD_EPROTO;
	memcpy(text, word.p, word.n);
	text[word.n] = '\0';
	*out = strtod(text, &end);
	return *end ? PD_EPROTO : PD_OK;
}

/* As Go's Atoi. */
static bool read_whole(struct span word, int64_t *out)
{
	char text[32], *end;

	if (word.n == 0 || word.n >= sizeof(text) || word.p[0] == ' ')
		return false;
	memcpy(text, word.p, word.n);
	text[word.n] = '\0';
	errno = 0;
	*out = strtoll(text, &end, 10);
	return !*end && end != text && errno == 0;
}

/* Newer, or (adapters) higher than what was read before? */
static bool is_better(enum metric m, const struct series *old, const struct series *fresh)
{
	if (!old->there)
		return true;
	return m == ADAPTERS ? fresh->value > old->value : fresh->time > old->time;
}

static int read_sample(struct page *p, struct span line)
{
	struct span name = take_name(&line), labels, word;
	struct series fresh = {.there = true};
	int err;

	if (name.n == 0)
		return PD_EPROTO;
	skip_blanks(&line);
	err = take_labels(&line, &labels);
	word = take_word(&line);
	err = err ? err : read_double(word, &fresh.value);
	if (!err && line.n > 0) {
		word = take_word(&line);
		err = read_whole(word, &fresh.time) && line.n == 0 ? PD_OK : PD_EPROTO;
	}
	if (err)
		return err;
	(void)first_time(p, name);
	fresh.labels = labels;
	for (int m = 0; m < METRICS; m++) {
		if (!span_eq(span_of(names[m]), name) ||
		    !is_better((enum metric)m, &p->of[m], &fresh))
			continue;
		fresh.typed = p->of[m].typed;
		p->of[m] = fresh;
	}
	return PD_OK;
}

/* "# TYPE NAME KIND"; other comments say nothing. */
static int read_comment(struct page *p, struct span line)
{
	struct span what, name, kind;

	line.p++, line.n--;
	skip_blanks(&line);
	what = take_word(&line);
	if (!span_eq(what, SPAN("TYPE")))
		return PD_OK;
	name = take_word(&line);
	kind = take_word(&line);
	if (name.n == 0 || line.n > 0 ||
	    !(span_eq_case(kind, SPAN("gauge")) || span_eq_case(kind, SPAN("counter")) ||
	      span_eq_case(kind, SPAN("histogram")) || span_eq_case(kind, SPAN("summary")) ||
	      span_eq_case(kind, SPAN("untyped"))) ||
	    !first_time(p, name))
		return PD_EPROTO;
	for (int m = 0; m < METRICS; m++)
		if (span_eq(span_of(names[m]), name))
			p->of[m].typed = span_eq_case(kind, SPAN("gauge")) ||
					 span_eq_case(kind, SPAN("counter"));
	return PD_OK;
}

static int read_page(struct page *p, const char *text, size_t n)
{
	int err = PD_OK;

	while (!err && n > 0) {
		const char *eol = memchr(text, '\n', n);
		struct span line = {text, eol ? (size_t)(eol - text) : n};

		if (!eol)
			return PD_EPROTO;
		n -= line.n + 1;
		text = eol + 1;
		skip_blanks(&line);
		if (line.n > 0 && line.p[line.n - 1] == '\r')
			line.n--;
		if (line.n > 0)
			err = *line.p == '#' ? read_comment(p, line) : read_sample(p, line);
	}
	return err;
}

/* -- what it means -- */

static bool label(const struct series *s, const char *want, struct span *out)
{
	struct span set = s->labels, name;

	set.n++; /* the brace */
	while (s->labels.n > 0 && take_label(&set, &name, out) == PD_OK)
		if (span_eq(name, span_of(want)))
			return true;
	return false;
}

static void read_names(const struct series *s, const char *want, struct engine_adapters *out)
{
	struct span list;

	if (!label(s, want, &list))
		return;
	out->n = 0;
	while (list.n > 0) {
		const char *comma = memchr(list.p, ',', list.n);
		size_t len = comma ? (size_t)(comma - list.p) : list.n;
		struct span one = span_trim((struct span){list.p, len});
		uint64_t name = route_hash(ROUTE_HASH_XXH3, one.p, one.n);
		uint32_t i = 0;

		len += comma != NULL;
		list.p += len;
		list.n -= len;
		while (i < out->n && i < ROUTE_ADAPTERS_MAX && out->name[i] != name)
			i++;
		if (one.n == 0 || (i < out->n && i < ROUTE_ADAPTERS_MAX))
			continue;
		if (out->n < ROUTE_ADAPTERS_MAX)
			out->name[out->n] = name;
		out->n++;
	}
}

static double value(const struct series *s)
{
	return s->typed ? s->value : 0;
}

static int32_t whole(const struct series *s)
{
	double v = value(s);

	return !(v > -2e9) ? (v < 0 ? -2000000000 : 0) : v > 2e9 ? 2000000000 : (int32_t)v;
}

/* A label that is a number: 0 when it is none, and its last value when it is not there or empty. */
static bool label_number(const struct series *s, const char *name, int64_t *out)
{
	struct span word;

	if (!label(s, name, &word) || word.n == 0)
		return false;
	if (read_whole(word, out))
		return true;
	*out = 0;
	return false;
}

int engine_metrics_read(struct engine_metrics *m, const char *text, size_t n, bool *complete)
{
	struct page *p = calloc(1, sizeof(*p));
	int64_t max = 0;
	int err = p ? read_page(p, text, n) : PD_ENOMEM;

	*complete = false;
	if (err) {
		free(p);
		return err;
	}
	*complete = p->of[WAITING].there && p->of[RUNNING].there && p->of[KV].there;
	if (p->of[WAITING].there)
		m->waiting = whole(&p->of[WAITING]);
	if (p->of[RUNNING].there)
		m->running = whole(&p->of[RUNNING]);
	if (p->of[KV].there)
		m->kv_usage = value(&p->of[KV]);
	if (p->of[CACHE].there) {
		bool size = label_number(&p->of[CACHE], "block_size", &m->block_size);
		bool blocks = label_number(&p->of[CACHE], "num_gpu_blocks", &m->num_blocks);

		*complete = *complete && size && blocks;
	} else {
		*complete = false;
	}
	if (p->of[ADAPTERS].there) {
		read_names(&p->of[ADAPTERS], "running_lora_adapters", &m->active);
		read_names(&p->of[ADAPTERS], "waiting_lora_adapters", &m->queued);
		if (label_number(&p->of[ADAPTERS], "max_lora", &max) && max >= 0 && max < 1 << 20)
			m->max_adapters = (uint32_t)max;
		else
			*complete = false;
	}
	free(p);
	return PD_OK;
}

static void publish_names(const struct engine_adapters *a, _Atomic uint64_t *to,
			  _Atomic uint32_t *n)
{
	for (uint32_t i = 0; i < a->n && i < ROUTE_ADAPTERS_MAX; i++)
		atomic_store_explicit(&to[i], a->name[i], memory_order_relaxed);
	atomic_store_explicit(n, a->n, memory_order_relaxed);
}

void engine_metrics_publish(const struct engine_metrics *m, struct route_slot *s, int64_t now)
{
	struct route_adapters *a = &s->adapters;

	publish_names(&m->active, a->active, &a->nactive);
	publish_names(&m->queued, a->waiting, &a->nwaiting);
	atomic_store_explicit(&a->max, m->max_adapters, memory_order_relaxed);
	route_signal_set(&s->signal, m->waiting, m->running, m->kv_usage, now);
}
