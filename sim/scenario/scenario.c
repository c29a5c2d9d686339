/* From the schema's structs to an experiment: defaults, ranges, names of policies. Each error names
 * its line and column. */
#include "sim/scenario/reading.h"
#include "sim/scenario/scenario_cluster.h"
#include "sim/scenario/scenario_rules.h"
#include "sim/scenario/scenario_workload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/file.h"

#define SEED_MAX ((UINT64_C(1) << 53) - 1) /* a JSON number holds it exactly */

static int read_epp(struct scenario *s, struct pd_msg *msg)
{
	char *path = s->y->epp_config ? scn_beside(s, s->y->epp_config) : NULL;
	struct pd_msg inner = {.text = ""};
	int err = PD_OK;

	if (path && epp_config_read(&s->epp, path, &inner))
		err = scn_at(s, msg, "epp_config", 0, "%s", inner.text);
	else if (s->y->epp_config && !path)
		err = PD_ENOMEM;
	free(path);
	s->spec.plan.epp = s->epp;
	return err;
}

/* `ring` is the older spelling of two of the parameters. */
static int read_settings(struct scenario *s, struct pd_msg *msg)
{
	struct route_settings *to = &s->spec.plan.settings;
	struct route_param list[ROUTE_SETTINGS_MAX + 1];
	struct pd_msg inner = {.text = ""};
	size_t n = route_param_list(list), wrong;
	char path[96];
	bool ring;

	for (size_t i = 0; s->y->parameters && i < n; i++)
		to->value[i] = s->y->parameters->value[i];
	if (s->y->ring && (route_settings_put(to, "ring-hash", s->y->ring->hash) ||
			   route_settings_put(to, "virtual-nodes", s->y->ring->vnodes)))
		return PD_EINVAL;
	if (route_settings_check(to, &wrong, &inner) == PD_OK)
		return PD_OK;
	ring = !s->y->parameters || to->value[wrong] != s->y->parameters->value[wrong];
	(void)snprintf(path, sizeof(path), "%s.%s", ring ? "ring" : "parameters",
		       ring ? strcmp(list[wrong].name, "ring-hash") == 0 ? "hash" : "vnodes"
			    : s->schema.keys.key[wrong]);
	return scn_at(s, msg, path, 0, "%s", inner.text);
}

static int read_policies(struct scenario *s, struct pd_msg *msg)
{
	struct plan *p = &s->spec.plan;
	struct route_spec spec[REPLAY_POOLS];
	struct pd_msg inner = {.text = ""};
	char path[64];
	int err = read_settings(s, msg);

	err = err ? err : read_epp(s, msg);
	if (err)
		return err;
	for (size_t i = 0; i < s->y->npolicies; i++) {
		(void)snprintf(path, sizeof(path), "policies[%zu]", i);
		if (plan_policy_parse(s->y->policies[i], &p->settings, spec, &inner))
			return scn_at(s, msg, path, 0, "%s", inner.text);
		if (strchr(s->y->policies[i], '/') && s->y->workers)
			return scn_at(s, msg, path, 0,
				      "'%s' names two pools: expected prefill and decode pools",
				      s->y->policies[i]);
	}
	p->policies = (const char *const *)s->y->policies;
	p->npolicies = s->y->npolicies;
	return PD_OK;
}

static int read_expectations(struct scenario *s, struct pd_msg *msg)
{
	struct pd_msg inner = {.text = ""};
	size_t column;
	char path[64];

	s->expect = calloc(s->y->nexpect + 1, sizeof(*s->expect));
	if (!s->expect)
		return PD_ENOMEM;
	for (size_t i = 0; i < s->y->nexpect; i++) {
		(void)snprintf(path, sizeof(path), "expect[%zu]", i);
		if (expect_parse(&s->expect[i], s->y->expect[i], &column, &inner))
			return scn_at(s, msg, path, column, "%s", inner.text);
		s->expect[i].place = scn_place(s, path);
		if (!s->expect[i].place)
			return PD_ENOMEM;
	}
	s->spec.expect = s->expect;
	s->spec.nexpect = s->y->nexpect;
	return PD_OK;
}

