/*
 * Workers from a service registry (registry.h, or InfiniLM-SVC's own): its healthy services whose
 * metadata.type is "openai-api" are listed every `interval_s`. A registry that does not answer
 * changes nothing: the last list stays. In prefill/decode mode metadata.role says "prefill" or
 * "decode"; a service without it is left out. Texts and numbers of the metadata become labels.
 */
#ifndef PD_DISCOVERY_REGISTRY_SOURCE_H
#define PD_DISCOVERY_REGISTRY_SOURCE_H

#include "lib/base/span.h"
#include "lib/discovery/discovery.h"

#define REGISTRY_LIST_MAX (16u << 20) /* bytes of an answer */

/* Reads the answer to GET /services into an empty list, in the order of the names. PD_EINVAL with a
 * sentence: it is no list of services. PD_ENOMEM. */
int registry_list_read(struct discovery_list *out, struct span answer, bool pd,
		       struct pd_msg *msg) PD_MUST;

struct registry_source;

/* `url` ("http://host:port") is copied. PD_ENOMEM. */
int registry_source_start(struct registry_source **out, const char *url, bool pd, double interval_s,
			  const struct discovery_sink *sink, struct pd_msg *msg) PD_MUST;
/* Ends the thread; nothing is published afterwards. Accepts NULL. */
void registry_source_stop(struct registry_source *s);

#endif
