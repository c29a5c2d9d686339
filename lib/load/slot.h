/* One request in flight: its libcurl handle, its buffers, what its head said. Internal to lib/load.
 */
#ifndef PD_LOAD_SLOT_H
#define PD_LOAD_SLOT_H

#include <curl/curl.h>

#include "lib/load/answer.h"
#include "lib/load/load.h"

enum slot_worker { SLOT_WORKER, SLOT_PREFILL, SLOT_DECODE, SLOT_WORKERS };

#define SLOT_WORKER_MAX 512 /* bytes of a worker's name; longer ones are cut */

struct slot {
	CURL *easy;
	uint32_t item;
	bool busy;
	struct slot *next_free;
	struct curl_slist
		key_header; /* first node of the header list; continues with the common ones */
	struct buf key_text;
	struct buf body;
	struct answer answer;
	int64_t sent_ns, intended_ns, eligible_ns; /* monotonic clock */
	int64_t first_byte_ns;
	char worker[SLOT_WORKERS][SLOT_WORKER_MAX];
	char why[CURL_ERROR_SIZE];
};

/* What all handles share. */
struct slot_common {
	struct curl_slist *headers;
	struct curl_slist *resolve;
	char *url; /* owned */
};

int slot_common_init(struct slot_common *c, const struct load_options *o, const char *path,
		     struct pd_msg *msg) PD_MUST;
void slot_common_release(struct slot_common *c);

/* A handle with every option that never changes. NULL when out of memory. */
struct slot *slot_new(const struct load_options *o, const struct slot_common *c);
void slot_free(struct slot *s);

/* Builds body and headers of the next request; the answer is empty afterwards. */
int slot_prepare(struct slot *s, const struct load_options *o, const struct slot_common *c,
		 const struct load_item *item) PD_MUST;

/* Reads the outcome; the label is a constant or NULL, the sentence is in s->answer.error. HTTP
 * errors have the label "http". */
const char *slot_finish(struct slot *s, CURLcode code, int64_t now_ns, bool embeddings);

#endif
