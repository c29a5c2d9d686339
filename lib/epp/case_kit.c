#include "lib/epp/case_kit.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <cjson/cJSON.h>

#include "lib/route/hash.h"

#define EXACT 1e-12
#define NOW   1000000000000 /* of all cases */

/* -- configuration -- */

/* JSON as YAML reads it: with a space behind each colon. */
static int put_json(const cJSON *v, struct buf *out)
{
	const cJSON *e;
	bool first = true;
	int err;
	char *text;

	if (!v || cJSON_IsNull(v))
		return buf_puts(out, "null");
	if (cJSON_IsObject(v) || cJSON_IsArray(v)) {
		err = buf_putc(out, cJSON_IsObject(v) ? '{' : '[');
		cJSON_ArrayForEach(e, v)
		{
			cJSON *key = cJSON_IsObject(v) ? cJSON_CreateString(case_name(e)) : NULL;

			err = err ? err : first ? PD_OK : buf_puts(out, ", ");
			err = err ? err : key ? put_json(key, out) : PD_OK;
			err = err ? err : key ? buf_puts(out, ": ") : PD_OK;
			err = err ? err : put_json(e, out);
			cJSON_Delete(key);
			first = false;
		}
		return err ? err : buf_putc(out, cJSON_IsObject(v) ? '}' : ']');
	}
	text = cJSON_PrintUnformatted(v);
	err = text ? buf_puts(out, text) : PD_ENOMEM;
	cJSON_free(text);
	return err;
}

/* One plugin, and its place in the profile. */
static int put_plugin(const cJSON *type, const cJSON *parameters, int i, struct buf *out)
{
	int err = buf_printf(out, "- {name: p%d, type: ", i);

	err = err ? err : put_json(type, out);
	err = err ? err : buf_puts(out, ", parameters: ");
	err = err ? err : put_json(parameters, out);
	return err ? err : buf_puts(out, "}\n");
}

static int put_config(const cJSON *json, struct buf *out)
{
	const cJSON *profile = cJSON_GetObjectItem(json, "profile"), *e;
	const cJSON *producer = cJSON_GetObjectItem(json, "producer_parameters");
	int err = buf_puts(out, "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n"
				"plugins:\n"),
	    i = 0;

	if (!profile)
		err = err ? err
			  : put_plugin(cJSON_GetObjectItem(json, "plugin"),
				       cJSON_GetObjectItem(json, "parameters"), 0, out);
	cJSON_ArrayForEach(e, profile) err =
		err ? err
		    : put_plugin(cJSON_GetObjectItem(e, "type"),
				 cJSON_GetObjectItem(e, "parameters"), i++, out);
	if (!err && producer && !cJSON_IsNull(producer)) {
		err = buf_puts(out, "- {type: inflight-load-producer, parameters: ");
		err = err ? err : put_json(producer, out);
		err = err ? err : buf_puts(out, "}\n");
	}
	if (!profile) {
		const char *type = cJSON_GetStringValue(cJSON_GetObjectItem(json, "plugin"));
		const struct score_type *t = type ? score_type_find(type) : NULL;

		/* A decider is in no profile. */
		return !err && t && (t->kinds & (SCORE_FILTER | SCORE_SCORER | SCORE_PICKER))
			       ? buf_puts(out, "schedulingProfiles:\n- name: default\n  plugins: "
					       "[{pluginRef: p0}]\n")
			       : err;
	}
	err = err ? err : buf_puts(out, "schedulingProfiles:\n- name: default\n  plugins:\n");
	i = 0;
	cJSON_ArrayForEach(e, profile)
	{
		const cJSON *weight = cJSON_GetObjectItem(e, "weight");

		err = err ? err : buf_printf(out, "  - {pluginRef: p%d", i++);
		err = err ? err : weight ? buf_puts(out, ", weight: ") : PD_OK;
		err = err ? err : weight ? put_json(weight, out) : PD_OK;
		err = err ? err : buf_puts(out, "}\n");
	}
	return err;
}

int case_config(struct epp_case *k, const cJSON *json, struct pd_msg *why)
{
	struct buf text;
	int err;

	buf_init(&text, 1u << 20);
	err = put_config(json, &text);
	if (!err)
		err = epp_config_parse(&k->config, text.data, text.len, "case", why);
	buf_release(&text);
	return err;
}

/* -- pool -- */

static int count(const cJSON *a)
{
	return a ? cJSON_GetArraySize(a) : 0;
}

static int set_labels(struct route_labels *l, const cJSON *labels)
{
	const cJSON *e;
	int err = PD_OK;

	cJSON_ArrayForEach(e, labels) err =
		err ? err : route_labels_set(l, span_of(case_name(e)), span_of(case_text(e)));
	return err;
}

