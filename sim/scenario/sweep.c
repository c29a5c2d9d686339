/* Works on libyaml's tree of the text, which is loaded anew for each point: setting a field moves
 * nodes of the sweep to their new place, and dumping a tree ends it. */
#include "sim/scenario/sweep.h"

#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <yaml.h>

#define TEXT_MAX  ((size_t)2 << 20)
#define LABEL_MAX 390
#define PATH_MAX_ 200

/* ---- reading ---- */

static int fail_at(const struct yamlpos *pos, const char *path, const char *name,
		   struct pd_msg *msg, const char *what, const char *detail)
{
	const struct yamlpos_entry *e = yamlpos_find(pos, path);

	return pd_fail(msg, PD_EINVAL, "%s:%zu:%zu: %s%s", name, e ? e->line : 1, e ? e->column : 1,
		       what, detail);
}

/* The entries directly below a path; *first is the first one's place. */
static size_t children(const struct yamlpos *pos, const char *path, size_t *first)
{
	const struct yamlpos_entry *parent = yamlpos_find(pos, path);
	size_t n = 0, at = parent ? (size_t)(parent - pos->entry) + 1 : pos->n;

	*first = at;
	for (; at < pos->n && pos->entry[at].depth > parent->depth; at++)
		n += pos->entry[at].depth == parent->depth + 1;
	return n;
}

static const struct yamlpos_entry *next_child(const struct yamlpos *pos,
					      const struct yamlpos_entry *e)
{
	unsigned depth = e->depth;

	for (e++; e < pos->entry + pos->n && e->depth > depth;)
		e++;
	return e < pos->entry + pos->n && e->depth == depth ? e : NULL;
}

static int count_grid(struct sweep *s, const struct yamlpos *pos, const char *name,
		      struct pd_msg *msg)
{
	size_t first, n = children(pos, "sweep.grid", &first), at;
	const struct yamlpos_entry *e = &pos->entry[first];

	s->points = n > 0;
	for (size_t i = 0; i < n; i++, e = next_child(pos, e)) {
		size_t values = e->kind == YAMLPOS_SEQUENCE ? children(pos, e->path, &at) : 0;

		if (values == 0)
			return fail_at(pos, e->path, name, msg, "expected a list of values for ",
				       e->path + e->name_at);
		if (s->points * values > SWEEP_POINTS_MAX)
			return fail_at(pos, "sweep.grid", name, msg,
				       "the grid has too many points: expected at most 1024", "");
		s->points *= values;
	}
	return PD_OK;
}

static int count_list(struct sweep *s, const struct yamlpos *pos, const char *name,
		      struct pd_msg *msg)
{
	size_t first;

	s->points = children(pos, "sweep.list", &first);
	if (s->points > SWEEP_POINTS_MAX)
		return fail_at(pos, "sweep.list", name, msg,
			       "the list has too many points: expected at most 1024", "");
	for (size_t i = 0; i < s->points; i++) {
		const struct yamlpos_entry *e = &pos->entry[first];

		if (e->kind != YAMLPOS_MAPPING || children(pos, e->path, &first) == 0)
			return fail_at(pos, e->path, name, msg, "expected PATH: VALUE", "");
		e = next_child(pos, e);
		first = e ? (size_t)(e - pos->entry) : 0;
	}
	return PD_OK;
}

static int read_front(struct sweep *s, const struct yamlpos *pos, const char *name,
		      struct pd_msg *msg)
{
	size_t first, n = children(pos, "sweep.front", &first);

	if (!yamlpos_find(pos, "sweep.front"))
		return PD_OK;
	if (n < 2 || n > 4)
		return fail_at(pos, "sweep.front", name, msg, "expected 2 to 4 metrics", "");
	s->front = calloc(n, sizeof(char *));
	if (!s->front)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	for (size_t i = 0; i < n; i++) {
		const struct yamlpos_entry *e = &pos->entry[first + i];

		if (e->kind != YAMLPOS_SCALAR)
			return fail_at(pos, e->path, name, msg, "expected the name of a metric",
				       "");
		s->front[s->nfront] = strdup(e->scalar);
		if (!s->front[s->nfront++])
			return pd_fail(msg, PD_ENOMEM, "out of memory");
	}
	return PD_OK;
}

static int check_keys(const struct yamlpos *pos, const char *name, struct pd_msg *msg)
{
	size_t first, n = children(pos, "sweep", &first);
	const struct yamlpos_entry *e = n ? &pos->entry[first] : NULL;

	if (!e)
		return fail_at(pos, "sweep", name, msg, "expected 'grid' or 'list'", "");
	for (size_t i = 0; i < n; i++, e = next_child(pos, e)) {
		const char *key = e->path + e->name_at;

		if (strcmp(key, "grid") != 0 && strcmp(key, "list") != 0 &&
		    strcmp(key, "front") != 0)
			return fail_at(pos, e->path, name, msg,
				       "expected 'grid', 'list' or 'front', found ", key);
	}
	if ((yamlpos_find(pos, "sweep.grid") != NULL) == (yamlpos_find(pos, "sweep.list") != NULL))
		return fail_at(pos, "sweep", name, msg, "expected either 'grid' or 'list'", "");
	return PD_OK;
}

