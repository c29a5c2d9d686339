/* Reading a configuration: private to lib/epp. Errors are PD_EINVAL with a place in the message. */
#ifndef PD_EPP_READING_H
#define PD_EPP_READING_H

#include "lib/epp/epp_config.h"

struct epp_reading {
	struct epp_config *config;
	const char *file;
	struct pd_msg *msg;
	struct yamlnode root;
};

/* The keys of a mapping are among these. */
int epp_keys(struct epp_reading *r, struct yamlnode map, const char *const *known) PD_MUST;
/* The value of a key as text, NULL: it is not there; as a list, pos NULL: it is not there. */
int epp_text(struct epp_reading *r, struct yamlnode map, const char *key, const char **out) PD_MUST;
int epp_list(struct epp_reading *r, struct yamlnode map, const char *key,
	     struct yamlnode *out) PD_MUST;
/* The plugin that a key names, of one of these kinds; NULL: the key is not there. */
int epp_ref(struct epp_reading *r, struct yamlnode map, const char *key, unsigned kinds,
	    const char *expected, const struct score_stage **out) PD_MUST;
const struct score_stage *epp_plugin(const struct epp_config *c, const char *name);
/* Says that a value has no effect. PD_ENOMEM. */
int epp_note(struct epp_reading *r, struct yamlnode at, const char *what) PD_MUST;
/* The parameters of a stage: the defaults, or those of a mapping. */
int epp_default_params(struct epp_reading *r, struct score_stage *s) PD_MUST;
int epp_params(struct epp_reading *r, struct score_stage *s, struct yamlnode node) PD_MUST;

#endif
