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
/* Appends the array of its "data". */
int page_models_data(const struct worker_config *cfg, int64_t created_s, struct buf *out) PD_MUST;
/* Of all n engines of the worker. */
void page_load(struct nixl *const *engine, size_t n, struct http_conn *c);
void page_metrics(struct nixl *const *engine, size_t n, const struct http_server *server,
		  struct http_conn *c);
/* Where the KV events of each rank are published, and which blocks they are about. */
void page_event_sources(const struct worker_config *cfg, struct http_conn *c);
void page_server_info(const struct worker_config *cfg, const char *id, struct http_conn *c);
/* What InfiniLM-SVC's babysitter answers on the port above the service's. */
void page_babysitter(const struct worker_config *cfg, uint16_t port, bool good,
		     struct http_conn *c);
void page_info(const struct worker_config *cfg, uint16_t port, int64_t uptime_s,
	       struct http_conn *c);
/* GET /pdctl/requests?last=N */
void page_requests(struct journal *j, struct http_conn *c, const struct http_request *r);
void page_tokenize(const struct worker_config *cfg, struct http_conn *c,
		   const struct http_request *r);

#endif
