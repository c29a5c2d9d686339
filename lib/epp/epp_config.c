#include "lib/epp/epp_config.h"

#include <stdio.h>
#include <stdlib.h>

#include "lib/base/file.h"
#include "lib/base/nearest.h"
#include "lib/epp/epp_flow.h"
#include "lib/epp/epp_reading.h"
#include "lib/route/prefix.h"

#define FILE_MAX (1u << 20)

static const char *const versions[] = {"inference.networking.x-k8s.io/v1alpha1",
				       "llm-d.ai/v1alpha1", "llm-d.ai/v1", NULL};

/* -- messages -- */

int epp_keys(struct epp_reading *r, struct yamlnode map, const char *const *known)
{
	char found[100];

	if (yamlnode_kind(map) != YAMLPOS_MAPPING)
		return yamlnode_fail(map, r->file, r->msg, "found %s, expected a mapping of keys",
				     yamlnode_found(map, found, sizeof(found)));
	return yamlnode_keys(map, r->file, known, r->msg);
}

int epp_note(struct epp_reading *r, struct yamlnode at, const char *what)
{
	struct epp_config *c = r->config;
	char *text;
	size_t cap = strlen(r->file) + strlen(what) + 100;

	if (c->nnotes == EPP_NOTES_MAX)
		return PD_OK;
	text = score_arena_get(&c->arena, cap);
	if (!text)
		return PD_ENOMEM;
	(void)snprintf(text, cap, "%s:%zu:%zu: %s has no effect", r->file,
		       at.pos->entry[at.at].line, at.pos->entry[at.at].column, what);
	c->note[c->nnotes++] = text;
	return PD_OK;
}

int epp_text(struct epp_reading *r, struct yamlnode map, const char *key, const char **out)
{
	struct yamlnode n = yamlnode_get(map, key);
	char found[100];

	*out = NULL;
	if (n.pos && yamlnode_string(n, out))
		return yamlnode_fail(n, r->file, r->msg, "'%s': found %s, expected text", key,
				     yamlnode_found(n, found, sizeof(found)));
	return PD_OK;
}

int epp_list(struct epp_reading *r, struct yamlnode map, const char *key, struct yamlnode *out)
{
	char found[100];

	*out = yamlnode_get(map, key);
	if (out->pos && yamlnode_kind(*out) != YAMLPOS_SEQUENCE)
		return yamlnode_fail(*out, r->file, r->msg, "'%s': found %s, expected a list", key,
				     yamlnode_found(*out, found, sizeof(found)));
	return PD_OK;
}

const struct score_stage *epp_plugin(const struct epp_config *c, const char *name)
{
	for (size_t i = 0; i < c->nplugins; i++)
		if (strcmp(c->plugin[i].name, name) == 0)
			return &c->plugin[i];
	return NULL;
}

int epp_ref(struct epp_reading *r, struct yamlnode map, const char *key, unsigned kinds,
	    const char *expected, const struct score_stage **out)
{
	struct yamlnode n = yamlnode_get(map, key);
	const char *name;
	int err = epp_text(r, map, key, &name);

	*out = NULL;
	if (err || !name)
		return err;
	*out = epp_plugin(r->config, name);
	if (!*out)
		return yamlnode_fail(n, r->file, r->msg,
				     "'%s': found '%.60s', expected the name of a plugin of this "
				     "file",
				     key, name);
	if (!((*out)->type->kinds & kinds))
		return yamlnode_fail(n, r->file, r->msg,
				     "'%s': plugin '%.60s' is a %s, expected %s", key, name,
				     (*out)->type->name, expected);
	return PD_OK;
}

/* -- plugins -- */

static void set_default(const struct score_param *p, void *params)
{
	char *at = (char *)params + p->offset;

	switch (p->type) {
	case SCORE_PARAM_INT:
	case SCORE_PARAM_DURATION:
		memcpy(at, &(int64_t){(int64_t)p->fallback}, sizeof(int64_t));
		break;
	case SCORE_PARAM_REAL:
		memcpy(at, &p->fallback, sizeof(double));
		break;
	case SCORE_PARAM_BOOL:
		memcpy(at, &(bool){p->fallback != 0}, sizeof(bool));
		break;
	case SCORE_PARAM_TEXT:
		memcpy(at, &p->text, sizeof(p->text));
		break;
	default:
		break;
	}
}

