/*
 * The key of an address has 64 bits: an IPv4 address below a mark, or the first half of an IPv6
 * address. Zero is an empty slot. A deletion moves the entries behind it up, so there are no
 * tombstones.
 */
#include "lib/http/peers.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#define IPV4_MARK (UINT64_C(0xffff) << 32) /* no IPv6 network begins with 32 zero bits */

struct peer {
	uint64_t id;
	unsigned n;
};

int peers_init(struct peers *p, unsigned limit, unsigned connections)
{
	size_t size = 16;

	*p = (struct peers){.limit = limit};
	if (limit == 0)
		return PD_OK;
	while (size < 2 * (size_t)connections)
		size *= 2;
	sip_key_new(&p->secret);
	p->mask = size - 1;
	p->slot = calloc(size, sizeof(*p->slot));
	return p->slot ? PD_OK : PD_ENOMEM;
}

void peers_release(struct peers *p)
{
	free(p->slot);
	p->slot = NULL;
}

static uint64_t id_of(const struct sockaddr *sa)
{
	uint64_t id = 0;

	if (sa->sa_family == AF_INET) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)sa;

		return IPV4_MARK | ntohl(in->sin_addr.s_addr);
	}
	if (sa->sa_family == AF_INET6) {
		const struct in6_addr *a = &((const struct sockaddr_in6 *)sa)->sin6_addr;

		if (IN6_IS_ADDR_V4MAPPED(a)) {
			for (int i = 12; i < 16; i++)
				id = id << 8 | a->s6_addr[i];
			return IPV4_MARK | id;
		}
		for (int i = 0; i < 8; i++)
			id = id << 8 | a->s6_addr[i];
		return id ? id : 1; /* ::1 and its kind */
	}
	return 0;
}

static size_t home_of(const struct peers *p, uint64_t id)
{
	return sip_hash(&p->secret, &id, sizeof(id)).t[0] & p->mask;
}

static size_t place_of(const struct peers *p, uint64_t id)
{
	size_t i = home_of(p, id);

	while (p->slot[i].id && p->slot[i].id != id)
		i = (i + 1) & p->mask;
	return i;
}

bool peers_enter(struct peers *p, const struct sockaddr *sa, uint64_t *id)
{
	struct peer *e;

	*id = p->limit > 0 ? id_of(sa) : 0;
	if (*id == 0)
		return true;
	e = &p->slot[place_of(p, *id)];
	if (e->n >= p->limit)
		return false;
	e->id = *id;
	e->n++;
	return true;
}

/* Entries behind the hole move up as long as their way from home leads over it. */
static void close_gap(struct peers *p, size_t hole)
{
	size_t i = hole;

	for (;;) {
		p->slot[hole] = (struct peer){0};
		do {
			i = (i + 1) & p->mask;
			if (p->slot[i].id == 0)
				return;
		} while (((i - home_of(p, p->slot[i].id)) & p->mask) < ((i - hole) & p->mask));
		p->slot[hole] = p->slot[i];
		hole = i;
	}
}

void peers_leave(struct peers *p, uint64_t id)
{
	size_t i;

	if (id == 0)
		return;
	i = place_of(p, id);
	if (p->slot[i].n > 0 && --p->slot[i].n == 0)
		close_gap(p, i);
}
