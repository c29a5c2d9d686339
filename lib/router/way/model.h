/* The model that a request names: aliases, who serves it, and the answer when nobody does. */
#ifndef PD_ROUTER_MODEL_H
#define PD_ROUTER_MODEL_H

#include "lib/router/config/config.h"

struct exchange;

/* The request names an alias (--model-alias): from here on its body says the model that the alias
 * stands for. */
void model_alias(struct exchange *x);
/* What the alias at this place is called, and what it stands for; valid as long as the
 * configuration. */
void model_alias_at(const struct router_config *c, size_t at, struct span *name,
		    struct span *model);

/* Is there a worker that may serve the model? When none is known all are asked once more. False:
 * answered with 404, or the client left. */
bool model_admit(struct exchange *x);
/* Who of the role cannot serve it; NULL: all can. By place in the pool of x->fleet. */
const bool *model_barred(const struct exchange *x, enum worker_role role);
/* x->fleet is another one now. */
void model_renew(struct exchange *x);
void model_release(struct exchange *x);

#endif