int case_pool(struct epp_case *k, const cJSON *endpoints)
{
	size_t n = (size_t)count(endpoints), i = 0;
	struct route_member *member = calloc(n + 1, sizeof(*member));
	const struct route_spec spec = score_spec(&k->config->profile[0]);
	const cJSON *e;
	int err = member && n <= ROUTE_WORKERS_MAX ? PD_OK : PD_ENOMEM;

	k->slot = calloc(n + 1, sizeof(*k->slot));
	k->given = calloc(n + 1, sizeof(*k->given));
	k->load = calloc(n + 1, sizeof(*k->load));
	k->list = calloc(n + 1, sizeof(*k->list));
	k->sum = calloc(n + 1, sizeof(*k->sum));
	k->raw = calloc((n + 1) * SCORE_STAGES_MAX, sizeof(*k->raw));
	if (!k->slot || !k->given || !k->load || !k->list || !k->sum || !k->raw)
		err = PD_ENOMEM;
	cJSON_ArrayForEach(e, endpoints)
	{
		const cJSON *name = cJSON_IsString(e) ? e : cJSON_GetObjectItem(e, "name");

		if (err)
			break;
		member[i].name = cJSON_GetStringValue(name);
		member[i].slot = &k->slot[i];
		k->slot[i].available = true;
		err = member[i].name
			      ? set_labels(&member[i].labels, cJSON_GetObjectItem(e, "labels"))
			      : PD_EINVAL;
		i++;
	}
	err = err ? err : route_state_new(&k->state, &spec);
	err = err ? err : route_pool_new(&k->pool, member, n, k->state, k->why);
	for (i = 0; member && i < n; i++)
		route_labels_release(&member[i].labels);
	free(member);
	k->run = (struct score_run){.pool = k->pool,
				    .rq = &k->rq,
				    .load = k->load,
				    .given = k->given,
				    .flight = &k->config->profile[0].flight};
	i = 0;
	if (!err)
		cJSON_ArrayForEach(e, endpoints) case_endpoint(k, (uint32_t)i++, e);
	return err;
}

static double number(const cJSON *o, const char *name, double fallback)
{
	const cJSON *v = cJSON_GetObjectItem(o, name);

	return cJSON_IsNumber(v) ? v->valuedouble : fallback;
}

static void set_names(_Atomic uint64_t *names, _Atomic uint32_t *n, const cJSON *list)
{
	const cJSON *e;

	*n = 0;
	cJSON_ArrayForEach(e, list)
	{
		uint64_t name = route_hash(ROUTE_HASH_XXH3, case_text(e), strlen(case_text(e)));

		if (*n < ROUTE_ADAPTERS_MAX)
			names[(*n)++] = name;
	}
}

void case_endpoint(struct epp_case *k, uint32_t i, const cJSON *e)
{
	const cJSON *metrics = cJSON_GetObjectItem(e, "metrics");
	const cJSON *flight = cJSON_GetObjectItem(e, "in_flight");
	const cJSON *match = cJSON_GetObjectItem(e, "prefix_match");
	struct route_slot *s = &k->slot[i];
	struct score_given *g = &k->given[i];

	s->in_flight = (uint32_t)number(flight, "requests", 0);
	s->tokens = (uint64_t)number(flight, "tokens", 0);
	k->load[i] = s->in_flight;
	if (metrics) {
		route_signal_set(&s->signal, (int32_t)number(metrics, "waiting", 0),
				 (int32_t)number(metrics, "running", 0),
				 number(metrics, "kv_usage", 0),
				 NOW - (int64_t)(number(metrics, "age_ms", 0) * 1e6));
		set_names(s->adapters.active, &s->adapters.nactive,
			  cJSON_GetObjectItem(metrics, "active_models"));
		set_names(s->adapters.waiting, &s->adapters.nwaiting,
			  cJSON_GetObjectItem(metrics, "waiting_models"));
		s->adapters.max = (uint32_t)number(metrics, "max_models", 0);
	}
	g->uncached = (int64_t)number(e, "uncached_tokens", 0);
	g->ttft_ms = number(e, "predicted_ttft_ms", -1);
	g->match = (struct score_match){0};
	if (match)
		g->match = (struct score_match){
			.match = (int64_t)number(match, "match_blocks", 0),
			.total = (int64_t)number(match, "total_blocks", 0),
			.block = (int64_t)number(match, "block_tokens", 0),
			.cached = (int64_t)number(match, "cached_blocks",
						  number(match, "match_blocks", 0)),
			.known = true};
}

/* A proxy makes the names of fields lower case; one that is not never arrives so. */
static bool is_lower(const char *name)
{
	for (; *name; name++)
		if (isupper((unsigned char)*name))
			return false;
	return true;
}

