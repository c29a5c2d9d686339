/*
 * Every connector, one line each. --help, --list-connectors, the table in docs/, tests and fuzz
 * targets walk this table.
 */
#define CONNECTORS                                                                                 \
	CONNECTOR(nixl)                                                                            \
	CONNECTOR(p2p_nccl)                                                                        \
	CONNECTOR(mooncake)                                                                        \
	CONNECTOR(moriio)                                                                          \
	CONNECTOR(lmcache)                                                                         \
	CONNECTOR(example)                                                                         \
	CONNECTOR(sglang)                                                                          \
	/* the end */

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "lib/base/nearest.h"
#include "lib/pd/connector.h"

#define CONNECTOR(name) extern const struct pd_connector pd_connector_##name;
CONNECTORS
#undef CONNECTOR
#define CONNECTOR(name) &pd_connector_##name,
const struct pd_connector *const pd_connectors[] = {CONNECTORS NULL};
#undef CONNECTOR
#define CONNECTOR(name) #name,
const char *const pd_connector_names[] = {CONNECTORS NULL};

/* Not spoken on purpose. */
static const struct {
	const char *name, *why;
} refused[] = {
	{"lmcache_proxy",
	 "the protocol of LMCache's own proxy (tokens, a first token, notices over "
	 "ZeroMQ) is not spoken; lmcache is the one of vLLM's example"},
};

/* Equal but for case, and '-' is '_'. */
static bool same_name(const char *a, struct span b)
{
	size_t i = 0;

	for (; i < b.n && a[i]; i++) {
		int x = a[i] == '-' ? '_' : tolower((unsigned char)a[i]);
		int y = b.p[i] == '-' ? '_' : tolower((unsigned char)b.p[i]);

		if (x != y)
			return false;
	}
	return i == b.n && !a[i];
}

static bool has_name(const struct pd_connector *c, const char *name)
{
	const char *p = c->also;

	if (same_name(name, span_of(c->name)))
		return true;
	while (p && *p) {
		struct span one = {p, strcspn(p, "|")};

		if (same_name(name, one))
			return true;
		p += one.n + (p[one.n] == '|');
	}
	return false;
}

int pd_connector_find(const struct pd_connector **out, const char *name, struct pd_msg *msg)
{
	const char *near;
	char list[400] = "";
	size_t len = 0;

	for (size_t i = 0; pd_connectors[i]; i++) {
		const char *joint = i == 0 ? "" : pd_connectors[i + 1] ? ", " : " or ";
		int more = snprintf(list + len, sizeof(list) - len, "%s%s", joint,
				    pd_connectors[i]->name);

		len += (size_t)more < sizeof(list) - len ? (size_t)more : 0;
		if (has_name(pd_connectors[i], name)) {
			*out = pd_connectors[i];
			return PD_OK;
		}
	}
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
		if (same_name(name, span_of(refused[i].name)))
			return pd_fail(msg, PD_EINVAL, "%s", refused[i].why);
	near = nearest_word(name, pd_connector_names);
	return pd_fail(msg, PD_EINVAL, "unknown connector '%.60s'%s%s%s expected %s", name,
		       near ? ", did you mean '" : "", near ? near : "", near ? "'?" : ",", list);
}

int pd_connectors_print(struct buf *out)
{
	int err = PD_OK;

	for (size_t i = 0; !err && pd_connectors[i]; i++)
		err = buf_printf(out, "%s\n", pd_connectors[i]->name);
	return err;
}

int pd_connectors_markdown(struct buf *out)
{
	int err = buf_puts(out, "| connector | what it does |\n|---|---|\n");

	for (size_t i = 0; !err && pd_connectors[i]; i++)
		err = buf_printf(out, "| `%s` | %s |\n", pd_connectors[i]->name,
				 pd_connectors[i]->help);
	return err;
}

int pd_copy_init(struct pd_copy *c, const struct json_object *body, const struct pd_pair *p)
{
	c->id = p->id;
	c->nadd = 0;
	return json_edit_init(&c->body, body);
}

void pd_copy_release(struct pd_copy *c)
{
	json_edit_release(&c->body);
}

void pd_pair_init(struct pd_pair *p, enum pd_path path, struct span id, uint64_t draw)
{
	*p = (struct pd_pair){.path = path, .id = id, .draw = draw, .usage = PD_PREFILL_UNKNOWN};
	p->prefill.rank = p->decode.rank = -1;
	buf_init(&p->text, PD_TEXT_MAX);
	buf_init(&p->made_id, PD_TEXT_MAX);
}

void pd_pair_release(struct pd_pair *p)
{
	buf_release(&p->text);
	buf_release(&p->made_id);
}
