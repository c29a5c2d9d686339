/*
 * Candidates and settings are two lists of texts made from the arms; a matrix says which arm stands
 * where. What the lines say is computed from the matrix alone, so that parts of an experiment that
 * were joined give the same verdict as the whole.
 */
#include "sim/figures/verdict.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/stats/student.h"
#include "sim/figures/front.h"

#define LEVEL	  0.05 /* of all comparisons together, two-sided */
#define SHARE	  0.95
#define EQUAL	  0.05 /* balances closer than that are equal */
#define NAMES_MAX 3
#define TEXT_MAX  ((size_t)1 << 16)

struct board {
	struct arms *arms;
	const struct verdict_rules *rules;
	struct verdict *v;
	char **candidate, **setting; /* owned */
	size_t nc, ns;
	uint32_t *at;  /* owned: arm of candidate * ns + setting, UINT32_MAX: none */
	size_t *order; /* owned: candidates, best first */
};

static const struct arm *arm_at(const struct board *b, size_t candidate, size_t setting)
{
	uint32_t at = b->at[candidate * b->ns + setting];

	return at == UINT32_MAX ? NULL : &b->arms->arm[at];
}

/* ---- who stands where ---- */

static bool of_policy(const char *word)
{
	static const char *const roots[] = {"policies", "parameters", "ring", "epp_config",
					    "decider"};

	for (size_t i = 0; i < sizeof(roots) / sizeof(roots[0]); i++) {
		size_t n = strlen(roots[i]);

		if (strncmp(word, roots[i], n) == 0 && strchr(".[=", word[n]))
			return true;
	}
	return false;
}

/* The words of a point that belong to the policy, or the others. Policies themselves are named by
 * the arm. */
static int put_words(struct buf *out, const char *point, bool policy)
{
	int err = PD_OK;

	while (!err && *point) {
		size_t n = strcspn(point, " ");

		if (of_policy(point) == policy && strncmp(point, "policies", 8) != 0)
			err = buf_printf(out, "%s%.*s", out->len ? " " : "", (int)n, point);
		point += n + (point[n] == ' ');
	}
	return err;
}

static int place(char ***list, size_t *n, const char *text, size_t *at)
{
	char **grown;

	for (*at = 0; *at < *n; ++*at)
		if (strcmp((*list)[*at], text) == 0)
			return PD_OK;
	grown = reallocarray(*list, *n + 1, sizeof(char *));
	if (!grown)
		return PD_ENOMEM;
	*list = grown;
	grown[*n] = strdup(text);
	return grown[(*n)++] ? PD_OK : PD_ENOMEM;
}

static int name_candidate(const struct arm *a, size_t twin, struct buf *out)
{
	int err = buf_puts(out, a->policy);

	err = err ? err : put_words(out, a->point, true);
	return err || twin == 0 ? err : buf_printf(out, " (%zu)", twin + 1);
}

static int name_setting(const struct board *b, const struct arm *a, struct buf *out)
{
	bool workers = false, cache = false;
	int err = PD_OK;

	for (size_t i = 0; i < b->arms->n; i++) {
		workers |= b->arms->arm[i].workers != a->workers;
		cache |= b->arms->arm[i].cache != a->cache;
	}
	if (workers && a->cfg.npools == 2)
		err = buf_printf(out, "pool=%zuP+%zuD", a->cfg.pool[0].n, a->cfg.pool[1].n);
	else if (workers)
		err = buf_printf(out, "workers=%u", a->workers);
	if (!err && cache)
		err = buf_printf(out, "%scache=%llu", out->len ? " " : "",
				 (unsigned long long)a->cache);
	for (const char *p = a->point; !err && *p;) {
		size_t n = strcspn(p, " ");
		bool said = strncmp(p, "workers.", 8) == 0 || strncmp(p, "prefill.", 8) == 0 ||
			    strncmp(p, "decode.", 7) == 0;

		if (!of_policy(p) && !said)
			err = buf_printf(out, "%s%.*s", out->len ? " " : "", (int)n, p);
		p += n + (p[n] == ' ');
	}
	return err;
}

