/* Options of `pdctl serve` about the choice besides the policy: models, and the policy that decides
 * beside without being followed. */
#ifndef PD_CMD_SERVE_CHOICE_H
#define PD_CMD_SERVE_CHOICE_H

#include "lib/base/opt.h"
#include "lib/router/config/config.h"

struct serve_choice {
	struct opt_list aliases;
	double models_interval;
	const char *shadow;
};
extern struct serve_choice serve_choice;

/* clang-format off */
#define SERVE_CHOICE_OPTIONS                                                                       \
	{OPT_LIST, "model-alias", &serve_choice.aliases, "NAME=MODEL...",                          \
	 "requests for the model NAME are sent as MODEL, and /v1/models lists NAME too (none)",    \
	 NULL, 0, 0, NULL},                                                                        \
	{OPT_REAL, "models-interval-secs", &serve_choice.models_interval, "S",                     \
	 "how often workers are asked for /v1/models; a request goes to workers that list its model, "\
	 "adapters included; 0: never, any worker gets any model (30)",                            \
	 NULL, 0, 86400, NULL},                                                                    \
	{OPT_TEXT, "shadow-policy", &serve_choice.shadow, "NAME",                                  \
	 "a policy that decides beside --policy without being followed, to compare them (none)",   \
	 NULL, 0, 0, NULL}
/* clang-format on */

/* Into *c, after --policy was read. PD_EINVAL names the flag. */
int serve_choice_read(struct router_config *c, struct pd_msg *msg) PD_MUST;
void serve_choice_release(void);

#endif
