/* The workers file: YAML with a schema, so that a misspelt key is an error that names its line and
 * not a silent surprise. */
#include "lib/router/config/workersfile.h"

#include <cyaml/cyaml.h>
#include <stdio.h>
#include <stdint.h>
#include <string.h>

#include "lib/base/file.h"
#include "lib/base/yamlload.h"

#define FILE_MAX (4u << 20)

struct yaml_workers {
	char *policy, *prefill_policy, *decode_policy;
	char **workers, **prefill, **decode;
	unsigned workers_count, prefill_count, decode_count;
	char *parameter[ROUTE_SETTINGS_MAX];
};

static const cyaml_schema_value_t text_schema = {
	CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 1, 1024),
};

static const cyaml_schema_field_t fields[] = {
	CYAML_FIELD_STRING_PTR("policy", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
			       struct yaml_workers, policy, 1, 64),
	CYAML_FIELD_STRING_PTR("prefill_policy", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
			       struct yaml_workers, prefill_policy, 1, 64),
	CYAML_FIELD_STRING_PTR("decode_policy", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
			       struct yaml_workers, decode_policy, 1, 64),
	CYAML_FIELD_SEQUENCE("workers", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
			     struct yaml_workers, workers, &text_schema, 0, ROUTE_WORKERS_MAX),
	CYAML_FIELD_SEQUENCE("prefill", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
			     struct yaml_workers, prefill, &text_schema, 0, ROUTE_WORKERS_MAX),
	CYAML_FIELD_SEQUENCE("decode", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
			     struct yaml_workers, decode, &text_schema, 0, ROUTE_WORKERS_MAX),
};

#define FIELDS (sizeof(fields) / sizeof(fields[0]))

/* The fields above and one for each parameter of a policy. */
struct schema {
	struct route_param_keys keys;
	cyaml_schema_field_t field[FIELDS + ROUTE_SETTINGS_MAX + 1];
	cyaml_schema_value_t top;
};

static void make_schema(struct schema *s)
{
	route_param_keys(&s->keys);
	memcpy(s->field, fields, sizeof(fields));
	yamlload_text_fields(s->field + FIELDS, s->keys.key, s->keys.n,
			     offsetof(struct yaml_workers, parameter));
	s->top = (cyaml_schema_value_t){
		CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct yaml_workers, s->field)};
}

/* What was read, and where it stands. */
struct source {
	const char *path;
	struct yaml_workers *y;
	struct yamlpos pos;
	const struct route_param_keys *keys;
};

/* "FILE:LINE:COLUMN: text" for the value under this key, or its entry i (SIZE_MAX: the value). */
static int at(const struct source *s, const char *key, size_t i, const char *text,
	      struct pd_msg *msg)
{
	const struct yamlpos_entry *e;
	char path[64];

	if (i == SIZE_MAX)
		(void)snprintf(path, sizeof(path), "%s", key);
	else
		(void)snprintf(path, sizeof(path), "%s[%zu]", key, i);
	e = yamlpos_find(&s->pos, path);
	return pd_fail(msg, PD_EINVAL, "%s:%zu:%zu: %.400s", s->path, e ? e->value_line : 1,
		       e ? e->value_column : 1, text);
}

static int read_policies(const struct source *s, const struct router_config *base,
			 struct fleet_config *out, struct pd_msg *msg)
{
	static const char *const keys[ROLES] = {"policy", "prefill_policy", "decode_policy"};
	const char *const text[ROLES] = {s->y->policy, s->y->prefill_policy, s->y->decode_policy};
	struct route_settings settings = base->settings;
	struct pd_msg inner = {0};
	size_t wrong;

	for (size_t i = 0; i < s->keys->n; i++)
		if (s->y->parameter[i])
			settings.value[i] = s->y->parameter[i];
	if (route_settings_check(&settings, &wrong, &inner))
		return at(s, s->keys->key[wrong], SIZE_MAX, inner.text, msg);
	for (int r = 0; r < ROLES; r++) {
		int from = text[r] ? r : 0;

		if (text[from] ? route_spec_parse(&out->policy[r], text[from], &settings, &inner)
			       : route_spec_apply(&out->policy[r], &settings, &inner))
			return at(s, keys[from], SIZE_MAX, inner.text, msg);
	}
	return PD_OK;
}

