/* The capture's records, as an observer: decisions when they are made, requests when they have
 * ended. Only of requests with a number (capture_begin). */
#ifndef PD_ROUTER_CAPTURE_NOTE_H
#define PD_ROUTER_CAPTURE_NOTE_H

#include "lib/router/watch/request_record.h"

void capture_decided(const struct record *r);
void capture_ended(const struct record *r);

/* The pick of the role has ended, or (computed) its prompt does not wait at the worker any more,
 * between the readings of the clock. Of captured requests only. */
void capture_released(const struct record *r, unsigned role, uint32_t worker, bool computed,
		      int64_t at, uint64_t began);

#endif
