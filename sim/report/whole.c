/* The verdict as data: every candidate with its distance to the best one, so that a page or a
 * script need not read the lines. */
#include "sim/report/whole.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <string.h>

#include "sim/figures/front.h"

static void put(cJSON *o, const char *name, double value)
{
	if (isfinite(value))
		(void)cJSON_AddNumberToObject(o, name, value);
	else
		(void)cJSON_AddNullToObject(o, name);
}

struct cJSON *simreport_head(struct cJSON *doc)
{
	cJSON *o = cJSON_AddObjectToObject(doc, "pdctl");

	if (!o || !cJSON_AddNumberToObject(o, "version", 1) ||
	    !cJSON_AddStringToObject(o, "kind", "simulate") ||
	    !cJSON_AddTrueToObject(o, "simulated"))
		return NULL;
	return o;
}

struct cJSON *simreport_whole(const struct simreport *r)
{
	cJSON *o = cJSON_CreateObject(), *list, *e;

	if (r->name)
		(void)cJSON_AddStringToObject(o, "scenario", r->name);
	(void)cJSON_AddStringToObject(o, "source", r->source);
	put(o, "arms", (double)r->arms->n);
	if (r->rules->objective.n > 0)
		(void)cJSON_AddStringToObject(o, "objective", r->rules->objective.text);
	if (r->rules->base)
		(void)cJSON_AddStringToObject(o, "base", r->rules->base);
	if (r->rules->share > 0)
		put(o, "goodput_share_wanted", r->rules->share);
	list = cJSON_AddArrayToObject(o, "front");
	for (size_t i = 0; i < r->rules->nfront; i++)
		(void)cJSON_AddItemToArray(list, cJSON_CreateString(r->rules->front[i].text));
	list = cJSON_AddArrayToObject(o, "expect");
	for (size_t i = 0; i < r->nexpect; i++) {
		e = cJSON_CreateObject();
		(void)cJSON_AddStringToObject(e, "text", r->expect[i].text);
		if (r->expect[i].place)
			(void)cJSON_AddStringToObject(e, "place", r->expect[i].place);
		(void)cJSON_AddItemToArray(list, e);
	}
	return o;
}

static void put_lines(cJSON *o, const struct buf *text)
{
	cJSON *list = cJSON_AddArrayToObject(o, "text");
	char line[1024];

	for (size_t at = 0; at < text->len;) {
		const char *p = text->data + at, *end = memchr(p, '\n', text->len - at);
		size_t n = end ? (size_t)(end - p) : text->len - at;
		size_t kept = n < sizeof(line) - 1 ? n : sizeof(line) - 1;

		memcpy(line, p, kept);
		line[kept] = '\0';
		(void)cJSON_AddItemToArray(list, cJSON_CreateString(line));
		at += n + 1;
	}
}

/* Bytes of the longest beginning of p[0..n) that has at most `width` characters and ends at a
 * space, or n. */
static size_t fitting(const char *p, size_t n, size_t width)
{
	size_t columns = 0, space = 0;

	for (size_t i = 0; i < n; i++) {
		columns += ((unsigned char)p[i] & 0xc0) != 0x80;
		if (columns > width)
			return space > 0 ? space : i;
		space = p[i] == ' ' ? i : space;
	}
	return n;
}

static int put_wrapped(struct buf *out, const char *p, size_t n, size_t width)
{
	const char *indent = "";
	int err = PD_OK;

	while (!err && n > 0) {
		size_t k = width > 0 ? fitting(p, n, width - strlen(indent)) : n;

		err = buf_printf(out, "%s%.*s\n", indent, (int)k, p);
		p += k;
		n -= k;
		while (n > 0 && *p == ' ') {
			p++;
			n--;
		}
		indent = "    ";
	}
	return err;
}

int simreport_verdict(const struct simreport *r, bool named, size_t width, struct buf *out)
{
	const char *p = r->verdict ? r->verdict->text.data : NULL;
	size_t left = r->verdict ? r->verdict->text.len : 0;
	struct buf line;
	bool first = true;
	int err = PD_OK;

	buf_init(&line, 4096);
	while (!err && left > 0) {
		const char *end = memchr(p, '\n', left);
		size_t n = end ? (size_t)(end - p) : left;

		buf_clear(&line);
		if (first && named && r->name)
			err = buf_printf(&line, "%s: ", r->name);
		else if (!first)
			err = buf_puts(&line, "  ");
		err = err ? err : buf_append(&line, p, n);
		err = err ? err : put_wrapped(out, line.data, line.len, width);
		n += end != NULL;
		p += n;
		left -= n;
		first = false;
	}
	buf_release(&line);
	return err;
}

void simreport_whole_judged(const struct simreport *r, struct cJSON *whole)
{
	const struct verdict *v = r->verdict;
	cJSON *o, *list;
	struct buf front;

	if (!v || r->shards > 0)
		return;
	o = cJSON_AddObjectToObject(whole, "verdict");
	(void)cJSON_AddStringToObject(o, "objective", v->objective.text);
	(void)cJSON_AddStringToObject(o, "better", v->objective.higher ? "higher" : "lower");
	put_lines(o, &v->text);
	(void)cJSON_AddBoolToObject(o, "difference", !v->none);
	put(o, "settings", (double)v->settings);
	list = cJSON_AddArrayToObject(o, "candidates");
	for (size_t k = 0; k < v->n; k++) {
		const struct verdict_candidate *c = &v->rank[k];
		cJSON *e = cJSON_CreateObject();

		(void)cJSON_AddStringToObject(e, "name", c->name);
		put(e, "arm", (double)c->arm);
		put(e, "distance", c->score);
		if (k > 0) {
			put(e, "best_against_it_percent", 100 * c->pair.change);
			put(e, "low_percent", 100 * c->pair.low);
			put(e, "high_percent", 100 * c->pair.high);
			(void)cJSON_AddStringToObject(e, "interval_of",
						      c->pair.n == 0	? "none"
						      : c->pair.windows ? "windows"
									: "repetitions");
			put(e, "interval_n", (double)c->pair.n);
			(void)cJSON_AddBoolToObject(e, "different", c->pair.different);
		}
		(void)cJSON_AddItemToArray(list, e);
	}
	if (v->n > 1)
		(void)cJSON_AddStringToObject(o, "compared_with", v->rank[v->other].name);
	buf_init(&front, 1024);
	if (front_text(r->arms, r->rules, &v->objective, &front) == PD_OK && front.data)
		(void)cJSON_AddStringToObject(o, "pareto_of", front.data);
	buf_release(&front);
}
