#include "cmd/top_frame.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/bars.h"
#include "lib/base/table.h"

#define RATE_STATES 5 /* a rate is over so many states at most */

/* One worker, in the newest state and those before. */
struct row {
	const cJSON *now, *past[TOP_STATES]; /* past[i] is of state i, NULL: it was not there */
	double flight, rate, tokens, first, gap, cached, errors;
};

static double number(const cJSON *o, const char *name)
{
	const cJSON *m = cJSON_GetObjectItemCaseSensitive(o, name);

	return cJSON_IsNumber(m) ? m->valuedouble : (double)NAN;
}

static const char *text(const cJSON *o, const char *name)
{
	const cJSON *m = cJSON_GetObjectItemCaseSensitive(o, name);

	return cJSON_IsString(m) ? m->valuestring : "";
}

int top_add(struct top *t, cJSON *state)
{
	if (!cJSON_IsArray(cJSON_GetObjectItemCaseSensitive(state, "workers")) ||
	    !isfinite(number(state, "at"))) {
		cJSON_Delete(state);
		return PD_EPROTO;
	}
	if (t->n == TOP_STATES) {
		cJSON_Delete(t->state[0]);
		memmove(t->state, t->state + 1, (TOP_STATES - 1) * sizeof(cJSON *));
		t->n--;
	}
	t->state[t->n++] = state;
	return PD_OK;
}

void top_release(struct top *t)
{
	for (unsigned i = 0; i < t->n; i++)
		cJSON_Delete(t->state[i]);
	t->n = 0;
}

/* -- figures -- */

static const cJSON *find(const cJSON *state, const cJSON *like)
{
	const cJSON *w;

	cJSON_ArrayForEach(w, cJSON_GetObjectItemCaseSensitive(state, "workers"))
	{
		if (strcmp(text(w, "name"), text(like, "name")) == 0 &&
		    strcmp(text(w, "role"), text(like, "role")) == 0)
			return w;
	}
	return NULL;
}

/* The oldest of the last states in which it was there. */
static unsigned since(const struct row *r, unsigned last, unsigned states)
{
	unsigned i = last;

	while (i > 0 && last - i < states && r->past[i - 1])
		i--;
	return i;
}

static double seconds(const struct top *t, unsigned a, unsigned b)
{
	return (number(t->state[b], "at") - number(t->state[a], "at")) / 1e3;
}

/* How much the count rose between two states, per second; NaN when it fell (another router). */
static double rate(const struct top *t, const struct row *r, unsigned a, unsigned b,
		   const char *name)
{
	double d = number(r->past[b], name) - number(r->past[a], name), s = seconds(t, a, b);

	return s > 0 && d >= 0 ? d / s : (double)NAN;
}

/* Of what was added since: sum over count. */
static double mean(const struct row *r, unsigned a, unsigned b, const char *sum, const char *n)
{
	double d = number(r->past[b], n) - number(r->past[a], n);

	return d > 0 ? (number(r->past[b], sum) - number(r->past[a], sum)) / d : (double)NAN;
}

static void fill(const struct top *t, struct row *r)
{
	unsigned last = t->n - 1, a;

	for (unsigned i = 0; i < t->n; i++)
		r->past[i] = i == last ? r->now : find(t->state[i], r->now);
	a = since(r, last, RATE_STATES);
	r->flight = number(r->now, "in_flight");
	r->errors = number(r->now, "errors");
	r->rate = rate(t, r, a, last, "requests");
	r->tokens = rate(t, r, a, last,
			 strcmp(text(r->now, "role"), "prefill") == 0 ? "prompt_tokens"
								      : "completion_tokens");
	a = since(r, last, TOP_STATES);
	r->first = mean(r, a, last, "first_us", "first_n") / 1e3;
	r->gap = mean(r, a, last, "gap_us", "gap_n") / 1e3;
	r->cached = number(r->now, "cached_tokens") / number(r->now, "prompt_tokens");
}

/* -- order -- */

static int by_name(const void *a, const void *b)
{
	const struct row *x = a, *y = b;
	int role = strcmp(text(x->now, "role"), text(y->now, "role"));

	return role ? role : strverscmp(text(x->now, "name"), text(y->now, "name"));
}

