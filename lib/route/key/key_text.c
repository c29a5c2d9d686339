/*
 * The text of a key. Values that fit are kept as they are, because people read them in logs; longer
 * ones (somebody will send a whole prompt as `user`) are hashed piece by piece, so that memory
 * stays bounded and equal values still meet.
 */
#include "lib/route/key/key_text.h"

#include <stdio.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

void key_clear(struct route_key *out)
{
	out->level = ROUTE_KEY_NONE;
	out->len = 0;
	out->text[0] = '\0';
	out->source[0] = '\0';
}

void key_source(struct route_key *out, const char *kind, const char *name)
{
	size_t room = sizeof(out->source) - 1, n = strnlen(kind, room), m = strnlen(name, room - n);

	memcpy(out->source, kind, n);
	memcpy(out->source + n, name, m);
	out->source[n + m] = '\0';
}

/* The next bytes of a piece; 0 at its end. cap >= 4. */
static size_t next_bytes(const struct key_piece *piece, const char **at, char *out, size_t cap)
{
	const char *end = piece->text.p + piece->text.n;
	size_t n = (size_t)(end - *at);

	if (piece->json)
		return json_unescape(at, end, out, cap);
	if (n > cap)
		n = cap;
	memcpy(out, *at, n);
	*at += n;
	return n;
}

static void hash_pieces(struct route_key *out, const struct key_piece *piece, size_t n)
{
	XXH3_state_t state;
	XXH128_hash_t h;
	char part[512];

	(void)XXH3_128bits_reset(&state);
	for (size_t i = 0; i < n; i++) {
		const char *at = piece[i].text.p;
		size_t got;

		while ((got = next_bytes(&piece[i], &at, part, sizeof(part))) > 0)
			(void)XXH3_128bits_update(&state, part, got);
	}
	h = XXH3_128bits_digest(&state);
	(void)snprintf(out->text, sizeof(out->text), "xxh3:%016llx%016llx",
		       (unsigned long long)h.high64, (unsigned long long)h.low64);
	out->len = strlen(out->text);
}

void key_build(struct route_key *out, const struct key_piece *piece, size_t n)
{
	char text[ROUTE_KEY_MAX +
		  8]; /* unescaping may leave 3 bytes unused; they must not decide */
	size_t len = 0;

	text[0] = '\0';
	for (size_t i = 0; i < n; i++) {
		const char *at = piece[i].text.p, *end = at + piece[i].text.n;

		if (sizeof(text) - len >= 4)
			len += next_bytes(&piece[i], &at, text + len, sizeof(text) - len);
		if (at < end || len > ROUTE_KEY_MAX) {
			hash_pieces(out, piece, n);
			return;
		}
	}
	memcpy(out->text, text, len);
	out->text[len] = '\0';
	out->len = len;
}

void route_key_of_text(struct span text, struct route_key *out)
{
	struct key_piece piece = {span_trim(text), false};

	key_clear(out);
	if (piece.text.n == 0)
		return;
	key_build(out, &piece, 1);
	out->level = ROUTE_KEY_SESSION;
}

/* Bytes at the beginning of the inside of a JSON string that stand for a space or a tab. */
static size_t blank_at(struct span s)
{
	static const char *const escaped[] = {" ", "\\t", "\\u0020", "\\u0009"};

	for (size_t i = 0; i < sizeof(escaped) / sizeof(escaped[0]); i++)
		if (span_starts(s, span_of(escaped[i])))
			return strlen(escaped[i]);
	return 0;
}

/* span_trim for the inside of a JSON string, so that an id is the same however it is escaped. */
static struct span trim_json(struct span s)
{
	const char *end; /* behind the last character that is no blank */
	size_t n;

	if (!memchr(s.p, '\\', s.n))
		return span_trim(s);
	while ((n = blank_at(s)) > 0)
		s = (struct span){s.p + n, s.n - n};
	end = s.p;
	for (struct span at = s; at.n > 0; at = (struct span){at.p + n, at.n - n}) {
		n = blank_at(at);
		if (n > 0)
			continue;
		n = *at.p == '\\' && at.n > 1 ? 2 : 1;
		end = at.p + n;
	}
	return (struct span){s.p, (size_t)(end - s.p)};
}

bool key_value(enum json_type type, struct span value, struct key_piece *piece)
{
	if (type != JSON_STRING && type != JSON_NUMBER)
		return false;
	piece->json = type == JSON_STRING;
	piece->text =
		type == JSON_STRING ? trim_json((struct span){value.p + 1, value.n - 2}) : value;
	return piece->text.n > 0;
}

bool key_header(const struct field *headers, size_t n, const char *name, struct key_piece *piece)
{
	struct span wanted = span_of(name);

	for (size_t i = 0; i < n; i++) {
		if (!span_eq_case(headers[i].name, wanted))
			continue;
		piece->text = span_trim(headers[i].value);
		piece->json = false;
		if (piece->text.n > 0)
			return true;
	}
	return false;
}