/* Fills *c and *s with the places of an arm; twins in one setting are candidates of their own. */
static int put_arm(struct board *b, size_t arm, size_t *taken, size_t *c, size_t *s)
{
	const struct arm *a = &b->arms->arm[arm];
	struct buf name, setting;
	bool again = true;
	int err;

	buf_init(&name, ARM_LABEL_MAX + ARM_POINT_MAX + 32);
	buf_init(&setting, ARM_POINT_MAX + 64);
	err = buf_puts(&setting, "");
	err = err ? err : name_setting(b, a, &setting);
	err = err ? err : place(&b->setting, &b->ns, setting.data ? setting.data : "", s);
	for (size_t twin = 0; !err && again; twin++) {
		buf_clear(&name);
		err = name_candidate(a, twin, &name);
		err = err ? err : place(&b->candidate, &b->nc, name.data, c);
		again = false;
		for (size_t i = 0; !err && i < arm; i++)
			again |= taken[2 * i] == *c && taken[2 * i + 1] == *s;
	}
	buf_release(&name);
	buf_release(&setting);
	return err;
}

static int fill_board(struct board *b)
{
	size_t n = b->arms->n, *taken = calloc(2 * n + 1, sizeof(*taken));
	int err = taken ? PD_OK : PD_ENOMEM;

	for (size_t i = 0; !err && i < n; i++)
		err = put_arm(b, i, taken, &taken[2 * i], &taken[2 * i + 1]);
	if (!err) {
		b->at = reallocarray(NULL, b->nc * b->ns + 1, sizeof(*b->at));
		b->order = calloc(b->nc + 1, sizeof(*b->order));
		err = b->at && b->order ? PD_OK : PD_ENOMEM;
	}
	if (!err)
		memset(b->at, 0xff, b->nc * b->ns * sizeof(*b->at));
	for (size_t i = 0; !err && i < n; i++)
		b->at[taken[2 * i] * b->ns + taken[2 * i + 1]] = (uint32_t)i;
	free(taken);
	return err;
}

/* ---- which is best ---- */

/* The first of these that all arms have. */
static void choose_objective(struct board *b)
{
	static const char *const names[] = {"goodput_share", "mean_ttft_ms", "token_hit_rate",
					    "session_consistency", "peak_to_mean"};
	struct objective *o = &b->v->objective;
	size_t column;

	*o = b->rules->objective;
	for (size_t k = 0; o->n == 0 && k < sizeof(names) / sizeof(names[0]); k++) {
		bool all = true;

		if (objective_parse(o, names[k], &column, NULL))
			continue;
		for (size_t i = 0; all && i < b->arms->n; i++)
			all = isfinite(objective_value(o, &b->arms->arm[i], SIZE_MAX));
		if (!all)
			*o = (struct objective){.n = 0};
	}
}

/* How far the objective is from the best of its setting, as a log; 0 is the best. */
static double distance(const struct board *b, size_t candidate, size_t setting)
{
	const struct objective *o = &b->v->objective;
	const struct arm *a = arm_at(b, candidate, setting);
	double mine = a ? objective_value(o, a, SIZE_MAX) : (double)NAN, best = mine;
	const double least = 1e-9;

	for (size_t c = 0; c < b->nc; c++) {
		const struct arm *other = arm_at(b, c, setting);
		double value = other ? objective_value(o, other, SIZE_MAX) : (double)NAN;

		if (o->higher ? value > best : value < best)
			best = value;
	}
	return o->higher ? log((best + least) / (mine + least))
			 : log((mine + least) / (best + least));
}

static int rank_candidates(struct board *b)
{
	struct verdict *v = b->v;

	v->rank = calloc(b->nc + 1, sizeof(*v->rank));
	if (!v->rank)
		return PD_ENOMEM;
	for (size_t c = 0; c < b->nc; c++) {
		struct verdict_candidate x = {.name = b->candidate[c]};
		size_t k = v->n;

		for (size_t s = 0; s < b->ns; s++)
			x.score += distance(b, c, s) / (double)b->ns;
		x.arm = SIZE_MAX;
		for (size_t s = 0; s < b->ns && x.arm == SIZE_MAX; s++)
			if (arm_at(b, c, s))
				x.arm = (size_t)(arm_at(b, c, s) - b->arms->arm);
		/* insertion: equal ones stay in their order, undefined ones go last */
		for (; k > 0 && (x.score < v->rank[k - 1].score ||
				 (isfinite(x.score) && !isfinite(v->rank[k - 1].score)));
		     k--) {
			v->rank[k] = v->rank[k - 1];
			b->order[k] = b->order[k - 1];
		}
		v->rank[k] = x;
		b->order[k] = c;
		v->n++;
		b->candidate[c] = NULL; /* the rank owns it now */
	}
	return PD_OK;
}