static int read_value(struct epp_reading *r, const struct score_param *p, struct yamlnode n,
		      void *params)
{
	char *at = (char *)params + p->offset, found[100];
	const char *want = "text", *text;
	int64_t whole;
	double real;
	bool truth;
	int err = PD_OK;

	switch (p->type) {
	case SCORE_PARAM_INT:
		want = "a whole number";
		err = yamlnode_int(n, &whole);
		if (!err)
			memcpy(at, &whole, sizeof(whole));
		break;
	case SCORE_PARAM_DURATION:
		want = "a duration such as 200ms or 1m30s";
		err = yamlnode_duration(n, &whole);
		if (!err)
			memcpy(at, &whole, sizeof(whole));
		break;
	case SCORE_PARAM_REAL:
		want = "a number";
		err = yamlnode_real(n, &real);
		if (!err)
			memcpy(at, &real, sizeof(real));
		break;
	case SCORE_PARAM_BOOL:
		want = "true or false";
		err = yamlnode_bool(n, &truth);
		if (!err)
			memcpy(at, &truth, sizeof(truth));
		break;
	case SCORE_PARAM_TEXT:
		err = yamlnode_string(n, &text);
		if (!err)
			memcpy(at, &text, sizeof(text));
		break;
	default:
		memcpy(at, &n, sizeof(n));
		break;
	}
	return err ? yamlnode_fail(n, r->file, r->msg, "'%s': found %s, expected %s", p->name,
				   yamlnode_found(n, found, sizeof(found)), want)
		   : PD_OK;
}

static int unknown_param(struct epp_reading *r, const struct score_type *t, struct yamlnode n)
{
	const char *names[32], *near;
	char list[300] = "";
	size_t count = 0, len = 0;

	for (const struct score_param *p = t->params; p && p->type && count < 31; p++) {
		int more;

		if (p->old && !r->config->old)
			continue;
		names[count++] = p->name;
		more = snprintf(list + len, sizeof(list) - len, "%s%s", len ? ", " : "", p->name);
		len += (size_t)more < sizeof(list) - len ? (size_t)more : 0;
	}
	names[count] = NULL;
	near = nearest_word(yamlnode_key(n), names);
	return yamlnode_fail_key(n, r->file, r->msg,
				 "%s has no parameter '%.60s'%s%s%s expected %s", t->name,
				 yamlnode_key(n), near ? ", did you mean '" : "", near ? near : "",
				 near ? "'?" : ",", count ? list : "none");
}

static int read_param(struct epp_reading *r, const struct score_stage *s, struct yamlnode n,
		      void *params)
{
	const struct score_param *p = s->type->params;
	char what[200];
	int err;

	while (p && p->type &&
	       (strcmp(p->name, yamlnode_key(n)) != 0 || (p->old && !r->config->old)))
		p++;
	if (!p || !p->type)
		return unknown_param(r, s->type, n);
	if (yamlnode_null(n))
		return PD_OK;
	err = read_value(r, p, n, params);
	if (err || !p->without)
		return err;
	(void)snprintf(what, sizeof(what), "%s of %s", p->name, s->type->name);
	return epp_note(r, n, what);
}

/* The parameters of a plugin, defaults where the file says nothing. */
static int read_params(struct epp_reading *r, struct score_stage *s, struct yamlnode plugin,
		       struct yamlnode node)
{
	const struct score_type *t = s->type;
	void *params = score_arena_get(&r->config->arena, t->params_size + 1);
	struct score_reader reader = {.file = r->file,
				      .msg = r->msg,
				      .arena = &r->config->arena,
				      .old = r->config->old,
				      .node = node.pos ? node : plugin};
	int err = params ? PD_OK : PD_ENOMEM;

	for (const struct score_param *p = t->params; !err && p && p->type; p++)
		set_default(p, params);
	if (!err && node.pos && !t->unread) {
		if (yamlnode_kind(node) != YAMLPOS_MAPPING)
			return yamlnode_fail(node, r->file, r->msg,
					     "'parameters': expected a mapping of keys");
		for (struct yamlnode n = yamlnode_first(node); !err && n.pos; n = yamlnode_next(n))
			err = read_param(r, s, n, params);
	}
	if (!err && t->check)
		err = t->check(&reader, params);
	s->params = params;
	return err;
}

