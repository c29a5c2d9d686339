/*
 * Every connector, one line each. --help, --list-connectors, the table in docs/, tests and fuzz
 * targets walk this table.
 */
#define CONNECTORS                                                                                 \
	CONNECTOR(nixl)                                                                            \
	/* the end */

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
		if (strcmp(pd_connectors[i]->name, name) == 0) {
			*out = pd_connectors[i];
			return PD_OK;
		}
	}
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

void pd_pair_release(struct pd_pair *p)
{
	buf_release(&p->text);
}
