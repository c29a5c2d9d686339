/* Look-ups in a head that was parsed: tags first, names for what the program does not act on; and
 * what a Retry-After says. */
#include <string.h>
#include <time.h>

#include "lib/base/clock.h"
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

/* A date in one of the three forms of RFC 9110, 5.6.7. */
static int64_t until_date(struct span value, int64_t wall)
{
	static const char *const form[] = {"%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT",
					   "%a %b %e %H:%M:%S %Y"};
	char text[48];
	int64_t wait;

	if (value.n >= sizeof(text))
		return 0;
	memcpy(text, value.p, value.n);
	text[value.n] = '\0';
	for (size_t i = 0; i < sizeof(form) / sizeof(form[0]); i++) {
		struct tm tm = {0};
		const char *end = strptime(text, form[i], &tm);

		if (!end || *end)
			continue;
		wait = (int64_t)timegm(&tm) - wall / NS_PER_S;
		return wait <= 0 ? 0 : wait > 3600 ? 3600 * NS_PER_S : wait * NS_PER_S;
	}
	return 0;
}

int64_t http_retry_after(struct span value, int64_t wall)
{
	int64_t s = 0;

	if (value.n == 0)
		return 0;
	if (value.p[0] < '0' || value.p[0] > '9')
		return until_date(value, wall);
	for (size_t i = 0; i < value.n; i++) {
		if (value.p[i] < '0' || value.p[i] > '9')
			return 0;
		s = s * 10 + (value.p[i] - '0');
		if (s > 3600)
			return 3600 * NS_PER_S;
	}
	return s * NS_PER_S;
}