/* Errors that only building the arms finds (events against pools, too many combinations) get a
 * place in the file as well. */
static int try_arms(const struct scenario *s, struct pd_msg *msg)
{
	struct pd_msg inner = {.text = ""};
	struct arms arms;
	int err = plan_arms(&s->spec.plan, &arms, &inner);

	if (err == PD_EINVAL)
		return scn_at(s, msg, s->y->nevents ? "events" : "name", 0, "%s", inner.text);
	if (!err)
		arms_release(&arms);
	return err;
}

static int convert(struct scenario *s, struct pd_msg *msg)
{
	struct plan *p = &s->spec.plan;
	uint64_t concurrency = 0, sessions = 0;
	int err;

	*p = (struct plan){.name = s->y->name,
			   .source = s->path,
			   .seed = s->y->seed ? *s->y->seed : 1,
			   .engine = ENGINE_DEFAULTS,
			   .transfer_ms = 1,
			   .transfer_us_token = 5.24,
			   .routing_only = s->y->routing_only && *s->y->routing_only,
			   .hide_keys = s->y->hide_keys && *s->y->hide_keys};
	err = scn_whole(s, "seed", s->y->seed, 0, SEED_MAX, &p->seed, msg);
	if (!err)
		err = scn_whole(s, "max_concurrency", s->y->max_concurrency, 1, 1000000000,
				&concurrency, msg);
	p->max_concurrency = (uint32_t)concurrency;
	if (!err)
		err = scn_whole(s, "concurrent_sessions", s->y->concurrent_sessions, 1, 10000000,
				&sessions, msg);
	p->concurrent_sessions = (uint32_t)sessions;
	if (!err)
		err = scn_read_rules(s, msg);
	if (!err)
		err = scn_read_decider(s, msg);
	if (!err)
		err = scn_read_workload(s, msg);
	if (!err)
		err = scn_read_engine(s, msg);
	if (!err)
		err = scn_read_pools(s, msg);
	if (!err)
		err = read_policies(s, msg);
	if (!err)
		err = scn_read_caches(s, msg);
	if (!err)
		err = scn_read_network(s, msg);
	if (!err)
		err = scn_read_events(s, msg);
	if (!err)
		err = read_expectations(s, msg);
	if (!err)
		err = scn_check_names(s, "workers", s->y->workers, msg);
	if (!err)
		err = scn_check_names(s, "prefill", s->y->prefill, msg);
	if (!err)
		err = scn_check_names(s, "decode", s->y->decode, msg);
	return err ? err : try_arms(s, msg);
}

/* ---- points of a sweep ---- */

/* A message about the text of a point has a place there, which says nothing. */
static const char *without_place(const struct scenario *s, const char *text)
{
	size_t n = strlen(s->path);
	const char *p = strncmp(text, s->path, n) == 0 ? text + n : text;

	while (p > text && (*p == ':' || *p == ' ' || (*p >= '0' && *p <= '9')))
		p++;
	return p;
}

static int make_child(struct scenario *s, const struct sweep_point *p, struct pd_msg *msg)
{
	struct scenario *c = NULL;
	int err = scenario_parse(&c, p->text.data, p->text.len, s->path, msg);

	if (err)
		return err;
	s->child[s->npoints] = c;
	c->point = strndup(p->label.data, p->label.len);
	c->same = strndup(p->workload.data, p->workload.len);
	c->spec.plan.point = c->point;
	c->spec.same = c->same;
	c->spec.repetitions = s->spec.repetitions;
	s->points[s->npoints++] = c->spec;
	return c->point && c->same ? PD_OK : PD_ENOMEM;
}

static int read_front(struct scenario *s, const struct yamlpos *pos, struct pd_msg *msg)
{
	struct pd_msg inner = {.text = ""};
	struct verdict_rules *r = &s->spec.rules;
	size_t column;

	for (size_t i = 0; i < s->sweep.nfront; i++) {
		if (objective_parse(&r->front[r->nfront++], s->sweep.front[i], &column, &inner)) {
			char path[48];
			const struct yamlpos_entry *e;

			(void)snprintf(path, sizeof(path), "sweep.front[%zu]", i);
			e = yamlpos_find(pos, path);
			return pd_fail(msg, PD_EINVAL, "%s:%zu:%zu: %.400s", s->path,
				       e ? e->value_line : 1, e ? e->text_column + column - 1 : 1,
				       inner.text);
		}
	}
	return PD_OK;
}

