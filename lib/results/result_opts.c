/* The option texts that choose what a result document contains, and how its numbers are spelt. */
#include "lib/results/result_opts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/span.h"

static const char *const names[RESULT_METRICS] = {
	"ttft", "tpot", "itl", "e2el", "client_queue_time", "e2el_including_client_queue",
};

const char *result_metric_name(enum result_metric m)
{
	return (unsigned)m < RESULT_METRICS ? names[m] : NULL;
}

static bool metric_of(struct span s, enum result_metric *out)
{
	for (unsigned i = 0; i < RESULT_METRICS; i++)
		if (span_eq(s, span_of(names[i]))) {
			*out = (enum result_metric)i;
			return true;
		}
	return false;
}

/* The next piece of a comma-separated list, trimmed; false at the end. */
static bool next_piece(const char **at, struct span *out)
{
	const char *p = *at, *comma;

	if (!p)
		return false;
	comma = strchr(p, ',');
	*out = span_trim((struct span){p, comma ? (size_t)(comma - p) : strlen(p)});
	*at = comma ? comma + 1 : NULL;
	return true;
}

int result_metrics_parse(struct result_run *run, const char *list, struct pd_msg *msg)
{
	struct span piece;

	run->nmetrics = 0;
	while (next_piece(&list, &piece)) {
		enum result_metric m;

		if (!metric_of(piece, &m))
			return pd_fail(msg, PD_EINVAL,
				       "found '%.*s', expected ttft, tpot, itl, e2el, "
				       "client_queue_time or e2el_including_client_queue",
				       (int)piece.n, piece.p);
		for (size_t i = 0; i < run->nmetrics; i++)
			if (run->metric[i] == m)
				return pd_fail(msg, PD_EINVAL, "duplicate '%.*s'", (int)piece.n,
					       piece.p);
		run->metric[run->nmetrics++] = m;
	}
	return PD_OK;
}

static bool number_of(struct span s, double *out)
{
	char text[64], *end;

	if (s.n == 0 || s.n >= sizeof(text))
		return false;
	memcpy(text, s.p, s.n);
	text[s.n] = '\0';
	*out = strtod(text, &end);
	return *end == '\0' && isfinite(*out);
}

int result_percentiles_parse(struct result_run *run, const char *list, struct pd_msg *msg)
{
	struct span piece;

	run->npercentiles = 0;
	while (next_piece(&list, &piece)) {
		double v;

		if (!number_of(piece, &v) || v < 0 || v > 100)
			return pd_fail(msg, PD_EINVAL,
				       "found '%.*s', expected numbers from 0 to 100", (int)piece.n,
				       piece.p);
		if (run->npercentiles == RESULT_PERCENTILES_MAX)
			return pd_fail(msg, PD_ETOOBIG, "more than %d percentiles",
				       RESULT_PERCENTILES_MAX);
		run->percentile[run->npercentiles++] = v;
	}
	return PD_OK;
}

int result_goal_parse(struct result_run *run, const char *text, struct pd_msg *msg)
{
	const char *colon = strchr(text, ':');
	enum result_metric m = RESULT_METRICS;
	double v = 0;

	if (!colon || !metric_of((struct span){text, (size_t)(colon - text)}, &m) ||
	    (m != RESULT_TTFT && m != RESULT_TPOT && m != RESULT_E2EL) ||
	    !number_of(span_of(colon + 1), &v) || v <= 0)
		return pd_fail(msg, PD_EINVAL, "found '%s', expected ttft:MS, tpot:MS or e2el:MS",
			       text);
	for (size_t i = 0; i < run->ngoals; i++)
		if (run->goal[i].metric == m)
			return pd_fail(msg, PD_EINVAL, "duplicate '%s'", names[m]);
	run->goal[run->ngoals++] = (struct result_goal){m, v};
	return PD_OK;
}

/*
 * Nearly all numbers of a document are whole nanoseconds as seconds or milliseconds. A decimal of
 * at most 15 digits reads back as no other double than the nearest one, so when v is k / 10^9 its
 * digits are the shortest form, and no search is needed. Below 10^-4 Python writes an exponent.
 */
static bool put_decimal(char text[40], double v)
{
	double size = fabs(v);
	int64_t k;
	int n;

	if (size != 0 && (size < 1e-4 || size >= 1e5))
		return false;
	k = llround(size * 1e9);
	if ((double)k / 1e9 != size)
		return false;
	n = 28;
	text[n] = '\0';
	for (int i = 0; i < 9; i++, k /= 10)
		if (n < 28 || k % 10 != 0 || i == 8)
			text[--n] = (char)('0' + k % 10);
	text[--n] = '.';
	do
		text[--n] = (char)('0' + k % 10);
	while ((k /= 10) > 0);
	if (signbit(v))
		text[--n] = '-';
	memmove(text, text + n, (size_t)(29 - n));
	return true;
}

int result_put_int(struct buf *out, int64_t v)
{
	uint64_t k = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
	char text[20];
	size_t n = sizeof(text);

	do
		text[--n] = (char)('0' + k % 10);
	while ((k /= 10) > 0);
	if (v < 0)
		text[--n] = '-';
	return buf_append(out, text + n, sizeof(text) - n);
}

int result_put_number(struct buf *out, double v)
{
	char text[40];

	if (!isfinite(v))
		return buf_puts(out, "null");
	if (put_decimal(text, v))
		return buf_puts(out, text);
	for (int digits = 15; digits <= 17; digits++) {
		(void)snprintf(text, sizeof(text), "%.*g", digits, v);
		if (strtod(text, NULL) == v)
			break;
	}
	if (!strpbrk(text, ".e"))
		return buf_printf(out, "%s.0", text);
	return buf_puts(out, text);
}
