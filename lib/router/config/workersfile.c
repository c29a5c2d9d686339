/* The workers file: YAML whose keys are all known, so that a misspelt one is an error that names
 * its line and not a silent surprise. */
#include "lib/router/config/workersfile.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/file.h"
#include "lib/base/yamlnode.h"
#include "lib/epp/epp_config.h"

#define FILE_MAX (4u << 20)

/* What was read, and where it stands. */
struct source {
	const char *path;
	struct yamlnode root;
	const struct route_param_keys *keys;
};

static const char *const list_keys[ROLES] = {"workers", "prefill", "decode"};
static const char *const policy_keys[ROLES] = {"policy", "prefill_policy", "decode_policy"};
static const enum epp_pool epp_pools[ROLES] = {EPP_PLAIN, EPP_PREFILL, EPP_DECODE};
static const char *const worker_keys[] = {"url", "name", "labels", NULL};

static int check_top(const struct source *s, struct pd_msg *msg)
{
	const char *known[2 * ROLES + ROUTE_SETTINGS_MAX + 1];
	size_t n = 0;

	if (yamlnode_kind(s->root) == YAMLPOS_SEQUENCE)
		return pd_fail(msg, PD_EINVAL, "%s:1:1: found a list, expected a mapping of keys",
			       s->path);
	for (int r = 0; r < ROLES; r++)
		known[n++] = policy_keys[r];
	for (int r = 0; r < ROLES; r++)
		known[n++] = list_keys[r];
	for (size_t i = 0; i < s->keys->n; i++)
		known[n++] = s->keys->key[i];
	known[n] = NULL;
	return yamlnode_keys(s->root, s->path, known, msg);
}

/* The text of a scalar under this key; NULL: the key is not there. */
static int read_word(const struct source *s, const char *key, size_t max, const char **out,
		     struct pd_msg *msg)
{
	struct yamlnode n = yamlnode_get(s->root, key);

	*out = NULL;
	if (!n.pos)
		return PD_OK;
	if (yamlnode_kind(n) != YAMLPOS_SCALAR)
		return yamlnode_fail(n, s->path, msg, "'%s': found %s, expected text", key,
				     yamlnode_kind(n) == YAMLPOS_MAPPING ? "a mapping" : "a list");
	*out = yamlnode_text(n);
	if (**out && strlen(*out) <= max)
		return PD_OK;
	return yamlnode_fail(n, s->path, msg, "'%s': found %zu characters, expected 1 to %zu", key,
			     strlen(*out), max);
}

static int read_policies(const struct source *s, const struct router_config *base,
			 struct fleet_config *out, struct pd_msg *msg)
{
	struct route_settings settings = base->settings;
	struct pd_msg inner = {0};
	const char *text[ROLES];
	size_t wrong;
	int err = PD_OK;

	for (size_t i = 0; !err && i < s->keys->n; i++) {
		const char *value;

		err = read_word(s, s->keys->key[i], 64, &value, msg);
		if (value)
			settings.value[i] = value;
	}
	for (int r = 0; !err && r < ROLES; r++)
		err = read_word(s, policy_keys[r], ROUTE_SPEC_MAX, &text[r], msg);
	if (err)
		return err;
	if (route_settings_check(&settings, &wrong, &inner))
		return yamlnode_fail(yamlnode_get(s->root, s->keys->key[wrong]), s->path, msg,
				     "%.400s", inner.text);
	for (int r = 0; r < ROLES; r++) {
		int from = text[r] ? r : 0;

		if (text[from] ? route_spec_parse(&out->policy[r], text[from], &settings, &inner)
			       : route_spec_apply(&out->policy[r], &settings, &inner))
			return yamlnode_fail(yamlnode_get(s->root, policy_keys[from]), s->path, msg,
					     "%.400s", inner.text);
		epp_apply(base->epp, epp_pools[r], &out->policy[r]);
	}
	return PD_OK;
}

