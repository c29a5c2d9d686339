/* A decision as a JSON object: who was asked, who was chosen, why, by what margin. */
#ifndef PD_ROUTER_PAGE_TEXT_H
#define PD_ROUTER_PAGE_TEXT_H

#include "lib/router/watch/request_record.h"

/* *key: what the decision is found by; lent by the record or static. PD_ETOOBIG when it does not
 * fit into the buffer's maximum even without the candidates. */
int page_text_decision(const struct record *r, struct buf *out, struct span *key) PD_MUST;
/* `,"name":` and the number, null when it is not finite. */
int page_put_number(struct buf *b, const char *name, double v) PD_MUST;
/* `,"name":` and the text as a JSON string. */
int page_put_text(struct buf *b, const char *name, struct span text) PD_MUST;

#endif