/* Blanks instead of the lines of the sweep, so that everything else stays where it is. */
static int blank(struct sweep *s, const struct yamlpos *pos, const char *text, size_t n,
		 const char *name, struct pd_msg *msg)
{
	const struct yamlpos_entry *e = yamlpos_find(pos, "sweep"), *next = next_child(pos, e);
	size_t last = next ? next->line : SIZE_MAX, line = 1;

	if (e->column != 1 || last <= e->line)
		return fail_at(pos, "sweep", name, msg,
			       "expected 'sweep' at the beginning of a line of its own", "");
	s->rest = strndup(text, n);
	if (!s->rest)
		return pd_fail(msg, PD_ENOMEM, "out of memory");
	for (char *p = s->rest; *p; p++) {
		if (*p == '\n')
			line++;
		else if (line >= e->line && line < last)
			*p = ' ';
	}
	return PD_OK;
}

int sweep_find(struct sweep *s, const struct yamlpos *pos, const char *text, size_t n,
	       const char *name, struct pd_msg *msg)
{
	int err;

	*s = (struct sweep){0};
	if (!yamlpos_find(pos, "sweep"))
		return PD_OK;
	err = check_keys(pos, name, msg);
	if (!err)
		err = yamlpos_find(pos, "sweep.grid") ? count_grid(s, pos, name, msg)
						      : count_list(s, pos, name, msg);
	if (!err && s->points == 0)
		err = fail_at(pos, "sweep", name, msg, "expected at least one point", "");
	if (!err)
		err = read_front(s, pos, name, msg);
	return err ? err : blank(s, pos, text, n, name, msg);
}

void sweep_release(struct sweep *s)
{
	for (size_t i = 0; i < s->nfront; i++)
		free(s->front[i]);
	free(s->front);
	free(s->rest);
	*s = (struct sweep){0};
}

/* ---- the tree ---- */

struct tree {
	yaml_document_t doc;
	int root, sweep; /* nodes; sweep is out of the root's pairs */
};

static yaml_node_t *node(struct tree *t, int id)
{
	return yaml_document_get_node(&t->doc, id);
}

static bool is_key(struct tree *t, int id, const char *key, size_t n)
{
	const yaml_node_t *k = node(t, id);

	return k->type == YAML_SCALAR_NODE && k->data.scalar.length == n &&
	       memcmp(k->data.scalar.value, key, n) == 0;
}

static yaml_node_pair_t *find_pair(struct tree *t, int map, const char *key, size_t n)
{
	yaml_node_t *m = node(t, map);

	if (m->type != YAML_MAPPING_NODE)
		return NULL;
	for (yaml_node_pair_t *p = m->data.mapping.pairs.start; p < m->data.mapping.pairs.top; p++)
		if (is_key(t, p->key, key, n))
			return p;
	return NULL;
}

static int load(struct tree *t, const char *text, size_t n)
{
	yaml_parser_t parser;
	yaml_node_pair_t *p;
	yaml_node_t *root;
	int ok;

	if (!yaml_parser_initialize(&parser))
		return PD_ENOMEM;
	yaml_parser_set_input_string(&parser, (const unsigned char *)text, n);
	ok = yaml_parser_load(&parser, &t->doc);
	yaml_parser_delete(&parser);
	if (!ok)
		return PD_ENOMEM; /* the text was read before */
	root = yaml_document_get_root_node(&t->doc);
	t->root = root ? 1 : 0;
	t->sweep = 0;
	p = t->root ? find_pair(t, t->root, "sweep", 5) : NULL;
	if (!p)
		return PD_OK;
	root = node(t, t->root);
	t->sweep = p->value;
	memmove(p, p + 1, (size_t)(root->data.mapping.pairs.top - p - 1) * sizeof(*p));
	root->data.mapping.pairs.top--;
	return PD_OK;
}

static int on_write(void *ctx, unsigned char *bytes, size_t n)
{
	return buf_append(ctx, bytes, n) == PD_OK;
}

/* Writes the tree, which ends it. */
static int dump(struct tree *t, struct buf *out)
{
	yaml_emitter_t emitter;
	int ok;

	if (!yaml_emitter_initialize(&emitter)) {
		yaml_document_delete(&t->doc);
		return PD_ENOMEM;
	}
	yaml_emitter_set_output(&emitter, on_write, out);
	yaml_emitter_set_width(&emitter, -1);
	yaml_emitter_set_unicode(&emitter, 1);
	ok = yaml_emitter_open(&emitter) && yaml_emitter_dump(&emitter, &t->doc) &&
	     yaml_emitter_close(&emitter);
	yaml_emitter_delete(&emitter);
	return ok ? PD_OK : PD_ENOMEM;
}

