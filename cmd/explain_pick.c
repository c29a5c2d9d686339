/*
 * The pool is idle: nothing in flight, nothing remembered, no figures of engines. So policies by
 * key say what they say in a router, and scorers what they would with empty workers.
 */
#include "cmd/explain_pick.h"

#include <stdlib.h>
#include <string.h>

#include "lib/base/file.h"
#include "lib/epp/epp_config.h"
#include "lib/json/scan.h"
#include "lib/route/key/key_extract.h"
#include "lib/route/policy/hashing.h"
#include "lib/route/prefix.h"
#include "lib/router/config/workersfile.h"

#define BODY_MAX    (64u << 20)
#define HEADERS_MAX 32
#define AROUND	    3 /* points of the ring that are drawn on either side of the key */

/* Everything about one explanation; released together. */
struct picture {
	struct router_config config;
	struct epp_config *epp;
	struct route_state *state;
	struct route_pool *pool;
	struct route_slot *slot;
	struct buf text; /* of the body */
	struct json_object body;
	bool has_body;
	struct field header[HEADERS_MAX];
	uint64_t *block;
	struct route_key key;
	struct route_request rq;
	struct route_explain explain;
	struct route_decision decision;
	uint32_t order[ROUTE_WORKERS_MAX];
	bool ordered;
};

static int read_policy(const struct explain_pick *e, struct picture *p, struct pd_msg *msg)
{
	const char *name = e->policy ? e->policy : e->epp ? "scores" : route_policies[0]->name;
	struct route_spec *spec = &p->config.fleet.policy[ROLE_REGULAR];
	struct pd_msg inner = {0};
	int err = policy_opts_check(&e->policies, msg);

	if (err)
		return err;
	p->config.settings = e->policies.settings;
	if (e->epp && epp_config_read(&p->epp, e->epp, &inner))
		return pd_fail(msg, PD_EINVAL, "--epp-config: %.480s", inner.text);
	p->config.epp = p->epp;
	if (route_spec_parse(spec, name, &p->config.settings, &inner))
		return pd_fail(msg, PD_EINVAL, "--policy: %.480s", inner.text);
	epp_apply(p->epp, EPP_PLAIN, spec);
	return e->epp && !score_spec_profile(spec)
		       ? pd_fail(msg, PD_EINVAL,
				 "--epp-config has no effect with --policy %.60s, expected scores",
				 name)
		       : PD_OK;
}

static int read_workers(const struct explain_pick *e, struct picture *p, struct pd_msg *msg)
{
	struct pd_msg inner = {0};
	struct fleet_config fc;
	int err = PD_OK;

	if ((e->workers_file != NULL) == (e->workers.n > 0))
		return pd_fail(msg, PD_EINVAL,
			       "expected the workers, by either --worker-urls or --workers-file");
	if (e->workers_file) {
		err = fleet_config_read(e->workers_file, &p->config, &fc, msg);
		if (!err)
			p->config.fleet = fc;
		return err;
	}
	for (size_t i = 0; !err && i < e->workers.n; i++)
		err = worker_list_add(&p->config.fleet.workers, ROLE_REGULAR, e->workers.items[i],
				      1, &inner);
	return err ? pd_fail(msg, err, "--worker-urls: %.480s", inner.text) : PD_OK;
}

static int make_pool(struct picture *p, struct pd_msg *msg)
{
	const struct worker_list *l = &p->config.fleet.workers;
	struct route_member *member = calloc(l->n + 1, sizeof(*member));
	int err = PD_ENOMEM;

	p->slot = calloc(l->n + 1, sizeof(*p->slot));
	p->explain.worker = calloc(l->n + 1, sizeof(*p->explain.worker));
	for (size_t i = 0; member && p->slot && i < l->n; i++) {
		member[i] = (struct route_member){
			.name = l->spec[i].name, .slot = &p->slot[i], .labels = l->spec[i].labels};
		p->slot[i].available = true;
	}
	if (member && p->slot && p->explain.worker)
		err = route_state_new(&p->state, &p->config.fleet.policy[ROLE_REGULAR]);
	err = err ? err : route_pool_new(&p->pool, member, l->n, p->state, msg);
	free(member);
	return err;
}