static int unknown_type(struct epp_reading *r, struct yamlnode n, const char *name)
{
	const char *names[EPP_PLUGINS_MAX + 1], *near;
	size_t count = 0;

	for (; score_types[count] && count < EPP_PLUGINS_MAX; count++)
		names[count] = score_types[count]->name;
	names[count] = NULL;
	near = nearest_word(name, names);
	return yamlnode_fail(n, r->file, r->msg,
			     "unknown plugin type '%.60s'%s%s%s `pdctl explain --list-plugins` "
			     "names those that there are",
			     name, near ? ", did you mean '" : "", near ? near : "",
			     near ? "'?" : ",");
}

static int read_plugin(struct epp_reading *r, struct yamlnode n)
{
	static const char *const keys[] = {"name", "type", "parameters", NULL};
	struct epp_config *c = r->config;
	struct score_stage s = {.weight = 1};
	const char *type;
	int err = epp_keys(r, n, keys);

	err = err ? err : epp_text(r, n, "type", &type);
	err = err ? err : epp_text(r, n, "name", &s.name);
	if (err)
		return err;
	if (!type || !type[0])
		return yamlnode_fail(n, r->file, r->msg, "found no type, expected a plugin's type");
	if (!s.name || !s.name[0])
		s.name = type;
	s.type = score_type_find(type);
	if (!s.type)
		return unknown_type(r, yamlnode_get(n, "type"), type);
	if (epp_plugin(c, s.name))
		return yamlnode_fail(n, r->file, r->msg, "duplicate plugin '%.60s'", s.name);
	if (c->nplugins == EPP_PLUGINS_MAX)
		return yamlnode_fail(n, r->file, r->msg, "expected at most %d plugins",
				     EPP_PLUGINS_MAX);
	err = read_params(r, &s, n, yamlnode_get(n, "parameters"));
	c->plugin[c->nplugins++] = s;
	return err;
}

static int read_plugins(struct epp_reading *r)
{
	struct yamlnode list;
	int err = epp_list(r, r->root, "plugins", &list);

	for (struct yamlnode n = yamlnode_first(list); !err && n.pos; n = yamlnode_next(n))
		err = read_plugin(r, n);
	return err;
}

/* -- profiles -- */

/* Filters, scorers, picker: in this order in the profile, each part in that of the file. */
struct parts {
	struct score_stage filter[SCORE_STAGES_MAX], scorer[SCORE_STAGES_MAX], picker;
	size_t nfilters, nscorers;
};

static int add_stage(struct epp_reading *r, struct parts *p, const struct score_stage *s,
		     double weight, struct yamlnode at)
{
	unsigned kinds = s->type->kinds;
	struct score_stage mine = *s;

	mine.weight = weight;
	if (!(kinds & (SCORE_FILTER | SCORE_SCORER | SCORE_PICKER)))
		return yamlnode_fail(at, r->file, r->msg,
				     "plugin '%.60s' is no filter, scorer or picker", s->name);
	if (p->nfilters + p->nscorers + 2 > SCORE_STAGES_MAX - 1)
		return yamlnode_fail(at, r->file, r->msg,
				     "expected at most %d plugins in a profile",
				     SCORE_STAGES_MAX - 2);
	if ((kinds & SCORE_PICKER) && p->picker.type)
		return yamlnode_fail(at, r->file, r->msg,
				     "found a second picker, '%.60s', expected one in a profile",
				     s->name);
	if (kinds & SCORE_FILTER)
		p->filter[p->nfilters++] = mine;
	if (kinds & SCORE_SCORER)
		p->scorer[p->nscorers++] = mine;
	if (kinds & SCORE_PICKER)
		p->picker = mine;
	return PD_OK;
}

/* Its declaration, else any that is declared, else max-score-picker. */
static int find_picker(struct epp_reading *r, struct parts *p)
{
	const struct epp_config *c = r->config;

	for (size_t i = 0; !p->picker.type && i < c->nplugins; i++)
		if (c->plugin[i].type->kinds & SCORE_PICKER)
			p->picker = c->plugin[i];
	if (p->picker.type)
		return PD_OK;
	p->picker = (struct score_stage){.type = score_type_find("max-score-picker"), .weight = 1};
	return read_params(r, &p->picker, r->root, (struct yamlnode){0});
}

