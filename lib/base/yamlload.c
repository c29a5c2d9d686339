/*
 * libcyaml tells what is wrong in log lines: the failure, then a back-trace from the inside out.
 * The lines are caught, the back-trace is turned into a path, and the path is looked up among the
 * positions of yamlpos, because the positions of the back-trace are those of the value before.
 */
#include "lib/base/yamlload.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/base/buf.h"
#include "lib/base/nearest.h"

#define LOG_MAX	  65536
#define PARTS_MAX 24
#define KEYS_MAX  64

static void catch_line(cyaml_log_t level, void *ctx, const char *fmt, va_list args)
{
	char line[512];

	if (level < CYAML_LOG_ERROR)
		return;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral" /* libcyaml's own format */
	(void)vsnprintf(line, sizeof(line), fmt, args);
#pragma GCC diagnostic pop
	if (buf_puts(ctx, line))
		return; /* a shortened log is better than none */
}

static const cyaml_config_t *config(struct buf *log)
{
	static _Thread_local cyaml_config_t cfg;

	cfg = (cyaml_config_t){.log_fn = catch_line,
			       .log_ctx = log,
			       .mem_fn = cyaml_mem,
			       .log_level = CYAML_LOG_WARNING,
			       .flags = CYAML_CFG_NO_ALIAS};
	return &cfg;
}

/* The parts of the back-trace from the outside in: "workload", "[3]". */
struct trace {
	char part[PARTS_MAX][80];
	size_t n;
	bool at_key; /* the innermost part is a field of the mapping that failed */
};

static void read_trace(const char *log, struct trace *t)
{
	const char *p = strstr(log, "Backtrace:");
	char part[PARTS_MAX][80];
	size_t n = 0;
	bool first = true;

	*t = (struct trace){0};
	while (p && (p = strstr(p, "  in ")) != NULL && n < PARTS_MAX) {
		const char *quote = strchr(p, '\''), *eol = strchr(p, '\n');

		p += 5;
		if (!eol)
			eol = p + strlen(p);
		if (strncmp(p, "mapping field '", 15) == 0 && quote && quote < eol) {
			(void)snprintf(part[n++], 80, "%.*s", (int)strcspn(quote + 1, "'"),
				       quote + 1);
			t->at_key |= first;
		} else if (strncmp(p, "sequence entry '", 16) == 0 && quote && quote < eol) {
			/* libcyaml already counts the next entry while it reads one. */
			unsigned long index = strtoul(quote + 1, NULL, 10);

			(void)snprintf(part[n++], 80, "[%lu]", index ? index - 1 : 0);
		}
		first = false;
		p = eol;
	}
	for (size_t i = 0; i < n; i++)
		memcpy(t->part[i], part[n - 1 - i], 80);
	t->n = n;
}

static void join(const struct trace *t, size_t parts, const char *key, struct buf *path)
{
	int err = PD_OK;

	for (size_t i = 0; !err && i < parts; i++)
		err = buf_printf(path, "%s%s", path->len && t->part[i][0] != '[' ? "." : "",
				 t->part[i]);
	if (!err && key)
		err = buf_printf(path, "%s%s", path->len ? "." : "", key);
	(void)err; /* a path that is too long is not found, and the message goes without a position
		    */
}

/* The schema of the mapping that a trace leads to, or NULL. */
static const cyaml_schema_field_t *fields_of(const cyaml_schema_value_t *v, const struct trace *t)
{
	for (size_t i = 0; i < t->n; i++) {
		const cyaml_schema_field_t *f;

		if (t->part[i][0] == '[') {
			if (v->type != CYAML_SEQUENCE)
				return NULL;
			v = v->sequence.entry;
			continue;
		}
		if (v->type != CYAML_MAPPING)
			return NULL;
		for (f = v->mapping.fields; f->key && strcmp(f->key, t->part[i]) != 0;)
			f++;
		if (!f->key)
			return NULL;
		v = &f->value;
	}
	return v->type == CYAML_MAPPING ? v->mapping.fields : NULL;
}

static void say_unknown(const cyaml_schema_value_t *schema, const struct trace *t, const char *key,
			char *out, size_t cap)
{
	const cyaml_schema_field_t *f = fields_of(schema, t);
	const char *names[KEYS_MAX], *near;
	size_t n = 0, used;

	for (; f && f->key && n + 1 < KEYS_MAX; f++)
		names[n++] = f->key;
	names[n] = NULL;
	near = nearest_word(key, names);
	used = (size_t)snprintf(out, cap, "unknown key '%.60s'", key);
	if (near)
		used += (size_t)snprintf(out + used, cap - used, ", did you mean '%s'?", near);
	used += (size_t)snprintf(out + used, cap - used, "%s expected one of", near ? "" : ",");
	for (size_t i = 0; i < n && used + 40 < cap; i++)
		used += (size_t)snprintf(out + used, cap - used, "%s %s", i ? "," : "", names[i]);
}

