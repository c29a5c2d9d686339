/* The workers file: YAML with a schema, so that a misspelt key is an error that names its line and
 * not a silent surprise. */
#include <cyaml/cyaml.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/file.h"
#include "lib/router/config.h"

#define FILE_MAX (4u << 20)

struct yaml_workers {
	char *policy, *prefill_policy, *decode_policy;
	char **workers, **prefill, **decode;
	unsigned workers_count, prefill_count, decode_count;
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
	CYAML_FIELD_END,
};

static const cyaml_schema_value_t schema = {
	CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct yaml_workers, fields),
};

/* libcyaml tells its story in several lines: the first says what, a later one where. */
__attribute__((format(printf, 3, 0))) static void capture(cyaml_log_t level, void *ctx,
							  const char *fmt, va_list args)
{
	struct buf *b = ctx;
	char line[256];

	if (level < CYAML_LOG_ERROR)
		return;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral" /* libcyaml's own format */
	(void)vsnprintf(line, sizeof(line), fmt, args);
#pragma GCC diagnostic pop
	line[strcspn(line, "\n")] = '\0';
	if (b->len > 0 && buf_puts(b, "; "))
		return;
	if (buf_puts(b, line + (strncmp(line, "Load: ", 6) == 0 ? 6 : 0)))
		b->max = b->len;
}

static int parse(const char *path, const struct buf *text, struct yaml_workers **y,
		 struct pd_msg *msg)
{
	struct buf story;
	cyaml_config_t config = {.log_fn = capture,
				 .log_ctx = &story,
				 .mem_fn = cyaml_mem,
				 .log_level = CYAML_LOG_WARNING,
				 .flags = CYAML_CFG_NO_ALIAS};
	cyaml_err_t rc;
	int err = PD_OK;

	buf_init(&story, 400);
	rc = cyaml_load_data((const uint8_t *)text->data, text->len, &config, &schema,
			     (cyaml_data_t **)y, NULL);
	if (rc != CYAML_OK)
		err = pd_fail(msg, PD_EINVAL, "%s: %s (%s)", path,
			      story.len ? story.data : "not a workers file", cyaml_strerror(rc));
	buf_release(&story);
	return err;
}

static int read_policies(const struct yaml_workers *y, const char *path, struct fleet_config *out,
			 struct pd_msg *msg)
{
	const char *const text[ROLES] = {y->policy,
					 y->prefill_policy ? y->prefill_policy : y->policy,
					 y->decode_policy ? y->decode_policy : y->policy};
	struct pd_msg inner = {0};

	for (int r = 0; r < ROLES; r++)
		if (text[r] && route_policy_parse(text[r], &out->policy[r], &inner))
			return pd_fail(msg, PD_EINVAL, "%s: %s", path, inner.text);
	return PD_OK;
}

static int read_workers(const struct yaml_workers *y, const char *path,
			const struct router_config *base, struct fleet_config *out,
			struct pd_msg *msg)
{
	char *const *lists[ROLES] = {y->workers, y->prefill, y->decode};
	unsigned counts[ROLES] = {y->workers_count, y->prefill_count, y->decode_count};
	struct pd_msg inner = {0};

	for (int r = 0; r < ROLES; r++) {
		if (counts[r] > 0 && (r == ROLE_REGULAR) == base->pd)
			return pd_fail(msg, PD_EINVAL,
				       "%s: '%s' does not belong to this mode, expected %s", path,
				       r ? worker_role_name((enum worker_role)r) : "workers",
				       base->pd ? "prefill and decode" : "workers");
		for (unsigned i = 0; i < counts[r]; i++)
			if (worker_list_add(&out->workers, (enum worker_role)r, lists[r][i],
					    base->dp_size, &inner))
				return pd_fail(msg, PD_EINVAL, "%s: %s", path, inner.text);
	}
	return PD_OK;
}

int fleet_config_read(const char *path, const struct router_config *base, struct fleet_config *out,
		      struct pd_msg *msg)
{
	cyaml_config_t config = {.mem_fn = cyaml_mem, .log_level = CYAML_LOG_ERROR};
	struct yaml_workers *y = NULL;
	struct buf text;
	int err;

	*out = (struct fleet_config){0};
	memcpy(out->policy, base->fleet.policy, sizeof(out->policy));
	buf_init(&text, FILE_MAX);
	err = file_read(path, &text, msg);
	err = err ? err : parse(path, &text, &y, msg);
	err = err ? err : read_policies(y, path, out, msg);
	err = err ? err : read_workers(y, path, base, out, msg);
	if (y)
		(void)cyaml_free(&config, &schema, y, 0);
	buf_release(&text);
	if (err)
		worker_list_release(&out->workers);
	return err;
}
