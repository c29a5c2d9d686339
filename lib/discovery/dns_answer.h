/*
 * An answer of DNS (RFC 1035, 4; SRV: RFC 2782) as records: of the answer section and of the
 * additional one, A, AAAA and SRV of class IN; others are skipped. No I/O.
 */
#ifndef PD_DISCOVERY_DNS_ANSWER_H
#define PD_DISCOVERY_DNS_ANSWER_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/base/err.h"
#include "lib/base/span.h"

#define DNS_ANSWER_MAX	65535 /* bytes */
#define DNS_RECORDS_MAX 4096
#define DNS_NAME_MAX	256 /* with its terminator */

enum dns_type { DNS_A = 1, DNS_AAAA = 28, DNS_SRV = 33 };

struct dns_record {
	enum dns_type type;
	bool additional;	   /* not of the answer section */
	uint32_t ttl;		   /* seconds; at most 2^31-1 (RFC 2181, 8) */
	char owner[DNS_NAME_MAX];  /* lower case, without the dot at its end */
	char ip[INET6_ADDRSTRLEN]; /* A, AAAA */
	uint16_t priority, port;   /* SRV */
	char target[DNS_NAME_MAX]; /* SRV; as `owner`; "": the service is not there */
};

struct dns_answer {
	struct dns_record *record; /* owned */
	size_t n;
	int rcode;
	uint32_t ttl; /* the shortest of the answer section, aliases included; without one
			 UINT32_MAX */
};

/* PD_EINVAL with a sentence: it is malformed, or no answer; PD_ETOOBIG: more than DNS_RECORDS_MAX;
 * PD_ENOMEM. Nothing is kept then. */
int dns_answer_read(struct dns_answer *a, struct span packet, struct pd_msg *msg) PD_MUST;
void dns_answer_release(struct dns_answer *a);

#endif