/* "NAME: VALUE" */
static int read_headers(const struct explain_pick *e, struct picture *p, struct pd_msg *msg)
{
	for (size_t i = 0; i < e->headers.n; i++) {
		const char *text = e->headers.items[i], *colon = strchr(text, ':');

		if (!colon || colon == text || i == HEADERS_MAX)
			return pd_fail(msg, PD_EINVAL,
				       "--header: found '%.100s', expected NAME: VALUE, at most %d",
				       text, HEADERS_MAX);
		p->header[i].name = (struct span){text, (size_t)(colon - text)};
		p->header[i].value = span_trim(span_of(colon + 1));
	}
	return PD_OK;
}

static int read_request(const struct explain_pick *e, struct picture *p, struct pd_msg *msg)
{
	const struct json_member *model;
	struct pd_msg inner = {0};
	struct span prompt;
	size_t n;
	int err = read_headers(e, p, msg);

	err = err ? err : e->body ? file_read(e->body, &p->text, msg) : PD_OK;
	if (err)
		return err;
	p->rq = (struct route_request){.key = &p->key,
				       .header = p->header,
				       .nheaders = e->headers.n,
				       .explain = &p->explain};
	if (e->body &&
	    json_object_scan(&p->body, p->text.data ? p->text.data : "", p->text.len, &inner))
		return pd_fail(msg, PD_EINVAL, "--body: %.200s: %.250s", e->body, inner.text);
	p->has_body = e->body != NULL;
	route_key_extract(&p->config.keys, p->header, e->headers.n, p->has_body ? &p->body : NULL,
			  &p->key);
	if (e->key)
		route_key_of_text(span_of(e->key), &p->key);
	if (!p->has_body)
		return PD_OK;
	model = json_object_get(&p->body, "model");
	if (model && model->type == JSON_STRING)
		p->rq.model = (struct span){model->value.p + 1, model->value.n - 2};
	prompt = route_prompt(&p->body);
	n = prompt.n / ROUTE_BLOCK_BYTES;
	n = n < ROUTE_BLOCKS_MAX ? n : ROUTE_BLOCKS_MAX;
	p->block = calloc(n + 1, sizeof(*p->block));
	if (!p->block)
		return PD_ENOMEM;
	p->rq.nblocks = route_blocks(0, prompt.p, prompt.n, ROUTE_BLOCK_BYTES, p->block, n);
	p->rq.block = p->block;
	p->rq.tokens = (uint32_t)((prompt.n + ROUTE_TOKEN_BYTES - 1) / ROUTE_TOKEN_BYTES);
	return PD_OK;
}

/* -- text -- */

static const char *name_of(const struct picture *p, uint32_t w)
{
	return p->pool->worker[w].name;
}

/* The key among the points of the ring. */
static int draw_ring(const struct picture *p, struct buf *out)
{
	const struct ring *r = p->pool->table;
	uint64_t hash = route_hash(r->hash, p->key.text, p->key.len);
	size_t at = ring_lookup(r, hash), n = r->npoints < 2 * AROUND ? r->npoints : 2 * AROUND;
	int err = buf_printf(out, "\nring of %zu points, around the key\n", r->npoints);

	for (size_t i = 0; !err && i < n; i++) {
		const struct ring_point *q = &r->point[(at + r->npoints - n / 2 + i) % r->npoints];

		if (i == n / 2)
			err = buf_printf(out, "  %.9f  <- the key\n",
					 (double)hash / ROUTE_HASH_SPAN);
		err = err ? err
			  : buf_printf(out, "  %.9f  %s\n", (double)q->pos / ROUTE_HASH_SPAN,
				       name_of(p, q->worker));
	}
	return err;
}

static int put_workers(const struct picture *p, struct buf *out)
{
	int err = PD_OK;

	if (p->ordered) {
		err = buf_puts(out, "\norder of preference\n");
		for (size_t i = 0; !err && i < p->pool->n && i < 16; i++)
			err = buf_printf(out, "  %zu. %s\n", i + 1, name_of(p, p->order[i]));
		return err;
	}
	err = buf_puts(out, p->explain.filled ? "\nworkers\n" : "\ncompared\n");
	for (uint32_t i = 0; !err && p->explain.filled && i < p->pool->n; i++) {
		const struct route_verdict *v = &p->explain.worker[i];

		err = v->filter ? buf_printf(out, "  %-10s %s: %s\n", "filtered", name_of(p, i),
					     v->filter)
				: buf_printf(out, "  %-10.6g %s\n", v->score, name_of(p, i));
	}
	for (uint32_t i = 0; !err && !p->explain.filled && i < p->decision.ncandidates; i++)
		err = buf_printf(out, "  %-10.6g %s\n", p->decision.candidate[i].score,
				 name_of(p, p->decision.candidate[i].worker));
	return err;
}

