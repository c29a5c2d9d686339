/*
 * Any bytes as an answer of DNS: its records, or a sentence. What is read has names that end, and
 * addresses that the system reads as such.
 */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/discovery/dns_answer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct pd_msg msg = {0};
	unsigned char binary[16];
	struct dns_answer a;

	if (dns_answer_read(&a, (struct span){(const char *)data, n}, &msg) != PD_OK) {
		if (!msg.text[0] || a.record)
			abort();
		return 0;
	}
	for (size_t i = 0; i < a.n; i++) {
		const struct dns_record *r = &a.record[i];

		if (strlen(r->owner) >= DNS_NAME_MAX || strlen(r->target) >= DNS_NAME_MAX)
			abort();
		if (r->type != DNS_SRV &&
		    inet_pton(r->type == DNS_A ? AF_INET : AF_INET6, r->ip, binary) != 1)
			abort();
		if (!r->additional && r->ttl < a.ttl)
			abort();
	}
	if (a.n > DNS_RECORDS_MAX || a.n * 11 > n)
		abort();
	dns_answer_release(&a);
	return 0;
}
