/* One request in flight with libcurl: its handle and its buffers. Internal to lib/load. */
#ifndef PD_LOAD_CURL_SLOT_H
#define PD_LOAD_CURL_SLOT_H

#include <curl/curl.h>

#include "lib/load/load_core.h"

struct slot {
	CURL *easy;
	struct load_core *core;
	struct flight flight;
	bool busy, http2;
	struct slot *next_free;
	struct curl_slist *headers; /* owned; of this request, in front of the common ones */
	struct curl_slist *last;    /* its last own node */
	struct buf text;
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

/* A handle with every option that never changes. NULL when out of memory. core: NULL for a single
 * request. */
struct slot *slot_new(const struct load_options *o, const struct slot_common *c,
		      struct load_core *core);
void slot_free(struct slot *s);

/* Headers and body of the request that the flight has taken. */
int slot_prepare(struct slot *s, const struct slot_common *c) PD_MUST;

/* Reads the outcome; the label is a constant or NULL, the sentence is in the answer. */
const char *slot_finish(struct slot *s, CURLcode code);

#endif