/* A worker's node in a list of workers: the entry, or its `url`. */
static int read_labels(const struct source *s, struct yamlnode labels, struct worker_list *l,
		       size_t from, struct pd_msg *msg)
{
	if (!labels.pos)
		return PD_OK;
	if (yamlnode_kind(labels) != YAMLPOS_MAPPING)
		return yamlnode_fail(labels, s->path, msg,
				     "'labels': found %s, expected a mapping of names to texts",
				     yamlnode_kind(labels) == YAMLPOS_SCALAR ? "a single value"
									     : "a list");
	for (struct yamlnode n = yamlnode_first(labels); n.pos; n = yamlnode_next(n)) {
		if (yamlnode_kind(n) != YAMLPOS_SCALAR)
			return yamlnode_fail(n, s->path, msg, "'%.60s': found %s, expected text",
					     yamlnode_key(n),
					     yamlnode_kind(n) == YAMLPOS_MAPPING ? "a mapping"
										 : "a list");
		for (size_t i = from; i < l->n; i++)
			if (route_labels_set(&l->spec[i].labels, span_of(yamlnode_key(n)),
					     span_of(yamlnode_text(n))))
				return yamlnode_fail(n, s->path, msg,
						     "'%.60s': expected at most %d labels of a "
						     "worker, each of 1 to %d bytes",
						     yamlnode_key(n), ROUTE_LABELS_MAX,
						     ROUTE_LABEL_TEXT_MAX);
	}
	return PD_OK;
}

/* "[NAME=]URL", or a mapping with url, name and labels. */
static int add_entry(const struct source *s, const struct router_config *base,
		     enum worker_role role, struct yamlnode entry, struct worker_list *l,
		     struct pd_msg *msg)
{
	struct yamlnode url = entry, name = {0};
	bool map = yamlnode_kind(entry) == YAMLPOS_MAPPING;
	char text[1024];
	struct pd_msg inner = {0};
	size_t from = l->n;
	int err = map ? yamlnode_keys(entry, s->path, worker_keys, msg) : PD_OK;

	if (err)
		return err;
	if (map) {
		url = yamlnode_get(entry, "url");
		name = yamlnode_get(entry, "name");
	}
	if (!url.pos)
		return yamlnode_fail(entry, s->path, msg, "'%s%s': found no url, expected one",
				     list_keys[role], yamlnode_key(entry));
	if (yamlnode_kind(url) != YAMLPOS_SCALAR || (name.pos && !yamlnode_text(name)))
		return yamlnode_fail(
			yamlnode_text(url) ? name : url, s->path, msg,
			"'%s%s': found %s, expected text", list_keys[role], yamlnode_key(entry),
			yamlnode_kind(url) == YAMLPOS_MAPPING ? "a mapping" : "a list");
	if (name.pos && strchr(yamlnode_text(name), '='))
		return yamlnode_fail(name, s->path, msg,
				     "found '%.100s', expected a name without '='",
				     yamlnode_text(name));
	if (snprintf(text, sizeof(text), "%s%s%s", name.pos ? yamlnode_text(name) : "",
		     name.pos ? "=" : "", yamlnode_text(url)) >= (int)sizeof(text))
		return yamlnode_fail(url, s->path, msg,
				     "found more than %zu characters, expected [NAME=]URL",
				     sizeof(text));
	if (worker_list_add(l, role, text, base->dp_size, &inner))
		return yamlnode_fail(url, s->path, msg, "%.400s", inner.text);
	return map ? read_labels(s, yamlnode_get(entry, "labels"), l, from, msg) : PD_OK;
}

static size_t pos_line(struct yamlnode n)
{
	return n.pos->entry[n.at].line;
}

/* Entry `node` brought the workers from `from` on: has another one of their pool their name or URL?
 * line[] says where a worker came from. */