static int add_profile(struct epp_reading *r, struct parts *p, const char *name, struct yamlnode at)
{
	struct epp_config *c = r->config;
	struct score_profile *out = &c->profile[c->nprofiles];
	int err = find_picker(r, p);

	if (c->nprofiles == EPP_PROFILES_MAX)
		return yamlnode_fail(at, r->file, r->msg, "expected at most %d profiles",
				     EPP_PROFILES_MAX);
	if (err)
		return err;
	*out = (struct score_profile){
		.name = name, .nfilters = p->nfilters, .nscorers = p->nscorers};
	memcpy(out->stage, p->filter, p->nfilters * sizeof(p->filter[0]));
	memcpy(out->stage + p->nfilters, p->scorer, p->nscorers * sizeof(p->scorer[0]));
	out->stage[p->nfilters + p->nscorers] = p->picker;
	for (size_t i = 0; i < c->nplugins; i++) {
		if (c->plugin[i].type == &score_prefix_producer)
			out->prefix = *(const struct score_prefix_producer *)c->plugin[i].params;
		if (c->plugin[i].type == &score_flight_producer)
			out->flight = *(const struct score_flight *)c->plugin[i].params;
	}
	for (size_t i = 0; i < p->nscorers; i++)
		if (p->scorer[i].type == &score_prefix && score_prefix_own(p->scorer[i].params))
			out->prefix = *score_prefix_own(p->scorer[i].params);
	score_profile_close(out);
	c->nprofiles++;
	return PD_OK;
}

static int read_ref(struct epp_reading *r, struct parts *p, struct yamlnode n)
{
	static const char *const keys[] = {"pluginRef", "weight", NULL};
	struct yamlnode weight = yamlnode_get(n, "weight");
	const struct score_stage *s;
	double w = 1;
	int err = epp_keys(r, n, keys);

	err = err ? err : epp_ref(r, n, "pluginRef", ~0u, "a plugin", &s);
	if (err)
		return err;
	if (!s)
		return yamlnode_fail(n, r->file, r->msg,
				     "found no pluginRef, expected the name of a plugin");
	if (weight.pos && yamlnode_real(weight, &w))
		return yamlnode_fail(weight, r->file, r->msg, "'weight': expected a number");
	return add_stage(r, p, s, w, n);
}

static int read_profile(struct epp_reading *r, struct yamlnode n)
{
	static const char *const keys[] = {"name", "plugins", NULL};
	struct yamlnode list;
	struct parts p = {0};
	const char *name;
	int err = epp_keys(r, n, keys);

	err = err ? err : epp_text(r, n, "name", &name);
	err = err ? err : epp_list(r, n, "plugins", &list);
	if (err)
		return err;
	if (!name || !name[0])
		return yamlnode_fail(n, r->file, r->msg, "found a profile without a name");
	if (epp_profile(r->config, name))
		return yamlnode_fail(n, r->file, r->msg, "duplicate profile '%.60s'", name);
	for (struct yamlnode k = yamlnode_first(list); !err && k.pos; k = yamlnode_next(k))
		err = read_ref(r, &p, k);
	return err ? err : add_profile(r, &p, name, n);
}

/* Without a list of them: one profile of all that is declared. */
static int read_profiles(struct epp_reading *r)
{
	const struct epp_config *c = r->config;
	struct yamlnode list;
	struct parts p = {0};
	int err = epp_list(r, r->root, "schedulingProfiles", &list);

	for (struct yamlnode n = yamlnode_first(list); !err && n.pos; n = yamlnode_next(n))
		err = read_profile(r, n);
	if (err || c->nprofiles > 0)
		return err;
	for (size_t i = 0; !err && i < c->nplugins; i++) {
		unsigned kinds = c->plugin[i].type->kinds;

		/* A detector that is a filter too is meant as a detector. */
		if ((kinds & (SCORE_FILTER | SCORE_SCORER)) && !(kinds & SCORE_DETECTOR))
			err = add_stage(r, &p, &c->plugin[i], 1, r->root);
	}
	return err ? err : add_profile(r, &p, "default", r->root);
}

/* -- handlers and deciders -- */

static int check_handler(struct epp_reading *r, const struct score_stage *handler,
			 struct yamlnode at)
{
	struct epp_config *c = r->config;

	if (!handler || handler->type == &score_single_handler) {
		if (c->nprofiles <= 1)
			return PD_OK;
		return yamlnode_fail(
			at, r->file, r->msg,
			handler ? "single-profile-handler: found %zu profiles, "
				  "expected one"
				: "found %zu profiles and no profile handler, expected "
				  "disagg-profile-handler or pd-profile-handler",
			c->nprofiles);
	}
	c->handler = score_handler_of(handler->params);
	if (!epp_profile(c, c->handler->decode))
		return yamlnode_fail(at, r->file, r->msg, "%s: found no profile '%.60s'",
				     handler->type->name, c->handler->decode);
	if (c->handler->decider) {
		c->decider = epp_plugin(c, c->handler->decider);
		if (!c->decider || !(c->decider->type->kinds & SCORE_DECIDER))
			return yamlnode_fail(at, r->file, r->msg,
					     "%s: found no decider '%.60s' among the plugins",
					     handler->type->name, c->handler->decider);
	}
	if (!epp_profile(c, c->handler->prefill) &&
	    (c->decider || c->handler->prefill_first || c->handler->threshold >= 0))
		return yamlnode_fail(at, r->file, r->msg, "%s: found no profile '%.60s'",
				     handler->type->name, c->handler->prefill);
	return PD_OK;
}