static int read_points(struct scenario *s, const struct yamlpos *pos, const char *text, size_t n,
		       struct pd_msg *msg)
{
	size_t points = s->sweep.points;
	int err = read_front(s, pos, msg);

	if (err)
		return err;
	s->child = calloc(points, sizeof(struct scenario *));
	s->points = calloc(points, sizeof(*s->points));
	if (!s->child || !s->points)
		return PD_ENOMEM;
	for (size_t i = 0; !err && i < points; i++) {
		struct pd_msg inner = {.text = ""};
		struct sweep_point p;

		sweep_point_init(&p);
		err = sweep_make(&s->sweep, i, pos, text, n, s->path, &p, msg);
		if (!err && make_child(s, &p, &inner)) {
			const struct yamlpos_entry *e = yamlpos_find(pos, p.place);

			err = pd_fail(msg, PD_EINVAL, "%s:%zu:%zu: with %.200s: %.200s", s->path,
				      e ? e->line : 1, e ? e->column : 1, p.label.data,
				      without_place(s, inner.text));
		}
		sweep_point_release(&p);
	}
	if (!err) {
		s->points[0].expect = s->spec.expect;
		s->points[0].nexpect = s->spec.nexpect;
		s->points[0].rules = s->spec.rules;
	}
	return err;
}

int scenario_parse(struct scenario **out, const char *text, size_t n, const char *path,
		   struct pd_msg *msg)
{
	struct scenario *s = calloc(1, sizeof(*s));
	struct yamlpos pos = {0};
	void *data = NULL;
	int err;

	*out = NULL;
	if (s)
		s->path = strdup(path);
	if (!s || !s->path) {
		free(s);
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	}
	scenario_schema_make(&s->schema);
	/* the sweep has keys that no schema knows */
	err = yamlpos_scan(&pos, text, n, path, msg);
	if (!err)
		err = sweep_find(&s->sweep, &pos, text, n, path, msg);
	if (!err)
		err = yamlload_read(&s->schema.top, &data, &s->pos,
				    s->sweep.rest ? s->sweep.rest : text, n, path, msg);
	s->y = data;
	if (!err)
		err = convert(s, msg);
	if (!err && s->sweep.points > 0)
		err = read_points(s, &pos, text, n, msg);
	yamlpos_release(&pos);
	if (err == PD_ENOMEM)
		(void)pd_fail(msg, err, "out of memory");
	if (err)
		scenario_free(s);
	else
		*out = s;
	return err;
}

int scenario_load(struct scenario **out, const char *path, struct pd_msg *msg)
{
	struct buf text;
	int err;

	*out = NULL;
	buf_init(&text, SCENARIO_FILE_MAX);
	err = file_read(path, &text, msg);
	if (!err)
		err = scenario_parse(out, text.data ? text.data : "", text.len, path, msg);
	buf_release(&text);
	return err;
}

void scenario_free(struct scenario *s)
{
	if (!s)
		return;
	for (size_t i = 0; i < s->npoints; i++)
		scenario_free(s->child[i]);
	free(s->child);
	free(s->points);
	free(s->point);
	free(s->same);
	sweep_release(&s->sweep);
	yamlload_free(&s->schema.top, s->y);
	yamlpos_release(&s->pos);
	free(s->path);
	epp_config_free(s->epp);
	free(s->workload);
	free(s->caches);
	free(s->events);
	for (size_t i = 0; i < 3; i++)
		free(s->nodes[i]);
	free(s->note);
	free(s->expect);
	for (size_t i = 0; i < s->nplaces; i++)
		free(s->place[i]);
	free(s->place);
	free(s);
}

const struct experiment_spec *scenario_spec(const struct scenario *s)
{
	return s->npoints > 0 ? s->points : &s->spec;
}

size_t scenario_points(const struct scenario *s)
{
	return s->npoints > 0 ? s->npoints : 1;
}
