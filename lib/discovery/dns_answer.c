#include "lib/discovery/dns_answer.h"

#include <arpa/inet.h>
#include <resolv.h>
#include <stdlib.h>
#include <string.h>

#define HEADER	 12
#define CLASS_IN 1

struct reading {
	const unsigned char *begin, *at, *end;
};

static bool has(const struct reading *r, size_t n)
{
	return (size_t)(r->end - r->at) >= n;
}

static uint16_t u16(const unsigned char *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t u32(const unsigned char *p)
{
	return (uint32_t)u16(p) << 16 | u16(p + 2);
}

/* A name, which may point to what came before; false: malformed. */
static bool name(const struct reading *r, const unsigned char *at, char out[DNS_NAME_MAX],
		 int *used)
{
	size_t n;

	*used = dn_expand(r->begin, r->end, at, out, DNS_NAME_MAX);
	if (*used < 0)
		return false;
	for (n = 0; out[n]; n++)
		if (out[n] >= 'A' && out[n] <= 'Z')
			out[n] = (char)(out[n] + 'a' - 'A');
	if (n > 0 && out[n - 1] == '.')
		out[n - 1] = '\0';
	return true;
}

static int add(struct dns_answer *a, const struct dns_record *r)
{
	struct dns_record *more;

	if (a->n == DNS_RECORDS_MAX)
		return PD_ETOOBIG;
	if ((a->n & (a->n - 1)) == 0) {
		more = realloc(a->record, (a->n ? 2 * a->n : 1) * sizeof(*more));
		if (!more)
			return PD_ENOMEM;
		a->record = more;
	}
	a->record[a->n++] = *r;
	return PD_OK;
}

/* What the data of a record says; PD_ENOENT: it is of another type. */
static int data(const struct reading *r, uint16_t type, uint16_t len, struct dns_record *out)
{
	int used;

	switch (type) {
	case DNS_A:
	case DNS_AAAA:
		out->type = (enum dns_type)type;
		if (len != (type == DNS_A ? 4 : 16) ||
		    !inet_ntop(type == DNS_A ? AF_INET : AF_INET6, r->at, out->ip, sizeof(out->ip)))
			return PD_EINVAL;
		return PD_OK;
	case DNS_SRV:
		out->type = DNS_SRV;
		if (len < 7 || !name(r, r->at + 6, out->target, &used) || used != len - 6)
			return PD_EINVAL;
		out->priority = u16(r->at);
		out->port = u16(r->at + 4);
		return PD_OK;
	default:
		return PD_ENOENT;
	}
}

static int record(struct dns_answer *a, struct reading *r, bool additional)
{
	struct dns_record one = {.additional = additional};
	uint16_t type, class, len;
	int used, err;

	if (!name(r, r->at, one.owner, &used))
		return PD_EINVAL;
	r->at += used;
	if (!has(r, 10))
		return PD_EINVAL;
	type = u16(r->at);
	class = u16(r->at + 2);
	one.ttl = u32(r->at + 4);
	if (one.ttl > INT32_MAX)
		one.ttl = 0;
	len = u16(r->at + 8);
	r->at += 10;
	if (!has(r, len))
		return PD_EINVAL;
	err = class == CLASS_IN ? data(r, type, len, &one) : PD_ENOENT;
	r->at += len;
	if (!additional && one.ttl < a->ttl)
		a->ttl = one.ttl;
	if (err == PD_ENOENT)
		return PD_OK;
	return err ? err : add(a, &one);
}

static int read_all(struct dns_answer *a, struct reading *r)
{
	uint16_t questions = u16(r->begin + 4), answers = u16(r->begin + 6),
		 authority = u16(r->begin + 8), additional = u16(r->begin + 10);
	struct dns_answer none = {.ttl = 0};
	char text[DNS_NAME_MAX];
	int used, err = PD_OK;

	r->at = r->begin + HEADER;
	for (unsigned i = 0; i < questions; i++) {
		if (!name(r, r->at, text, &used))
			return PD_EINVAL;
		r->at += used;
		if (!has(r, 4))
			return PD_EINVAL;
		r->at += 4;
	}
	for (unsigned i = 0; !err && i < answers; i++)
		err = record(a, r, false);
	for (unsigned i = 0; !err && i < authority; i++) {
		err = record(&none, r, true);
		dns_answer_release(&none);
	}
	for (unsigned i = 0; !err && i < additional; i++)
		err = record(a, r, true);
	return err;
}

int dns_answer_read(struct dns_answer *a, struct span packet, struct pd_msg *msg)
{
	const unsigned char *p = (const unsigned char *)packet.p;
	struct reading r = {p, p, p + packet.n};
	int err;

	*a = (struct dns_answer){.ttl = UINT32_MAX};
	if (packet.n < HEADER || packet.n > DNS_ANSWER_MAX || !(p[2] & 0x80) || (p[2] & 0x78))
		return pd_fail(msg, PD_EINVAL, "found no answer of DNS, expected one");
	a->rcode = p[3] & 15;
	err = read_all(a, &r);
	if (err) {
		dns_answer_release(a);
		return pd_fail(msg, err,
			       err == PD_EINVAL	   ? "the answer of DNS is malformed"
			       : err == PD_ETOOBIG ? "the answer of DNS has too many records"
						   : "out of memory");
	}
	return PD_OK;
}

void dns_answer_release(struct dns_answer *a)
{
	free(a->record);
	a->record = NULL;
	a->n = 0;
}