static int read_handler(struct epp_reading *r)
{
	struct epp_config *c = r->config;
	struct yamlnode list = yamlnode_get(r->root, "plugins"), at = r->root;
	const struct score_stage *handler = NULL;
	size_t i = 0;

	for (struct yamlnode n = yamlnode_first(list); n.pos; n = yamlnode_next(n), i++) {
		if (!(c->plugin[i].type->kinds & SCORE_HANDLER))
			continue;
		if (handler)
			return yamlnode_fail(
				n, r->file, r->msg,
				"found a second profile handler, '%.60s', expected one",
				c->plugin[i].name);
		handler = &c->plugin[i];
		at = n;
	}
	return check_handler(r, handler, at);
}

/* -- the rest of the file -- */

static int read_gate(struct epp_reading *r, struct yamlnode n)
{
	static const char *const gates[] = {"flowControl", "haPopulateNonLeaderDatastore",
					    "dataLayer", "prepareDataPlugins", NULL};
	const char *text, *eq;
	size_t len, i = 0;
	bool on;

	if (yamlnode_string(n, &text))
		return yamlnode_fail(n, r->file, r->msg, "'featureGates': expected a text");
	eq = strchr(text, '=');
	len = eq ? (size_t)(eq - text) : strlen(text);
	while (gates[i] && (strlen(gates[i]) != len || strncmp(gates[i], text, len) != 0))
		i++;
	if (!gates[i] || (i >= 2 && !r->config->old))
		return yamlnode_fail(n, r->file, r->msg,
				     "unknown feature gate '%.60s', expected flowControl or "
				     "haPopulateNonLeaderDatastore",
				     text);
	if (eq && strcmp(eq, "=true") != 0 && strcmp(eq, "=false") != 0)
		return yamlnode_fail(n, r->file, r->msg, "'%.60s': expected =true or =false", text);
	on = !eq || strcmp(eq, "=true") == 0;
	if (i == 0)
		r->config->flow.on = on;
	return i == 0 || !on ? PD_OK : epp_note(r, n, gates[i]);
}

static int read_head(struct epp_reading *r)
{
	static const char *const keys[] = {"apiVersion",
					   "kind",
					   "featureGates",
					   "plugins",
					   "schedulingProfiles",
					   "saturationDetector",
					   "flowControl",
					   "dataLayer",
					   "data",
					   "requestHandler",
					   "parser",
					   "metadata",
					   NULL};
	struct yamlnode list;
	const char *version, *kind;
	size_t i = 0;
	int err = epp_keys(r, r->root, keys);

	err = err ? err : epp_text(r, r->root, "apiVersion", &version);
	err = err ? err : epp_text(r, r->root, "kind", &kind);
	if (err)
		return err;
	while (versions[i] && (!version || strcmp(versions[i], version) != 0))
		i++;
	if (!versions[i])
		return yamlnode_fail(yamlnode_get(r->root, "apiVersion"), r->file, r->msg,
				     "'apiVersion': found %.60s, expected %s, %s or %s",
				     version ? version : "none", versions[0], versions[1],
				     versions[2]);
	r->config->old = i == 0;
	if (!kind || strcmp(kind, "EndpointPickerConfig") != 0)
		return yamlnode_fail(yamlnode_get(r->root, "kind"), r->file, r->msg,
				     "'kind': found %.60s, expected EndpointPickerConfig",
				     kind ? kind : "none");
	err = epp_list(r, r->root, "featureGates", &list);
	for (struct yamlnode n = yamlnode_first(list); !err && n.pos; n = yamlnode_next(n))
		err = read_gate(r, n);
	for (i = 7; !err && keys[i]; i++)
		if (yamlnode_get(r->root, keys[i]).pos)
			err = epp_note(r, yamlnode_get(r->root, keys[i]), keys[i]);
	return err;
}