static int check_new(const struct source *s, const struct worker_list *l, size_t from,
		     struct yamlnode node, const size_t *line, struct pd_msg *msg)
{
	for (size_t a = from; a < l->n; a++) {
		for (size_t b = 0; b < from; b++) {
			const struct worker_spec *new = &l->spec[a], *old = &l->spec[b];
			bool name = strcmp(new->name, old->name) == 0,
			     url = strcmp(new->url, old->url) == 0;

			if (new->role != old->role || (!name && !url))
				continue;
			return yamlnode_fail(
				node, s->path, msg,
				name ? "duplicate name '%.200s', first on line %zu"
				     : "duplicate URL '%.200s', first on line %zu: a worker has "
				       "one name",
				name ? new->name : new->url, line[b]);
		}
	}
	return PD_OK;
}

static int read_list(const struct source *s, const struct router_config *base,
		     enum worker_role role, size_t *line, struct fleet_config *out,
		     struct pd_msg *msg)
{
	struct yamlnode list = yamlnode_get(s->root, list_keys[role]);

	if (!list.pos)
		return PD_OK;
	if (yamlnode_kind(list) != YAMLPOS_SEQUENCE)
		return yamlnode_fail(
			list, s->path, msg, "'%s': found a %s, expected a list", list_keys[role],
			yamlnode_kind(list) == YAMLPOS_SCALAR ? "single value" : "mapping");
	if (yamlnode_first(list).pos && (role == ROLE_REGULAR) == base->pd)
		return yamlnode_fail(
			list, s->path, msg,
			base->pd ? "found workers of a plain pool, expected prefill and decode, as "
				   "--pd-disaggregation is set"
				 : "found workers of prefill/decode mode, expected workers, or "
				   "--pd-disaggregation");
	for (struct yamlnode n = yamlnode_first(list); n.pos; n = yamlnode_next(n)) {
		size_t from = out->workers.n;
		int err = add_entry(s, base, role, n, &out->workers, msg);

		if (err)
			return err;
		for (size_t k = from; k < out->workers.n; k++)
			line[k] = pos_line(n);
		err = check_new(s, &out->workers, from, n, line, msg);
		if (err)
			return err;
	}
	return PD_OK;
}

int fleet_config_parse(const char *text, size_t n, const char *path,
		       const struct router_config *base, struct fleet_config *out,
		       struct pd_msg *msg)
{
	size_t line[ROUTE_WORKERS_MAX]; /* of the file, for each worker: worker_list_add refuses
					   more */
	struct route_param_keys keys;
	struct yamlpos pos;
	struct source s = {.path = path, .keys = &keys};
	int err;

	*out = (struct fleet_config){0};
	memcpy(out->policy, base->fleet.policy, sizeof(out->policy));
	route_param_keys(&keys);
	err = yamlpos_scan(&pos, text, n, path, msg);
	s.root = yamlnode_root(&pos);
	err = err ? err : check_top(&s, msg);
	err = err ? err : read_policies(&s, base, out, msg);
	for (int r = 0; !err && r < ROLES; r++)
		err = read_list(&s, base, (enum worker_role)r, line, out, msg);
	if (!err && !yamlnode_get(s.root, base->pd ? "decode" : "workers").pos)
		err = pd_fail(msg, PD_EINVAL,
			      "%s:1:1: found no key '%s', expected it, with [] when there are no "
			      "workers yet",
			      path, base->pd ? "decode" : "workers");
	yamlpos_release(&pos);
	if (err)
		worker_list_release(&out->workers);
	return err;
}

int fleet_config_read(const char *path, const struct router_config *base, struct fleet_config *out,
		      struct pd_msg *msg)
{
	struct buf text;
	int err;

	*out = (struct fleet_config){0};
	buf_init(&text, FILE_MAX);
	err = file_read(path, &text, msg);
	if (!err)
		err = fleet_config_parse(text.data ? text.data : "", text.len, path, base, out,
					 msg);
	buf_release(&text);
	return err;
}
