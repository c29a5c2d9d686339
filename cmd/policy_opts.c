#include "cmd/policy_opts.h"

#include <stdio.h>

#include "lib/base/cli.h"

void policy_opts_init(struct policy_opts *p, const char *before)
{
	struct route_param list[ROUTE_SETTINGS_MAX + 1];
	size_t n = route_param_list(list), len = 0;
	_Alignas(int64_t) unsigned char value[ROUTE_PARAMS_SIZE];
	struct buf text;

	*p = (struct policy_opts){0};
	buf_init(&text, 4096);
	for (size_t i = 0; i < n; i++) {
		list[i].offset = 0;
		route_params_default((struct route_param[2]){list[i]}, value);
		buf_clear(&text);
		if (route_param_print(&list[i], value, &text))
			break;
		(void)snprintf(p->help[i], sizeof(p->help[i]), "%s (%s%s)", list[i].help, before,
			       text.data);
		p->rows[i] = (struct opt){.type = OPT_TEXT,
					  .name = list[i].name,
					  .value = &p->settings.value[i],
					  .arg = list[i].arg,
					  .help = p->help[i],
					  .alias = list[i].alias};
	}
	buf_release(&text);
	for (size_t i = 0; route_policies[i] && len < sizeof(p->names); i++)
		len += (size_t)snprintf(p->names + len, sizeof(p->names) - len, "%s%s",
					i ? ", " : "", route_policies[i]->name);
	if (route_policies[0] && len < sizeof(p->names))
		(void)snprintf(p->names + len, sizeof(p->names) - len, " (%s)",
			       route_policies[0]->name);
}

int policy_opts_check(const struct policy_opts *p, struct pd_msg *msg)
{
	struct pd_msg inner = {.text = ""};
	size_t wrong;

	if (route_settings_check(&p->settings, &wrong, &inner))
		return pd_fail(msg, PD_EINVAL, "--%s: %.400s", p->rows[wrong].name, inner.text);
	return PD_OK;
}

const char *policy_opts_useless(const struct policy_opts *p, const struct route_spec *spec,
				size_t n)
{
	for (size_t i = 0; p->rows[i].type; i++) {
		bool used = !p->settings.value[i];

		for (size_t k = 0; k < n && !used; k++)
			used = route_param_find(spec[k].type, span_of(p->rows[i].name)) != NULL;
		if (!used)
			return p->rows[i].name;
	}
	return NULL;
}
