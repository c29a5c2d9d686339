/*
 * Any bytes as a registration: it is read, or refused with a sentence; a worker that is read has a
 * role, a URL that the router takes apart, and labels within their limits.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/discovery/register.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct discovery_worker w = {0};
	struct pd_msg msg = {0};
	struct span kv;

	if (register_read(&w, (struct span){(const char *)data, n}, &msg) == PD_OK) {
		kv = route_label(&w.labels, SPAN("kv-address"));
		if (strncmp(w.url, "http://", 7) != 0 || strlen(w.url) >= sizeof(w.url) ||
		    (w.role != DISCOVERY_PREFILL && w.role != DISCOVERY_DECODE) || w.labels.n > 4 ||
		    (kv.n > 0 && memchr(kv.p, ' ', kv.n)))
			abort();
	} else if (!msg.text[0]) {
		abort();
	}
	route_labels_release(&w.labels);
	return 0;
}