/* The best against the k-th, over all settings or in one of them. */
static struct verdict_pair compare(const struct board *b, size_t k, size_t first, size_t last,
				   double level)
{
	struct verdict_pair p = {(double)NAN, (double)NAN, (double)NAN, 0, false, false};
	double shift = 0, variance = 0, df = 0, t;
	bool equal = true;
	size_t n = 0;

	for (size_t s = first; s < last; s++) {
		const struct arm *x = arm_at(b, b->order[0], s), *y = arm_at(b, b->order[k], s);
		struct contrast c;

		if (!x || !y)
			continue;
		c = contrast_of(&b->v->objective, x, y);
		if (!isfinite(c.log_ratio))
			return p;
		shift += c.log_ratio;
		variance += c.se * c.se;
		df += c.df;
		equal &= c.equal;
		p.n = n == 0 || c.n < p.n ? c.n : p.n;
		p.windows |= c.windows;
		n++;
	}
	if (n == 0)
		return p;
	shift /= (double)n;
	p.change = exp(shift) - 1;
	p.different = !equal && fabs(p.change) >= VERDICT_LEAST;
	if (p.n < 2 || !isfinite(variance)) {
		p.n = 0;
		return p;
	}
	t = student_quantile(level / 2, df) * sqrt(variance) / (double)n;
	p.low = exp(shift - t) - 1;
	p.high = exp(shift + t) - 1;
	p.different &= p.low > 0 || p.high < 0;
	return p;
}

static void compare_all(struct board *b)
{
	struct verdict *v = b->v;
	double level = LEVEL / (double)(v->n > 2 ? v->n - 1 : 1);

	v->none = true;
	v->similar = 1;
	for (size_t k = 1; k < v->n; k++) {
		v->rank[k].pair = compare(b, k, 0, b->ns, level);
		v->none &= !v->rank[k].pair.different;
		if (!v->rank[k].pair.different && isfinite(v->rank[k].pair.change) &&
		    v->similar == k)
			v->similar = k + 1;
	}
}

static int find_other(struct board *b, struct pd_msg *msg)
{
	struct verdict *v = b->v;

	v->other = v->similar < v->n ? v->similar : v->n > 1;
	if (!b->rules->base)
		return PD_OK;
	for (size_t k = 0; k < v->n; k++) {
		if (strcmp(v->rank[k].name, b->rules->base) != 0)
			continue;
		v->other = k > 0 ? k : v->other;
		v->base_best = k == 0;
		return PD_OK;
	}
	return pd_fail(msg, PD_EINVAL, "the base '%s' is none of the candidates", b->rules->base);
}

/* ---- the lines ---- */

static int put_pair(struct buf *out, const struct board *b, const struct verdict_pair *p)
{
	double change = 100 * p->change, half = 50 * (p->high - p->low);
	int err = buf_printf(out, fabs(change) < 10 ? "%.1f %%" : "%.0f %%", fabs(change));

	if (!err && p->n > 0)
		err = buf_printf(out, half < 10 ? " ± %.1f" : " ± %.0f", half);
	return err ? err
		   : buf_printf(out, " %s %s", p->change < 0 ? "lower" : "higher",
				b->v->objective.text);
}

static int put_basis(struct buf *out, const struct verdict_pair *p)
{
	if (p->n == 0)
		return buf_puts(out, "; one run, no interval");
	return buf_printf(out, "; interval over %zu %s", p->n, p->windows ? "windows" : "seeds");
}

static double mean_over_settings(const struct board *b, size_t k, const struct simmetric *m)
{
	double sum = 0;
	size_t n = 0;

	for (size_t s = 0; s < b->ns; s++) {
		const struct arm *a = arm_at(b, b->order[k], s);
		double value = a ? simmetric_value(m, a, 0) : (double)NAN;

		if (!a)
			continue;
		sum += value;
		n++;
	}
	return n ? sum / (double)n : (double)NAN;
}

static const struct simmetric *metric(const char *name)
{
	return simmetric_find(name, strlen(name));
}

static int put_balance(struct buf *out, const struct board *b, size_t k)
{
	const struct simmetric *m = metric("peak_to_mean");
	double mine = mean_over_settings(b, 0, m), other = mean_over_settings(b, k, m);

	if (!(mine > 0) || !(other > 0) || b->v->objective.term[0].metric == m)
		return PD_OK;
	if (fabs(mine / other - 1) <= EQUAL)
		return buf_puts(out, " at equal balance");
	return buf_printf(out, ", peak/mean %.2f against %.2f", mine, other);
}

static int put_names(struct buf *out, const struct verdict *v, size_t n)
{
	int err = PD_OK;

	for (size_t k = 0; !err && k < n && k < NAMES_MAX; k++)
		err = buf_printf(out, "%s%s",
				 k == 0	      ? ""
				 : k + 1 == n ? " and "
					      : ", ",
				 v->rank[k].name);
	if (!err && n > NAMES_MAX)
		err = buf_printf(out, " and %zu more", n - NAMES_MAX);
	return err;
}

