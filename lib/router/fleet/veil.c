/* A text is searched once a failed request, so there is no index: each place is compared with each
 * worker, and the longest address wins (http://a:80 begins http://a:8000). */
#include "lib/router/fleet/veil.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define SHOWN 150 /* of a URL in our texts, which may cut longer ones */

/* Length of `what` when it stands at p and ends there, else 0. */
static size_t stands(const char *p, const char *what)
{
	size_t n = strnlen(what, SHOWN);
	char next;

	if (n == 0 || strncasecmp(p, what, n) != 0)
		return 0;
	next = p[n];
	return n == SHOWN || !(isalnum((unsigned char)next) || next == '-' || next == '_') ? n : 0;
}

/* As libcurl says it: "127.0.0.1 port 8000". */
static size_t with_port(const char *p, size_t host)
{
	static const char port[] = " port ";
	size_t n = host + sizeof(port) - 1;

	if (host == 0 || strncmp(p + host, port, sizeof(port) - 1) != 0)
		return host;
	while (isdigit((unsigned char)p[n]))
		n++;
	return n;
}

static size_t address_at(const struct worker *w, const char *p)
{
	const char *const forms[] = {w->url, w->at.authority};
	size_t longest = with_port(p, stands(p, w->at.host));

	for (size_t i = 0; i < 2; i++) {
		size_t n = stands(p, forms[i]);

		longest = n > longest ? n : longest;
	}
	return longest;
}

/* The worker whose address stands at p, and the length of that. */
static const struct worker *worker_at(const struct fleet *f, const char *p, size_t *len)
{
	const struct worker *found = NULL;

	*len = 0;
	for (int r = 0; r < ROLES; r++)
		for (size_t i = 0; i < f->pool[r].n; i++) {
			const struct worker *w = f->pool[r].worker[i];
			size_t n = address_at(w, p);

			if (n > *len) {
				*len = n;
				found = w;
			}
		}
	return found;
}

const char *veil(const struct fleet *f, bool exposed, const char *text, char out[VEIL_MAX])
{
	static const char role[] = "worker ";
	size_t n = 0, len;
	bool inside = false; /* a word */

	if (exposed || !f)
		return text;
	for (const char *p = text; *p && n + 1 < VEIL_MAX; p += len) {
		const struct worker *w = inside ? NULL : worker_at(f, p, &len);
		const char *name;

		if (!w) {
			inside = isalnum((unsigned char)*p) || *p == '-' || *p == '_' || *p == '.';
			out[n++] = *p;
			len = 1;
			continue;
		}
		name = strstr(w->name, "://") ? "" : w->name;
		if (!*name && n >= sizeof(role) - 1 &&
		    memcmp(out + n - (sizeof(role) - 1), role, sizeof(role) - 1) == 0)
			n--; /* the blank */
		else if (!*name)
			name = "the worker";
		n += (size_t)snprintf(out + n, VEIL_MAX - n, "%s", name);
		n = n < VEIL_MAX ? n : VEIL_MAX - 1;
	}
	out[n] = '\0';
	return out;
}

const char *veil_name(const struct worker *w, size_t i, char out[VEIL_NAME])
{
	if (!strstr(w->name, "://"))
		return w->name;
	(void)snprintf(out, VEIL_NAME, "%s %zu", worker_role_name(w->role), i + 1);
	return out;
}

static struct span without_port(struct span authority, const char *port)
{
	size_t n = strlen(port);

	if (authority.n > n && memcmp(authority.p + authority.n - n, port, n) == 0)
		authority.n -= n;
	return authority;
}

const struct worker *veil_reference(const struct fleet *f, struct span reference, struct span *rest)
{
	const char *end = reference.p + reference.n, *p = reference.p;
	const char *port = ":443";
	struct span authority;

	if (reference.n > 7 && strncasecmp(p, "http:", 5) == 0) {
		p += 5;
		port = ":80";
	} else if (reference.n > 8 && strncasecmp(p, "https:", 6) == 0) {
		p += 6;
	}
	if (end - p < 3 || p[0] != '/' || p[1] != '/')
		return NULL;
	p += 2;
	authority = (struct span){p, 0};
	while (p < end && *p != '/' && *p != '?' && *p != '#')
		p++;
	authority.n = (size_t)(p - authority.p);
	authority = without_port(authority, port);
	*rest = (struct span){p, (size_t)(end - p)};
	for (int r = 0; r < ROLES; r++)
		for (size_t i = 0; i < f->pool[r].n; i++) {
			const struct worker *w = f->pool[r].worker[i];

			if (span_eq_case(without_port(span_of(w->at.authority), port), authority))
				return w;
		}
	return NULL;
}
