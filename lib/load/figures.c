/* One pass collects a figure's samples, one sort makes it. */
#include "lib/load/figures.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/results/result_opts.h"
#include "lib/stats/summary.h"

#define LATE_MS	   1.0
#define LATE_SHARE 0.05

enum kind { TTFT, E2EL, TTFT_INTENDED, E2EL_INTENDED, TTFT_HIT, TTFT_MISS, PREFILL, DECODE };

static bool succeeded(const struct result_request *r)
{
	return !r->failure && r->sent_ns >= 0 && r->last_token_ns >= 0;
}

static bool cache_known(const struct result_request *r)
{
	return r->cached_tokens >= 0 && r->input_tokens > 0;
}

static bool is_hit(const struct result_request *r)
{
	return r->cached_tokens * 2 >= r->input_tokens;
}

/* Nanoseconds; negative: this request has none. */
static int64_t sample(const struct result_request *r, enum kind kind)
{
	int64_t from = kind == TTFT_INTENDED || kind == E2EL_INTENDED ? r->intended_ns : r->sent_ns;

	if (kind == PREFILL)
		return r->prefill_ns;
	if (kind == DECODE)
		return r->decode_ns;
	if ((kind == TTFT_HIT || kind == TTFT_MISS) &&
	    (!cache_known(r) || is_hit(r) != (kind == TTFT_HIT)))
		return -1;
	if (kind == E2EL || kind == E2EL_INTENDED)
		return r->last_token_ns - from;
	return r->first_token_ns < 0 ? -1 : r->first_token_ns - from;
}

static void make(struct figure *f, const struct result_run *run, enum kind kind, double *v)
{
	struct summary s;
	size_t n = 0;

	for (size_t i = 0; i < run->n; i++) {
		int64_t ns = succeeded(&run->req[i]) ? sample(&run->req[i], kind) : -1;

		if (ns >= 0)
			v[n++] = (double)ns / 1e6;
	}
	summary_sort(v, n);
	s = summary_of(v, n);
	*f = (struct figure){n, s.mean, s.median, summary_percentile(v, n, 99)};
}

static bool above(double a, double b)
{
	return a - b > LATE_MS || a - b > LATE_SHARE * b;
}

static void count_cache(struct figures *f, const struct result_run *run)
{
	double cached = 0, input = 0;

	for (size_t i = 0; i < run->n; i++) {
		const struct result_request *r = &run->req[i];

		if (!succeeded(r) || !cache_known(r))
			continue;
		*(is_hit(r) ? &f->hits : &f->misses) += 1;
		cached += (double)r->cached_tokens;
		input += (double)r->input_tokens;
	}
	f->cached_share = input > 0 ? cached / input : NAN;
}

int figures_make(struct figures *f, const struct result_run *run)
{
	const struct figure none = {0, NAN, NAN, NAN};
	double *v = calloc(run->n + 1, sizeof(*v));

	if (!v)
		return PD_ENOMEM;
	*f = (struct figures){
		.scheduled = run->scheduled, .ttft_intended = none, .e2el_intended = none};
	make(&f->ttft, run, TTFT, v);
	make(&f->e2el, run, E2EL, v);
	if (run->scheduled) {
		make(&f->ttft_intended, run, TTFT_INTENDED, v);
		make(&f->e2el_intended, run, E2EL_INTENDED, v);
	}
	make(&f->ttft_hit, run, TTFT_HIT, v);
	make(&f->ttft_miss, run, TTFT_MISS, v);
	make(&f->prefill, run, PREFILL, v);
	make(&f->decode, run, DECODE, v);
	free(v);
	count_cache(f, run);
	f->late = run->scheduled && (above(f->ttft_intended.p99, f->ttft.p99) ||
				     above(f->ttft_intended.mean, f->ttft.mean) ||
				     above(f->e2el_intended.p99, f->e2el.p99) ||
				     above(f->e2el_intended.mean, f->e2el.mean));
	return PD_OK;
}

static int put(struct buf *out, const char *name, double v)
{
	int err = buf_printf(out, ", \"%s\": ", name);

	return err ? err : result_put_number(out, v);
}

static int put_figure(struct buf *out, const char *format, const struct figure *f)
{
	static const char *const stats[] = {"mean", "median", "p99"};
	const double v[] = {f->mean, f->median, f->p99};
	char name[64];
	int err = PD_OK;

	for (size_t i = 0; !err && i < 3; i++) {
		(void)snprintf(name, sizeof(name), "%s_%s", stats[i], format);
		err = put(out, name, v[i]);
	}
	return err;
}

int figures_json(const struct figures *f, struct buf *out)
{
	int err = buf_printf(out, "\"late\": %s", f->late ? "true" : "false");

	err = err ? err : put_figure(out, "ttft_from_intended_ms", &f->ttft_intended);
	err = err ? err : put_figure(out, "e2el_from_intended_ms", &f->e2el_intended);
	err = err ? err
		  : buf_printf(out, ", \"cache_hits\": %zu, \"cache_misses\": %zu", f->hits,
			       f->misses);
	err = err ? err : put_figure(out, "ttft_hit_ms", &f->ttft_hit);
	err = err ? err : put_figure(out, "ttft_miss_ms", &f->ttft_miss);
	if (!err && f->prefill.n > 0)
		err = put_figure(out, "prefill_stage_ms", &f->prefill);
	if (!err && f->decode.n > 0)
		err = put_figure(out, "decode_stage_ms", &f->decode);
	return err;
}
