/* One replay per decision and other worker: simple, and exact. */
#include "sim/figures/regret.h"

#include <math.h>
#include <stdlib.h>

static bool has_token(const struct replay_request *q)
{
	return q->fate == REPLAY_COMPLETED && q->first_ns >= 0;
}

static double ttft_ms(const struct replay_request *q)
{
	return (double)(q->first_ns - q->issued_ns) / 1e6;
}

/* Over the requests that have a token in both. */
static double total_change(const struct replay_result *was, const struct replay_result *is,
			   size_t n)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++)
		if (has_token(&was->request[i]) && has_token(&is->request[i]))
			sum += ttft_ms(&is->request[i]) - ttft_ms(&was->request[i]);
	return sum;
}

static int one_decision(struct regret_decision *d, const struct simtrace *t,
			const struct replay_config *cfg, const struct replay_result *was,
			struct pd_msg *msg)
{
	size_t workers = cfg->pool[0].n, tried = 0;
	struct replay_config other = *cfg;
	int err = PD_OK;

	d->own_ms = d->total_ms = (double)NAN;
	other.force = true;
	other.forced_request = d->request;
	for (size_t k = 1; !err && k < workers && tried < REGRET_WORKERS_MAX; k++) {
		struct replay_result is;
		double own, total;

		other.forced_worker = (uint32_t)((d->chosen + k) % workers);
		err = replay_run(t, &other, &is, msg);
		if (err)
			break;
		tried++;
		if (has_token(&is.request[d->request])) {
			own = ttft_ms(&is.request[d->request]) - ttft_ms(&was->request[d->request]);
			total = total_change(was, &is, t->n);
			if (!(own >= d->own_ms)) {
				d->own_ms = own;
				d->better = other.forced_worker;
			}
			if (!(total >= d->total_ms))
				d->total_ms = total;
		}
		replay_result_release(&is);
	}
	return err;
}

int regret_make(struct regret *out, const struct simtrace *t, const struct replay_config *cfg,
		const struct replay_result *was, size_t decisions, struct pd_msg *msg)
{
	size_t able = 0, seen = 0;
	int err = PD_OK;

	*out = (struct regret){0};
	if (cfg->npools != 1 || cfg->routing_only || cfg->pool[0].n < 2)
		return PD_OK;
	for (size_t i = 0; i < t->n; i++)
		able += has_token(&was->request[i]);
	decisions = decisions < able ? decisions : able;
	out->item = calloc(decisions + 1, sizeof(*out->item));
	if (!out->item)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	for (size_t i = 0; !err && i < t->n && out->n < decisions; i++) {
		struct regret_decision *d = &out->item[out->n];

		if (!has_token(&was->request[i]) || seen++ * decisions / able < out->n)
			continue;
		*d = (struct regret_decision){.request = (uint32_t)i,
					      .chosen = was->request[i].worker[0]};
		err = one_decision(d, t, cfg, was, msg);
		if (err || !isfinite(d->own_ms))
			continue;
		out->n++;
		out->mean_ms += fmax(0, -d->own_ms);
		out->mean_total_ms += fmax(0, -d->total_ms);
		out->not_best += d->own_ms <= -1;
	}
	if (out->n > 0) {
		out->mean_ms /= (double)out->n;
		out->mean_total_ms /= (double)out->n;
		out->not_best /= (double)out->n;
	}
	return err;
}

void regret_release(struct regret *r)
{
	free(r->item);
	*r = (struct regret){0};
}