void case_request(struct epp_case *k, const cJSON *request)
{
	const cJSON *headers = cJSON_GetObjectItem(request, "headers"), *h;
	const char *model = cJSON_GetStringValue(cJSON_GetObjectItem(request, "model"));
	size_t n = 0;

	cJSON_ArrayForEach(h, headers) if (n < CASE_HEADERS && is_lower(case_name(h)))
		k->header[n++] = (struct field){span_of(case_name(h)), span_of(case_text(h)), 0};
	k->tokens = (int64_t)number(request, "prompt_tokens", 0);
	k->rq = (struct route_request){
		.key = &k->key,
		.header = k->header,
		.nheaders = n,
		.model = span_of(model),
		.tokens = (uint32_t)k->tokens,
		.output_tokens = (uint32_t)number(request, "max_output_tokens", 0),
		.now_ns = NOW,
	};
}

int case_begin(struct epp_case *k, const cJSON *json)
{
	const cJSON *scores = cJSON_GetObjectItem(json, "scores"), *e;
	cJSON *names = scores ? cJSON_CreateArray() : NULL;
	int err = case_config(k, json, k->why);
	size_t i = 0;

	cJSON_ArrayForEach(e, scores) cJSON_AddItemToArray(names, cJSON_CreateString(case_name(e)));
	err = err ? err : case_pool(k, names ? names : cJSON_GetObjectItem(json, "endpoints"));
	cJSON_Delete(names);
	case_request(k, cJSON_GetObjectItem(json, "request"));
	cJSON_ArrayForEach(e, scores) if (!err) k->sum[i++] = e->valuedouble;
	return err;
}

void case_release(struct epp_case *k)
{
	route_pool_free(k->pool);
	route_state_unref(k->state);
	epp_config_free(k->config);
	cJSON_Delete(k->json);
	free(k->slot);
	free(k->given);
	free(k->load);
	free(k->list);
	free(k->sum);
	free(k->raw);
}

/* -- comparing -- */

const char *case_text(const cJSON *v)
{
	const char *t = cJSON_GetStringValue(v);

	return t ? t : "";
}

const char *case_name(const cJSON *v)
{
	return v->string ? v->string : "";
}

void case_all(struct epp_case *k)
{
	for (k->n = 0; k->n < k->pool->n; k->n++)
		k->list[k->n] = (uint16_t)k->n;
}

uint32_t case_find(const struct epp_case *k, const char *name)
{
	return route_pool_find(k->pool, route_hash(ROUTE_HASH_XXH3, name, strlen(name)));
}

int case_compare(struct epp_case *k, const cJSON *want, const double *got, const char *what)
{
	size_t seen = 0;

	for (size_t i = 0; i < k->n; i++) {
		const char *name = k->pool->worker[k->list[i]].name;
		const cJSON *v = cJSON_GetObjectItemCaseSensitive(want, name);

		if (!cJSON_IsNumber(v))
			continue;
		seen++;
		if (!(fabs(v->valuedouble - got[i]) <= EXACT))
			return pd_fail(k->why, PD_EPROTO,
				       "%.60s of %s: found %.17g, expected %.17g", what, name,
				       got[i], v->valuedouble);
	}
	if (seen == (size_t)count(want))
		return PD_OK;
	return pd_fail(k->why, PD_EPROTO, "%.60s: %zu workers have one, expected %d", what, seen,
		       count(want));
}

int case_compare_names(struct epp_case *k, const cJSON *want, const uint16_t *got, size_t n,
		       const char *what)
{
	const cJSON *e;
	size_t i = 0;
	bool same = (size_t)count(want) == n;

	cJSON_ArrayForEach(e, want)
	{
		same = same && strcmp(case_text(e), k->pool->worker[got[i]].name) == 0;
		i++;
	}
	return same ? PD_OK
		    : pd_fail(k->why, PD_EPROTO, "%s: found %zu workers, expected %d%s", what, n,
			      count(want), (size_t)count(want) == n ? " others" : "");
}

int case_compare_set(struct epp_case *k, const cJSON *want, const uint16_t *got, size_t n,
		     const char *what)
{
	const cJSON *e;
	bool same = (size_t)count(want) == n;

	cJSON_ArrayForEach(e, want)
	{
		uint32_t w = case_find(k, case_text(e));
		size_t i = 0;

		while (i < n && got[i] != w)
			i++;
		same = same && i < n;
	}
	return same ? PD_OK
		    : pd_fail(k->why, PD_EPROTO, "%s: found %zu workers, expected %d", what, n,
			      count(want));
}

int case_saturation(struct epp_case *k, const cJSON *want)
{
	const struct score_stage *s = &k->config->plugin[0];
	const struct score_call c = {.run = &k->run, .params = s->params};
	double got = s->type->saturation ? s->type->saturation(&c, k->list, k->n) : -1;

	return fabs(got - want->valuedouble) <= EXACT
		       ? PD_OK
		       : pd_fail(k->why, PD_EPROTO, "saturation: found %.17g, expected %.17g", got,
				 want->valuedouble);
}