static int falling(double x, double y, const void *a, const void *b)
{
	x = isfinite(x) ? x : -1;
	y = isfinite(y) ? y : -1;
	return x > y ? -1 : x < y ? 1 : by_name(a, b);
}

static int by_flight(const void *a, const void *b)
{
	return falling(((const struct row *)a)->flight, ((const struct row *)b)->flight, a, b);
}

static int by_rate(const void *a, const void *b)
{
	return falling(((const struct row *)a)->rate, ((const struct row *)b)->rate, a, b);
}

static int by_errors(const void *a, const void *b)
{
	return falling(((const struct row *)a)->errors, ((const struct row *)b)->errors, a, b);
}

/* -- lines -- */

/* Printable, whatever a name holds: what a terminal would obey becomes '?'. */
static void clean(char *out, size_t cap, const char *s, bool ascii)
{
	size_t n = 0;

	for (; *s && n + 1 < cap; s++) {
		unsigned char c = (unsigned char)*s;
		bool c1 = c == 0xc2 && (unsigned char)s[1] >= 0x80 && (unsigned char)s[1] < 0xa0;

		/* C1 controls are two bytes in UTF-8. */
		s += c1;
		if (c < ' ' || c == 0x7f || (ascii && c >= 0x80) || c1)
			c = '?';
		out[n++] = (char)c;
	}
	while (n > 0 && *s && ((unsigned char)out[n - 1] & 0xc0) == 0x80)
		n--; /* a character that was cut */
	if (n > 0 && *s && (unsigned char)out[n - 1] >= 0xc0)
		n--;
	out[n] = '\0';
}

static void cell(struct table *tb, double v, int digits, const char *unit)
{
	if (isfinite(v))
		table_cell(tb, "%.*f%s", digits, v, unit);
	else
		table_cell(tb, "-");
}

static void put_row(const struct top *t, const struct row *r, const struct top_look *look,
		    struct table *tb)
{
	double v[TOP_STATES];
	char s[256];
	struct buf b;

	table_row(tb);
	table_cell(tb, "%s", text(r->now, "role"));
	clean(s, sizeof(s), text(r->now, "name"), look->ascii);
	table_cell(tb, "%s", s);
	table_cell(tb, "%s", text(r->now, "state"));
	cell(tb, r->flight, 0, "");
	cell(tb, number(r->now, "oldest_silent_s"), 1, " s");
	cell(tb, r->rate, 1, "");
	cell(tb, r->tokens, 0, "");
	cell(tb, r->first, 1, "");
	cell(tb, r->gap, 2, "");
	cell(tb, 100 * r->cached, 0, " %");
	cell(tb, r->errors, 0, "");
	buf_init(&b, 4096);
	for (unsigned i = 1; i < t->n; i++)
		v[i - 1] = r->past[i - 1] && r->past[i] ? rate(t, r, i - 1, i, "requests")
							: (double)NAN;
	if (bars_spark(v, t->n - 1, 0, look->ascii, &b) == PD_OK && b.len > 0)
		table_cell(tb, "%s", b.data);
	else
		table_cell(tb, "%s", "");
	clean(s, sizeof(s), text(r->now, "why"), look->ascii);
	table_cell(tb, "%s", s);
	buf_release(&b);
}

static void put_columns(struct table *tb)
{
	static const char *const heads[] = {"role",	 "worker",	"state",     ">in flight",
					    ">silent",	 ">requests/s", ">tokens/s", ">first ms",
					    ">token ms", ">cached",	">errors",   "requests",
					    "why"};

	for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++)
		table_column(tb, heads[i]);
}

/* How often --shadow-policy picked the same. */
static int put_shadow(const cJSON *s, struct buf *out)
{
	double same = number(s, "same"), all = same + number(s, "other") + number(s, "none");

	return all > 0 ? buf_printf(out, ", shadow %s agrees in %.1f %%", text(s, "policy"),
				    100 * same / all)
		       : PD_OK;
}