static int first_line(struct buf *out, const struct board *b)
{
	const struct verdict *v = b->v;
	const struct verdict_candidate *other = &v->rank[v->other];
	int err;

	if (v->none) {
		double most = 0;

		for (size_t k = 1; k < v->n; k++)
			if (fabs(v->rank[k].pair.change) > most)
				most = fabs(v->rank[k].pair.change);
		err = buf_printf(out, "no difference in %s: ", v->objective.text);
		err = err ? err : put_names(out, v, v->n);
		err = err ? err : buf_printf(out, " (at most %.1f %% apart", 100 * most);
		return err ? err : buf_puts(out, ", within the noise)\n");
	}
	if (!other->pair.different) {
		err = buf_printf(out, "%s: no difference to %s in %s\n", v->rank[0].name,
				 other->name, v->objective.text);
		return err;
	}
	err = buf_printf(out, "%s: ", v->rank[0].name);
	err = err ? err : put_pair(out, b, &other->pair);
	err = err ? err : buf_printf(out, " than %s", other->name);
	err = err ? err : put_balance(out, b, v->other);
	if (!err && v->similar > 1 && v->other >= v->similar) {
		err = buf_printf(out, "; no difference to %s", v->rank[1].name);
		if (!err && v->similar > 2)
			err = buf_printf(out, " and %zu more", v->similar - 2);
	}
	return err ? err : buf_puts(out, "\n");
}

/* Settings in which another one is better. */
static int put_lost_settings(struct buf *out, const struct board *b, size_t *lost)
{
	int err = PD_OK;

	for (size_t s = 0; !err && b->ns > 1 && s < b->ns; s++) {
		struct verdict_pair worst = {.change = 0};
		size_t who = 0;

		for (size_t k = 1; k < b->v->n; k++) {
			struct verdict_pair p =
				compare(b, k, s, s + 1, LEVEL / (double)(b->v->n - 1));
			bool loses = b->v->objective.higher ? p.change < 0 : p.change > 0;

			if (p.different && loses && fabs(p.change) > fabs(worst.change)) {
				worst = p;
				who = k;
			}
		}
		if (who == 0 || ++*lost > 2)
			continue;
		err = buf_printf(out, "%sat %s to %s by %.3g %%", *lost > 1 ? ", " : "",
				 b->setting[s], b->v->rank[who].name, 100 * fabs(worst.change));
	}
	if (!err && *lost > 2)
		err = buf_printf(out, " and in %zu more settings", *lost - 2);
	return err;
}

/* Other figures in which the one that it is compared with is better. */
static int put_lost_metrics(struct buf *out, const struct board *b, size_t *lost)
{
	static const char *const names[] = {"mean_ttft_ms",   "p99_ttft_ms",	     "mean_tpot_ms",
					    "p99_e2el_ms",    "goodput_share",	     "peak_to_mean",
					    "token_hit_rate", "session_consistency", "lost"};
	size_t before = *lost;
	int err = PD_OK;

	for (size_t i = 0; !err && i < sizeof(names) / sizeof(names[0]); i++) {
		const struct simmetric *m = metric(names[i]);
		double mine = mean_over_settings(b, 0, m),
		       other = mean_over_settings(b, b->v->other, m);
		bool worse = m->better == SIMMETRIC_LOWER
				     ? mine > other * (1 + EQUAL) && mine - other > 1e-9
				     : mine < other * (1 - EQUAL);

		if (!worse || m == b->v->objective.term[0].metric || ++*lost > before + 3)
			continue;
		err = buf_printf(out, "%sin %s (%.4g against %.4g)", *lost > 1 ? ", " : "",
				 names[i], mine, other);
	}
	return err;
}

static int second_line(struct buf *out, const struct board *b)
{
	size_t lost = 0, saturated = 0;
	const struct simmetric *m = metric("saturated");
	int err = buf_puts(out, "loses ");

	for (size_t i = 0; i < b->arms->n; i++)
		saturated += simmetric_value(m, &b->arms->arm[i], 0) > 0;
	err = err ? err : put_lost_settings(out, b, &lost);
	err = err ? err : put_lost_metrics(out, b, &lost);
	if (!err && lost == 0)
		err = buf_printf(out, "nowhere: best of %zu in %zu %s", b->v->n, b->ns,
				 b->ns == 1 ? "setting" : "settings");
	if (!err && saturated > 0)
		err = buf_printf(out, "; the queue grows without end in %zu of %zu rows", saturated,
				 b->arms->n);
	err = err ? err : put_basis(out, &b->v->rank[b->v->other].pair);
	return err ? err : buf_puts(out, "\n");
}

