#include "cmd/serve_choice.h"

#include <string.h>

#include "lib/base/clock.h"
#include "lib/route/policy/policies.h"

#define ALIAS_MAX 1024 /* bytes of NAME=MODEL */

struct serve_choice serve_choice = {.models_interval = 30};

static int check_alias(const struct opt_list *l, size_t i, struct pd_msg *msg)
{
	const char *text = l->items[i], *eq = strchr(text, '=');
	size_t name = eq ? (size_t)(eq - text) + 1 : 0; /* with the = */

	if (!eq || eq == text || !eq[1] || strlen(text) > ALIAS_MAX)
		return pd_fail(msg, PD_EINVAL,
			       "--model-alias: found '%.100s', expected NAME=MODEL, at most %d "
			       "characters",
			       text, ALIAS_MAX);
	for (size_t k = 0; k < i; k++)
		if (strncmp(l->items[k], text, name) == 0)
			return pd_fail(msg, PD_EINVAL,
				       "--model-alias: found '%.100s' and '%.100s', expected each "
				       "name once",
				       l->items[k], text);
	return PD_OK;
}

/* With the parameters that flags gave, as --policy. */
static int read_shadow(struct router_config *c, struct pd_msg *msg)
{
	struct pd_msg inner = {0};

	if (!serve_choice.shadow)
		return PD_OK;
	c->has_shadow = true;
	if (strncmp(serve_choice.shadow, "kv_aware", 8) == 0)
		return pd_fail(msg, PD_EINVAL,
			       "--shadow-policy: found kv_aware, expected another policy: the "
			       "events of engines go to the policies that are followed");
	for (int r = 0; r < ROLES; r++)
		if (route_spec_parse(&c->shadow[r], serve_choice.shadow, &c->settings, &inner))
			return pd_fail(msg, PD_EINVAL, "--shadow-policy: %.480s", inner.text);
	return PD_OK;
}

int serve_choice_read(struct router_config *c, struct pd_msg *msg)
{
	const struct opt_list *l = &serve_choice.aliases;
	int err = PD_OK;

	for (size_t i = 0; !err && i < l->n; i++)
		err = check_alias(l, i, msg);
	c->model_aliases = l->items;
	c->model_aliases_n = l->n;
	err = err ? err : read_shadow(c, msg);
	c->models_interval = (int64_t)(serve_choice.models_interval * (double)NS_PER_S);
	return err;
}

void serve_choice_release(void)
{
	opt_list_release(&serve_choice.aliases);
}