static int put_head(const struct top *t, const struct top_look *look, const struct row *row,
		    size_t n, struct buf *out)
{
	static const char *const orders[] = {"name", "in flight", "requests/s", "errors"};
	const cJSON *now = t->state[t->n - 1], *p;
	double rates = 0, tokens = 0, up = 0;
	char url[200], version[64];
	int err;

	for (size_t i = 0; i < n; i++) {
		bool prefill = strcmp(text(row[i].now, "role"), "prefill") == 0;

		up += strcmp(text(row[i].now, "state"), "available") == 0;
		rates += isfinite(row[i].rate) && !prefill ? row[i].rate : 0;
		tokens += isfinite(row[i].tokens) && !prefill ? row[i].tokens : 0;
	}
	clean(url, sizeof(url), look->url, look->ascii);
	clean(version, sizeof(version), text(now, "version"), look->ascii);
	err = buf_printf(
		out, "pdctl top  %s  version %s, %s%s%s%s\n", url, version, text(now, "mode"),
		cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(now, "draining")) ? ", draining" : "",
		look->paused ? "  PAUSED" : "", look->trouble ? "  NO ANSWER" : "");
	err = err ? err
		  : buf_printf(
			    out,
			    "%.0f in flight, %.0f queued, %.1f requests/s, %.0f tokens/s, %.0f of "
			    "%zu workers available; by %s\n",
			    number(now, "in_flight"), number(now, "queued"), rates, tokens, up, n,
			    orders[look->order]);
	cJSON_ArrayForEach(p, cJSON_GetObjectItemCaseSensitive(now, "pools"))
	{
		err = err ? err
			  : buf_printf(out, "%s%s: %.0f of %.0f, policy %s",
				       p->prev && p->prev->next ? "; " : "", text(p, "role"),
				       number(p, "available"), number(p, "workers"),
				       text(p, "policy"));
		err = err ? err : put_shadow(cJSON_GetObjectItemCaseSensitive(p, "shadow"), out);
	}
	return err ? err : buf_puts(out, "\n\n");
}

/* The lines of `in`, cut to the window. */
static int cut(const char *in, const struct top_look *look, struct buf *out)
{
	unsigned line = 0, column = 0;
	int err = PD_OK;

	for (; !err && *in && (!look->height || line < look->height); in++) {
		bool begins = ((unsigned char)*in & 0xc0) != 0x80;

		if (*in == '\n') {
			while (out->len > 0 && out->data[out->len - 1] == ' ')
				out->data[--out->len] = '\0';
			err = buf_putc(out, '\n');
			line++;
			column = 0;
			continue;
		}
		column += begins;
		if (!look->width || column <= look->width)
			err = buf_putc(out, *in);
	}
	return err;
}

int top_frame(const struct top *t, const struct top_look *look, struct buf *out)
{
	static int (*const orders[TOP_ORDERS])(const void *, const void *) = {by_name, by_flight,
									      by_rate, by_errors};
	const cJSON *list, *w;
	struct table tb;
	struct row *row;
	struct buf whole;
	size_t n = 0;
	int err;

	if (t->n == 0)
		return buf_printf(out, "pdctl top: %s\n",
				  look->trouble ? look->trouble : "no state yet");
	list = cJSON_GetObjectItemCaseSensitive(t->state[t->n - 1], "workers");
	row = calloc((size_t)cJSON_GetArraySize(list) + 1, sizeof(*row));
	if (!row)
		return PD_ENOMEM;
	cJSON_ArrayForEach(w, list)
	{
		row[n].now = w;
		fill(t, &row[n++]);
	}
	qsort(row, n, sizeof(*row), orders[look->order]);
	table_init(&tb);
	put_columns(&tb);
	for (size_t i = 0; i < n; i++)
		put_row(t, &row[i], look, &tb);
	table_cut(&tb, 1, 36);
	buf_init(&whole, 4u << 20);
	err = put_head(t, look, row, n, &whole);
	err = err ? err : table_text(&tb, &whole);
	err = err ? err : cut(whole.data, look, out);
	buf_release(&whole);
	table_release(&tb);
	free(row);
	return err;
}
