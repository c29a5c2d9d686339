/* Each removal builds a pool of its own, so a ring that leaned on order or on dead workers would
 * show here. */
#include "sim/figures/movedkeys.h"

#include <stdio.h>
#include <stdlib.h>

#define JOINERS 8

struct survey {
	const struct simtrace *t;
	size_t stride, n; /* every stride-th key, n of them */
	struct span *key;
	uint32_t *before, *after; /* worker of each key */
	const char **names;	  /* of the changed pool */
};

static int ask(const struct survey *s, const struct vrouter_config *cfg, uint32_t *worker,
	       struct pd_msg *msg)
{
	struct vrouter v;
	int err = vrouter_init(&v, cfg, msg);

	if (err)
		return err;
	err = vrouter_sequence(&v, s->key, s->n, worker);
	vrouter_release(&v);
	return err ? pd_fail(msg, err, "cannot ask for the homes of keys: %s", pd_err_text(err))
		   : 0;
}

/* Index in the full pool of worker w of the pool without `gone`. */
static uint32_t index_in_full(uint32_t w, size_t gone)
{
	return w >= gone ? w + 1 : w;
}

static int one_removal(const struct survey *s, const struct vrouter_config *cfg, size_t gone,
		       struct movedkeys *out, struct pd_msg *msg)
{
	struct vrouter_config less = *cfg;
	size_t moved = 0, owned = 0, kept = 0;
	int err;

	for (size_t i = 0; i < cfg->n; i++)
		if (i != gone)
			s->names[kept++] = cfg->names[i];
	less.names = s->names;
	less.n = kept;
	err = ask(s, &less, s->after, msg);
	if (err)
		return err;
	for (size_t i = 0; i < s->n; i++) {
		owned += s->before[i] == gone;
		moved += index_in_full(s->after[i], gone) != s->before[i];
	}
	out->leave.moved += (double)moved / (double)s->n;
	out->leave.ideal += (double)owned / (double)s->n;
	out->leave.unnecessary += (double)(moved - owned) / (double)s->n;
	if ((double)moved / (double)s->n > out->leave_worst)
		out->leave_worst = (double)moved / (double)s->n;
	out->removals++;
	return PD_OK;
}

static int removals(const struct survey *s, const struct vrouter_config *cfg, struct movedkeys *out,
		    struct pd_msg *msg)
{
	size_t want = MOVEDKEYS_ASKED / s->n, step;
	int err = PD_OK;

	if (cfg->n < 2)
		return PD_OK;
	step = want >= cfg->n ? 1 : want > 0 ? cfg->n / want : cfg->n;
	for (size_t gone = 0; !err && gone < cfg->n; gone += step)
		err = one_removal(s, cfg, gone, out, msg);
	if (err || out->removals == 0)
		return err;
	out->leave.moved /= (double)out->removals;
	out->leave.ideal /= (double)out->removals;
	out->leave.unnecessary /= (double)out->removals;
	return PD_OK;
}

static int one_joiner(const struct survey *s, const struct vrouter_config *more,
		      struct moved_share *sum, struct pd_msg *msg)
{
	size_t moved = 0, astray = 0;
	int err = ask(s, more, s->after, msg);

	if (err)
		return err;
	for (size_t i = 0; i < s->n; i++) {
		moved += s->after[i] != s->before[i];
		astray += s->after[i] != s->before[i] && s->after[i] != more->n - 1;
	}
	sum->moved += (double)moved / (double)s->n / JOINERS;
	sum->unnecessary += (double)astray / (double)s->n / JOINERS;
	return PD_OK;
}

/* Where a newcomer lands depends on its name, so several are tried. */
static int joining(const struct survey *s, const struct vrouter_config *cfg, struct movedkeys *out,
		   struct pd_msg *msg)
{
	struct vrouter_config more = *cfg;
	char joiner[32];
	int err = PD_OK;

	for (size_t i = 0; i < cfg->n; i++)
		s->names[i] = cfg->names[i];
	more.names = s->names;
	more.n = cfg->n + 1;
	out->join.ideal = 1.0 / (double)more.n;
	for (int i = 0; !err && i < JOINERS; i++) {
		(void)snprintf(joiner, sizeof(joiner), "joining-worker-%d", i + 1);
		s->names[cfg->n] = joiner;
		err = one_joiner(s, &more, &out->join, msg);
	}
	return err;
}

static int survey_init(struct survey *s, const struct simtrace *t, size_t workers)
{
	size_t most = MOVEDKEYS_ASKED / 8;

	*s = (struct survey){.t = t, .stride = t->nkeys / most + 1};
	s->n = (t->nkeys + s->stride - 1) / s->stride;
	s->key = reallocarray(NULL, s->n, sizeof(*s->key));
	s->before = reallocarray(NULL, s->n, sizeof(*s->before));
	s->after = reallocarray(NULL, s->n, sizeof(*s->after));
	s->names = reallocarray(NULL, workers + 1, sizeof(*s->names));
	if (!s->key || !s->before || !s->after || !s->names)
		return PD_ENOMEM;
	for (size_t i = 0; i < s->n; i++)
		s->key[i] = simtrace_key(t, (uint32_t)(i * s->stride));
	return PD_OK;
}

static void survey_release(struct survey *s)
{
	free(s->key);
	free(s->before);
	free(s->after);
	free(s->names);
}

int movedkeys_measure(const struct simtrace *t, const struct vrouter_config *cfg,
		      struct movedkeys *out, struct pd_msg *msg)
{
	struct survey s;
	int err;

	*out = (struct movedkeys){0};
	if (t->nkeys == 0 || cfg->n == 0 || !(cfg->policy.type->flags & ROUTE_BY_KEY))
		return PD_OK;
	err = survey_init(&s, t, cfg->n);
	if (err)
		(void)pd_fail(msg, err, "out of memory");
	if (!err)
		err = ask(&s, cfg, s.before, msg);
	if (!err)
		err = removals(&s, cfg, out, msg);
	if (!err && cfg->n < ROUTE_WORKERS_MAX)
		err = joining(&s, cfg, out, msg);
	out->known = !err;
	out->keys = s.n;
	survey_release(&s);
	return err;
}