/* With goals: the least setting in which the best candidate there keeps them. */
static int capacity_line(struct buf *out, const struct board *b)
{
	const struct simmetric *m = metric("goodput_share");
	double share = b->rules->share > 0 ? b->rules->share : SHARE, most = 0;
	const struct arm *least = NULL;
	bool varies = false;

	for (size_t i = 0; i < b->arms->n; i++) {
		const struct arm *a = &b->arms->arm[i];
		double value = simmetric_value(m, a, 0);

		varies |= a->workers != b->arms->arm[0].workers;
		most = value > most ? value : most;
		if (value >= share &&
		    (!least || a->workers < least->workers ||
		     (a->workers == least->workers && value > simmetric_value(m, least, 0))))
			least = a;
	}
	if (!varies || !isfinite(simmetric_value(m, &b->arms->arm[0], 0)))
		return PD_OK;
	if (!least)
		return buf_printf(out,
				  "no setting keeps the goals for %.4g %% of the requests: at most "
				  "%.4g %%\n",
				  100 * share, 100 * most);
	if (least->cfg.npools == 2)
		return buf_printf(
			out,
			"%zu prefill and %zu decode workers keep the goals for %.4g %% of "
			"the requests with %s\n",
			least->cfg.pool[0].n, least->cfg.pool[1].n,
			100 * simmetric_value(m, least, 0), least->policy);
	return buf_printf(out, "%u %s the goals for %.4g %% of the requests with %s\n",
			  least->workers, least->workers == 1 ? "worker keeps" : "workers keep",
			  100 * simmetric_value(m, least, 0), least->policy);
}

/* One candidate: the settings are what differs. */
static int settings_line(struct buf *out, const struct board *b)
{
	const struct objective *o = &b->v->objective;
	double best = 0, worst = 0;
	size_t at = 0, last = 0;

	for (size_t s = 0; s < b->ns; s++) {
		const struct arm *a = arm_at(b, 0, s);
		double value = a ? objective_value(o, a, SIZE_MAX) : (double)NAN;

		if (!isfinite(value))
			return PD_OK;
		if (s == 0 || (o->higher ? value > best : value < best)) {
			best = value;
			at = s;
		}
		if (s == 0 || (o->higher ? value < worst : value > worst)) {
			worst = value;
			last = s;
		}
	}
	return buf_printf(out, "%s: %s is best at %s (%.4g), worst at %s (%.4g)\n",
			  b->v->rank[0].name, o->text, b->setting[at], best, b->setting[last],
			  worst);
}

static int write_lines(struct board *b)
{
	struct verdict *v = b->v;
	int err = PD_OK;

	if (v->n > 1 && isfinite(v->rank[0].score)) {
		v->known = true;
		err = first_line(&v->text, b);
		if (!err && !v->none)
			err = second_line(&v->text, b);
	}
	if (!err && v->n == 1 && b->ns > 1)
		err = settings_line(&v->text, b);
	err = err ? err : capacity_line(&v->text, b);
	v->known |= v->text.len > 0;
	return err;
}

int verdict_make(struct verdict *v, struct arms *arms, const struct verdict_rules *rules,
		 struct pd_msg *msg)
{
	struct board b = {.arms = arms, .rules = rules, .v = v};
	int err;

	*v = (struct verdict){0};
	buf_init(&v->text, TEXT_MAX);
	err = fill_board(&b);
	if (!err) {
		choose_objective(&b);
		v->settings = b.ns;
		err = v->objective.n > 0 ? rank_candidates(&b) : PD_OK;
	}
	if (!err && v->n > 0) {
		compare_all(&b);
		front_mark(arms, rules, &v->objective);
		err = find_other(&b, msg);
	}
	if (!err && v->n > 0)
		err = write_lines(&b);
	for (size_t i = 0; i < b.nc; i++)
		free(b.candidate[i]);
	for (size_t i = 0; i < b.ns; i++)
		free(b.setting[i]);
	free(b.candidate);
	free(b.setting);
	free(b.at);
	free(b.order);
	return err == PD_ENOMEM ? pd_fail(msg, err, "out of memory") : err;
}

void verdict_release(struct verdict *v)
{
	for (size_t i = 0; i < v->n; i++)
		free(v->rank[i].name);
	free(v->rank);
	buf_release(&v->text);
	*v = (struct verdict){0};
}
