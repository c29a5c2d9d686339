/*
 * What several connectors have in common. Pure, thread-safe.
 */
#ifndef PD_PD_PARTS_H
#define PD_PD_PARTS_H

#include "lib/pd/connector.h"

#define PD_PARAMS "kv_transfer_params"

#define PD_UUID_TEXT 37 /* with the NUL */

/* A version 4 UUID out of 64 random bits; `dashes` or 32 hex digits. */
void pd_uuid(uint64_t draw, bool dashes, char out[PD_UUID_TEXT]);
/* "host:port", brackets around an IPv6 address. */
int pd_host_text(struct span host, unsigned port, struct buf *out) PD_MUST;
/* The same of the KV transfer when it is known, else of HTTP. */
int pd_end_text(const struct pd_end *e, struct buf *out) PD_MUST;

/* Into p->made_id, the id by which an engine finds the other one:
 * "___prefill_addr_ADDRESS___decode_addr_ADDRESS_UUID", the addresses as pd_end_text has them. */
int pd_address_id(struct pd_pair *p) PD_MUST;

/*
 * Engines take the parameters from extra_args and vllm_xargs, there or in sampling_params, besides
 * the top level. They name the host that an engine connects to, so they are the router's alone. At
 * the top level they are replaced or removed. PD_EINVAL with a sentence.
 */
int pd_check_params(const struct json_object *body, struct pd_msg *msg) PD_MUST;
/* Sets the parameters of a copy; PD_EINVAL when the body has them more than once. Empty: removes
 * them all. */
int pd_set_params(struct pd_copy *c, struct span params, struct pd_msg *msg) PD_MUST;

/* Decode's copy: p->params when there are blocks to fetch; else none, also not a client's own. */
int pd_params_decode(struct pd_pair *p, struct pd_copy *c, struct pd_msg *msg) PD_MUST;

/* For protocols whose requests carry nothing: one token for prefill, the client's own body for
 * decode, both without parameters of the client. Decode has the pair's id when one was made. */
int pd_plain_prefill(struct pd_pair *p, struct pd_copy *c, struct pd_msg *msg) PD_MUST;
/* Any JSON object is an answer; its usage counts. */
int pd_plain_answered(struct pd_pair *p, struct span answer, struct pd_msg *msg) PD_MUST;
int pd_plain_decode(struct pd_pair *p, struct pd_copy *c, struct pd_msg *msg) PD_MUST;

#endif