/* What libcyaml calls the kinds of values, in plain English. */
static const char *plain(const char *what)
{
	static const char *const words[][2] = {
		{"uint", "a whole number"},	{"int", "a whole number"},
		{"double", "a number"},		{"float", "a number"},
		{"bool", "true or false"},	{"STRING", "text"},
		{"SEQUENCE", "a list"},		{"MAPPING", "a mapping of keys"},
		{"UINT", "a whole number"},	{"FLOAT", "a number"},
		{"BOOL", "true or false"},	{"INT", "a whole number"},
		{"SCALAR", "a single value"},	{"SEQUENCE_START", "a list"},
		{"MAPPING_START", "a mapping"}, {"ALIAS", "an alias"}};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (strncmp(what, words[i][0], strlen(words[i][0])) == 0 &&
		    !strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZ_", what[strlen(words[i][0])]))
			return words[i][1];
	return what;
}

static void say_value(const char *line, char *out, size_t cap)
{
	const char *value = strchr(line, '\''), *got = strstr(line, "got event: ");
	size_t eol = strcspn(line, "\n");

	if (strncmp(line, "Invalid ", 8) == 0 && value)
		(void)snprintf(out, cap, "found %.*s, expected %s",
			       (int)(eol - (size_t)(value - line) > 80
					     ? 80
					     : eol - (size_t)(value - line)),
			       value, plain(line + 8));
	else if (strncmp(line, "Expecting ", 10) == 0 && got)
		(void)snprintf(out, cap, "found %s, expected %s", plain(got + 11),
			       plain(line + 10));
	else if (strncmp(line, "STRING length < ", 16) == 0)
		(void)snprintf(out, cap, "found an empty text, expected at least one character");
	else if (strncmp(line, "Insufficient entries", 20) == 0)
		(void)snprintf(out, cap, "found an empty list, expected at least one entry");
	else if (strncmp(line, "Excessive entries (", 19) == 0)
		(void)snprintf(out, cap, "too many entries, expected at most %ld",
			       strtol(line + 19, NULL, 10));
	else
		(void)snprintf(out, cap, "%.*s", (int)(eol > 200 ? 200 : eol), line);
}

/* The message for a person from libcyaml's log. */
static int explain(const cyaml_schema_value_t *schema, const char *log, const struct yamlpos *pos,
		   const char *name, struct pd_msg *msg)
{
	static const char unexpected[] = "Unexpected key: ",
			  missing[] = "Missing required mapping field: ";
	const char *line = strncmp(log, "Load: ", 6) == 0 ? log + 6 : log;
	const struct yamlpos_entry *at;
	char what[900], key[80] = "";
	struct trace t;
	struct buf path;
	bool unknown = strncmp(line, unexpected, sizeof(unexpected) - 1) == 0;
	bool absent = strncmp(line, missing, sizeof(missing) - 1) == 0;

	buf_init(&path, 4096);
	read_trace(log, &t);
	if (unknown) {
		line += sizeof(unexpected) - 1;
		(void)snprintf(key, sizeof(key), "%.*s", (int)strcspn(line, "\n"), line);
		say_unknown(schema, &t, key, what, sizeof(what));
		join(&t, t.n, key, &path);
	} else if (absent) {
		line += sizeof(missing) - 1;
		t.n -= t.at_key && t.n > 0;
		join(&t, t.n, NULL, &path);
		(void)snprintf(what, sizeof(what), "missing '%.*s' in %s", (int)strcspn(line, "\n"),
			       line, path.len ? path.data : "the file");
	} else {
		/* About the number of entries: the list is meant, not the entry. */
		t.n -= strstr(line, " in sequence.") && t.n > 0;
		say_value(line, what, sizeof(what));
		join(&t, t.n, NULL, &path);
	}
	at = path.len ? yamlpos_find(pos, path.data) : NULL;
	if (at && !unknown && !absent)
		(void)pd_fail(msg, PD_EINVAL, "%s:%zu:%zu: '%s': %.380s", name, at->value_line,
			      at->value_column, path.data, what);
	else
		(void)pd_fail(msg, PD_EINVAL, "%s:%zu:%zu: %.450s", name, at ? at->line : 1,
			      at ? at->column : 1, what);
	buf_release(&path);
	return PD_EINVAL;
}

/* The schema of the value at a path that the schema has accepted, or NULL. */
static const cyaml_schema_value_t *schema_at(const cyaml_schema_value_t *v, const char *path)
{
	while (v && *path) {
		size_t n = strcspn(path, ".[");

		if (*path == '[') {
			if (v->type != CYAML_SEQUENCE)
				return NULL;
			v = v->sequence.entry;
			path += strcspn(path, "]") + 1;
		} else {
			const cyaml_schema_field_t *f =
				v->type == CYAML_MAPPING ? v->mapping.fields : NULL;

			while (f && f->key &&
			       (strlen(f->key) != n || strncmp(f->key, path, n) != 0))
				f++;
			if (!f || !f->key)
				return NULL;
			v = &f->value;
			path += n;
		}
		path += *path == '.';
	}
	return v;
}

static const char *wanted(cyaml_type_e type)
{
	return type == CYAML_UINT    ? "a whole number"
	       : type == CYAML_FLOAT ? "a number"
	       : type == CYAML_BOOL  ? "true or false"
				     : NULL;
}

static bool is_of_type(cyaml_type_e type, const char *text)
{
	char *end;

	if (type == CYAML_BOOL)
		return strcmp(text, "true") == 0 || strcmp(text, "false") == 0 ||
		       strcmp(text, "yes") == 0 || strcmp(text, "no") == 0;
	if (type == CYAML_UINT) /* a minus sign is for the range check to complain about */
		return text[strspn(text, "0123456789")] == '\0' || text[0] == '-';
	(void)strtod(text, &end);
	return end != text && *end == '\0';
}

/* libcyaml reads a number as far as it is one ("1.5" is 1, "3x" is 3) and takes any word for true.
 */
static int check_scalars(const cyaml_schema_value_t *schema, const struct yamlpos *pos,
			 const char *name, struct pd_msg *msg)
{
	for (size_t i = 0; i < pos->n; i++) {
		const struct yamlpos_entry *e = &pos->entry[i];
		const cyaml_schema_value_t *v = e->scalar ? schema_at(schema, e->path) : NULL;

		if (!v || !wanted(v->type) || is_of_type(v->type, e->scalar))
			continue;
		return pd_fail(msg, PD_EINVAL, "%s:%zu:%zu: '%s': found '%.60s', expected %s", name,
			       e->value_line, e->value_column, e->path, e->scalar, wanted(v->type));
	}
	return PD_OK;
}

int yamlload_read(const cyaml_schema_value_t *schema, void **out, struct yamlpos *pos,
		  const char *text, size_t n, const char *name, struct pd_msg *msg)
{
	cyaml_data_t *data = NULL;
	struct buf log;
	int err = yamlpos_scan(pos, text, n, name, msg);

	buf_init(&log, LOG_MAX);
	if (!err) {
		cyaml_err_t e = cyaml_load_data((const uint8_t *)text, n, config(&log), schema,
						&data, NULL);

		if (e == CYAML_ERR_OOM)
			err = pd_fail(msg, PD_ENOMEM, "out of memory");
		else if (e != CYAML_OK || !data)
			err = explain(schema, log.data ? log.data : cyaml_strerror(e), pos, name,
				      msg);
		if (!err)
			err = check_scalars(schema, pos, name, msg);
	}
	buf_release(&log);
	if (err) {
		yamlpos_release(pos);
		yamlload_free(schema, data);
		data = NULL;
	}
	*out = data;
	return err;
}

void yamlload_free(const cyaml_schema_value_t *schema, void *data)
{
	struct buf log;

	buf_init(&log, LOG_MAX);
	(void)cyaml_free(config(&log), schema, data, 0); /* fails only for a wrong schema */
	buf_release(&log);
}

void yamlload_text_fields(cyaml_schema_field_t *out, const char *const *key, size_t n,
			  size_t offset)
{
	struct texts {
		char *value;
	};

	for (size_t i = 0; i < n; i++) {
		out[i] = (cyaml_schema_field_t)CYAML_FIELD_STRING_PTR(
			"", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct texts, value, 1, 64);
		out[i].key = key[i];
		out[i].data_offset = (uint32_t)(offset + i * sizeof(char *));
	}
	out[n] = (cyaml_schema_field_t)CYAML_FIELD_END;
}
