/* GET /v1/models, the union over the workers. */
#ifndef PD_ROUTER_MODELS_H
#define PD_ROUTER_MODELS_H

struct exchange;

void models_ask_all(struct exchange *x);

#endif