static int put_text(const struct picture *p, int picked, struct buf *out)
{
	const struct route_decision *d = &p->decision;
	bool ring = p->state->spec.type->table_new == route_ring_table && p->pool->n > 0;
	int err = buf_printf(out, "policy    %s\nkey       %s%s%s\n", route_pool_policy(p->pool),
			     p->key.len ? p->key.text : "none", p->key.source[0] ? ", from " : "",
			     p->key.source);

	if (picked)
		err = err ? err
			  : buf_printf(out, "selected  none: %s\n",
				       picked == PD_EPROTO ? "the filters leave no worker"
							   : "there is no worker");
	else
		err = err ? err
			  : buf_printf(out, "selected  %s\nreason    %s, margin %.6g, %u ties\n",
				       name_of(p, d->worker), route_reason_name(d->reason),
				       d->margin, d->ties);
	err = err ? err : put_workers(p, out);
	return err || !ring || p->key.level == ROUTE_KEY_NONE ? err : draw_ring(p, out);
}

/* -- JSON: the fields of the line Scoring decision -- */

static int put_json(const struct picture *p, int picked, struct buf *out)
{
	const struct route_decision *d = &p->decision;
	bool first = true;
	int err = buf_printf(out, "{\"policy\":\"%s\",\"key\":", route_pool_policy(p->pool));

	err = err ? err : json_quote(out, p->key.text, p->key.len);
	err = err ? err : buf_puts(out, ",\"selected\":[");
	if (!err && !picked)
		err = json_quote(out, name_of(p, d->worker), strlen(name_of(p, d->worker)));
	err = err ? err : buf_puts(out, "],\"filtered\":{");
	for (uint32_t i = 0; !err && p->explain.filled && i < p->pool->n; i++) {
		const char *by = p->explain.worker[i].filter;

		if (!by)
			continue;
		err = buf_puts(out, first ? "" : ",");
		err = err ? err : json_quote(out, name_of(p, i), strlen(name_of(p, i)));
		err = err ? err : buf_putc(out, ':');
		err = err ? err : json_quote(out, by, strlen(by));
		first = false;
	}
	err = err ? err : buf_puts(out, "},\"order\":[");
	for (size_t i = 0; !err && p->ordered && i < p->pool->n; i++) {
		err = buf_puts(out, i ? "," : "");
		err = err ? err
			  : json_quote(out, name_of(p, p->order[i]),
				       strlen(name_of(p, p->order[i])));
	}
	return err ? err
		   : buf_printf(out, "],\"margin\":%.9g,\"tie_count\":%u,\"reason\":\"%s\"}\n",
				d->margin, d->ties, picked ? "none" : route_reason_name(d->reason));
}

int explain_pick(const struct explain_pick *e, struct buf *out, struct pd_msg *msg)
{
	struct picture *p = calloc(1, sizeof(*p));
	int err, picked;

	if (!p)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	router_config_default(&p->config);
	buf_init(&p->text, BODY_MAX);
	err = read_policy(e, p, msg);
	err = err ? err : read_workers(e, p, msg);
	err = err ? err : make_pool(p, msg);
	err = err ? err : read_request(e, p, msg);
	if (!err) {
		picked = route_decide(p->pool, &p->rq, &p->decision);
		p->ordered = route_order(p->pool, &p->key, p->order) == PD_OK;
		err = e->json ? put_json(p, picked, out) : put_text(p, picked, out);
	}
	route_pool_free(p->pool);
	route_state_unref(p->state);
	worker_list_release(&p->config.fleet.workers);
	epp_config_free(p->epp);
	if (p->has_body)
		json_object_release(&p->body);
	buf_release(&p->text);
	free(p->slot);
	free(p->explain.worker);
	free(p->block);
	free(p);
	return err;
}