/* A value as one word: blanks become '_'. */
static int render(struct tree *t, int id, struct buf *out, unsigned depth)
{
	const yaml_node_t *v = node(t, id);
	int err = PD_OK;

	if (depth > YAMLPOS_DEPTH_MAX)
		return PD_OK;
	if (v->type == YAML_SCALAR_NODE) {
		for (size_t i = 0; !err && i < v->data.scalar.length; i++) {
			char c = (char)v->data.scalar.value[i];

			err = buf_putc(out, isspace((unsigned char)c) ? '_' : c);
		}
		return err;
	}
	err = buf_putc(out, v->type == YAML_MAPPING_NODE ? '{' : '[');
	if (v->type == YAML_SEQUENCE_NODE)
		for (int *p = v->data.sequence.items.start; !err && p < v->data.sequence.items.top;
		     p++) {
			err = p > v->data.sequence.items.start ? buf_putc(out, ',') : PD_OK;
			err = err ? err : render(t, *p, out, depth + 1);
		}
	else
		for (yaml_node_pair_t *p = v->data.mapping.pairs.start;
		     !err && p < v->data.mapping.pairs.top; p++) {
			err = p > v->data.mapping.pairs.start ? buf_putc(out, ',') : PD_OK;
			err = err ? err : render(t, p->key, out, depth + 1);
			err = err ? err : buf_putc(out, ':');
			err = err ? err : render(t, p->value, out, depth + 1);
		}
	return err ? err : buf_putc(out, v->type == YAML_MAPPING_NODE ? '}' : ']');
}

/* ---- setting a field ---- */

static int add_scalar(struct tree *t, const char *text, size_t n)
{
	return yaml_document_add_scalar(&t->doc, NULL, (const unsigned char *)text, (int)n,
					YAML_ANY_SCALAR_STYLE);
}

/* The child of a mapping; an empty mapping is made where there is none. 0: out of memory, -1: the
 * parent is something else. */
static int child(struct tree *t, int map, const char *key, size_t n)
{
	yaml_node_pair_t *p = find_pair(t, map, key, n);
	int name, value;

	if (p)
		return p->value;
	if (node(t, map)->type != YAML_MAPPING_NODE)
		return -1;
	name = add_scalar(t, key, n);
	value = yaml_document_add_mapping(&t->doc, NULL, YAML_ANY_MAPPING_STYLE);
	if (!name || !value || !yaml_document_append_mapping_pair(&t->doc, map, name, value))
		return 0;
	return value;
}

static int set_key(struct tree *t, int map, const char *key, size_t n, int value)
{
	yaml_node_pair_t *p = find_pair(t, map, key, n);
	int name;

	if (p) {
		p->value = value;
		return PD_OK;
	}
	if (node(t, map)->type != YAML_MAPPING_NODE)
		return PD_EINVAL;
	name = add_scalar(t, key, n);
	return name && yaml_document_append_mapping_pair(&t->doc, map, name, value) ? PD_OK
										    : PD_ENOMEM;
}

/* The item that "[N]" names. */
static int *item(struct tree *t, int list, const char **path)
{
	yaml_node_t *l = node(t, list);
	char *end;
	unsigned long i = strtoul(*path + 1, &end, 10);

	if (!isdigit((unsigned char)(*path)[1]) || *end != ']' || l->type != YAML_SEQUENCE_NODE ||
	    i >= (size_t)(l->data.sequence.items.top - l->data.sequence.items.start))
		return NULL;
	*path = end + 1;
	return &l->data.sequence.items.start[i];
}

/* PD_EINVAL: the path leads nowhere. */
static int set_path(struct tree *t, const char *path, int value)
{
	int at = t->root;

	while (*path) {
		size_t n = strcspn(path, ".[");

		if (path[0] == '[') {
			int *slot = item(t, at, &path);

			if (!slot)
				return PD_EINVAL;
			if (*path == '\0') {
				*slot = value;
				return PD_OK;
			}
			at = *slot;
		} else if (path[n] == '\0') {
			return n > 0 ? set_key(t, at, path, n, value) : PD_EINVAL;
		} else {
			at = n > 0 ? child(t, at, path, n) : -1;
			if (at <= 0)
				return at == 0 ? PD_ENOMEM : PD_EINVAL;
			path += n;
		}
		path += *path == '.';
	}
	return PD_EINVAL;
}

/* ---- points ---- */