int epp_config_parse(struct epp_config **out, const char *text, size_t n, const char *name,
		     struct pd_msg *msg)
{
	struct epp_config *c = calloc(1, sizeof(*c));
	struct epp_reading r = {.config = c, .file = name, .msg = msg};
	int err;

	*out = NULL;
	if (!c)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	err = yamlpos_scan(&c->pos, text, n, name, msg);
	r.root = yamlnode_root(&c->pos);
	err = err ? err : read_head(&r);
	err = err ? err : read_plugins(&r);
	err = err ? err : read_profiles(&r);
	err = err ? err : read_handler(&r);
	err = err ? err : epp_flow_read(&r);
	if (err) {
		epp_config_free(c);
		return err == PD_ENOMEM ? pd_fail(msg, err, "out of memory") : err;
	}
	*out = c;
	return PD_OK;
}

int epp_default_params(struct epp_reading *r, struct score_stage *s)
{
	return read_params(r, s, r->root, (struct yamlnode){0});
}

int epp_params(struct epp_reading *r, struct score_stage *s, struct yamlnode node)
{
	return read_params(r, s, node, node);
}

int epp_config_read(struct epp_config **out, const char *path, struct pd_msg *msg)
{
	struct buf text;
	int err;

	*out = NULL;
	buf_init(&text, FILE_MAX);
	err = file_read(path, &text, msg);
	if (!err)
		err = epp_config_parse(out, text.data ? text.data : "", text.len, path, msg);
	buf_release(&text);
	return err;
}

void epp_config_free(struct epp_config *c)
{
	if (!c)
		return;
	yamlpos_release(&c->pos);
	score_arena_release(&c->arena);
	free(c);
}

/* -- which profile -- */

const struct score_profile *epp_profile(const struct epp_config *c, const char *name)
{
	for (size_t i = 0; i < c->nprofiles; i++)
		if (strcmp(c->profile[i].name, name) == 0)
			return &c->profile[i];
	return NULL;
}

const struct score_profile *epp_profile_decode(const struct epp_config *c)
{
	return c->handler ? epp_profile(c, c->handler->decode) : &c->profile[0];
}

const struct score_profile *epp_profile_plain(const struct epp_config *c)
{
	return epp_profile_decode(c);
}

const struct score_profile *epp_profile_prefill(const struct epp_config *c)
{
	if (!c->handler || (!c->decider && !c->handler->prefill_first && c->handler->threshold < 0))
		return NULL;
	return epp_profile(c, c->handler->prefill);
}

bool epp_prefill_first(const struct epp_config *c)
{
	return c->handler && c->handler->prefill_first;
}

/* A decider sees blocks as the producer makes them. */
static int64_t block_tokens(const struct epp_config *c)
{
	int64_t tokens = 64;

	for (size_t i = 0; i < c->nplugins; i++)
		if (c->plugin[i].type == &score_prefix_producer)
			tokens = ((const struct score_prefix_producer *)c->plugin[i].params)
					 ->block_tokens;
	return tokens;
}

bool epp_decider(const struct epp_config *c, struct route_decider_spec *out)
{
	const struct score_handler *h = c->handler;
	const struct score_decider_params *p;

	if (!h || (!c->decider && !h->prefill_first && h->threshold < 0))
		return false;
	*out = ROUTE_DECIDER_DEFAULTS;
	p = c->decider ? score_decider_params(c->decider->type, c->decider->params) : NULL;
	if (p) {
		out->kind = ROUTE_DECIDER_prefix;
		out->non_cached_tokens = p->uncached;
		out->prompt_tokens = p->prompt;
		out->piece_tokens = block_tokens(c);
	} else if (!c->decider && h->threshold > 0) {
		out->kind = ROUTE_DECIDER_prefix;
		out->non_cached_tokens = (h->threshold + ROUTE_TOKEN_BYTES - 1) / ROUTE_TOKEN_BYTES;
		out->piece_tokens = (h->block + ROUTE_TOKEN_BYTES - 1) / ROUTE_TOKEN_BYTES;
		out->unsure = 1;
	}
	return true;
}

void epp_apply(const struct epp_config *c, enum epp_pool pool, struct route_spec *spec)
{
	const struct score_profile *p = !c		      ? NULL
					: pool == EPP_PREFILL ? epp_profile_prefill(c)
					: pool == EPP_DECODE  ? epp_profile_decode(c)
							      : epp_profile_plain(c);

	if (p && score_spec_profile(spec))
		*spec = score_spec(p);
}