/* Entry i of `key` brought the workers from `from` on: has another one of their pool their name or
 * URL? entry[] says which entry a worker came from. */
static int check_new(const struct source *s, const struct worker_list *l, size_t from,
		     const char *key, size_t i, const uint16_t *entry, struct pd_msg *msg)
{
	for (size_t a = from; a < l->n; a++) {
		for (size_t b = 0; b < from; b++) {
			const struct worker_spec *new = &l->spec[a], *old = &l->spec[b];
			bool name = strcmp(new->name, old->name) == 0,
			     url = strcmp(new->url, old->url) == 0;
			const struct yamlpos_entry *e;
			char path[64], text[400];

			if (new->role != old->role || (!name && !url))
				continue;
			(void)snprintf(path, sizeof(path), "%s[%u]", key, (unsigned)entry[b]);
			e = yamlpos_find(&s->pos, path);
			(void)snprintf(text, sizeof(text),
				       name ? "duplicate name '%.200s', first on line %zu"
					    : "duplicate URL '%.200s', first on line %zu: a worker "
					      "has one name",
				       name ? new->name : new->url, e ? e->value_line : 1);
			return at(s, key, i, text, msg);
		}
	}
	return PD_OK;
}

static int read_workers(const struct source *s, const struct router_config *base,
			struct fleet_config *out, struct pd_msg *msg)
{
	static const char *const keys[ROLES] = {"workers", "prefill", "decode"};
	char *const *lists[ROLES] = {s->y->workers, s->y->prefill, s->y->decode};
	unsigned counts[ROLES] = {s->y->workers_count, s->y->prefill_count, s->y->decode_count};
	struct pd_msg inner = {0};
	uint16_t entry[ROUTE_WORKERS_MAX]; /* of the file, for each worker: worker_list_add refuses
					    more */

	for (int r = 0; r < ROLES; r++) {
		if (counts[r] > 0 && (r == ROLE_REGULAR) == base->pd)
			return at(
				s, keys[r], SIZE_MAX,
				base->pd
					? "found workers of a plain pool, expected prefill and "
					  "decode, as --pd-disaggregation is set"
					: "found workers of prefill/decode mode, expected workers, "
					  "or --pd-disaggregation",
				msg);
		for (unsigned i = 0; i < counts[r]; i++) {
			size_t from = out->workers.n;

			if (worker_list_add(&out->workers, (enum worker_role)r, lists[r][i],
					    base->dp_size, &inner))
				return at(s, keys[r], i, inner.text, msg);
			for (size_t k = from; k < out->workers.n; k++)
				entry[k] = (uint16_t)i;
			if (check_new(s, &out->workers, from, keys[r], i, entry, msg))
				return PD_EINVAL;
		}
	}
	return PD_OK;
}

int fleet_config_parse(const char *text, size_t n, const char *path,
		       const struct router_config *base, struct fleet_config *out,
		       struct pd_msg *msg)
{
	struct schema schema;
	struct source s = {.path = path, .keys = &schema.keys};
	void *data = NULL;
	int err;

	*out = (struct fleet_config){0};
	memcpy(out->policy, base->fleet.policy, sizeof(out->policy));
	make_schema(&schema);
	err = yamlload_read(&schema.top, &data, &s.pos, text, n, path, msg);
	s.y = data;
	err = err ? err : read_policies(&s, base, out, msg);
	err = err ? err : read_workers(&s, base, out, msg);
	if (!err && !yamlpos_find(&s.pos, base->pd ? "decode" : "workers"))
		err = pd_fail(msg, PD_EINVAL,
			      "%s:1:1: found no key '%s', expected it, with [] when there are no "
			      "workers yet",
			      path, base->pd ? "decode" : "workers");
	yamlload_free(&schema.top, data);
	yamlpos_release(&s.pos);
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