void sweep_point_init(struct sweep_point *p)
{
	buf_init(&p->text, TEXT_MAX);
	buf_init(&p->label, LABEL_MAX);
	buf_init(&p->workload, TEXT_MAX);
	p->place[0] = '\0';
}

void sweep_point_release(struct sweep_point *p)
{
	buf_release(&p->text);
	buf_release(&p->label);
	buf_release(&p->workload);
}

static int set_one(struct tree *t, yaml_node_pair_t pair, int value, const char *prefix,
		   struct sweep_point *out)
{
	const yaml_node_t *key = node(t, pair.key);
	char path[PATH_MAX_];
	int err;

	(void)snprintf(path, sizeof(path), "%.*s", (int)key->data.scalar.length,
		       (const char *)key->data.scalar.value);
	(void)snprintf(out->place, sizeof(out->place), "%s.%s", prefix, path);
	err = buf_printf(&out->label, "%s%s=", out->label.len ? " " : "", path);
	err = err ? err : render(t, value, &out->label, 0);
	return err ? err : set_path(t, path, value);
}

static int set_grid(struct tree *t, int grid, size_t i, struct sweep_point *out)
{
	size_t keys = (size_t)(node(t, grid)->data.mapping.pairs.top -
			       node(t, grid)->data.mapping.pairs.start);
	size_t stride = 1;
	int err = PD_OK;

	for (size_t k = 1; k < keys; k++) {
		const yaml_node_t *v = node(t, node(t, grid)->data.mapping.pairs.start[k].value);

		stride *= (size_t)(v->data.sequence.items.top - v->data.sequence.items.start);
	}
	for (size_t k = 0; !err && k < keys; k++) {
		/* nodes move when some are added */
		yaml_node_pair_t pair = node(t, grid)->data.mapping.pairs.start[k];
		const yaml_node_t *v = node(t, pair.value);
		int value = v->data.sequence.items.start[i / stride];

		i %= stride;
		err = set_one(t, pair, value, "sweep.grid", out);
		if (k + 1 < keys) {
			v = node(t, node(t, grid)->data.mapping.pairs.start[k + 1].value);
			stride /=
				(size_t)(v->data.sequence.items.top - v->data.sequence.items.start);
		}
	}
	return err;
}

static int set_list(struct tree *t, int list, size_t i, struct sweep_point *out)
{
	int entry = node(t, list)->data.sequence.items.start[i];
	size_t keys = (size_t)(node(t, entry)->data.mapping.pairs.top -
			       node(t, entry)->data.mapping.pairs.start);
	char prefix[48];
	int err = PD_OK;

	(void)snprintf(prefix, sizeof(prefix), "sweep.list[%zu]", i);
	for (size_t k = 0; !err && k < keys; k++) {
		yaml_node_pair_t pair = node(t, entry)->data.mapping.pairs.start[k];

		err = set_one(t, pair, pair.value, prefix, out);
	}
	return err;
}

/* The fields that the reading or making of the workload looks at. */
static int render_workload(struct tree *t, struct buf *out)
{
	static const char *const keys[] = {"workload", "seed"}, *const limits[] = {
									"max_concurrency",
									"concurrent_sessions"};
	int err = PD_OK;

	for (size_t i = 0; !err && i < 2; i++) {
		yaml_node_pair_t *p = find_pair(t, t->root, keys[i], strlen(keys[i]));

		err = p ? render(t, p->value, out, 0) : PD_OK;
		err = err ? err : buf_putc(out, ';');
	}
	for (size_t i = 0; !err && i < 2; i++)
		err = buf_putc(out,
			       find_pair(t, t->root, limits[i], strlen(limits[i])) ? '1' : '0');
	return err;
}

int sweep_make(const struct sweep *s, size_t i, const struct yamlpos *pos, const char *text,
	       size_t n, const char *name, struct sweep_point *out, struct pd_msg *msg)
{
	struct tree t;
	yaml_node_pair_t *grid, *list;
	int err = load(&t, text, n);

	(void)s;
	if (err)
		return pd_fail(msg, err, "out of memory");
	grid = find_pair(&t, t.sweep, "grid", 4);
	list = find_pair(&t, t.sweep, "list", 4);
	err = grid ? set_grid(&t, grid->value, i, out) : set_list(&t, list->value, i, out);
	err = err ? err : render_workload(&t, &out->workload);
	if (err) {
		yaml_document_delete(&t.doc);
		if (err == PD_EINVAL)
			return fail_at(pos, out->place, name, msg,
				       "no such field in this file: ", strchr(out->place, '.') + 1);
		if (err == PD_ETOOBIG)
			return fail_at(pos, out->place, name, msg,
				       "the names and values of a point are too long: expected at "
				       "most 390 characters",
				       "");
		return pd_fail(msg, err, "out of memory");
	}
	err = dump(&t, &out->text);
	return err ? pd_fail(msg, err, "out of memory") : PD_OK;
}
