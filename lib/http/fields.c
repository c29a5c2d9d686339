/* Look-ups in a head that was parsed: tags first, names for what the program does not act on. */
#include "lib/http/head.h"

const struct field *http_field_tag(const struct http_head *h, enum http_name tag)
{
	for (size_t i = 0; i < h->nfields; i++)
		if (h->field[i].tag == (unsigned)tag)
			return &h->field[i];
	return NULL;
}

const struct field *http_field(const struct http_head *h, const char *name)
{
	struct span s = span_of(name);

	for (size_t i = 0; i < h->nfields; i++)
		if (span_eq_case(h->field[i].name, s))
			return &h->field[i];
	return NULL;
}

bool http_hop_by_hop(const struct field *f)
{
	switch (f->tag) {
	case HTTP_CONNECTION:
	case HTTP_KEEP_ALIVE:
	case HTTP_PROXY_CONNECTION:
	case HTTP_PROXY_AUTHENTICATE:
	case HTTP_PROXY_AUTHORIZATION:
	case HTTP_TE:
	case HTTP_TRAILER:
	case HTTP_TRANSFER_ENCODING:
	case HTTP_UPGRADE:
	case HTTP_NAMED_BY_CONNECTION:
		return true;
	default:
		return false;
	}
}
