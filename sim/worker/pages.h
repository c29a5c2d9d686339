/* Everything that is not generation: models, load, metrics, tokenize, the journal. One function a
 * page, each with the parts that it shows. */
#ifndef PD_SIM_WORKER_PAGES_H
#define PD_SIM_WORKER_PAGES_H

#include "sim/worker/config.h"
#include "sim/worker/core.h"
#include "sim/worker/journal.h"
#include "sim/worker/nixl.h"

struct http_server;

void page_models(const struct worker_config *cfg, int64_t created_s, struct http_conn *c);
void page_load(struct core *core, struct http_conn *c);
void page_metrics(struct nixl *x, const struct http_server *server, struct http_conn *c);
/* GET /pdctl/requests?last=N */
void page_requests(struct journal *j, struct http_conn *c, const struct http_request *r);
void page_tokenize(const struct worker_config *cfg, struct http_conn *c,
		   const struct http_request *r);

#endif
