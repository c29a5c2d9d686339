/* Policies that nobody should deploy for what they are (random, modulo) are left out; maglev places
 * as the ring does. */
#include "sim/scenario/recommend.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const char *const recommend_plain[] = {"affinity",
				       "affinity:affinity-saturation=1.5",
				       "affinity:affinity-saturation=4",
				       "consistent_hash",
				       "bounded_hash",
				       "bounded_hash:load-factor=1.1",
				       "bounded_hash:load-factor=2",
				       "rendezvous_hash",
				       "sticky",
				       "sticky_least_loaded",
				       "prefix_hash",
				       "cache_aware",
				       "cache_aware:cache-threshold=0.7",
				       "kv_aware",
				       "scores",
				       "least_request",
				       "least_tokens",
				       "power_of_two",
				       "round_robin",
				       NULL};

const char *const recommend_pd[] = {"affinity",
				    "affinity/least_request",
				    "affinity:affinity-saturation=1.5/least_request",
				    "consistent_hash",
				    "consistent_hash/least_request",
				    "bounded_hash/least_request",
				    "cache_aware/power_of_two",
				    "kv_aware/least_request",
				    "scores",
				    "least_tokens/least_request",
				    "least_request",
				    "power_of_two",
				    "round_robin",
				    NULL};

/* One policy: its name after `flag`, and its parameters as flags of their own. */
static int one(const char *flag, const char *text, size_t n, struct buf *out)
{
	size_t at = 0;
	int err = PD_OK;

	for (bool first = true; !err && at < n; first = false) {
		size_t word = 0;
		const char *is;

		while (at + word < n && text[at + word] != ':')
			word++;
		is = memchr(text + at, '=', word);
		if (first)
			err = buf_printf(out, "%s %.*s", flag, (int)word, text + at);
		else if (is)
			err = buf_printf(out, " --%.*s %.*s", (int)(is - text - (ptrdiff_t)at),
					 text + at, (int)(text + at + word - is - 1), is + 1);
		at += word + 1;
	}
	return err;
}

int recommend_flags(const char *policy, bool pd, struct buf *out)
{
	const char *hash = strchr(policy, '@'), *slash = strchr(policy, '/');
	size_t n = hash ? (size_t)(hash - policy) : strlen(policy);
	int err;

	if (!pd || !slash) {
		err = one("--policy", policy, n, out);
	} else {
		err = one("--prefill-policy", policy, (size_t)(slash - policy), out);
		err = err ? err
			  : one(" --decode-policy", slash + 1, n - (size_t)(slash + 1 - policy),
				out);
	}
	return err || !hash ? err : buf_printf(out, " --ring-hash %s", hash + 1);
}

int recommend_lines(const struct verdict *v, const struct arms *arms, struct buf *out)
{
	const struct verdict_candidate *base;
	const struct arm *best;
	int err;

	if (v->n < 2)
		return PD_OK;
	base = &v->rank[v->other];
	best = &arms->arm[v->rank[0].arm];
	if (v->base_best || !base->pair.different) {
		const struct arm *stays = v->base_best ? best : &arms->arm[base->arm];

		err = buf_puts(out, "recommended: no change; ");
		err = err ? err : recommend_flags(stays->policy, best->cfg.npools == 2, out);
		return err ? err : buf_puts(out, v->base_best ? " is best\n" : " is as good\n");
	}
	err = buf_puts(out, "recommended: pdctl serve ");
	err = err ? err : recommend_flags(best->policy, best->cfg.npools == 2, out);
	return err ? err
		   : buf_printf(out, "\n  promised: %s %.4g instead of %.4g\n", v->objective.text,
				objective_value(&v->objective, best, SIZE_MAX),
				objective_value(&v->objective, &arms->arm[base->arm], SIZE_MAX));
}
